"""Convolutions and products with weights: what no table of cases says."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from onnxq.execution import runtime
from support.cases.operators import Draw, ints, with_
from support.cases.operators._layers import RAW, scaled
from support.cases.operators.gemm import gemm
from support.kernel_runs import bundle, check, chosen, needs_library, on_every_tier

pytestmark = needs_library


def test_int4_weights_are_read_low_nibble_first() -> None:
    w = np.arange(-8, 8).reshape(8, 2).astype(np.int8).astype(ml_dtypes.int4)
    case = with_(gemm(Draw(8), (3, 8), 2, w="int4"), {"w": w})
    assert case.expected().std() > 0
    check(bundle([scaled(Draw(8), case, "raw")]))


@on_every_tier
def test_a_kernel_that_does_not_fit_the_image_gives_nothing(tier: str) -> None:
    """Also where a stride would make the negative room for it round to zero."""
    constants = {
        "w": np.ones((5, 3, 3, 4), np.int8),
        "bias": np.zeros(5, np.int32),
        "multiplier": ints(2),
        "shift": ints(1),
        "w_zero_point": np.zeros(1, np.int8),
    }
    node = helper.make_node("Conv", ["x", *constants], ["y"], domain="com.onnxq", strides=[2, 2], **RAW)
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", "h", "w_", 4])],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.onnxq", 1)]
    with chosen(tier):
        session = runtime.session(helper.make_model(graph, opset_imports=opsets, ir_version=10), threads=1)
    for height, width, shape in (
        (2, 5, (1, 0, 2, 5)),
        (5, 2, (1, 2, 0, 5)),
        (1, 1, (1, 0, 0, 5)),
        (3, 3, (1, 1, 1, 5)),
    ):
        (y,) = session.run(None, {"x": np.ones((1, height, width, 4), np.uint8)})
        assert y.shape == shape
        assert (y == 36).all()
