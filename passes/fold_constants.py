"""Constant folding.

Deliberately not folded: random operators, control flow, Quantize/DequantizeLinear (they are the quantization of a
QDQ model), operators outside the standard domain, results that are not tensors or are strings, and results above
`max_bytes` that are larger than the constants they are computed from. Shape and Size of a tensor of known shape are
folded although the tensor is not constant, and so are Gather and Slice that pick known dimensions from a partly known
shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import SparseValues

from onnxq.context import PassContext
from onnxq.errors import first_line
from onnxq.graph import shapes
from onnxq.graph.known_values import evaluate, evaluate_reference, output_sizes
from onnxq.graph.match import (
    STANDARD_DOMAINS,
    MatchFailure,
    Names,
    constant_values,
    consumers,
    editing,
    input_at,
    is_constant,
    is_op,
    output_ids,
    producer,
    remove_nodes,
    replace_input,
)
from onnxq.graph.model import ExternalValues
from onnxq.graph.walk import all_graphs
from onnxq.pipeline import Pass, PassResult

RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
QUANTIZATION = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
# Small inputs, results of any size: never evaluated before the size of the result is known.
GROWING = ("ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Resize", "Upsample", "OneHot", "RandomNormal")
# Bytes evaluated at a time: a session has two copies of its constants, and a protobuf message is limited to 2 GiB.
BATCH_BYTES = 1 << 29


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace nodes whose inputs are all known with their values."""

    name: ClassVar[str] = "fold-constants"
    preserves_values: ClassVar[bool] = True
    max_bytes: int = 64 << 20

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        run = _Run(graph, self.max_bytes)
        for g in list(all_graphs(graph)):
            run.fold(g)
        return PassResult(run.changed, tuple(run.skipped.values()), tuple(run.notes()))


class _Run:
    """State of one application: what was folded, what was refused and why (by node, so that each is listed once)."""

    def __init__(self, graph: gs.Graph, max_bytes: int) -> None:
        self.graph = graph
        self.max_bytes = max_bytes
        self.opset = int(graph.opset)
        self.outputs = output_ids(graph)
        self.names = Names(graph)
        self.changed = 0
        self.skipped: dict[str, MatchFailure] = {}
        self.by_reference: set[str] = set()

    def notes(self) -> list[str]:
        if not self.by_reference:
            return []
        return [f"onnxruntime cannot compute {', '.join(sorted(self.by_reference))}: used the ONNX reference"]

    def skip(self, node: gs.Node, reason: str) -> None:
        self.skipped[node.name] = MatchFailure(reason, node.name)

    def fold(self, graph: gs.Graph) -> None:
        """Sweep until nothing changes: one sweep can determine shapes that the next one needs."""
        while True:
            before = self.changed
            self.fold_shapes(graph)
            batches = _batches(self.within_limit(self.known(graph)))
            with editing(graph):
                for batch in batches:
                    self.fold_batch(graph, batch)
            if self.changed == before:
                return
            shapes.infer(self.graph)

    def fold_shapes(self, graph: gs.Graph) -> None:
        with editing(graph):
            for node in list(graph.nodes):
                values = _shape_values(node)
                if values is not None:
                    self.to_constants(graph, node, [values])

    def known(self, graph: gs.Graph) -> list[gs.Node]:
        """Nodes that depend on constants only and may be folded, in order."""
        made: set[int] = set()
        found = []
        for node in graph.nodes:
            if not all(t.is_empty() or is_constant(t) or id(t) in made for t in node.inputs):
                continue
            if self.refused(node):
                continue
            made.update(id(t) for t in node.outputs)
            found.append(node)
        return found

    def refused(self, node: gs.Node) -> bool:
        if node.name in self.skipped or node.domain not in STANDARD_DOMAINS:
            return True
        if node.op in RANDOM or node.op in QUANTIZATION or _trains(node, self.opset):
            return True
        if any(isinstance(a, gs.Graph) for a in node.attrs.values()):
            return True
        if node.op == "Constant" and id(node.outputs[0]) in self.outputs and not consumers(node.outputs[0]):
            return True
        if any(isinstance(getattr(t, "_values", None), SparseValues) for t in node.inputs):
            return True
        for tensor in node.inputs:
            values = getattr(tensor, "_values", None)
            if isinstance(values, ExternalValues) and values.nbytes > self.max_bytes:
                self.skip(node, f"its input {tensor.name} ({_size(values.nbytes)}) stays in the external file")
                return True
        return False

    def within_limit(self, nodes: list[gs.Node]) -> list[gs.Node]:
        """Leave out results that would be too large, and those of unknown size until the upstream nodes are folded."""
        sizes = output_sizes(nodes, self.opset) if nodes else {}
        left_out: set[int] = set()
        kept = []
        for node in nodes:
            known = [sizes[t.name] for t in node.outputs if not t.is_empty()]
            large = sum(size or 0 for size in known)
            reason = ""
            if large > self.limit(node):
                reason = f"its result takes {_size(large)}, more than max_bytes={self.max_bytes}"
            elif None in known and node.op in GROWING:
                reason = "the size of its result cannot be known beforehand"
            if reason and all(t.is_empty() or is_constant(t) for t in node.inputs):
                self.skip(node, reason)
            if reason or any(id(t) in left_out for t in node.inputs):
                left_out.update(id(t) for t in node.outputs)
            else:
                kept.append(node)
        return kept

    def limit(self, node: gs.Node) -> int:
        """Largest result allowed: at least the size of the constants it replaces."""
        return max(self.max_bytes, sum(t._values.nbytes for t in node.inputs if is_constant(t)))

    def fold_batch(self, graph: gs.Graph, nodes: list[gs.Node]) -> None:
        nodes = _ready(nodes)  # an earlier batch may have failed to compute an input of this one
        inside = {id(n) for n in nodes}
        wanted = [
            t
            for n in nodes
            for t in n.outputs
            if not t.is_empty() and (id(t) in self.outputs or any(id(c) not in inside for c in consumers(t)))
        ]
        if not wanted:
            return
        try:
            values = evaluate(nodes, wanted, self.opset)
        except Exception as err:
            if len(nodes) > 1:
                for node in nodes:
                    self.fold_batch(graph, [node])
                return
            try:
                values = evaluate_reference(nodes, wanted, self.opset)
            except Exception:
                self.skip(nodes[0], f"cannot be computed beforehand: {first_line(err)}")
                return
            self.by_reference.add(nodes[0].op)
        found = {id(t): v for t, v in zip(wanted, values, strict=True)}
        for node in reversed(nodes):  # so that the consumers of a node are removed before it
            self.replace(graph, node, [found.get(id(t)) for t in node.outputs])

    def replace(self, graph: gs.Graph, node: gs.Node, values: Sequence[Any]) -> None:
        """Replace a node with values; a value is None if nothing outside the batch reads the output."""
        needed = [bool(t.outputs) or id(t) in self.outputs for t in node.outputs]
        results = [v for v, need in zip(values, needed, strict=True) if need and v is not None]
        if len(results) < sum(needed):  # a consumer in the batch was refused
            return
        if any(not isinstance(r, (np.ndarray, np.generic)) or r.dtype.kind in "OUS" for r in results):
            self.skip(node, "its result is not a numeric tensor")
        elif sum(r.nbytes for r in results) > self.limit(node):
            size = _size(sum(r.nbytes for r in results))
            self.skip(node, f"its result takes {size}, more than max_bytes={self.max_bytes}")
        else:
            self.to_constants(graph, node, values)

    def to_constants(self, graph: gs.Graph, node: gs.Node, values: Sequence[Any]) -> None:
        tensors = list(node.outputs)
        name: str | None = node.name  # the first Constant node inherits it
        remove_nodes(graph, [node])
        for tensor, value in zip(tensors, values, strict=True):
            if value is None or not (tensor.outputs or id(tensor) in self.outputs):
                continue
            values_of = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
            if id(tensor) not in self.outputs:
                tensor.to_constant(values_of)
                continue
            # An output must be produced by a node; its other readers get a separate constant.
            if tensor.outputs:
                own = gs.Constant(self.names.fresh(f"{tensor.name}_value"), values_of)
                for node_reading in consumers(tensor):
                    replace_input(node_reading, tensor, own)
            attribute = gs.Constant(tensor.name, values_of)
            made = gs.Node("Constant", name or self.names.fresh(node.name), {"value": attribute}, [], [tensor])
            graph.nodes.append(made)
            name = None
            tensor.dtype, tensor.shape = values_of.dtype, list(values_of.shape)
        self.changed += 1


def _ready(nodes: Sequence[gs.Node]) -> list[gs.Node]:
    made: set[int] = set()
    ready = []
    for node in nodes:
        if all(t.is_empty() or is_constant(t) or id(t) in made for t in node.inputs):
            ready.append(node)
            made.update(id(t) for t in node.outputs)
    return ready


def _batches(nodes: Sequence[gs.Node]) -> list[list[gs.Node]]:
    batches: list[list[gs.Node]] = []
    total = BATCH_BYTES
    for node in nodes:
        if total >= BATCH_BYTES:
            batches.append([])
            total = 0
        batches[-1].append(node)
        total += sum(t._values.nbytes for t in node.inputs if is_constant(t))
    return batches


def _trains(node: gs.Node, opset: int) -> bool:
    """Whether the node draws random numbers because it is in training mode."""
    if not is_op(node, "Dropout"):
        return False
    if opset < 7:
        return not node.attrs.get("is_test", 0)
    mode = input_at(node, 2)
    return mode is not None and bool(np.any(constant_values(mode)))


def _shape_values(node: gs.Node) -> np.ndarray | None:
    """Values of a Shape or Size node, or of a Gather or Slice of a Shape node, if the shapes are known."""
    if is_op(node, "Size"):
        shape = shapes.static_shape(node.inputs[0])
        return None if shape is None else np.asarray(np.prod(shape, dtype=np.int64), np.int64)
    source = producer(node.inputs[0]) if is_op(node, "Gather", "Slice") else node
    if source is None or not is_op(source, "Shape") or source.inputs[0].shape is None:
        return None
    dims = list(source.inputs[0].shape)[source.attrs.get("start", 0) : source.attrs.get("end")]
    picked = np.asarray([d if isinstance(d, int) and d >= 0 else -1 for d in dims], np.int64)
    if is_op(node, "Gather"):
        index = constant_values(node.inputs[1])
        if index is None or np.any(index >= len(picked)) or np.any(index < -len(picked)):
            return None
        picked = picked[index]
    elif is_op(node, "Slice"):
        parts = _slice_of_vector(node)
        if parts is None:
            return None
        picked = picked[parts]
    return None if np.any(picked < 0) else np.asarray(picked)


def _slice_of_vector(node: gs.Node) -> slice | None:
    if "starts" in node.attrs:  # before opset 10
        return slice(node.attrs["starts"][0], node.attrs["ends"][0])
    values = [constant_values(t) if t is not None else None for t in (input_at(node, i) for i in (1, 2, 4))]
    start, end, step = (None if v is None else int(v.reshape(-1)[0]) for v in values)
    if start is None or end is None or (step is None and input_at(node, 4) is not None):
        return None
    step = 1 if step is None else step
    # With a negative step, an end before the first element includes element 0.
    return slice(start, None if step < 0 and end < -(1 << 30) else end, step)


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
