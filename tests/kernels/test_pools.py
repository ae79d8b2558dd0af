"""Pools of images that are smaller than the window."""

from __future__ import annotations

from onnxq.execution import runtime
from support.cases.operators import Draw, with_
from support.cases.operators.average_pool import average_pool
from support.cases.operators.max_pool import max_pool
from support.kernel_runs import lone, needs_library

pytestmark = needs_library
MAX = max_pool(Draw(4), (1, 4, 4, 2), kernel_shape=(2, 2))
AVERAGE = average_pool(Draw(5), (1, 4, 4, 2), kernel_shape=(2, 2))


def test_a_window_larger_than_the_image_gives_nothing() -> None:
    for case in (with_(MAX, kernel_shape=(5, 2)), with_(AVERAGE, kernel_shape=(5, 2))):
        (y,) = runtime.session(lone(case)).run(None, {"x": case.arrays["x"]})
        assert y.shape == (1, 0, 3, 2)
