"""Every operator of com.onnxq: each module of onnxq/operators defines one or a family of them, found by file name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from onnxq import plugins
from onnxq.errors import NumericError
from onnxq.operators.base.schema import DOMAIN, Schema
from onnxq.operators.base.spec import OperatorSpec

PACKAGE, _, _ = __package__.rpartition(".")


def _found() -> dict[str, OperatorSpec]:
    """Every operator by name, sorted."""
    found: dict[str, OperatorSpec] = {}
    for module in plugins.modules(PACKAGE):
        specs = getattr(module, "OPERATORS", None) or (getattr(module, "OPERATOR", None),)
        for spec in specs:
            if not isinstance(spec, OperatorSpec):
                raise TypeError(f"{module.__name__} must define OPERATOR or OPERATORS: it describes an operator")
            if spec.name in found:
                raise TypeError(f"{module.__name__} defines {spec.name}, which another module defines already")
            found[spec.name] = spec
    return dict(sorted(found.items()))


OPERATORS: Mapping[str, OperatorSpec] = _found()
SCHEMAS: Mapping[str, Schema] = {name: spec.schema for name, spec in OPERATORS.items()}


def compute(op: str, inputs: Sequence[NDArray[Any]], attributes: Mapping[str, Any]) -> NDArray[Any]:
    """The exact output of one node. Raises NumericError for an unknown operator, and as the operators do."""
    if op not in OPERATORS:
        raise NumericError(f"{DOMAIN} has no operator {op}")
    return OPERATORS[op].compute(*inputs, **attributes)
