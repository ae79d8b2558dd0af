"""The operators of domain com.onnxq, one module per operator, found by file name; base/ is shared code.

OPERATORS               every operator by name (base.spec.OperatorSpec)
SCHEMAS                 their schemas
compute(name, …)        the exact output of a node
function(name)          the body in standard ONNX operators, which integer-only models contain
attach_functions(model) add to a ModelProto the bodies of the operators it uses
check_node(node)        the errors of a node according to its schema
"""

from typing import TYPE_CHECKING, Any

from onnxq.operators.base.functions import attach_functions, function
from onnxq.operators.base.nodes import check_node
from onnxq.operators.base.schema import DOMAIN, VERSION, Attribute, Input, Output, Schema, function_text

if TYPE_CHECKING:
    from onnxq.operators.base.registry import OPERATORS, SCHEMAS, compute
    from onnxq.operators.base.spec import OperatorSpec

__all__ = [
    "DOMAIN",
    "OPERATORS",
    "SCHEMAS",
    "VERSION",
    "Attribute",
    "Input",
    "OperatorSpec",
    "Output",
    "Schema",
    "attach_functions",
    "check_node",
    "compute",
    "function",
    "function_text",
]


def __getattr__(name: str) -> Any:
    """Names of the registry, loaded on first use: reading a float model needs none of our operators."""
    if name not in ("OPERATORS", "OperatorSpec", "SCHEMAS", "compute"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from onnxq.operators.base import registry

    return getattr(registry, name)
