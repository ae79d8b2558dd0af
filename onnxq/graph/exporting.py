"""Exporting a graph as a ModelProto with every constant stored once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from onnxq.graph.identity import IdentitySet
from onnxq.graph.protos import keep_only
from onnxq.graph.walk import all_graphs


def export(graph: gs.Graph) -> onnx.ModelProto:
    """The graph as onnx-graphsurgeon writes it, but with every constant stored once.

    (onnx-graphsurgeon repeats captured outer tensors as initializers and value types of the subgraph.)
    """
    with without_empty_lists(n for g in all_graphs(graph) for n in g.nodes):
        proto = gs.export_onnx(graph, do_type_check=False)
    _store_once(graph, proto.graph)
    return proto


@contextlib.contextmanager
def without_empty_lists(nodes: Iterable[gs.Node]) -> Iterator[None]:
    """Context in which attributes that are empty lists are absent: their element type is lost, so none can be written.

    Every standard operator treats a missing one alike.
    """
    found = [(n, name, v) for n in nodes for name, v in n.attrs.items() if isinstance(v, list) and not v]
    try:
        for node, name, _ in found:
            del node.attrs[name]
        yield
    finally:
        for node, name, value in found:
            node.attrs[name] = value


def _store_once(graph: gs.Graph, proto: onnx.GraphProto) -> None:
    seen: IdentitySet[gs.Tensor] = IdentitySet()
    shared: IdentitySet[gs.Constant] = IdentitySet()
    for g in all_graphs(graph):
        for tensor in g.tensors().values():
            if isinstance(tensor, gs.Constant) and tensor in seen:
                shared.add(tensor)
            seen.add(tensor)
    own = graph.tensors()
    # A name already used for something else at the top level cannot move there; each subgraph keeps its copy.
    hoisted = IdentitySet(t for t in shared if own.get(t.name, t) is t)
    for tensor in hoisted:
        if tensor.name not in own:
            proto.initializer.append(OnnxExporter.export_tensor_proto(tensor))
            own[tensor.name] = tensor
    _drop_captured(graph, proto, hoisted)


def _drop_captured(graph: gs.Graph, proto: onnx.GraphProto, hoisted: IdentitySet[gs.Constant]) -> None:
    for node, out in zip(graph.nodes, proto.node, strict=True):
        for attr in out.attribute:
            if not attr.HasField("g"):
                continue
            inner = node.attrs[attr.name]
            made = {t.name for n in inner.nodes for t in n.outputs}
            names = {t.name for t in inner.tensors().values() if t in hoisted}
            keep_only(attr.g.initializer, [t for t in attr.g.initializer if t.name not in names])
            keep_only(attr.g.value_info, [v for v in attr.g.value_info if v.name in made])
            _drop_captured(inner, attr.g, hoisted)
