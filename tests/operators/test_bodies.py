"""Function bodies against exact integers: onnxruntime without the kernels at two levels, and ReferenceEvaluator."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.cases.operators import Case, ints, operator_cases, tables
from support.prove.operator_bodies import check_body

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
