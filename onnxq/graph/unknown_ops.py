"""Operators that onnxruntime does not know: plug-ins of a target. What depends on them cannot be run, the rest can."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnx_graphsurgeon as gs

from onnxq.graph.walk import all_graphs

Op = tuple[str, str]  # domain and name
STANDARD = (None, "", "ai.onnx")
HINT = "give the library that has it (--custom-ops, custom_ops)"


def unknown_ops(graph: gs.Graph) -> frozenset[Op]:
    """The operators of the graph that are marked as unknown."""
    return graph.__dict__.get("unknown_ops", frozenset())  # a graph looks other attributes up among its functions


def mark_unknown(graph: gs.Graph, ops: Iterable[Op]) -> None:
    """Record which operators cannot be run; the graph keeps it while it is edited."""
    graph.unknown_ops = frozenset(ops)


def op_of(node: gs.Node) -> Op:
    """Domain ("" for the standard one) and name of a node's operator."""
    return ("" if node.domain in STANDARD else node.domain, node.op)


def is_unknown(node: gs.Node, ops: frozenset[Op]) -> bool:
    """Whether the node, or one in its subgraphs, is one of these operators."""
    inner = (n for a in node.attrs.values() if isinstance(a, gs.Graph) for g in all_graphs(a) for n in g.nodes)
    return op_of(node) in ops or any(op_of(n) in ops for n in inner)


def dependents(graph: gs.Graph) -> dict[int, str]:
    """{id of a node: why it cannot be run}: unknown operators of the top level and everything downstream of them."""
    ops = unknown_ops(graph)
    if not ops:
        return {}
    found: dict[int, str] = {}
    causes: dict[int, str] = {}  # of tensors, by id
    for node in graph.nodes:
        if is_unknown(node, ops):
            domain, op = next((o for o in (op_of(n) for n in _inside(node)) if o in ops), op_of(node))
            name = f"{domain}.{op}" if domain else op
            found[id(node)] = f"onnxruntime does not know operator {name}: {HINT}"
            cause = f"{node.name} ({name})"
        else:
            cause = next((causes[id(t)] for t in _read(node) if id(t) in causes), "")
            if cause:
                found[id(node)] = f"it depends on {cause}, which onnxruntime does not know: {HINT}"
        if cause:
            causes |= {id(t): cause for t in node.outputs}
    return found


def unavailable(graph: gs.Graph) -> dict[str, str]:
    """{tensor: why its values are not known} of everything that depends on an unknown operator."""
    found = dependents(graph)
    return {t.name: found[id(n)] for n in graph.nodes if id(n) in found for t in n.outputs if not t.is_empty()}


def drop_unknown(proto: onnx.ModelProto, ops: frozenset[Op]) -> None:
    """Remove, in place, what cannot be run. If no output is left, the tensors where the rest ends are outputs."""
    graph = proto.graph
    lost: set[str] = set()
    kept, ends = [], []
    for node in graph.node:
        names = set(_names_read(node))
        if _has_unknown(node, ops) or names & lost:
            lost |= {name for name in node.output if name}
            ends += [name for name in (*node.input, *sorted(names)) if name not in lost]
        else:
            kept.append(node)
    if not lost:
        return
    made = {name for node in kept for name in node.output}
    outputs = [o for o in graph.output if o.name not in lost]
    if not outputs:
        outputs = [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(ends) if name in made]
    part = onnx.GraphProto(node=kept, output=outputs)
    del graph.node[:]
    del graph.output[:]
    graph.node.extend(part.node)
    graph.output.extend(part.output)


def _inside(node: gs.Node) -> list[gs.Node]:
    inner = [n for a in node.attrs.values() if isinstance(a, gs.Graph) for g in all_graphs(a) for n in g.nodes]
    return [node, *inner]


def _read(node: gs.Node) -> list[gs.Tensor]:
    """What the node and its subgraphs read."""
    return [t for n in _inside(node) for t in n.inputs] + [
        t for a in node.attrs.values() if isinstance(a, gs.Graph) for g in all_graphs(a) for t in g.outputs
    ]


def _names_read(node: onnx.NodeProto) -> Iterable[str]:
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from _names_read(inner)
            yield from (o.name for o in attribute.g.output)


def _has_unknown(node: onnx.NodeProto, ops: frozenset[Op]) -> bool:
    own = ("" if node.domain in STANDARD else node.domain, node.op_type)
    return own in ops or any(_has_unknown(n, ops) for a in node.attribute if a.HasField("g") for n in a.g.node)


__all__ = ["HINT", "Op", "dependents", "drop_unknown", "mark_unknown", "op_of", "unavailable", "unknown_ops"]
