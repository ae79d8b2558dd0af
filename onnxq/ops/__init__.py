"""The operators of domain com.onnxq: their schemas, and the function bodies that integer-only models carry.

SCHEMAS                 every operator by name
function(name)          its body in standard ONNX operators
attach_functions(model) make a ModelProto carry the bodies of the operators it uses
check_node(node)        what is wrong with a node, held against its schema
"""

from onnxq.ops.functions import SCHEMAS, attach_functions, function
from onnxq.ops.nodes import check_node
from onnxq.ops.schema import DOMAIN, VERSION, Attribute, Input, Output, Schema, function_text

__all__ = [
    "DOMAIN",
    "SCHEMAS",
    "VERSION",
    "Attribute",
    "Input",
    "Output",
    "Schema",
    "attach_functions",
    "check_node",
    "function",
    "function_text",
]
