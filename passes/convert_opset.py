"""Raise the version of the standard ONNX operators.

The ONNX version converter does the work on a copy without the weights. Where its result is wrong or inefficient
(measured with onnx 1.23 against onnxruntime), the node is hidden from it and converted here:

1. Softmax, LogSoftmax and Hardmax before 13 work on the input flattened to a matrix at `axis`. If only one dimension
   from there on is not 1, this equals the new definition with that axis. (The converter adds Flatten, Shape and
   Reshape; for Hardmax its result is wrong.)
2. Upsample, and Resize before 11, sample at x_out / scale: coordinate_transformation_mode is asymmetric, and nearest
   rounds down when enlarging and up when shrinking, as onnxruntime does. (The converter leaves half_pixel.)
3. GroupNormalization has a scale and bias per group before 21, and per channel from 21 on. (The converter does not
   change them.)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto
from onnx_graphsurgeon.ir.tensor import LazyValues, SparseValues

from onnxq.context import PassContext
from onnxq.errors import PostconditionError, PreconditionError
from onnxq.graph.exporting import export
from onnxq.graph.match import Names, constant_values, is_op
from onnxq.graph.model import OPSET_MAX, adopt_nodes, replace_graph
from onnxq.graph.protos import keep_only
from onnxq.graph.shapes import VALUES_MAX, element_type, infer
from onnxq.graph.walk import all_graphs
from onnxq.pipeline import Pass, PassResult

OPSET_MIN = 7  # the oldest that onnxruntime supports
ASIDE = "onnxq.aside"  # domain of the nodes that are hidden from the converter
INLINE_KINDS = "iufb"

Bridge = Callable[[gs.Node, Names], None]


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
            return PassResult()
        old = {n.name: _signature(n) for g in all_graphs(graph) for n in g.nodes}
        bridges = _plan(graph, before, self.version)
        for node, _ in bridges:
            node.domain = ASIDE
        try:
            new = _convert(graph, self.version)
        finally:
            for node, _ in bridges:
                node.domain = None
        replace_graph(graph, new)
        adopt_nodes(graph)
        by_name = {n.name: n for g in all_graphs(graph) for n in g.nodes}
        names = Names(graph)
        for node, bridge in bridges:
            twin = by_name[node.name]
            twin.domain = None
            bridge(twin, names)
        infer(graph)
        changed = Counter(n.op for n in by_name.values() if old.get(n.name) != _signature(n))
        ops = ", ".join(f"{op} ({count})" for op, count in sorted(changed.items()))
        note = f"opset {before} to {self.version}; rewritten: {ops or 'no node'}"
        return PassResult(max(1, changed.total()), notes=(note,))

    def ensures(self, graph: gs.Graph, ctx: PassContext) -> None:
        if int(graph.opset) < self.version:
            raise PostconditionError(f"the opset is {graph.opset}, not {self.version}")
        if any(n.domain == ASIDE for g in all_graphs(graph) for n in g.nodes):
            raise PostconditionError("a node that was hidden from the converter was not restored")


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
        elif is_op(node, "GroupNormalization") and before < 21 <= after:
            bridge = _group_norm(node)
        if bridge is not None:
            planned.append((node, bridge))
    return planned


def _softmax(node: gs.Node) -> Bridge | None:
    """None leaves the node to the converter."""
    shape = node.inputs[0].shape
    axis = int(node.attrs.get("axis", 1))
    if shape is not None:
        axis %= len(shape)
        wide = [i for i in range(axis, len(shape)) if shape[i] != 1]
        if len(wide) <= 1:
            new_axis = wide[0] if wide else axis

            def bridge(twin: gs.Node, names: Names) -> None:
                twin.attrs["axis"] = new_axis

            return bridge
    if node.op == "Hardmax":
        raise PreconditionError(f"node {node.name} (Hardmax) reduces several dimensions, which opset 13 cannot express")
    return None


def _resize(node: gs.Node) -> Bridge:
    scales = np.asarray(node.attrs["scales"]) if "scales" in node.attrs else constant_values(node.inputs[1])
    if scales is None and node.op == "Resize":
        raise PreconditionError(f"node {node.name} (Resize): whether it shrinks is only known at run time")
    enlarges = scales is None or bool(np.all(scales >= 1))  # Upsample never shrinks
    if scales is not None and not enlarges and np.any(scales > 1):
        raise PreconditionError(f"node {node.name} ({node.op}) enlarges one axis and shrinks another")

    def bridge(twin: gs.Node, names: Names) -> None:
        values = twin.attrs.pop("scales", None)
        if values is None:
            source = twin.inputs[1]
        else:
            source = gs.Constant(names.fresh(f"{twin.name}_scales"), np.asarray(values, np.float32))
        twin.op = "Resize"
        # Opsets 11 and 12 require a region of interest although only tf_crop_and_resize reads it; later it is optional.
        region = gs.Constant(names.fresh(f"{twin.name}_roi"), np.zeros(0, np.float32))
        twin.inputs = [twin.inputs[0], region, source]
        twin.attrs["coordinate_transformation_mode"] = "asymmetric"
        if twin.attrs.get("mode", "nearest") == "nearest":
            twin.attrs["nearest_mode"] = "floor" if enlarges else "ceil"

    return bridge


def _group_norm(node: gs.Node) -> Bridge:
    shape = node.inputs[0].shape
    values = [v for v in map(constant_values, node.inputs[1:3]) if v is not None]
    if len(values) < 2 or shape is None or not isinstance(shape[1], int):
        raise PreconditionError(
            f"node {node.name} (GroupNormalization) cannot be raised to opset 21: its scale and bias must be constants "
            "and its number of channels known"
        )
    repeats = shape[1] // int(node.attrs["num_groups"])

    def bridge(twin: gs.Node, names: Names) -> None:
        for i, v in enumerate(values, start=1):
            twin.inputs[i] = gs.Constant(names.fresh(f"{twin.inputs[i].name}_channels"), np.repeat(v, repeats))

    return bridge


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
        converted = onnx.version_converter.convert_version(proto, version)
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
    return isinstance(values, SparseValues) or values.nbytes > VALUES_MAX or kind not in INLINE_KINDS


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
