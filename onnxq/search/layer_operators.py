"""The operator that runs a layer, extracted from the lowered model as a separate model with its real shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, external_data_helper, helper

from onnxq import api
from onnxq.cost.width_costs import Pair
from onnxq.execution.feeds import feeds_for
from onnxq.execution.save import model_dir
from onnxq.execution.sessions import variant_session
from onnxq.graph import marks
from onnxq.graph.external import take_in
from onnxq.graph.model import Model, copy_of, to_proto
from onnxq.operators import DOMAIN, OPERATORS
from onnxq.profiles.schema import Profile

LAYER_OPS = frozenset(name for name, spec in OPERATORS.items() if spec.is_layer)


def stored_bits(bits: int) -> int:
    """The width in which weights are stored and used in computation: 4 or 8."""
    return 4 if bits <= 4 else 8


@dataclass(frozen=True)
class LoweredForm:
    """The model lowered with one storage width of weights and one width of activations, or as it is.

    layers: names. operators: lowered layer → the node that runs it. values: the tensors that the operators read.
    """

    model: Model
    proto: onnx.ModelProto
    layers: tuple[str, ...]
    operators: Mapping[str, onnx.NodeProto]
    values: Mapping[str, NDArray]
    feeds: Mapping[str, NDArray]


def lower_all(
    model: Model, target: Profile, pairs: Sequence[Pair], shapes: Mapping[str, Sequence[int]] | None
) -> dict[Pair, LoweredForm]:
    """The float model, which stays as it is, quantized and lowered at each (storage width of weights, width of
    activations).

    Raises as onnxq.quantize does.
    """
    forms: dict[Pair, LoweredForm] = {}
    known: Any = None
    for storage, activation_bits in pairs:
        made = api.quantize(
            copy_of(model),
            profile=target,
            calibration="max",
            weight_range="max",
            weight_bits=storage,
            activation_bits=activation_bits,
            first_last_bits=None,
            shapes=shapes,
            proof="none",
            **({"statistics": known} if known is not None else {"random_data": 1}),
        )
        known = made.statistics
        layers = [r.name for r in made.card.layers if r.weight_bits == storage]
        forms[storage, activation_bits] = _lowered_form(made.graph_model, layers, shapes)
    return forms


def form_as_it_is(model: Model, layers: Sequence[str], shapes: Mapping[str, Sequence[int]] | None) -> LoweredForm:
    """An integer-only model. layers: names of nodes; those that are no layers of com.onnxq have no operator."""
    proto = to_proto(model)
    nodes = {n.name: n for n in proto.graph.node if n.domain == DOMAIN and n.op_type in LAYER_OPS}
    return _form(model, proto, layers, {layer: nodes[layer] for layer in layers if layer in nodes}, shapes)


def _lowered_form(model: Model, layers: Sequence[str], shapes: Mapping[str, Sequence[int]] | None) -> LoweredForm:
    by_source: dict[str, str] = {}
    for node in model.graph.nodes:
        if node.domain == DOMAIN and node.op in LAYER_OPS:
            for source in marks.SOURCES.get(node) or ():
                by_source.setdefault(source, node.name)
    proto = to_proto(model)
    nodes = {n.name: n for n in proto.graph.node}
    operators = {layer: nodes[by_source[layer]] for layer in layers if layer in by_source}
    return _form(model, proto, layers, operators, shapes)


def _form(
    model: Model,
    proto: onnx.ModelProto,
    layers: Sequence[str],
    operators: Mapping[str, onnx.NodeProto],
    shapes: Mapping[str, Sequence[int]] | None,
) -> LoweredForm:
    feeds = feeds_for(model, shapes=shapes)
    values = _inner_values(model, proto, operators.values(), feeds)
    return LoweredForm(model, proto, tuple(layers), operators, values, feeds)


def _inner_values(
    model: Model, proto: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], feeds: Mapping[str, NDArray]
) -> dict[str, NDArray]:
    """The tensors that the nodes read, constants excepted, from a run of the model."""
    constants = {t.name for t in proto.graph.initializer}
    wanted = dict.fromkeys(i for n in nodes for i in n.input if i and i not in constants and i not in feeds)
    work = onnx.ModelProto()
    work.CopyFrom(proto)
    there = {o.name for o in work.graph.output}
    work.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in there)
    names = list(wanted)
    with variant_session(work, model) as session:
        return dict(zip(names, session.run(names, dict(feeds)), strict=True)) if names else {}


def operator_model(form: LoweredForm, node: onnx.NodeProto) -> tuple[onnx.ModelProto, dict[str, NDArray]]:
    """The node as a separate model, and its inputs."""
    constants = {t.name: t for t in form.proto.graph.initializer}
    inputs, feeds = [], {}
    for name in dict.fromkeys(i for i in node.input if i and i not in constants):
        array = form.values[name] if name in form.values else form.feeds[name]
        feeds[name] = array
        inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape))
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    kind = next((a.i for a in node.attribute if a.name == "y_type"), TensorProto.UINT8)
    for value in outputs:
        value.type.tensor_type.elem_type = kind
    graph = helper.make_graph(
        [node], "layer", inputs, outputs, [constants[n] for n in dict.fromkeys(node.input) if n in constants]
    )
    for tensor in graph.initializer:
        if external_data_helper.uses_external_data(tensor):
            take_in(tensor, model_dir(form.model), form.model.name)
    made = helper.make_model(graph, opset_imports=form.proto.opset_import, ir_version=form.proto.ir_version)
    made.functions.extend(form.proto.functions)
    return made, feeds


def description(form: LoweredForm, node: onnx.NodeProto) -> dict[str, Any]:
    """Everything that a time depends on: operator, shapes and types, attributes other than arithmetic constants."""
    constants = {t.name: t for t in form.proto.graph.initializer}
    inputs = []
    for name in node.input:
        if name in constants:
            inputs.append([int(constants[name].data_type), list(constants[name].dims)])
        else:
            array = form.values[name] if name in form.values else form.feeds[name]
            inputs.append([str(array.dtype), list(array.shape)])
    shape = ("strides", "pads", "dilations", "group", "y_type", "axis")
    attributes = {a.name: _plain(helper.get_attribute_value(a)) for a in node.attribute if a.name in shape}
    return {"op": node.op_type, "inputs": inputs, "attributes": attributes}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


__all__ = ["LoweredForm", "description", "form_as_it_is", "lower_all", "operator_model", "stored_bits"]
