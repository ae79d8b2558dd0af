"""Opening a file of a folder without following a link, not even one that is put in its place meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

CLOEXEC = getattr(os, "O_CLOEXEC", 0)
NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # a pipe would wait for a writer
FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | NOFOLLOW | CLOEXEC


def open_inside(base_dir: Path, inside: Path) -> BinaryIO:
    """Open a regular file below a folder for reading, binary. base_dir may itself be a link.

    inside: a relative path without `..`. Raises OSError, also for links (ELOOP, ENOTDIR) and for what is not a regular
    file with one name (EINVAL).
    """
    *folders, name = inside.parts
    with contextlib.ExitStack() as stack:
        at = _kept(stack, os.open(base_dir, os.O_RDONLY | CLOEXEC))
        for folder in folders:
            at = _kept(stack, os.open(folder, FOLDER, dir_fd=at))
        handle = os.open(name, os.O_RDONLY | NOFOLLOW | NONBLOCK | CLOEXEC, dir_fd=at)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a regular file with one name")
    return os.fdopen(handle, "rb")


def _kept(stack: contextlib.ExitStack, handle: int) -> int:
    stack.callback(os.close, handle)
    return handle
