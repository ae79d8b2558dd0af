"""Partial quantization (NVIDIA 2020, section 5.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from onnxq.errors import ConfigError
from onnxq.placement.settings import DEFAULT_CALIBRATION
from onnxq.search.method import SearchMethod, about

if TYPE_CHECKING:
    from onnxq.search.inputs import SearchInputs
    from onnxq.search.result import SearchResult


def _points(text: str) -> float:
    try:
        return float(text.removesuffix("%")) / 100
    except ValueError:
        raise ValueError("points are needed, e.g. 1%") from None


def _range_choosers() -> str:
    from onnxq.calibrate.usage import usage

    return f"{usage()}."


@dataclass(frozen=True)
class Partial(SearchMethod):
    """Leave as few of the most sensitive layers in float as the accuracy allows.

    max_drop: of top-1 where the data has labels, else of the agreement with the float model; 0.01 is one point.
    eval_data: samples to evaluate on, those to calibrate on by default. calibration: range chooser.
    """

    name: ClassVar[str] = "partial"
    widths: ClassVar[tuple[int, ...]] = (8,)
    needs: ClassVar[tuple[str, ...]] = ("data", "max_drop")
    takes: ClassVar[tuple[str, ...]] = ("sensitivity",)
    max_drop: float = field(
        default=0.01, metadata=about("largest accuracy loss allowed, in points.", metavar="1%", parse=_points)
    )
    eval_data: Any = field(default=None, metadata=about("samples to evaluate on.  [default: those of --data]"))
    calibration: str = field(default=DEFAULT_CALIBRATION, metadata=about(_range_choosers))

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop < 1:
            raise ConfigError(f"a drop of {self.max_drop:g}: a share from 0 to 1 is needed, 0.01 for one point")

    @property
    def range_chooser(self) -> str:
        return self.calibration

    def run(self, inputs: SearchInputs) -> SearchResult:
        from onnxq.search.keep_float import fewest_in_float

        if len(inputs.bits) != 1:
            raise ConfigError("method partial uses one width (--bits 8) and float")
        return fewest_in_float(
            inputs, inputs.bits[0], self.max_drop, eval_data=self.eval_data, calibration=self.calibration
        )
