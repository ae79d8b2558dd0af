"""Texts of options that several subcommands share, turned into values."""

from __future__ import annotations

from collections.abc import Iterable

from onnxq.errors import ConfigError


def parse_shapes(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """--input-shape values to {input name: dims}. Raises ConfigError."""
    from onnxq.data.source import parse_shape

    return dict(parse_shape(text) for text in texts)


def parse_widths(text: str, option: str) -> tuple[int, ...]:
    """'4,8' to widths in bits. option: its name, for the message. Raises ConfigError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"{option} {text!r}: widths separated by commas are needed, e.g. 4,8")
    return tuple(map(int, parts))


def bits_or_none(text: str) -> int | None:
    """--first-last-bits: 'none' or a number of bits. Raises ConfigError."""
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"--first-last-bits {text!r}: a number of bits or 'none' is needed") from None


def names(text: str | None) -> tuple[str, ...] | None:
    """'Conv, Gemm' to its parts; None stays None."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def save_after(text: str | None) -> tuple[str, str] | None:
    """--save-after PASS=FILE to its parts; None stays None. Raises ConfigError."""
    if text is None:
        return None
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise ConfigError(f"--save-after {text!r}: PASS=FILE is needed, e.g. fold-batchnorm=folded.onnx")
    return name, path
