"""The exact output of a node of com.onnxq."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from onnxq.numeric import integer_ops


def compute(op: str, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> np.ndarray:
    """By the definition in onnxq.numeric, which takes INT4 weights as int8. arrays: the inputs in order."""
    values = [v.astype(np.int8) if v.dtype == ml_dtypes.int4 else v for v in arrays.values()]
    return integer_ops.compute(op, values, attributes)
