"""Function bodies as protos, and adding them to models."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

import onnx
import onnx.parser
from onnx import helper

from onnxq.errors import ModelError
from onnxq.operators.base.schema import DOMAIN, OPSET, VERSION, Schema, function_text


def function(name: str, opset: int = OPSET) -> onnx.FunctionProto:
    """The body of an operator. opset: that of the model, for its standard operators. Raises KeyError if unknown."""
    made = onnx.FunctionProto()
    made.CopyFrom(_parsed(name, opset))
    return made


@functools.cache
def _parsed(name: str, opset: int) -> onnx.FunctionProto:
    from onnxq.operators.base.registry import SCHEMAS

    schema = SCHEMAS[name]
    made = onnx.parser.parse_function(function_text(schema, opset))
    made.doc_string = schema.summary
    return made


def attach_functions(model: onnx.ModelProto) -> None:
    """Give a model the current bodies of exactly the operators of com.onnxq that it uses, and import the domain.

    Omitted attributes of nodes are set to their defaults: onnx's ReferenceEvaluator does not know the defaults of
    functions. Functions of com.onnxq that are not in SCHEMAS stay while they are used; other domains are unchanged.
    Idempotent. Raises ModelError if the model's opset is too old for the bodies, or its com.onnxq is newer than this
    onnxq.
    """
    others = [f for f in model.functions if f.domain != DOMAIN]
    nodes = [*_own_nodes(model.graph.node), *(n for f in others for n in _own_nodes(f.node))]
    if not nodes and len(others) == len(model.functions):
        return
    from onnxq.operators.base.registry import SCHEMAS

    own = {f.name: f for f in model.functions if f.domain == DOMAIN and f.name not in SCHEMAS}
    for name, unknown in own.items():
        nodes += _own_nodes(unknown.node) if any(n.op_type == name for n in nodes) else []
    used = sorted({n.op_type for n in nodes})
    known = [name for name in used if name in SCHEMAS]
    opset = _body_opset(model, known) if known else OPSET
    for node in nodes:
        if node.op_type in SCHEMAS:
            _complete(node, SCHEMAS[node.op_type])
    bodies = [function(name, opset) for name in known]
    kept = [own[name] for name in used if name in own]
    del model.functions[:]
    model.functions.extend([*bodies, *kept, *others])  # ReferenceEvaluator needs a function before those that use it
    if used and not any(o.domain == DOMAIN for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))


def _own_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes of com.onnxq, including those in subgraphs."""
    for node in nodes:
        if node.domain == DOMAIN:
            yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _own_nodes(graph.node)


def _body_opset(model: onnx.ModelProto, used: list[str]) -> int:
    versions = {o.domain: o.version for o in model.opset_import}
    standard = max(versions.get("", 0), versions.get("ai.onnx", 0))
    if standard < OPSET:
        raise ModelError(
            f"operators of {DOMAIN} ({', '.join(used)}) need opset {OPSET}, the model has {standard}: "
            f"onnxq opt -p 'convert-opset{{version={OPSET}}}'"
        )
    if versions.get(DOMAIN, VERSION) > VERSION:
        raise ModelError(
            f"the model has version {versions[DOMAIN]} of {DOMAIN}, this onnxq supports version {VERSION}: update onnxq"
        )
    return standard


def _complete(node: onnx.NodeProto, schema: Schema) -> None:
    present = {a.name for a in node.attribute}
    for attribute in schema.attributes:
        if attribute.default is not None and attribute.name not in present:
            node.attribute.append(helper.make_attribute(attribute.name, attribute.default))
