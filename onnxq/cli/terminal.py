"""The one way out for text. Names come from files that others wrote: none of their control characters gets through."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import sys
from typing import TextIO

from onnxq.errors import OutputError, printable

# For a terminal or a file whose encoding lacks them; anything else that it lacks is escaped.
_PLAIN = {"→": "->", "×": "x", "–": "-", "—": "-", "…": "...", "±": "+-", "µ": "u", "‖": "||", "−": "-", "¹": "1"}
_HANDLER = "onnxq.plain"
_LINE_ENDS = re.compile(r"([\n\t])")


class UnreadError(Exception):
    """Nobody reads the output any more, as in `onnxq … | head`."""


def out(*lines: str) -> None:
    """Print lines of the result on stdout; a line break inside of one is escaped, as it must come from a name."""
    _write(sys.stdout, "".join(f"{printable(line)}\n" for line in lines or ("",)))


def out_text(text: str) -> None:
    """Print a whole document on stdout: JSON, CSV, Markdown. Its line breaks and tabs stay."""
    _write(sys.stdout, "".join(p if _LINE_ENDS.fullmatch(p) else printable(p) for p in _LINE_ENDS.split(text)))


def say(*lines: str) -> None:
    """Print lines of information on stderr; stdout is reserved for results."""
    _write(sys.stderr, "".join(f"{printable(line)}\n" for line in lines))


def prepare() -> None:
    """Let output in any encoding succeed: what it lacks is replaced, not an error."""
    codecs.register_error(_HANDLER, _replacement)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_HANDLER)


def rendered(text: str) -> None:
    """Print text with a terminal's own codes, as rich renders it, on stdout. What it was made of must be printable."""
    _write(sys.stdout, text)


def flush() -> None:
    """Write what is left of stdout. Raises OutputError if there is no room for it, UnreadError if nobody reads it."""
    _write(sys.stdout, "")


def discard() -> None:
    """Drop what could not be written, which Python would try again, and complain about, when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # no such stream, or not a file
            os.dup2(null, stream.fileno())


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:  # closed by the caller
        return
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        raise UnreadError from None
    except OSError as err:
        name = "standard error" if stream is sys.stderr else "standard output"
        raise OutputError(f"{name}: {err.strerror or err}") from None


def _replacement(err: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(err, UnicodeEncodeError):
        raise err
    missing = err.object[err.start : err.end]
    return "".join(_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in missing), err.end
