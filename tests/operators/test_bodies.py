"""Function bodies against exact integers: onnxruntime without the kernels at two levels, and ReferenceEvaluator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from onnxq.errors import NumericError
from onnxq.execution import runtime
from support.cases.operators import Case, ints, nodes, operator_cases, tables
from support.prove.operator_bodies import activations, check_body, evaluations, model

TABLES = tables("bodies")
DRAWN = {name: found.drawn_bodies for name, found in operator_cases().items() if found.drawn_bodies is not None}


@pytest.mark.parametrize("table", TABLES)
def test_equals_exact_integers(table: str) -> None:
    for case in TABLES[table]():
        check_body(case)


@pytest.mark.parametrize("operator", DRAWN)
@settings(max_examples=25)  # each makes two sessions
@given(data=st.data())
def test_drawn(operator: str, data: st.DataObject) -> None:
    check_body(data.draw(DRAWN[operator]))


def test_halves_go_up_and_the_64_bit_value_saturates() -> None:
    x = ints(1, -1, -3, 3, 2**31 - 1, 2**31 - 1, -(2**31), -(2**31))
    b = ints(1, 1, 1, 2**30, 3, 2**30, 2**30, 2**31 - 1)
    c = ints(1, 1, 1, 31, 1, 29, 29, 62)
    case = Case("Requantize", {"x": x, "multiplier": b, "shift": c}, {"qmin": -128, "qmax": 127, "y_type": 3})
    assert case.expected().tolist() == [1, 0, -1, 2, 127, 127, -128, -1]
    check_body(case)


RAW = {"x_zero_point": 0, "y_zero_point": 0, "qmin": -(2**31), "qmax": 2**31 - 1, "y_type": 6}
FLAGS = {"ReduceMean": "keepdims", "LayerNorm": "center"}


@pytest.mark.parametrize("value", [2, -1, -(2**62), 2**40])
@pytest.mark.parametrize("op", FLAGS)
def test_flags_that_kernels_refuse_are_refused(op: str, value: int) -> None:
    case = next(c for c in nodes() if c.op == op)
    wrong = Case(case.op, case.arrays, {**case.attributes, FLAGS[op]: value})
    with pytest.raises(NumericError, match=f"{FLAGS[op]} must be 0 or 1"):
        wrong.expected()
    proto = model(op, wrong.arrays, wrong.attributes, case.expected())
    feeds = {name: wrong.arrays[name] for name in activations(op)}
    with pytest.raises((ort_errors.Fail, ort_errors.InvalidArgument), match=r"[Gg]ather|indices"):
        next(evaluations(proto, feeds))
    with pytest.raises((IndexError, OverflowError)):
        ReferenceEvaluator(proto).run(None, feeds)


OVERFLOWING = [
    Case("ReduceMean", {"x": x, "multiplier": ints(2**30), "shift": ints(shift)}, {"axes": (1, 2), **RAW})
    for x in (np.full((1, 2, 2, 1), 2**30, np.int32), np.full((2, 3, 1, 5), -(2**31), np.int32))
    for shift in (30, 40)
]
OVERFLOWING += [Case("AveragePool", {**case.arrays}, {"kernel_shape": (2, 1), **RAW}) for case in OVERFLOWING]


@pytest.mark.parametrize("case", OVERFLOWING, ids=str)
def test_sums_beyond_32_bits_are_those_of_the_kernel(case: Case) -> None:
    """Lowering makes none; the reference refuses them."""
    with pytest.raises(NumericError, match="32-bit accumulator"):
        case.expected()
    proto = model(case.op, case.arrays, case.attributes, np.zeros((1, 1, 1, 1), np.int32))
    feeds = {name: case.arrays[name] for name in activations(case.op)}
    want = runtime.session(proto, kernels=True).run(None, feeds)[0]
    for _, found in evaluations(proto, feeds):
        np.testing.assert_array_equal(found, want)
