"""Section 1, "quantization method"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from onnxq.card.assembly.run import Made
from onnxq.card.parts import NumberFormat, QuantizationMethod
from onnxq.numeric.formats import DEFAULT_WEIGHT_RANGE
from onnxq.pipeline import PassReport
from onnxq.placement.settings import QuantSettings


def method(made: Made) -> QuantizationMethod:
    """The section, from the profile and the settings."""
    w, a = made.profile.weights, made.profile.activations
    return QuantizationMethod(
        uniform=True,
        static=True,
        weights=NumberFormat(
            w.bits,
            _form(w.symmetric),
            "signed" if w.signed else "unsigned",
            w.granularity,
            _scale(w.power_of_two),
            w.narrow_range,
            made.settings.weight_range or DEFAULT_WEIGHT_RANGE,
        ),
        activations=NumberFormat(
            a.bits,
            _form(a.symmetric),
            a.sign,
            "per-tensor",
            _scale(a.power_of_two),
            a.narrow_range,
            _calibration(made.reports, made.settings),
        ),
        rounding="half to even, saturating",
        bias=made.profile.bias,
    )


def _form(symmetric: bool) -> str:
    return "symmetric" if symmetric else "affine"


def _scale(power_of_two: bool) -> str:
    return "power of two" if power_of_two else "float32"


def _calibration(reports: Sequence[PassReport], settings: QuantSettings) -> str:
    """The range chooser used, which may be set in the options of insert-qdq."""
    for report in reports:
        found = re.search(r"^insert-qdq\{(?:.*\s)?calibration=(\S+?)[\s}]", report.text)
        if found:
            return found.group(1)
    return settings.calibration
