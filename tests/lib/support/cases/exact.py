"""The exact output of a node of com.onnxq."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from onnxq import operators


def compute(op: str, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> np.ndarray:
    """By its reference in onnxq.operators, which takes INT4 weights as int8. arrays: the inputs in order."""
    values = [v.astype(np.int8) if v.dtype == ml_dtypes.int4 else v for v in arrays.values()]
    return operators.compute(op, values, attributes)
