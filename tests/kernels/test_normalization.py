"""Softmax of rows that are empty."""

from __future__ import annotations

from onnxq.execution import runtime
from support.cases.operators import Draw
from support.cases.operators.softmax import softmax
from support.kernel_runs import lone, needs_library

pytestmark = needs_library


def test_rows_of_no_values() -> None:
    for case in (softmax(Draw(5), (4, 0)), softmax(Draw(5), (4, 0, 2), axis=1)):
        (y,) = runtime.session(lone(case)).run(None, {"x": case.arrays["x"]})
        assert y.shape == case.arrays["x"].shape
