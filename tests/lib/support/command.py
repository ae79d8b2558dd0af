"""The `onnxq` command as users run it: a process of its own, its exit code and what it printed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import subprocess
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

COMMAND = Path(sysconfig.get_path("scripts")) / "onnxq"
TIMEOUT = 300


@dataclass(frozen=True)
class Finished:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


def environment(**extra: str) -> dict[str, str]:
    """The environment of a test's commands: no colours, one width, errors as users see them."""
    kept = {k: v for k, v in os.environ.items() if k not in ("ONNXQ_DEBUG", "FORCE_COLOR", "COLUMNS")}
    return kept | {"NO_COLOR": "1"} | extra


def onnxq(
    *args: object,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    preexec: Callable[[], None] | None = None,
) -> Finished:
    """Run `onnxq args…` to its end."""
    done = subprocess.run(
        [COMMAND, *map(str, args)],
        cwd=cwd,
        env=environment(**(env or {})),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        preexec_fn=preexec,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def inside(*args: object, cwd: Path) -> Finished:
    """Run `onnxq args…` in this process, by the function behind the command: half a second less each."""
    from onnxq.cli.group import commands

    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            commands.main([str(a) for a in args], prog_name="onnxq")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Finished(code, out.getvalue(), err.getvalue())


def succeed(*args: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Finished:
    """Run a command that must exit with 0."""
    done = onnxq(*args, cwd=cwd, env=env)
    assert done.code == 0, f"exit code {done.code}\n{done.out}\n{done.err}"
    return done


def error_of(done: Finished) -> str:
    """The one line that a refusal consists of, without "error: ". It must be there, alone, last, and no traceback."""
    assert done.code != 0, f"it went through:\n{done.out}\n{done.err}"
    assert "Traceback" not in done.out + done.err, done.err
    assert "internal error" not in done.err, done.err
    lines = done.err.splitlines()
    errors = [line for line in lines if line.startswith("error:")]
    assert len(errors) == 1, done.err
    assert lines[-1] == errors[0], done.err
    return errors[0].removeprefix("error: ")


def listing(folder: Path) -> dict[str, str]:
    """Every file and folder below, hidden ones too, with the SHA-256 of its content ("" for a folder)."""
    return {
        str(p.relative_to(folder)): "" if p.is_dir() else hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
    }
