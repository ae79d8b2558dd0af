"""com.onnxq:Requantize on every tier: the rescale at its corners, and what the operator refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxq.errors import ModelError
from onnxq.execution import library, runtime
from support.cases.operators import ALL, Case, Draw
from support.kernel_runs import bundle, check, chosen, needs_library, on_every_tier

pytestmark = needs_library

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
INT8 = {"qmin": -128, "qmax": 127, "y_type": 3}


def vector(x: Any, b: Any, c: Any, **attributes: Any) -> Case:
    """Every value with its own multiplier and shift."""
    arrays = {"x": np.array(x, np.int32), "multiplier": np.array(b, np.int32), "shift": np.array(c, np.int32)}
    return Case("Requantize", arrays, INT8 | {"axis": 0} | attributes)


def exact(x: int, b: int, c: int) -> int:
    return min(127, max(-128, (x * b + (1 << (c - 1))) >> c))


CORNERS = [
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
]


@on_every_tier
def test_corners(tier: str) -> None:
    x, b, c, want = (list(column) for column in zip(*CORNERS, strict=True))
    together = vector(x, b, c)
    made = bundle([together, *(vector([x[i]] * 40, [b[i]], [c[i]]) for i in range(len(x)))])
    assert made.expected[0].tolist() == want
    with chosen(tier):
        check(made)


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


@on_every_tier
@settings(max_examples=30)
@given(
    terms=st.lists(st.one_of(st.tuples(int32s, multipliers, shifts), ties()), min_size=1, max_size=64),
    y=st.sampled_from(ALL),
    seed=st.integers(0, 2**32),
)
@example(terms=[(INT32_MIN, INT32_MAX, 1), (INT32_MAX, INT32_MAX, 62)], y="int8", seed=0)
def test_equals_exact_integers(tier: str, terms: list[tuple[int, int, int]], y: str, seed: int) -> None:
    x, b, c = (list(column) for column in zip(*terms, strict=True))
    result = Draw(seed).result(y)
    alone = [vector(x, b[:1], c[:1], **result)] if abs(max(x, key=abs)) * b[0] + 2 ** (c[0] - 1) < 2**63 else []
    with chosen(tier):
        check(bundle([vector(x, b, c, **result), *alone]), threads=(1,))


def test_the_last_axis_is_the_default() -> None:
    arrays = {
        "x": np.full((1, 2, 2), 8, np.int32),
        "multiplier": np.array([1, 1], np.int32),
        "shift": np.array([1, 2], np.int32),
    }
    made = bundle([Case("Requantize", arrays, INT8)])
    assert made.expected[0].tolist() == [[[4, 2], [4, 2]]]
    check(made)


def test_an_unknown_tier_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.ISA_VARIABLE, "sse9")
    with pytest.raises(ModelError, match="ONNXQ_ISA=sse9 is unavailable"):
        runtime.session(model(["n"]))


def model(
    shape: list[Any],
    multiplier: Any = 1,
    shift: Any = 1,
    x: int = TensorProto.INT32,
    graph_inputs: tuple[str, ...] = (),
    **attributes: Any,
) -> onnx.ModelProto:
    constants = {"multiplier": np.asarray(multiplier, np.int32), "shift": np.asarray(shift, np.int32)}
    given_attributes = {k: v for k, v in (INT8 | attributes).items() if v is not None}
    node = helper.make_node("Requantize", ["x", *constants], ["y"], domain="com.onnxq", **given_attributes)
    inputs = [helper.make_tensor_value_info("x", x, shape)]
    inputs += [helper.make_tensor_value_info(n, TensorProto.INT32, constants[n].shape) for n in graph_inputs]
    graph = helper.make_graph(
        [node],
        "requantize",
        inputs,
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.onnxq", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def test_shapes_and_type_are_inferred() -> None:
    for y_type, limits, name in ((3, (-128, 127), "int8"), (2, (0, 255), "uint8"), (6, (-9, 9), "int32")):
        proto = model(["batch", 3, None], y_type=y_type, qmin=limits[0], qmax=limits[1])
        session = runtime.session(proto)
        (y,) = session.get_outputs()
        assert (y.type, y.shape[:2]) == (f"tensor({name})", ["batch", 3])
        assert session.run(None, {"x": np.zeros((2, 3, 5), np.int32)})[0].shape == (2, 3, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"multiplier": -1}, "multiplier -1 is negative"),
        ({"shift": 0}, "shift 0 is not in [1, 62]"),
        ({"shift": 63}, "shift 63 is not in [1, 62]"),
        ({"multiplier": [1, 1], "shift": [1, 2, 3]}, "multiplier has 2 values, others have 3"),
        ({"multiplier": []}, "multiplier must be one value or a vector"),
        ({"multiplier": [[1]], "shift": [[1]]}, "multiplier must be one value or a vector"),
        ({"x_zero_point": 2**31}, "x_zero_point 2147483648 is outside the input's type"),
        ({"x": TensorProto.UINT8, "x_zero_point": -1}, "x_zero_point -1 is outside the input's type"),
        ({"x": TensorProto.FLOAT}, "x must be uint8, int8, int16 or int32, not element type 1"),
        ({"y_zero_point": 128}, "y_zero_point 128 is outside y's type"),
        ({"qmin": -129}, "is not a range of y's type"),
        ({"qmax": 128}, "is not a range of y's type"),
        ({"qmin": 5, "qmax": 4}, "[5, 4] is not a range"),
        ({"qmin": None}, "attribute qmin is required and must be an integer"),
        ({"y_type": None}, "attribute y_type is required and must be an integer"),
        ({"axis": 0.5}, "attribute axis must be an integer"),
        (
            {"graph_inputs": ("multiplier",)},
            "input multiplier must be an initializer that is not also a graph input",
        ),
    ],
)
def test_refuses_a_node_that_makes_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=r"com\.onnxq:Requantize: ") as refusal:
        runtime.session(model(["n", 3], **change))
    assert message in str(refusal.value)


@pytest.mark.parametrize("y_type", [1, 7])
def test_refuses_other_output_types(y_type: int) -> None:
    with pytest.raises(ModelError):
        runtime.session(model(["n", 3], y_type=y_type))


@pytest.mark.parametrize(
    ("shape", "axis", "message"),
    [
        ((2, 4), 1, r"have 3 values, y of shape \[2,4\] has 4 along axis 1"),
        ((3,), 1, "axis 1 is out of range for y of rank 1"),
        ((3,), -2, "axis -2"),
    ],
)
def test_refuses_inputs_that_do_not_fit(shape: tuple[int, ...], axis: int, message: str) -> None:
    names = [f"d{i}" for i in range(len(shape))]
    session = runtime.session(model(names, [1, 1, 1], [1, 1, 1], axis=axis))
    with pytest.raises(Exception, match=message):  # onnxruntime's own class derives straight from Exception
        session.run(None, {"x": np.zeros(shape, np.int32)})
