"""What nodes and names of a model must fulfil, checked once, when it is loaded (its functions are inlined by then).

Passes and readers rely on it: they index the inputs, outputs and attributes that an operator has without a test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import onnx
from onnx import AttributeProto

from onnxq.errors import ModelError, printable

STANDARD = ("", "ai.onnx")
MOST_VERSION = (1 << 31) - 1  # of an opset that onnx looks up
UNBOUNDED = 1 << 30  # numbers of inputs from here up
# The field with the value of an attribute of that type; of the others several may be there.
FIELDS = {
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TYPE_PROTO: "tp",
}
TYPES = frozenset(AttributeProto.AttributeType.values()) - {AttributeProto.UNDEFINED}
# Inputs that onnxruntime's own operators need at least, of those that are read here; onnx does not know them.
CONTRIB = "com.microsoft"
CONTRIB_INPUTS = {
    "BiasAdd": 3, "BiasGelu": 2, "BiasSoftmax": 2, "DequantizeLinear": 2, "FastGelu": 1, "FusedConv": 2, "FusedGemm": 2,
    "FusedMatMul": 2, "Gelu": 1, "GroupNorm": 3, "MatMulNBits": 3, "QLinearAdd": 7, "QLinearMul": 7,
    "QuantizeLinear": 2, "QuickGelu": 1, "SkipGroupNorm": 4, "SkipLayerNormalization": 3,
    "SkipSimplifiedLayerNormalization": 3,
}  # fmt: skip


def check_nodes(model: onnx.ModelProto, where: str) -> None:
    """Raise ModelError for a node that its operator does not allow and for values that nothing or more than one makes.

    By the schema of its operator, where onnx has one: numbers of inputs and outputs, types of attributes, and those
    that it must have.
    """
    versions = {("" if o.domain in STANDARD else o.domain): o.version for o in model.opset_import}
    for domain, version in versions.items():  # without a schema nothing could be checked
        if not (1 if domain == "" else 0) <= version <= MOST_VERSION:
            named = "ONNX's operators" if domain == "" else f"the operators of {printable(domain)}"
            raise ModelError(f"{where}: it uses version {version} of {named}, which there is not")
    _check_graph(model.graph, frozenset(), versions, where)


def _check_graph(graph: onnx.GraphProto, outer: frozenset[str], versions: dict[str, int], where: str) -> None:
    given = {value.name for value in graph.input}
    given |= {tensor.name for tensor in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    made: set[str] = set()
    for node in graph.node:
        _check_node(node, versions, where)
        for name in filter(None, node.output):
            if name in made or name in given:
                raise ModelError(f"{_label(node, where)} makes {printable(name)}, which is made elsewhere as well")
            made.add(name)
    known = outer.union(given, made)
    for node in graph.node:
        for name in filter(None, node.input):
            if name not in known:
                raise ModelError(f"{_label(node, where)} reads {printable(name)}, which nothing makes")
        for inner in _subgraphs(node):
            _check_graph(inner, known, versions, where)
    for value in graph.output:
        if value.name not in known:
            raise ModelError(f"{where}: nothing makes the output {printable(value.name) or 'without a name'}")


def _check_node(node: onnx.NodeProto, versions: dict[str, int], where: str) -> None:
    domain = "" if node.domain in STANDARD else node.domain
    for attribute in node.attribute:
        _check_attribute(attribute, node, where)
    if not any(node.output):
        raise ModelError(f"{_label(node, where)} has no output")
    if domain == CONTRIB and len(node.input) < CONTRIB_INPUTS.get(node.op_type, 0):
        least = CONTRIB_INPUTS[node.op_type]
        raise ModelError(f"{_label(node, where)} has {len(node.input)} inputs and needs {least}")
    schema = _schema(node.op_type, versions.get(domain, 0), domain)
    if schema is None:
        return
    for what, names, least, most in (
        ("inputs", node.input, schema.min_input, schema.max_input),
        ("outputs", node.output, schema.min_output, schema.max_output),
    ):
        if wanted := _wrong_count(names, least, most):
            raise ModelError(f"{_label(node, where)} has {len(names)} {what} instead of {wanted}")
    types = {attribute.name: attribute.type for attribute in node.attribute}
    for name, declared in schema.attributes.items():
        if name not in types:
            if declared.required:
                raise ModelError(f"{_label(node, where)} has no attribute {name}, which it needs")
        elif types[name] != (kind := declared.type.value):  # type: ignore[attr-defined]  # onnx's stub has no value
            shown = AttributeProto.AttributeType.Name(kind)
            raise ModelError(f"{_label(node, where)}: its attribute {name} is not of type {shown}")


def _wrong_count(names: Sequence[str], least: int, most: int) -> str:
    """How many names there should be, if there are more or fewer."""
    count = len(names)
    used = max((i + 1 for i, name in enumerate(names) if name), default=0)  # some writers list all that are left out
    if least <= count and used <= most:
        return ""
    return str(least) if least == most else f"{least} or more" if most > UNBOUNDED else f"{least} to {most}"


def _check_attribute(attribute: AttributeProto, node: onnx.NodeProto, where: str) -> None:
    own = FIELDS.get(attribute.type)
    if attribute.ref_attr_name:
        problem = "refers to an attribute of a function, in which the node is not"
    elif attribute.type not in TYPES:
        problem = "has no type that ONNX knows"
    elif any((field == own) != attribute.HasField(field) for field in FIELDS.values()):
        problem = "has another value than its type says"
    else:
        return
    raise ModelError(f"{_label(node, where)}: its attribute {printable(attribute.name)} {problem}")


@lru_cache(maxsize=4096)
def _schema(op: str, version: int, domain: str) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op, version, domain)
    except onnx.defs.SchemaError:
        return None


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs)


def _label(node: onnx.NodeProto, where: str) -> str:
    name = next((n for n in (node.name, *node.output) if n), "without a name")
    return f"{where}: node {printable(name)} ({printable(node.op_type) or 'no operator'})"
