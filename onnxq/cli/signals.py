"""Ctrl-C, `kill` and the end of the process: one line and an exit code, never a traceback.

A KeyboardInterrupt raised while a module is imported may end in C code that replaces or prints it, so an import is left
at once: nothing has been written by then. Anything else is unwound as usual, so that files are cleaned up.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # `typing` takes as long to import as all of this, with Python's own reaction to Ctrl-C
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, NoReturn

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


def install() -> None:
    """Take over SIGINT and SIGTERM, unless the caller wants them ignored (nohup, a shell's background job)."""
    for number, handler in ((signal.SIGINT, _interrupt), (signal.SIGTERM, _terminate)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
    sys.unraisablehook = _unraisable


def leave(code: int) -> NoReturn:
    """End the process: output is flushed, and Ctrl-C from here on ends it silently."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    sys.exit(code)


def _interrupt(_number: int, frame: FrameType | None) -> None:
    if _importing(frame):
        _leave_now("interrupted", INTERRUPTED)
    raise KeyboardInterrupt


def _terminate(_number: int, frame: FrameType | None) -> None:
    if _importing(frame):
        _leave_now("terminated", TERMINATED)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one does not wait for anything
    raise SystemExit(TERMINATED)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _leave_now(word: str, code: int) -> NoReturn:
    try:
        os.write(2, f"error: {word}\n".encode())
    finally:
        os._exit(code)


def _unraisable(failure: Any) -> None:
    """A destructor or a callback from C was interrupted, which Python would print and forget."""
    if failure.exc_type is KeyboardInterrupt:
        _leave_now("interrupted", INTERRUPTED)
    sys.__unraisablehook__(failure)
