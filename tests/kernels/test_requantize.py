"""com.onnxq::Requantize, run by onnxruntime, against exact Python integers (design.md §3: equal bit for bit)."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxq import runtime
from onnxq.errors import ModelError

pytestmark = pytest.mark.skipif(not runtime.has_library(), reason="onnxq was built without the kernel library")

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
LIMITS = {np.int8: (-128, 127), np.uint8: (0, 255)}


def model(
    shape: list[Any],
    multiplier: Any,
    shift: Any,
    zero_point: np.ndarray,
    graph_inputs: tuple[str, ...] = (),
    **attributes: Any,
) -> onnx.ModelProto:
    constants = {
        "multiplier": np.asarray(multiplier, np.int32),
        "shift": np.asarray(shift, np.int32),
        "zero_point": zero_point,
    }
    node = helper.make_node("Requantize", ["x", *constants], ["y"], domain="com.onnxq", **attributes)
    inputs = [helper.make_tensor_value_info("x", TensorProto.INT32, shape)]
    inputs += [helper.make_tensor_value_info(n, TensorProto.INT32, constants[n].shape) for n in graph_inputs]
    graph = helper.make_graph(
        [node],
        "requantize",
        inputs,
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.onnxq", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def run(x: np.ndarray, multiplier: Any, shift: Any, zero_point: np.ndarray, **attributes: Any) -> np.ndarray:
    session = runtime.session(model(list(x.shape), multiplier, shift, zero_point, **attributes), threads=1)
    return session.run(None, {"x": x})[0]


def exact(x: int, b: int, c: int, zero_point: int, qmin: int, qmax: int) -> int:
    return min(qmax, max(qmin, ((x * b + (1 << (c - 1))) >> c) + zero_point))


int32s = st.one_of(
    st.integers(INT32_MIN, INT32_MAX), st.integers(-300, 300), st.sampled_from([INT32_MIN, INT32_MAX, 0])
)
multipliers = st.one_of(st.integers(0, INT32_MAX), st.sampled_from([0, 1, 2**30, INT32_MAX]))
shifts = st.one_of(st.integers(1, 62), st.sampled_from([1, 31, 32, 33, 62]))


@st.composite
def ties(draw: st.DrawFn) -> tuple[int, int, int]:
    """x·b an odd multiple of 2^(c−1): exactly between two integers."""
    c = draw(st.integers(1, 31))
    return draw(st.integers(-(2 ** (31 - c)), 2 ** (31 - c) - 1)) * 2 + 1, 2 ** (c - 1), c


@given(
    terms=st.lists(st.one_of(st.tuples(int32s, multipliers, shifts), ties()), min_size=1, max_size=64),
    dtype=st.sampled_from(list(LIMITS)),
    data=st.data(),
)
@example(terms=[(INT32_MIN, INT32_MAX, 1), (INT32_MAX, INT32_MAX, 62)], dtype=np.int8, data=None)
def test_equals_exact_integers(
    terms: list[tuple[int, int, int]], dtype: type[np.integer], data: st.DataObject | None
) -> None:
    low, high = LIMITS[dtype]
    zero_point, qmin, qmax = low, low, high
    if data is not None:
        zero_point = data.draw(st.integers(low, high), "zero_point")
        qmin, qmax = sorted(data.draw(st.tuples(st.integers(low, high), st.integers(low, high)), "range"))
    x, b, c = (np.array(column, np.int32) for column in zip(*terms, strict=True))
    got = run(x, b, c, np.array(zero_point, dtype), axis=0, qmin=qmin, qmax=qmax)
    assert got.dtype == dtype
    assert got.tolist() == [exact(*term, zero_point, qmin, qmax) for term in terms]


@pytest.mark.parametrize(
    ("x", "b", "c", "want"),
    [
        (1, 1, 1, 1),  # +0.5 goes up
        (-1, 1, 1, 0),  # −0.5 goes up too: half rounds up, not away from zero
        (-3, 1, 1, -1),
        (3, 2**30, 31, 2),  # 1.5
        (INT32_MAX, 3, 1, 127),  # 3.2e9 after the shift: negative if it were cut to 32 bits before saturating
        (INT32_MAX, 2**30, 29, 127),  # 2^32 − 2 after the shift: −2 if it were cut to 32 bits
        (INT32_MIN, 2**30, 29, -128),
        (INT32_MAX, INT32_MAX, 62, 1),
        (INT32_MIN, INT32_MAX, 62, -1),
        (INT32_MIN, INT32_MAX, 61, -2),
        (INT32_MAX, 0, 62, 0),
    ],
)
def test_corners(x: int, b: int, c: int, want: int) -> None:
    assert exact(x, b, c, 0, -128, 127) == want
    assert run(np.array([x], np.int32), b, c, np.array(0, np.int8)).tolist() == [want]


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2, -3, -4])
def test_per_channel_along_any_axis(axis: int) -> None:
    rng = np.random.default_rng(axis % 4)
    x = rng.integers(-10000, 10000, (2, 3, 4, 5)).astype(np.int32)
    channels = x.shape[axis]
    b = rng.integers(2**29, 2**31, channels)
    c = rng.integers(36, 40, channels)
    got = run(x, b, c, np.array(7, np.uint8), axis=axis)
    moved = np.moveaxis(x, axis, -1)
    want = [
        [exact(int(v), int(b[i]), int(c[i]), 7, 0, 255) for i, v in enumerate(row)]
        for row in moved.reshape(-1, channels)
    ]
    assert np.moveaxis(got, axis, -1).reshape(-1, channels).tolist() == want
    assert len(np.unique(got)) > 20


def test_axis_1_is_the_default() -> None:
    x = np.full((1, 2, 2), 8, np.int32)
    assert run(x, [1, 1], [1, 2], np.array(0, np.int8)).tolist() == [[[4, 4], [2, 2]]]


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0, 3), (1, 1, 1, 1, 1, 2)])
@pytest.mark.parametrize("multiplier", [2**30, [2**30]])
def test_per_tensor_takes_any_shape(shape: tuple[int, ...], multiplier: Any) -> None:
    shift = [31] if isinstance(multiplier, list) else 31
    got = run(np.full(shape, 21, np.int32), multiplier, shift, np.array([5], np.int8))
    assert got.shape == shape
    assert (got == 16).all()  # 10.5 rounds up to 11


def test_shapes_and_type_are_inferred() -> None:
    for dtype, name in ((np.int8, "tensor(int8)"), (np.uint8, "tensor(uint8)")):
        session = runtime.session(model(["batch", 3, None], [1, 1, 1], [1, 1, 1], np.array(0, dtype)))
        (y,) = session.get_outputs()
        assert (y.type, y.shape[:2]) == (name, ["batch", 3])
        assert session.run(None, {"x": np.zeros((2, 3, 5), np.int32)})[0].shape == (2, 3, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"multiplier": -1}, "multiplier -1 is negative"),
        ({"shift": 0}, "shift 0 is not in 1 to 62"),
        ({"shift": 63}, "shift 63 is not in 1 to 62"),
        ({"shift": [1, 2]}, "shift must have as many values as multiplier"),
        ({"multiplier": [], "shift": []}, "multiplier must be one value or a vector"),
        ({"multiplier": [[1]], "shift": [[1]]}, "multiplier must be one value or a vector"),
        ({"zero_point": np.zeros(2, np.int8)}, "zero_point must be one value"),
        ({"qmin": -129}, "is no range of y's type"),
        ({"qmax": 128}, "is no range of y's type"),
        ({"qmin": 5, "qmax": 4}, "[5, 4] is no range"),
        ({"axis": 0.5}, "attribute axis must be an integer"),
        (
            {"graph_inputs": ("multiplier",)},
            "input multiplier must be an initializer, and not also an input of the graph",
        ),
    ],
)
def test_refuses_a_node_that_makes_no_sense(change: dict[str, Any], message: str) -> None:
    node = {"multiplier": 1, "shift": 1, "zero_point": np.array(0, np.int8)} | change
    with pytest.raises(ModelError, match=r"com\.onnxq:Requantize: ") as refusal:
        runtime.session(model(["n", 3], **node))
    assert message in str(refusal.value)


@pytest.mark.parametrize("zero_point", [np.array(0, np.int32), np.array(0, np.float32)])
def test_refuses_other_output_types(zero_point: np.ndarray) -> None:
    with pytest.raises(ModelError):
        runtime.session(model(["n", 3], 1, 1, zero_point))


@pytest.mark.parametrize(
    ("shape", "axis", "message"),
    [
        ((2, 4), 1, "x has 4 channels, multiplier 3 values"),
        ((3,), 1, "axis 1 of x, which has rank 1"),
        ((3,), -2, "axis -2"),
    ],
)
def test_refuses_inputs_that_do_not_fit(shape: tuple[int, ...], axis: int, message: str) -> None:
    names = [f"d{i}" for i in range(len(shape))]
    session = runtime.session(model(names, [1, 1, 1], [1, 1, 1], np.array(0, np.int8), axis=axis))
    with pytest.raises(Exception, match=message):  # onnxruntime's own class derives straight from Exception
        session.run(None, {"x": np.zeros(shape, np.int32)})
