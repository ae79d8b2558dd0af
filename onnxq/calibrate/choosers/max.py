"""Ranges that cover every value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxq.calibrate.ranges import RangeChooser
from onnxq.calibrate.statistics import TensorStatistics
from onnxq.numeric.formats import QuantFormat


@dataclass(frozen=True)
class Max(RangeChooser):
    """The extremes: no value is clipped, except negative ones in unsigned symmetric formats."""

    name: ClassVar[str] = "max"
    clips: ClassVar[bool] = False

    def choose(self, stats: TensorStatistics, fmt: QuantFormat) -> tuple[float, float]:
        return stats.minimum, stats.maximum
