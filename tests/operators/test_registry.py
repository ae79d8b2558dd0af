"""Operators are found by file name, and what each says of itself fits together."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

import onnxq.operators
from onnxq.operators import OPERATORS, SCHEMAS, OperatorSpec


def test_operators_stand_in_order_of_their_names() -> None:
    assert list(OPERATORS) == list(SCHEMAS) == sorted(OPERATORS)
    with pytest.raises(AttributeError):
        onnxq.operators.Nonsense  # noqa: B018


@pytest.mark.parametrize("spec", OPERATORS.values(), ids=OPERATORS)
def test_a_reference_takes_the_inputs_and_attributes_of_the_schema(spec: OperatorSpec) -> None:
    inputs = [None] * len(spec.schema.inputs)
    given = {a.name: None for a in spec.schema.attributes}
    signature = inspect.signature(spec.reference)
    signature.bind(*inputs, **given)
    assert all(p.default is p.empty for p in signature.parameters.values()), "the schema alone has the defaults"


@pytest.mark.parametrize("spec", OPERATORS.values(), ids=OPERATORS)
def test_a_layout_names_inputs_and_attributes_of_the_schema(spec: OperatorSpec) -> None:
    if spec.layout is None:
        return
    inputs, attributes = {i.name for i in spec.schema.inputs}, {a.name for a in spec.schema.attributes}
    for field in fields(spec.layout):
        value = getattr(spec.layout, field.name)
        if field.name in ("axis", "axes", "keepdims"):
            assert value in attributes or not getattr(spec.layout, "vectors", True)
        else:
            assert {value} <= inputs if isinstance(value, str) else set(value) <= inputs
