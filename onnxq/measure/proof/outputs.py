"""One run of a model on a few samples, and how far its outputs are from those of another run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.measure.code_steps import FLOAT_STEPS
from onnxq.numeric.metrics import ErrorSums


@dataclass
class Ran:
    """The outputs of one run. outputs: {name: one value per sample}. failed: why there are none, else empty."""

    outputs: dict[str, list[Any]] = field(default_factory=dict)
    failed: str = ""


@dataclass(frozen=True)
class OutputDistance:
    """How far an output is from the reference.

    sqnr_db: of a float output; inf if equal. steps: the largest difference, in steps of 1/127 of the largest value.
    equal: share of equal elements, 0 to 1, of an output that is not of floats (for floats: 1 or 0, all or not).
    nonfinite: elements that are NaN or infinite here and finite in the reference.
    """

    sqnr_db: float | None
    steps: float
    equal: float
    nonfinite: int = 0


def distance(reference: Sequence[Any], found: Sequence[Any]) -> OutputDistance | None:
    """The distance over all samples; None if values cannot be compared (types or shapes differ, no elements)."""
    sums, same, total, nonfinite, floats = ErrorSums(), 0, 0, 0, False
    largest = 0.0
    for expected, value in zip(reference, found, strict=True):
        if isinstance(expected, Mapping | list | tuple) or expected is None:
            same, total = same + int(_equal(expected, value)), total + 1
            continue
        ref, test = np.asarray(expected), np.asarray(value)
        if ref.shape != test.shape:
            return None
        total += ref.size
        if not is_floats(ref):
            same += int(np.count_nonzero(ref == test))
            continue
        floats = True
        ref, test = ref.astype(np.float64), test.astype(np.float64)
        known = np.isfinite(ref)
        nonfinite += int(np.count_nonzero(known & ~np.isfinite(test)))
        both = known & np.isfinite(test)
        sums.add(ref[both], test[both])
        largest = max(largest, float(np.abs(ref[both]).max(initial=0.0)))
        same += int(np.count_nonzero(~both | (ref == test)))
    if not total:
        return None
    steps = sums.err_max / (largest / FLOAT_STEPS) if largest else math.inf if sums.err_max else 0.0
    sqnr = None if not floats else math.inf if sums.err_sq == 0.0 else sums.sqnr_db
    return OutputDistance(sqnr, steps, same / total, nonfinite)


def is_floats(values: NDArray) -> bool:
    """Whether an array is of floats, bfloat16 and others of ml_dtypes included."""
    return values.dtype.kind == "f" or values.dtype.name.startswith(("bfloat", "float"))


def _equal(first: Any, second: Any) -> bool:
    """Whether two sequences or maps of arrays are the same."""
    if isinstance(first, Mapping):
        return (
            isinstance(second, Mapping)
            and first.keys() == second.keys()
            and all(_equal(v, second[k]) for k, v in first.items())
        )
    if isinstance(first, list | tuple):
        return isinstance(second, list | tuple) and len(first) == len(second) and all(map(_equal, first, second))
    return first is second or bool(np.array_equal(first, second))
