"""Every operator's kernel on every tier, against exact integers, and what kernels refuse."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.cases.operators import Case, operator_cases, tables
from support.kernel_runs import Bundle, bundle, check, chosen, needs_library, on_every_tier, refusal, run_refusal

pytestmark = needs_library

TABLES = tables("kernels")
DRAWN = {name: found.drawn for name, found in operator_cases().items() if found.drawn is not None}


@functools.cache
def cases_of(table: str) -> Bundle:
    return bundle(list(TABLES[table]()))


@on_every_tier
@pytest.mark.parametrize("table", TABLES)
def test_equals_exact_integers(table: str, tier: str) -> None:
    with chosen(tier):
        check(cases_of(table))


@on_every_tier
@pytest.mark.parametrize("operator", DRAWN)
@settings(max_examples=12)
@given(data=st.data())
def test_drawn_shapes(operator: str, tier: str, data: st.DataObject) -> None:
    with chosen(tier):
        check(bundle(data.draw(st.lists(DRAWN[operator], min_size=1, max_size=6))))


def test_the_tables_of_layers_tell_a_wrong_result() -> None:
    """Most outputs lie inside [qmin, qmax]: a test of saturated values would not see much."""
    for table in ("conv-dense", "conv-depthwise", "conv-types", "gemm-matrices"):
        made = cases_of(table)
        inside = [
            ((y > case.attributes["qmin"]) & (y < case.attributes["qmax"])).mean()
            for case, y in zip(made.cases, made.expected, strict=True)
            if y.size and case.attributes["y_type"] != 6
        ]
        assert sum(inside) / len(inside) > 0.4, (table, inside)


REFUSED = [row for found in operator_cases().values() for row in found.refused]
REFUSED_INPUTS = [row for found in operator_cases().values() for row in found.refused_inputs]


@pytest.mark.parametrize(("case", "message"), REFUSED, ids=[f"{case.op}: {message}" for case, message in REFUSED])
def test_refuses_a_node_that_makes_no_sense(case: Case, message: str) -> None:
    assert message in refusal(case)


@pytest.mark.parametrize(
    ("case", "message"), REFUSED_INPUTS, ids=[f"{case.op}: {message}" for case, message in REFUSED_INPUTS]
)
def test_refuses_inputs_that_do_not_fit(case: Case, message: str) -> None:
    assert message in run_refusal(case)
