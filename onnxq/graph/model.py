"""Loading and serializing ONNX models: onnx-graphsurgeon is the graph; this module preserves what it drops.

Preserved across load and save although onnx-graphsurgeon drops them: metadata and doc strings of model, graph, nodes
and values, model_version, model-local functions of our own domain, empty list attributes, INT4 initializers, external
data relative to the model's folder.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, external_data_helper, numpy_helper
from onnx_graphsurgeon.ir.tensor import LazyValues

from onnxq.errors import ModelError, printable
from onnxq.graph.contents import check_contents
from onnxq.graph.exporting import export
from onnxq.graph.external import check_external, read, resolve, take_in_all, take_in_fixed
from onnxq.graph.identity import IdentitySet
from onnxq.graph.names import fresh_name
from onnxq.graph.native import NativeCrashError
from onnxq.graph.parameters import check_parameters
from onnxq.graph.protos import (
    ELEMENT_BITS,
    IR_MIN,
    check_attributes,
    check_types,
    fix_defaults,
    header_of,
    inline_functions,
    parse,
    required_ir,
    same_type,
    tensor_bytes,
    tensor_protos,
    tidy_opsets,
)
from onnxq.graph.shapes import infer
from onnxq.graph.structure import check_structure
from onnxq.graph.validity import check_nodes
from onnxq.graph.walk import SMALL_BYTES, all_graphs
from onnxq.operators import attach_functions

OPSET_MAX = 26  # onnxruntime 1.31
OPSET_DEFAULT = 17  # for models that use no standard operator and so declare no version
# A protobuf message is limited to 2 GiB; stay clear of it. Above this, weights go to an external file.
INLINE_LIMIT = 1_800_000_000
Libraries = str | Path | Sequence[str | Path]  # of operators, for onnxruntime

gs.logger.G_LOGGER.severity = gs.logger.G_LOGGER.ERROR


class ExternalValues(LazyValues):
    """A constant in an external data file, located relative to the model's folder and left there."""

    def __init__(self, tensor: TensorProto, base_dir: Path) -> None:
        super().__init__(tensor)
        self.base_dir = base_dir

    def load(self) -> np.ndarray:
        """The values: mapped from the file, read-only, so that gigabytes of weights do not stay in memory."""
        dtype = onnx.helper.tensor_dtype_to_np_dtype(self.tensor.data_type)
        shape = tuple(self.tensor.dims)
        if ELEMENT_BITS.get(self.tensor.data_type, 8) < 8 or 0 in shape or sys.byteorder == "big":
            inline = TensorProto(data_type=self.tensor.data_type, dims=shape)
            inline.raw_data = read(self.tensor, self.base_dir, "model")
            return np.array(numpy_helper.to_array(inline))
        data = resolve(self.tensor, self.base_dir, "model")
        with data.open("model") as source:
            return np.memmap(source, dtype, "r", data.offset, shape)


@dataclass
class Model:
    """A graph to edit, with everything around it that must be preserved.

    graph: the onnx-graphsurgeon graph that passes edit in place.
    header: the ModelProto without its graph and functions (metadata_props, doc_string, model_version, domain…).
    values: ValueInfoProto of every original graph input and output, by name.
    functions: model-local functions of domain com.onnxq (all others are inlined when loading).
    path: where it was loaded from, None if it was created in memory. external: its weights were in external files.
    sha256: of the file or serialized model as read.
    notes: what loading and conversion changed, for the user.
    custom_ops: libraries of operators that the model needs, registered in every session that runs it.
    """

    graph: gs.Graph
    header: onnx.ModelProto = field(default_factory=onnx.ModelProto)
    values: dict[str, onnx.ValueInfoProto] = field(default_factory=dict)
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    path: Path | None = None
    external: bool = False
    sha256: str = ""
    notes: list[str] = field(default_factory=list)
    custom_ops: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The model's name in messages and cards, printable."""
        return printable(self.path.name if self.path else (self.graph.name or "model"))

    @property
    def opset(self) -> int:
        """Version of the default ONNX domain."""
        return int(self.graph.opset)

    @property
    def metadata(self) -> dict[str, str]:
        """The model's metadata_props as a dict (a copy; use set_metadata to change)."""
        return {p.key: p.value for p in self.header.metadata_props}

    def set_metadata(self, key: str, value: str | None) -> None:
        """Set or (with None) remove one metadata entry."""
        kept = [p for p in self.header.metadata_props if p.key != key]
        entries = [(p.key, p.value) for p in kept] + ([(key, value)] if value is not None else [])
        del self.header.metadata_props[:]
        for k, v in entries:
            self.header.metadata_props.add(key=k, value=v)


def load(source: str | Path | bytes | onnx.ModelProto | Model, custom_ops: Libraries = ()) -> Model:
    """Read a model.

    source: path, serialized bytes, ModelProto, or a Model (returned as it is). custom_ops: libraries of operators that
    the model needs, registered with onnxruntime wherever it is run.
    Model-local functions are inlined, Constant nodes become constants, nodes without a unique name get one,
    inputs with a default value become constants, and shapes are inferred where they are missing.
    Raises ModelError when the file is missing, truncated, not ONNX, invalid, or its external data is incomplete.
    """
    model = source if isinstance(source, Model) else _read(source)
    given = [custom_ops] if isinstance(custom_ops, (str, Path)) else custom_ops
    model.custom_ops = tuple(dict.fromkeys([*model.custom_ops, *(str(library) for library in given)]))
    return model


def _read(source: str | Path | bytes | onnx.ModelProto) -> Model:
    if isinstance(source, onnx.ModelProto):
        return from_proto(source)
    if isinstance(source, bytes):
        return from_proto(parse(source, "model bytes"), sha256=hashlib.sha256(source).hexdigest())
    path = Path(source)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except OSError as err:
        raise ModelError(f"{path}: cannot be read: {err.strerror}") from None
    proto = parse(raw, str(path))
    return from_proto(proto, path=path, sha256=hashlib.sha256(raw).hexdigest())


def copy_of(model: Model) -> Model:
    """A model that stays as it is while the passes edit this one; weights in external files stay there."""
    copy = from_proto(to_proto(model), path=model.path)
    copy.custom_ops = model.custom_ops
    return copy


def from_proto(proto: onnx.ModelProto, path: Path | None = None, sha256: str = "") -> Model:
    """A Model from a ModelProto; see load. The proto is not modified. Raises ModelError."""
    where = str(path) if path else "model"
    base_dir = path.parent if path else Path()
    notes: list[str] = []
    check_contents(proto, where)
    check_structure(proto, where)
    external = check_external(proto, base_dir, where)
    small = sum(map(tensor_bytes, tensor_protos(proto.graph))) <= INLINE_LIMIT
    work = onnx.ModelProto()
    work.CopyFrom(proto)
    if external:
        (take_in_all if small else take_in_fixed)(work, base_dir, where)
    work, functions = inline_functions(work, notes, where)
    check_attributes(work.graph, where)
    check_types(work.graph, where)
    check_nodes(work, where)
    fix_defaults(work, notes)
    work.ir_version = max(work.ir_version, IR_MIN)  # below this, an initializer must be an input
    if not any(o.domain in ("", "ai.onnx") for o in work.opset_import):
        work.opset_import.add(version=OPSET_DEFAULT)

    sha256 = sha256 or hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest() if small else sha256
    values = {v.name: v for v in (*work.graph.input, *work.graph.output)}
    header = onnx.ModelProto()
    header.CopyFrom(header_of(work))
    try:
        graph = gs.import_onnx(work)
    except Exception as err:  # the importer raises bare KeyError/ValueError on invalid graphs
        raise ModelError(f"{where}: the graph cannot be read: {err}") from err
    _keep_node_extras(graph, work.graph)
    graph.metadata = {p.key: p.value for p in work.graph.metadata_props}
    if external and not small:
        _bind_external(graph, base_dir)
    adopt_nodes(graph)
    try:
        failure = infer(graph)
    except NativeCrashError as err:
        raise ModelError(f"{where}: {err}") from None
    if failure:
        notes.append(f"shape inference failed: {failure}")
    check_parameters(graph, where)
    return Model(graph, header, values, functions, path, external, sha256, notes)


def adopt_nodes(graph: gs.Graph) -> None:
    """Adapt nodes from a ModelProto to our conventions: Constant nodes become constants, others get unique names."""
    for g in all_graphs(graph):
        _lift_constants(g)
    _name_nodes(graph)


def to_proto(model: Model) -> onnx.ModelProto:
    """The ModelProto of a model, with IR version and opset that onnxruntime accepts.

    It carries the current function bodies of the com.onnxq operators that it uses, not those it was loaded with.
    Constants in external files remain references to them (see save.write); everything else is inline.
    Raises ModelError.
    """
    graph = model.graph
    _pack_int4(graph)
    try:
        proto = export(graph)
    except Exception as err:  # gs raises bare exceptions for tensors it cannot express
        raise ModelError(f"{model.name}: the graph cannot be written: {err}") from err
    _restore_node_extras(graph, proto.graph)
    for key, value in getattr(graph, "metadata", {}).items():
        proto.graph.metadata_props.add(key=key, value=value)
    for values in (proto.graph.input, proto.graph.output):
        for value in values:
            original = model.values.get(value.name)
            if original is not None and same_type(original, value):
                value.CopyFrom(original)
    header = model.header
    proto.doc_string, proto.domain, proto.model_version = header.doc_string, header.domain, header.model_version
    proto.producer_name, proto.producer_version = header.producer_name, header.producer_version
    proto.metadata_props.extend(header.metadata_props)
    proto.functions.extend(model.functions)
    try:
        attach_functions(proto)
    except ModelError as err:
        raise ModelError(f"{model.name}: {err}") from None
    tidy_opsets(proto)
    proto.ir_version = required_ir(proto, int(header.ir_version))
    return proto


def replace_graph(graph: gs.Graph, new: gs.Graph) -> None:
    """Replace the contents of `graph` with those of `new`: for passes that must go through a ModelProto."""
    graph.nodes, graph.inputs, graph.outputs = new.nodes, new.inputs, new.outputs
    graph.opset, graph.import_domains = new.opset, new.import_domains
    graph.name, graph.doc_string = new.name, new.doc_string


def _lift_constants(graph: gs.Graph) -> None:
    """Turn Constant nodes into constants; one that feeds a graph output directly stays a node."""
    outputs = IdentitySet(graph.outputs)
    kept = []
    for node in graph.nodes:
        values = _constant_values(node) if node.op == "Constant" and node.domain in (None, "", "ai.onnx") else None
        if values is None or node.outputs[0] in outputs:
            kept.append(node)
            continue
        tensor = node.outputs[0]
        node.outputs.clear()
        tensor.to_constant(values)
    graph.nodes[:] = kept


def _constant_values(node: gs.Node) -> Any:
    for key, value in node.attrs.items():
        if key == "value" and isinstance(value, gs.Constant):
            return value._values
        if key in ("value_float", "value_floats"):
            return np.asarray(value, np.float32)
        if key in ("value_int", "value_ints"):
            return np.asarray(value, np.int64)
    return None


def _name_nodes(graph: gs.Graph) -> None:
    """Give every node a unique name: overrides, messages and cards refer to nodes by name."""
    seen: set[str] = set()
    for g in all_graphs(graph):
        for node in g.nodes:
            base = node.name or next((t.name for t in node.outputs if t.name), node.op)
            node.name = fresh_name(base, seen)


def _keep_node_extras(graph: gs.Graph, proto: onnx.GraphProto) -> None:
    for node, original in zip(graph.nodes, proto.node, strict=True):
        node.doc_string = original.doc_string
        node.metadata = {p.key: p.value for p in original.metadata_props}
        for attr in original.attribute:
            if attr.HasField("g"):
                _keep_node_extras(node.attrs[attr.name], attr.g)


def _restore_node_extras(graph: gs.Graph, proto: onnx.GraphProto) -> None:
    for node, out in zip(graph.nodes, proto.node, strict=True):
        out.doc_string = getattr(node, "doc_string", "")
        for key, value in getattr(node, "metadata", {}).items():
            out.metadata_props.add(key=key, value=value)
        for attr in out.attribute:
            if attr.HasField("g"):
                _restore_node_extras(node.attrs[attr.name], attr.g)


def _bind_external(graph: gs.Graph, base_dir: Path) -> None:
    for g in all_graphs(graph):
        for tensor in g.tensors().values():
            lazy = getattr(tensor, "_values", None)
            if isinstance(lazy, LazyValues) and external_data_helper.uses_external_data(lazy.tensor):
                external = ExternalValues(lazy.tensor, base_dir)
                tensor._values = np.array(external.load()) if external.nbytes <= SMALL_BYTES else external
                tensor.data_location = None  # lazy.tensor keeps it; values set by a pass are inline


def _pack_int4(graph: gs.Graph) -> None:
    """Store 4-bit constants given as numpy arrays as packed TensorProtos: gs would write one byte per element."""
    for g in all_graphs(graph):
        for tensor in g.tensors().values():
            values = getattr(tensor, "_values", None)
            if isinstance(values, np.ndarray) and values.dtype.name in ("int4", "uint4"):
                tensor._values = LazyValues(numpy_helper.from_array(values, tensor.name))
