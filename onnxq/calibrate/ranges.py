"""From the statistics of a tensor to the real range that its integers will cover.

A range chooser is one file in choosers/. Its text form is its name and the values of its options, separated by colons:
`percentile:99.99`. Parsing and printing are inverse.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from onnxq import plugins
from onnxq.calibrate.statistics import TensorStatistics
from onnxq.calibrate.usage import CHOOSERS, usage
from onnxq.errors import ConfigError
from onnxq.numeric.formats import QuantFormat
from onnxq.records import BadRecord, parse_options


@dataclass(frozen=True)
class RangeChooser:
    """One way to choose ranges. Subclasses are frozen dataclasses: the fields are the options, the docstring the help.

    name: in text form; equals the file name. clips: whether values may be outside the range.
    """

    name: ClassVar[str] = ""
    clips: ClassVar[bool] = True

    def choose(self, stats: TensorStatistics, fmt: QuantFormat) -> tuple[float, float]:
        """(low, high) for a tensor with values other than zeros and denormals; the caller clips it to the extremes.

        In symmetric unsigned formats, choosers that clip receive the statistics of max(x, 0).
        """
        raise NotImplementedError(f"range chooser {self.name} has no choose")

    def __str__(self) -> str:
        return ":".join([self.name, *(_print_value(getattr(self, f.name)) for f in dataclasses.fields(self))])


def available() -> dict[str, type[RangeChooser]]:
    """Every range chooser by name: the one that clips nothing first, then those with options."""
    found = plugins.find(CHOOSERS, RangeChooser, ConfigError)
    ordered = sorted(found.values(), key=lambda cls: (cls.clips, not dataclasses.fields(cls), cls.name))
    return {cls.name: cls for cls in ordered}


def parse_chooser(text: str) -> RangeChooser:
    """Parse "max" or "percentile:99.99"; omitted options keep their defaults. Raises ConfigError."""
    name, *values = text.strip().split(":")
    cls = available().get(name)
    if cls is None:
        raise ConfigError(f"unknown calibration method {text!r}: choose {usage()}")
    fields = dataclasses.fields(cls)
    try:
        if len(values) > len(fields):
            raise ConfigError(f"{name} takes {len(fields) or 'no'} value")
        return parse_options(cls, {f.name: value for f, value in zip(fields, values, strict=False)})
    except BadRecord as err:
        raise ConfigError(f"calibration method {text!r}: {err.reason}") from None
    except ConfigError as err:
        raise ConfigError(f"calibration method {text!r}: {err}") from None


def choose_range(stats: TensorStatistics, chooser: RangeChooser | str, fmt: QuantFormat) -> tuple[float, float]:
    """The real clipping range (low, high) for a tensor quantized in `fmt`.

    Finite, low ≤ high, inside [stats.minimum, stats.maximum]; it need not contain 0 (qparams_from_range widens it to
    do so). A tensor with only zeros and denormals gets its own extremes, one without values (0, 0).
    What each chooser minimizes is documented in its module.
    """
    if isinstance(chooser, str):
        chooser = parse_chooser(chooser)
    if stats.count == 0:
        return 0.0, 0.0
    if chooser.clips and fmt.symmetric and not fmt.signed and stats.minimum < 0:
        stats = stats.positive_part()
    low, high = chooser.choose(stats, fmt) if stats.pages else (stats.minimum, stats.maximum)
    return min(max(low, stats.minimum), stats.maximum), min(max(high, stats.minimum), stats.maximum)


def _print_value(value: Any) -> str:
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


__all__ = ["RangeChooser", "available", "choose_range", "parse_chooser", "usage"]
