"""The table of channel axes; that onnxruntime agrees with it is shown in passes/test_insert_qdq_weights.py."""

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnxq.graph.axes import channel_axis, out_channels

TABLE = [
    ("Conv", {}, (8, 3, 3, 3), 0, 8),
    ("Conv", {"group": 4}, (8, 1, 3, 3), 0, 8),
    ("Conv", {}, (8, 3, 5), 0, 8),
    ("ConvTranspose", {}, (3, 8, 3, 3), 1, 8),
    ("ConvTranspose", {"group": 2}, (4, 8, 3, 3), 1, 16),
    ("Gemm", {}, (3, 8), 1, 8),
    ("Gemm", {"transB": 0, "transA": 1}, (3, 8), 1, 8),
    ("Gemm", {"transB": 1}, (8, 3), 0, 8),
    ("MatMul", {}, (3, 8), 1, 8),
    ("MatMul", {}, (2, 5, 3, 8), 3, 8),
    ("MatMul", {}, (3,), None, None),
    ("Gather", {}, (100, 8), 0, 100),
    ("Relu", {}, (8,), None, None),
]


@pytest.mark.parametrize(("op", "attributes", "shape", "axis", "channels"), TABLE)
def test_table(
    op: str, attributes: dict[str, int], shape: tuple[int, ...], axis: int | None, channels: int | None
) -> None:
    weight = gs.Constant("w", np.zeros(shape, np.float32))
    node = gs.Node(op, "n", attributes, inputs=[gs.Variable("x", np.float32), weight])
    assert channel_axis(node) == axis
    if op != "Gather":  # it has no bias
        assert out_channels(node) == channels


def test_a_weight_of_unknown_shape() -> None:
    for op in ("Conv", "MatMul"):
        node = gs.Node(op, "n", {}, inputs=[gs.Variable("x", np.float32), gs.Variable("w", np.float32)])
        assert out_channels(node) is None
    assert channel_axis(node) is None
