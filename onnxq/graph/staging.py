"""Files on their way to their final names, in the same folder, so that a rename replaces the old file at once.

A process that is killed leaves them behind. Their names say for which output they are and whose they were, so that the
next run with that output removes them, and never those of a process that is still at work.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_NAME = re.compile(r"\.onnxq-(?P<output>[0-9a-f]{12})-(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{8}")


@contextlib.contextmanager
def staging_folder(target: Path) -> Iterator[Path]:
    """A folder next to `target`, removed at the end with what is still in it. OSError if it cannot be made."""
    folder = _staging_path(target)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def staging_file(target: Path) -> Iterator[Path]:
    """An empty file next to `target`, removed at the end unless it was renamed. OSError if it cannot be made."""
    file = _staging_path(target)
    os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


def remove_leftovers(target: Path) -> None:
    """Remove what killed runs with the same output left next to it; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(target.parent):
            found = _NAME.fullmatch(entry.name)
            if found is None or found["output"] != _output(target) or not _is_dead(found):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink(missing_ok=True)


def _staging_path(target: Path) -> Path:
    me = os.getpid()
    name = f".onnxq-{_output(target)}-{_machine()}-{me}-{_start(me) or 0}-{secrets.token_hex(4)}"
    return target.with_name(name)


def _output(target: Path) -> str:
    return hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]


@cache
def _machine() -> str:
    """Where process numbers are comparable: this boot of this machine, and this container. A folder may be shared."""
    parts = [os.uname().nodename]
    with contextlib.suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _is_dead(found: re.Match[str]) -> bool:
    """Whether its process is known to have ended. One of another machine may be at work for all that is known."""
    if found["machine"] != _machine():
        return False
    pid = int(found["pid"])
    start = _start(pid)
    if start is not None:
        return start != int(found["start"])  # a later process with the same number
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _start(pid: int) -> int | None:
    """When a process started, in clock ticks since the boot; None if it does not exist, or where /proc does not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
