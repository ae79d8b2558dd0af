"""From the statistics of a tensor to the real range that its integers will cover."""

from __future__ import annotations

from dataclasses import dataclass

from onnxq.calibrate import entropy, mse, percentile
from onnxq.calibrate.statistics import TensorStatistics
from onnxq.errors import ConfigError
from onnxq.numeric.formats import QuantFormat

METHODS = ("max", "percentile", "entropy", "mse")
PERCENTILE_DEFAULT = 99.99


@dataclass(frozen=True)
class Method:
    """A calibration method; str() gives the text that parse_method reads.

    name: one of METHODS. percentile: percent of the values inside the range, only for "percentile".
    """

    name: str
    percentile: float | None = None

    def __str__(self) -> str:
        return self.name if self.percentile is None else f"{self.name}:{repr(self.percentile).removesuffix('.0')}"


def parse_method(text: str) -> Method:
    """Read "max", "percentile", "percentile:99.99", "entropy" or "mse". Raises ConfigError."""
    name, colon, value = text.strip().partition(":")
    if name not in METHODS:
        raise ConfigError(f"unknown calibration method {text!r}: choose max, percentile[:P], entropy or mse")
    if name != "percentile":
        if colon:
            raise ConfigError(f"calibration method {text!r}: {name} takes no value")
        return Method(name)
    try:
        percent = float(value) if colon else PERCENTILE_DEFAULT
    except ValueError:
        raise ConfigError(f"calibration method {text!r}: {value!r} is not a number") from None
    if not 0 < percent <= 100:
        raise ConfigError(f"calibration method {text!r}: a percentile is above 0 and at most 100")
    return Method(name, percent)


def choose_range(stats: TensorStatistics, method: Method | str, fmt: QuantFormat) -> tuple[float, float]:
    """The real clipping range (low, high) for a tensor quantized in `fmt`.

    Finite, low ≤ high, inside [stats.minimum, stats.maximum]; it need not hold 0 (qparams_from_range widens it so
    that it does). A tensor with nothing but zeros and denormals gets its own extremes, one without any value (0, 0).
    Symmetric unsigned formats saturate what is negative: there every method but "max" looks at max(x, 0).
    What each method minimises is documented in its module.
    """
    if isinstance(method, str):
        method = parse_method(method)
    if stats.count == 0:
        return 0.0, 0.0
    if method.name == "max":
        return stats.minimum, stats.maximum
    if fmt.symmetric and not fmt.signed and stats.minimum < 0:
        stats = stats.positive_part()
    low, high = stats.minimum, stats.maximum
    if stats.pages:
        if method.name == "percentile":
            assert method.percentile is not None
            low, high = percentile.choose(stats, method.percentile, fmt)
        elif method.name == "entropy":
            low, high = entropy.choose(stats, fmt)
        else:
            low, high = mse.choose(stats, fmt)
    return min(max(low, stats.minimum), stats.maximum), min(max(high, stats.minimum), stats.maximum)
