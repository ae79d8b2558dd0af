"""Parsing of option values shared by several subcommands."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import click

from onnxq.errors import ConfigError


class Amount(click.FloatRange):
    """A positive number, neither infinite nor NaN."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; click's error otherwise."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


def parse_shapes(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Parse --input-shape values to {input name: dims}. Raises ConfigError."""
    from onnxq.data.source import parse_shape

    return dict(parse_shape(text) for text in texts)


def parse_widths(text: str, option: str) -> tuple[int, ...]:
    """Parse '4,8' to widths in bits. option: its name, for the message. Raises ConfigError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 4 for part in parts):
        raise ConfigError(f"{option} {text!r}: expected widths separated by commas, e.g. 4,8")
    return tuple(map(int, parts))


def bits_or_none(text: str) -> int | None:
    """Parse --first-last-bits: 'none' or a number of bits. Raises ConfigError."""
    if text == "none":
        return None
    try:
        return int(text[:100])
    except ValueError:
        raise ConfigError(f"--first-last-bits {text!r}: expected a number of bits or 'none'") from None


def names(text: str | None) -> tuple[str, ...] | None:
    """Split 'Conv, Gemm'; None stays None."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def save_after(text: str | None) -> tuple[str, str] | None:
    """Split --save-after PASS=FILE; None stays None. Raises ConfigError."""
    if text is None:
        return None
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise ConfigError(f"--save-after {text!r}: expected PASS=FILE, e.g. fold-batchnorm=folded.onnx")
    return name, path
