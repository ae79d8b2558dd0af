"""Tiles of a convolution: which rows they hold, how layers are planned, and residuals whose memory is taken over."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxq.execution import library, runtime
from onnxq.execution.conv_plan import ConvPlan, conv_plan
from onnxq.operators import compute
from support.cases.operators import Draw, ints
from support.cases.operators._layers import scaled
from support.cases.operators.conv import conv
from support.kernel_runs import chosen, needs_library, on_every_tier

pytestmark = needs_library
HEIGHT = 16


def tiles(n: int, oh: int, ow: int, spacing: tuple[int, int, int]) -> np.ndarray:
    """[tile][from, output, kept]"""
    function = library.load().onnxq_tiles
    function.restype, function.argtypes = ctypes.c_int64, [ctypes.c_int64] * 7 + [ctypes.c_void_p]
    count = function(n, oh, ow, *spacing, 0, None)
    found = np.zeros((count, 3), np.int64)
    function(n, oh, ow, *spacing, count, found.ctypes.data)
    return found


@given(
    st.integers(1, 3), st.integers(1, 9), st.integers(1, 40), st.sampled_from([1, 3, 16, 64]),
    st.integers(0, 40), st.integers(0, 90), st.booleans(),
)  # fmt: skip
@settings(max_examples=300)
def test_every_output_is_in_one_tile(n: int, oh: int, ow: int, pixel: int, gap: int, below: int, even: bool) -> None:
    """In order, at its address, and nothing outside the first and the last output's rows is read."""
    unit = pixel if even else 1
    line = ow * pixel + gap * unit
    image = oh * line + below * unit
    found = tiles(n, oh, ow, (pixel, line, image))
    places = [i * image + y * line + x * pixel for i in range(n) for y in range(oh) for x in range(ow)]
    room = places[-1] - (HEIGHT - 1) * pixel
    if len(places) < HEIGHT or room < (0 if line % pixel == image % pixel == 0 else pixel):
        assert not len(found)
        return
    outputs = []
    for start, first, kept in found.tolist():
        assert 0 <= start <= room
        rows = [r for r in range(HEIGHT) if kept >> r & 1]
        assert rows and first == len(outputs)
        assert [places[first + i] for i in range(len(rows))] == [start + r * pixel for r in rows]
        outputs += range(first, first + len(rows))
    assert outputs == list(range(len(places)))


def plan(
    x: tuple[int, ...], w: tuple[int, ...], kind: int = TensorProto.INT8, op: str = "Conv", **attributes: object
) -> ConvPlan:
    weight = helper.make_tensor(
        "w", kind, w, bytes((int(np.prod(w)) + 1) // 2 if kind == TensorProto.INT4 else int(np.prod(w))), True
    )
    found = conv_plan(helper.make_node(op, ["x", "w"], ["y"], domain="com.onnxq", **attributes), x, weight)
    assert found is not None
    return found


PADS = {"pads": [1, 1, 1, 1]}


def test_plans_on_amx() -> None:
    with chosen("amx"):
        first = plan((1, 224, 224, 3), (64, 7, 7, 3), strides=[2, 2], pads=[3, 3, 3, 3])
        assert (first.path, first.pieces, first.piece_bytes, first.row_group) == ("tiles", 3, 64, 3)
        assert first.row_parts > 1 and 230 * 230 * 9 / first.row_parts < first.copy_bytes < 230 * 230 * 9 / 2
        assert plan((1, 56, 56, 64), (64, 3, 3, 64), **PADS).pieces == 9
        assert plan((1, 14, 14, 256), (256, 3, 3, 256), **PADS).pieces == 36
        line = plan((1, 1, 16000, 64), (64, 1, 9, 64), pads=[0, 4, 0, 4])  # parts do not copy the whole line each
        assert line.row_parts > 4 and line.copy_bytes >= 16008 * 64
        assert plan((1, 56, 56, 256), (64, 1, 1, 256)).copy_bytes == 0
        assert plan((1, 56, 56, 256), (512, 1, 1, 256), strides=[2, 2]).copy_bytes >= 28 * 28 * 256
        assert plan((1, 56, 56, 96), (96, 3, 3, 1), group=96, **PADS).path == "depthwise"
        assert plan((1, 112, 112, 8), (48, 1, 1, 8)).path == "rows"  # too few products
        assert plan((1, 3, 5, 64), (64, 1, 1, 64)).path == "rows"  # fewer than 16 pixels
        assert plan((1, 7, 7, 512), (512, 3, 3, 512), **PADS).panel_parts > 1  # weights are the larger part
        assert plan((1, 56, 56, 64), (256, 1, 1, 64)).row_parts > 1
        half = plan((128, 768), (768, 3072), TensorProto.INT4, "Gemm")
        assert half.path == "tiles" and half.packed_bytes == 768 * 3072 // 2


@on_every_tier
def test_plans_fit_the_tier(tier: str) -> None:
    with chosen(tier):
        found = plan((1, 28, 28, 128), (128, 3, 3, 128), **PADS)
    assert found.path == ("tiles" if tier == "amx" else "rows")
    assert str(found).startswith(found.path)


@on_every_tier
@pytest.mark.parametrize("kind", ["uint8", "int8", "int16"])
def test_a_residual_that_nothing_reads_later_may_be_replaced(tier: str, kind: str) -> None:
    """onnxruntime gives y its memory where types are of one size; the next node's result then tells."""
    for shape, channels in (((1, 9, 8, 64), 64), ((2, 5, 7, 12), 40), ((1, 3, 4, 5), 7)):
        draw = Draw(7)
        case = scaled(draw, conv(draw, shape, (channels, 1, 1, shape[3]), y=kind, residual=kind), "fixed")
        sums = draw.tensor("int32", (*shape[:3], channels))
        low, high = np.iinfo(kind).min, np.iinfo(kind).max
        made = {
            "y_zero_point": 0,
            "qmin": int(low),
            "qmax": int(high),
            "y_type": {"uint8": 2, "int8": 3, "int16": 5}[kind],
        }
        residual = compute("Requantize", [sums, ints(1 << 20), ints(40)], made)
        constants = {k: v for k, v in case.arrays.items() if k not in ("x", "residual")} | {
            "rm": ints(1 << 20),
            "rs": ints(40),
        }
        nodes = [
            helper.make_node("Requantize", ["sums", "rm", "rs"], ["residual"], domain="com.onnxq", **made),
            helper.make_node("ConvAdd", list(case.arrays), ["y"], domain="com.onnxq", **case.attributes),
        ]
        types = {"x": TensorProto.UINT8, "sums": TensorProto.INT32}
        graph = helper.make_graph(
            nodes,
            "replaced",
            [
                helper.make_tensor_value_info(n, t, ["n", "h", "w_", c])
                for (n, t), c in zip(types.items(), (shape[3], channels), strict=True)
            ],
            [helper.make_empty_tensor_value_info("y")],
            [numpy_helper.from_array(values, name) for name, values in constants.items()],
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.onnxq", 1)]
        expected = compute(
            "ConvAdd", [residual if k == "residual" else v for k, v in case.arrays.items()], case.attributes
        )
        with chosen(tier):
            session = runtime.session(helper.make_model(graph, opset_imports=opsets, ir_version=10), threads=1)
        for _ in range(2):
            (y,) = session.run(None, {"x": case.arrays["x"], "sums": sums})
            np.testing.assert_array_equal(y, expected)
