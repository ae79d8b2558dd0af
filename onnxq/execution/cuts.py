"""Cut a model at its quantized tensors, so that every layer can be fed chosen values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx
import onnx_graphsurgeon as gs
from onnx import NodeProto, TensorProto, helper

from onnxq.graph.match import consumers, producer
from onnxq.graph.model import Model, to_proto
from onnxq.graph.names import fresh_name
from onnxq.graph.qdq import entry, grid_bits, is_dequantize, is_quantize
from onnxq.graph.shapes import element_type


@dataclass(frozen=True)
class Cut:
    """One quantized activation. fed: the new float graph input that is quantized instead.

    measured: the new graph output, the layer's result from its own inputs, quantized and dequantized. dequantized: the
    tensor that the model's layers read. For a graph input, fed is its own name and measured equals dequantized.
    """

    quantize: gs.Node
    fed: str
    measured: str
    dequantized: str


def cut_model(model: Model, at: Collection[str] | None = None) -> tuple[onnx.ModelProto, list[Cut]]:
    """A QDQ model in which every quantized activation is fed from outside and every layer's result is an output.

    at: names of the QuantizeLinears to cut at, None for all of them.

    Each QuantizeLinear (with its grid Clip) reads a new graph input instead of its layer's result; a copy of the chain
    up to a DequantizeLinear quantizes that result. All layers then run in one session and errors do not propagate.
    Complete Q → DQ pairs are kept on both sides because runtimes fuse, and convert signed codes to unsigned, by pairs.
    """
    proto = to_proto(model)
    graph = proto.graph
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    taken |= {i.name for i in graph.input} | {node.name for node in graph.node}
    nodes = {node.name: node for node in graph.node}
    inputs = {i.name for i in graph.input}
    cuts: list[Cut] = []
    copies: dict[str, list[NodeProto]] = {}
    for quantize in model.graph.nodes:
        chain = _chain(quantize)
        if not chain or (at is not None and quantize.name not in at):
            continue
        source, result = entry(quantize), chain[-1].outputs[0]
        if source.name in inputs:
            cuts.append(Cut(quantize, source.name, result.name, result.name))
            continue
        protos = [nodes[n.name] for n in chain]
        copied = _copy(protos, taken)
        copies[chain[-1].name] = copied
        fed = fresh_name(f"{source.name}_fed", taken)
        protos[0].input[0] = fed
        graph.input.append(_value_info(fed, source))
        cuts.append(Cut(quantize, fed, copied[-1].output[0], result.name))
        graph.output.append(_value_info(copied[-1].output[0], result))
    ordered = [extra for node in graph.node for extra in (node, *copies.get(node.name, []))]
    del graph.node[:]
    graph.node.extend(ordered)
    return proto, cuts


def cut_tensors(model: Model, names: Sequence[str]) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A model in which readers of these tensors read new graph inputs instead, and each of the tensors is an output.

    names: tensors that nodes of the top level produce. Also returns the names of the new inputs. Includes subgraphs.
    """
    proto = to_proto(model)
    graph = proto.graph
    tensors = model.graph.tensors()
    taken = {name for node in graph.node for name in (*node.input, *node.output)} | {i.name for i in graph.input}
    present = {o.name for o in graph.output}
    fed: dict[str, str] = {}
    for name in names:
        fed[name] = fresh_name(f"{name}_fed", taken)
        graph.input.append(_value_info(fed[name], tensors[name]))
        if name not in present:
            graph.output.append(_value_info(name, tensors[name]))
    _rename_inputs(graph.node, fed)
    return proto, fed


def _rename_inputs(nodes: Iterable[NodeProto], names: Mapping[str, str]) -> None:
    for node in nodes:
        for i, name in enumerate(node.input):
            node.input[i] = names.get(name, name)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename_inputs(attribute.g.node, names)
                for output in attribute.g.output:
                    output.name = names.get(output.name, output.name)


def _chain(quantize: gs.Node) -> list[gs.Node]:
    """[Clip], QuantizeLinear, DequantizeLinear of an activation; empty for other nodes."""
    if not is_quantize(quantize) or isinstance(entry(quantize), gs.Constant):
        return []
    clip = producer(quantize.inputs[0])
    reader = next((n for n in consumers(quantize.outputs[0]) if is_dequantize(n)), None)
    return [*([clip] if grid_bits(clip) else []), quantize, reader] if reader is not None else []


def _copy(chain: list[NodeProto], taken: set[str]) -> list[NodeProto]:
    """Copies of the same nodes, on the tensor that they currently read."""
    source = chain[0].input[0]
    copied = []
    for node in chain:
        twin = NodeProto()
        twin.CopyFrom(node)
        twin.name = fresh_name(f"{node.name}_alone", taken)
        twin.input[0] = source
        source = fresh_name(f"{node.output[0]}_alone", taken)
        twin.output[0] = source
        copied.append(twin)
    return copied


def _value_info(name: str, like: gs.Tensor) -> onnx.ValueInfoProto:
    """A graph input or output with the element type and shape of a tensor, as far as known."""
    kind = element_type(like) or TensorProto.FLOAT
    return helper.make_tensor_value_info(name, kind, list(like.shape) if like.shape is not None else None)
