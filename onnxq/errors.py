"""Every error a user can cause. The command line prints `str(error)` on one line and exits with `exit_code`."""

import contextlib
import re

# Control characters; marks that reverse or hide text; separators of lines; and halves of characters, by which Python
# represents bytes of a file name that are not UTF-8.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


class OnnxqError(Exception):
    """Base class. The message states what is wrong, where, and how to fix it; names in it are made printable."""

    exit_code = 1

    def __init__(self, message: object = "", *more: object) -> None:
        lines = str(message).split("\n")
        super().__init__("\n".join(map(printable, lines)), *more)


class ModelError(OnnxqError):
    """A model file that cannot be read, is invalid, or cannot be written."""


class OutputError(OnnxqError):
    """An output that could not be written; an existing file is unchanged."""


class DataError(OnnxqError):
    """Samples that cannot be read or do not fit the model's inputs."""


class ProfileError(OnnxqError):
    """A hardware profile that does not exist or is invalid."""


class ConfigError(OnnxqError):
    """An invalid setting (bits, overrides, calibration method, configuration file)."""


class CalibrationError(OnnxqError):
    """Statistics that cannot be collected, merged or turned into ranges."""


class NumericError(OnnxqError):
    """Values that do not fit their integers: a rescale out of range, or a sum that could overflow."""


class InterruptedRun(OnnxqError):
    """Long work interrupted by the user; the message states what was kept and how to resume."""

    exit_code = 130


class ProofError(OnnxqError):
    """A product that does not compute what it should; the message names the first finding of its proof."""

    exit_code = 3


class MissingDependencyError(OnnxqError):
    """An optional package is not installed; the message names the extra."""


class PipelineError(OnnxqError):
    """Invalid pipeline text: unknown pass, unknown option, bad value."""


class PassError(OnnxqError):
    """A pass failed; the message names it and the passes that ran earlier."""


class PreconditionError(PassError):
    """The graph is not what the pass requires."""


class PostconditionError(PassError):
    """The graph after a pass is not what the pass guarantees."""


class VerificationError(PassError):
    """A value-preserving pass changed the model's outputs."""


def printable(text: str) -> str:
    """Text with what a terminal would obey, or a reader would not see, escaped: \\x1b."""
    if not text.isprintable():
        with contextlib.suppress(UnicodeError):  # UTF-8 of a file name, where Python takes names to be ASCII (LC_ALL=C)
            text = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    byte = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code  # of a file name that is not UTF-8
    return f"\\x{byte:02x}" if byte < 0x100 else f"\\u{code:04x}"


def first_line(err: BaseException) -> str:
    """The first non-blank line of an error's message, stripped; the name of its class if there is none."""
    return next((line.strip() for line in str(err).splitlines() if line.strip()), type(err).__name__)
