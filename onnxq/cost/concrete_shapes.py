"""Shapes of every tensor for one set of input shapes, without copying weights and without changing the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx
import onnx_graphsurgeon as gs

from onnxq.errors import ConfigError
from onnxq.graph.native import infer_shapes
from onnxq.graph.protos import IR_MIN
from onnxq.graph.shapes import light, static_shape
from onnxq.graph.twins import own_nodes, use_twins
from onnxq.operators import attach_functions


@dataclass(frozen=True)
class Shapes:
    """Result of `concrete_shapes`. assumed: one sentence per input whose shape the model leaves open."""

    graph: gs.Graph  # keeps alive the tensors identified by id
    known: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()

    def of(self, tensor: gs.Tensor) -> tuple[int, ...] | None:
        """The tensor's shape; None if it depends on unknown dimensions."""
        found = self.known.get(id(tensor))
        return static_shape(tensor) if found is None else found


def concrete_shapes(graph: gs.Graph, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Shapes:
    """Infer shapes, in subgraphs too, from the given input shapes; an unknown batch size is assumed to be 1.

    input_shapes: {input name: dims} for inputs with unknown dimensions. An input's first dimension is its batch.
    Raises ConfigError for an input that does not exist or a shape that contradicts the model's.
    """
    given = dict(input_shapes or {})
    dims, assumed = _input_dims(graph, given)
    found: dict[int, tuple[int, ...]] = {}
    try:
        with light(graph):
            proto = gs.export_onnx(graph, do_type_check=False)
        proto.ir_version = max(proto.ir_version, IR_MIN)  # below 4, initializers that are not inputs have no type
        use_twins(proto.graph)
        # Declared shapes, with their symbolic dimensions, would override inferred ones.
        _forget(proto.graph)
        for value in proto.graph.input:
            if value.name in dims and value.type.HasField("tensor_type"):
                _set_dims(value, dims[value.name])
        attach_functions(proto)  # inference of com.onnxq operators goes through their function bodies
        _collect(graph, infer_shapes(proto).graph, found)
    except Exception:  # inference is optional: the shapes declared in the model remain
        found.clear()
    for tensor in graph.inputs:
        shape = dims.get(tensor.name)
        known = [d for d in shape or () if isinstance(d, int)]
        if shape is not None and len(known) == len(shape):
            found[id(tensor)] = tuple(known)
    return Shapes(graph, found, tuple(assumed))


def format_shape(shape: Sequence[object] | None) -> str:
    """For example 1×3×224×224; ? for an unknown dimension, `scalar` for no dimensions."""
    if shape is None:
        return "?"
    return "×".join(str(d) if d not in (None, "") else "?" for d in shape) or "scalar"


def _input_dims(
    graph: gs.Graph, given: dict[str, Sequence[int]]
) -> tuple[dict[str, list[int | str | None]], list[str]]:
    by_name = {t.name: t for t in graph.inputs}
    for name in given:
        if name not in by_name:
            raise ConfigError(f"a shape is given for {name!r}, which is not a model input: {', '.join(by_name)}")
    dims: dict[str, list[int | str | None]] = {}
    symbols: dict[str, int] = {}
    assumed = []
    for name, tensor in by_name.items():
        shape = None if tensor.shape is None else list(tensor.shape)
        wanted = given.get(name)
        if wanted is None:
            if shape is not None:
                dims[name] = shape
            continue
        if shape is not None and (
            len(wanted) != len(shape)
            or any(isinstance(d, int) and d >= 0 and d != w for d, w in zip(shape, wanted, strict=True))
        ):
            raise ConfigError(
                f"input {name!r} has shape {format_shape(shape)} in the model; {format_shape(wanted)} does not fit"
            )
        symbols.update({d: int(w) for d, w in zip(shape or (), wanted, strict=False) if isinstance(d, str) and d})
        dims[name] = [int(w) for w in wanted]
        if shape is None or list(wanted) != shape:
            assumed.append(f"{name} ({format_shape(shape)}) is assumed to be {format_shape(wanted)}")
    for name, shape in dims.items():
        known = [symbols.get(d, d) if isinstance(d, str) else d for d in shape]
        if known and not (isinstance(known[0], int) and known[0] >= 0):
            if isinstance(known[0], str):
                symbols[known[0]] = 1
            assumed.append(f"the batch of {name} ({format_shape(shape)}) is assumed to be 1")
            known[0] = 1
        dims[name] = known
    return dims, assumed


def _forget(graph: onnx.GraphProto) -> None:
    del graph.value_info[:]
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    for node in graph.node:
        for attr in node.attribute:
            if attr.HasField("g"):
                _forget(attr.g)


def _set_dims(value: onnx.ValueInfoProto, dims: Sequence[int | str | None]) -> None:
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    for d in dims:
        dim = shape.dim.add()
        if isinstance(d, int) and d >= 0:
            dim.dim_value = d
        elif isinstance(d, str) and d:
            dim.dim_param = d


def _collect(graph: gs.Graph, proto: onnx.GraphProto, found: dict[int, tuple[int, ...]]) -> None:
    inferred = {v.name: v for v in (*proto.input, *proto.value_info, *proto.output)}
    tensors = [*graph.inputs, *(t for n in graph.nodes for t in n.outputs if not t.is_empty())]
    for tensor in tensors:
        value = inferred.get(tensor.name)
        if value is None or not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
            continue
        dims = value.type.tensor_type.shape.dim
        if all(d.HasField("dim_value") for d in dims):
            found[id(tensor)] = tuple(int(d.dim_value) for d in dims)
    for node, out in zip(graph.nodes, own_nodes(proto), strict=True):
        for attr in out.attribute:
            if attr.HasField("g"):
                _collect(node.attrs[attr.name], attr.g, found)
