"""Products of two activations: sums that could overflow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from support.cases.operators import Draw
from support.cases.operators.matmul import matmul
from support.kernel_runs import bundle, check, needs_library, run_refusal

pytestmark = needs_library


def test_sums_that_could_overflow_are_refused_when_their_length_is_known() -> None:
    """33026 products of 255 · 255 are more than int32 holds; what the values are decides, not their types."""
    case = matmul(Draw(3), (1, 40000), (40000, 2))
    plain = {"a_zero_point": 0, "b_zero_point": 0}
    arrays = case.arrays | {"a": np.full((1, 40000), 255, np.uint8), "b": np.full((40000, 2), 255, np.uint8)}
    large = replace(case, arrays=arrays, attributes=case.attributes | plain)
    assert "sums of 40000 products could overflow int32" in run_refusal(large)
    small = replace(large, arrays=arrays | {"b": np.full((40000, 2), 200, np.uint8)})
    check(bundle([small]))
