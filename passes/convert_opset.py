"""Raise the version of the standard ONNX operators.

The ONNX version converter does the work on a copy without the weights. Where its result is wrong or inefficient
(measured with onnx 1.23 against onnxruntime), the node is hidden from it and converted here:

1. Softmax, LogSoftmax and Hardmax before 13 work on the input flattened to a matrix at `axis`. If only one dimension
   from there on is not 1, this equals the new definition with that axis. (The converter adds Flatten, Shape and
   Reshape; for Hardmax its result is wrong, so that they are added here.)
2. Upsample, and Resize before 11, sample at x_out / scale: coordinate_transformation_mode is asymmetric, and nearest
   rounds down when enlarging and up when shrinking, as onnxruntime does: two operators if there may be both. (The
   converter leaves half_pixel.)
3. GroupNormalization has a scale and bias per group before 21, and per channel from 21 on. (The converter does not
   change them.) The old one is deprecated in its own opsets: where it is not raised to 21, or its channels are unknown,
   it becomes the InstanceNormalization of a channel per group.
4. From 21 on onnxruntime moves DequantizeLinears of int8 with a zero point and rejects the result: graph/movement.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto
from onnx_graphsurgeon.ir.tensor import LazyValues, SparseValues

from onnxq.context import PassContext
from onnxq.errors import PostconditionError, PreconditionError
from onnxq.graph import native
from onnxq.graph.exporting import export
from onnxq.graph.match import STANDARD_DOMAINS, Names, constant_values, is_op
from onnxq.graph.model import OPSET_MAX, ExternalValues, adopt_nodes, replace_graph
from onnxq.graph.movement import anchor_int8
from onnxq.graph.protos import keep_only
from onnxq.graph.shapes import VALUES_MAX, element_type, infer
from onnxq.graph.walk import all_graphs
from onnxq.pipeline import Pass, PassResult

OPSET_MIN = 7  # the oldest that onnxruntime supports
GROUPS_SINCE, CHANNELS_SINCE = 18, 21  # GroupNormalization with a scale per group, per channel
ASIDE = "onnxq.aside"  # domain of the nodes that are hidden from the converter
INLINE_KINDS = "iufb"

Bridge = Callable[["Place"], None]


@dataclass(frozen=True)
class Place:
    """A node to convert, in its graph, at the new opset."""

    graph: gs.Graph
    node: gs.Node
    names: Names

    def constant(self, what: str, values: np.ndarray) -> gs.Constant:
        """A constant named after the node."""
        return gs.Constant(self.names.fresh(f"{self.node.name}_{what}"), values)

    def before(self, op: str, inputs: list[gs.Tensor], attrs: dict[str, Any] | None = None) -> gs.Tensor:
        """The output of a new node in front of this one."""
        result = gs.Variable(self.names.fresh(f"{self.node.name}_{op.lower()}"))
        self._insert(op, inputs, result, attrs, 0)
        return result

    def shaped_like(self, source: gs.Tensor) -> None:
        """The node's output gets the shape of `source`, by a Reshape behind it."""
        shape = self.before("Shape", [source])
        result, inner = self.node.outputs[0], gs.Variable(self.names.fresh(f"{self.node.name}_matrix"))
        self.node.outputs[0] = inner
        self._insert("Reshape", [inner, shape], result, None, 1)

    def _insert(
        self, op: str, inputs: list[gs.Tensor], result: gs.Tensor, attrs: dict[str, Any] | None, after: int
    ) -> None:
        made = gs.Node(op, self.names.fresh(f"{self.node.name}_{op.lower()}"), attrs or {}, inputs, [result])
        at = next(i for i, n in enumerate(self.graph.nodes) if n is self.node)
        self.graph.nodes.insert(at + after, made)


@dataclass(frozen=True)
class ConvertOpset(Pass):
    """Raise the opset to at least `version`; never lower it."""

    name: ClassVar[str] = "convert-opset"
    preserves_values: ClassVar[bool] = True
    version: int

    def requires(self, graph: gs.Graph, ctx: PassContext) -> None:
        if not OPSET_MIN <= self.version <= OPSET_MAX:
            raise PreconditionError(f"opset {self.version} is not between {OPSET_MIN} and {OPSET_MAX}")

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        before = int(graph.opset)
        if before >= self.version:
            return _mend(graph, before)
        old = {n.name: _signature(n) for g in all_graphs(graph) for n in g.nodes}
        bridges = _plan(graph, before, self.version)
        replace_graph(graph, _converted(graph, bridges, self.version))
        adopt_nodes(graph)
        _bridge(graph, bridges)
        infer(graph)
        anchor_int8(graph)
        by_name = {n.name: n for g in all_graphs(graph) for n in g.nodes}
        changed = Counter(n.op for n in by_name.values() if old.get(n.name) != _signature(n))
        ops = ", ".join(f"{op} ({count})" for op, count in sorted(changed.items()))
        note = f"opset {before} to {self.version}; rewritten: {ops or 'no node'}"
        return PassResult(max(1, changed.total()), notes=(note,))

    def ensures(self, graph: gs.Graph, ctx: PassContext) -> None:
        if int(graph.opset) < self.version:
            raise PostconditionError(f"the opset is {graph.opset}, not {self.version}")
        if any(n.domain == ASIDE for g in all_graphs(graph) for n in g.nodes):
            raise PostconditionError("a node that was hidden from the converter was not restored")


def require_convertible(graph: gs.Graph, version: int) -> None:
    """Raise PreconditionError if the graph, which is not changed, cannot be raised to an opset."""
    before = int(graph.opset)
    if before < version:
        _converted(graph, _plan(graph, before, version), version)


def _converted(graph: gs.Graph, bridges: Sequence[tuple[gs.Node, Bridge]], version: int) -> gs.Graph:
    """The converter's result, in which the nodes to be bridged are still in domain ASIDE."""
    for node, _ in bridges:
        node.domain = ASIDE
    try:
        return _convert(graph, version)
    finally:
        for node, _ in bridges:
            node.domain = None


def _bridge(graph: gs.Graph, bridges: Sequence[tuple[gs.Node, Bridge]]) -> None:
    """Convert the nodes that were hidden from the converter; they are found by their names."""
    around = {n.name: (g, n) for g in all_graphs(graph) for n in g.nodes}
    names = Names(graph)
    for node, bridge in bridges:
        twin_graph, twin = around[node.name]
        twin.domain = None
        bridge(Place(twin_graph, twin, names))


def _mend(graph: gs.Graph, opset: int) -> PassResult:
    """Rewrite operators that are deprecated in the graph's own opset, so that the model is a valid one."""
    if not GROUPS_SINCE <= opset < CHANNELS_SINCE:
        return PassResult()
    found = [n for g in all_graphs(graph) for n in g.nodes if is_op(n, "GroupNormalization")]
    if not found:
        return PassResult()
    _bridge(graph, [(node, _as_instances) for node in found])
    infer(graph)
    return PassResult(len(found), notes=(f"rewritten: GroupNormalization ({len(found)}), deprecated in opset {opset}",))


def _signature(node: gs.Node) -> tuple[str, int, str]:
    plain = {k: v for k, v in node.attrs.items() if not isinstance(v, gs.Graph)}
    return node.op, len(node.inputs), repr(sorted(plain.items()))


def _plan(graph: gs.Graph, before: int, after: int) -> list[tuple[gs.Node, Bridge]]:
    """The nodes to hide from the converter and how to convert each one afterwards."""
    planned: list[tuple[gs.Node, Bridge]] = []
    for node in (n for g in all_graphs(graph) for n in g.nodes):
        bridge = None
        if is_op(node, "Softmax", "LogSoftmax", "Hardmax") and before < 13 <= after:
            bridge = _softmax(node)
        elif is_op(node, "Upsample", "Resize") and before < 11 <= after:
            bridge = _resize(node)
        elif is_op(node, "Scan") and before < 9 <= after:
            raise PreconditionError(f"node {node.name} (Scan) has a batch dimension, which opset 9 removed")
        elif is_op(node, "GroupNormalization") and before < CHANNELS_SINCE:
            bridge = _group_norm(node) if after >= CHANNELS_SINCE else _as_instances
        elif node.domain in STANDARD_DOMAINS and not onnx.defs.has(node.op):
            bridge = _kept
        if bridge is not None:
            planned.append((node, bridge))
    return planned


def _kept(_place: Place) -> None:
    """Of a runtime's own, in the standard domain: the converter does not know it."""


def _softmax(node: gs.Node) -> Bridge | None:
    """None leaves the node to the converter."""
    shape = node.inputs[0].shape
    axis = int(node.attrs.get("axis", 1))
    if shape is not None:
        axis %= len(shape)
        wide = [i for i in range(axis, len(shape)) if shape[i] != 1]
        if len(wide) <= 1:
            new_axis = wide[0] if wide else axis

            def bridge(place: Place) -> None:
                place.node.attrs["axis"] = new_axis

            return bridge
    return _flattened if node.op == "Hardmax" else None


def _flattened(place: Place) -> None:
    """Of the input flattened to a matrix, as before opset 13."""
    node = place.node
    source, axis = node.inputs[0], int(node.attrs.get("axis", 1))
    node.inputs[0] = place.before("Flatten", [source], {"axis": axis})
    node.attrs["axis"] = -1
    place.shaped_like(source)


def _resize(node: gs.Node) -> Bridge:
    scales = np.asarray(node.attrs["scales"]) if "scales" in node.attrs else constant_values(node.inputs[1])
    nearest = node.attrs.get("mode", "nearest") == "nearest"
    enlarges = node.op == "Upsample" or (scales is not None and bool(np.all(scales >= 1)))  # Upsample never shrinks
    shrinks = scales is not None and bool(np.all(scales <= 1))

    def bridge(place: Place) -> None:
        twin = place.node
        values = twin.attrs.pop("scales", None)
        source = twin.inputs[1] if values is None else place.constant("scales", np.asarray(values, np.float32))
        # Opsets 11 and 12 require a region of interest although only tf_crop_and_resize reads it; later it is optional.
        region = place.constant("roi", np.zeros(0, np.float32))
        twin.op = "Resize"
        twin.attrs["coordinate_transformation_mode"] = "asymmetric"
        if nearest and not (enlarges or shrinks):
            one = place.constant("one", np.ones(1, np.float32))
            larger, source = place.before("Max", [source, one]), place.before("Min", [source, one])
            attrs = {**twin.attrs, "nearest_mode": "floor"}
            twin.inputs[0] = place.before("Resize", [twin.inputs[0], region, larger], attrs)
        twin.inputs = [twin.inputs[0], region, source]
        if nearest:
            twin.attrs["nearest_mode"] = "floor" if enlarges else "ceil"

    return bridge


def _group_norm(node: gs.Node) -> Bridge:
    shape = node.inputs[0].shape
    values = [v for v in map(constant_values, node.inputs[1:3]) if v is not None]
    if len(values) < 2 or shape is None or not isinstance(shape[1], int):
        return _as_instances
    repeats = shape[1] // int(node.attrs["num_groups"])

    def bridge(place: Place) -> None:
        for i, v in enumerate(values, start=1):
            stem = place.node.inputs[i].name
            place.node.inputs[i] = gs.Constant(place.names.fresh(f"{stem}_channels"), np.repeat(v, repeats))

    return bridge


def _as_instances(place: Place) -> None:
    """A scale and bias per group: InstanceNormalization with the groups as channels."""
    node = place.node
    source, groups = node.inputs[0], int(node.attrs.pop("num_groups"))
    target = place.constant("groups", np.array([0, groups, -1], np.int64))
    node.inputs[0] = place.before("Reshape", [source, target])
    node.op = "InstanceNormalization"
    place.shaped_like(source)


def _convert(graph: gs.Graph, version: int) -> gs.Graph:
    """The graph at another opset. Large and unusual constants are replaced by inputs meanwhile, then restored."""
    kept: dict[str, tuple[gs.Constant, str, object]] = {}
    try:
        for g in all_graphs(graph):
            for tensor in list(g.tensors().values()):
                if isinstance(tensor, gs.Constant) and tensor.name not in kept and _stands_aside(tensor):
                    alias = f"{ASIDE}.{len(kept)}"
                    kept[alias] = (tensor, tensor.name, tensor._values)
                    stub = TensorProto(data_type=element_type(tensor), dims=list(tensor.shape))
                    stub.data_location = TensorProto.EXTERNAL
                    tensor.name, tensor._values = alias, LazyValues(stub)
        proto = export(graph)
    finally:
        for tensor, name, values in kept.values():
            tensor.name, tensor._values = name, values
    aliases: dict[str, onnx.ValueInfoProto] = {}
    _take_out(proto.graph, aliases)
    proto.graph.input.extend(aliases.values())
    proto.opset_import.append(onnx.helper.make_opsetid(ASIDE, 1))
    try:
        converted = native.convert_version(proto, version)
    except Exception as err:
        raise PreconditionError(_explain(graph, version, str(err))) from err
    new = gs.import_onnx(converted)
    for tensor in [t for t in new.inputs if t.name in kept]:
        original, name, values = kept[tensor.name]
        tensor.to_constant(values)
        tensor.name, tensor.data_location = name, original.data_location
    new.inputs = [t for t in new.inputs if isinstance(t, gs.Variable)]
    new.import_domains = [d for d in new.import_domains if d.domain != ASIDE]
    _carry_extras(graph, new)
    return new


def _stands_aside(tensor: gs.Constant) -> bool:
    values = tensor._values
    kind = np.dtype(tensor.dtype).kind if not isinstance(tensor.dtype, int) else ""
    apart = isinstance(values, (SparseValues, ExternalValues))
    return apart or values.nbytes > VALUES_MAX or kind not in INLINE_KINDS


def _take_out(graph: onnx.GraphProto, found: dict[str, onnx.ValueInfoProto]) -> None:
    aside = [t for t in graph.initializer if t.data_location == TensorProto.EXTERNAL]
    rest = [t for t in graph.initializer if t.data_location != TensorProto.EXTERNAL]
    for tensor in aside:
        found[tensor.name] = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
    keep_only(graph.initializer, rest)
    for node in graph.node:
        for attr in node.attribute:
            if attr.HasField("g"):
                _take_out(attr.g, found)


def _carry_extras(old: gs.Graph, new: gs.Graph) -> None:
    """Copy doc strings, node metadata, and types and shapes that inference did not find again."""
    nodes = {n.name: n for g in all_graphs(old) for n in g.nodes}
    for node in (n for g in all_graphs(new) for n in g.nodes):
        original = nodes.get(node.name)
        if original is None or not node.name:
            continue
        node.doc_string = getattr(original, "doc_string", "")
        node.metadata = getattr(original, "metadata", {})
        for mine, theirs in zip(node.outputs, original.outputs, strict=False):
            if mine.name == theirs.name and mine.dtype is None:
                mine.dtype = theirs.dtype
            if mine.name == theirs.name and mine.shape is None:
                mine.shape = theirs.shape


def _explain(graph: gs.Graph, version: int, message: str) -> str:
    found = re.search(r"No Adapter (?:From|To) Version \$?(\d+) for (\w+)", message)
    if not found:
        return f"the ONNX version converter cannot raise opset {graph.opset} to {version}: {message.splitlines()[0]}"
    op = found.group(2)
    node = next((n.name for g in all_graphs(graph) for n in g.nodes if n.op == op), op)
    return (
        f"node {node} ({op}) cannot be raised from opset {graph.opset} to {version}: the ONNX version converter has no "
        f"adapter from version {found.group(1)}"
    )
