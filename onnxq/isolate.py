"""Cut a QDQ model open at its QuantizeLinear nodes, so that every layer can be fed what we choose."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_graphsurgeon as gs
from onnx import NodeProto, TensorProto, helper

from onnxq.fetch import element_type
from onnxq.model import Model, to_proto
from onnxq.qdq import entry, grid_bits
from onnxq.twins import Twin


def isolated_model(model: Model, matched: Mapping[str, Twin]) -> tuple[onnx.ModelProto, dict[str, str], dict[str, str]]:
    """A QDQ model in which every quantized tensor is fed from outside, and what each layer makes of it is an output.

    Each QuantizeLinear (with a grid Clip before it) reads a new graph input instead of what its layer computed; a copy
    of the chain quantizes and dequantizes that. Returns (model, new input of each float tensor fed, output to measure
    for each float tensor in `matched`).
    """
    proto = to_proto(model)
    graph = proto.graph
    taken = {name for node in graph.node for name in (*node.input, *node.output)} | {i.name for i in graph.input}
    nodes = {node.name: node for node in graph.node}
    inputs = {i.name for i in graph.input}
    fed: dict[str, str] = {}
    measured: dict[str, str] = {}
    copies: dict[str, list[NodeProto]] = {}
    for name, twin in matched.items():
        measured[name] = twin.twin
        if twin.quantize is None or entry(twin.quantize).name in inputs:
            continue
        fed[name] = fresh(f"{name}_fed", taken)
        chain = [nodes[n.name] for n in _chain(twin)]
        measured[name] = _copy(chain, copies, taken)
        chain[0].input[0] = fed[name]
        graph.input.append(value_info(fed[name], entry(twin.quantize)))
    ordered = [extra for node in graph.node for extra in (node, *copies.get(node.name, []))]
    kept = {o.name for o in graph.output}
    del graph.node[:]
    graph.node.extend(ordered)
    tensors = model.graph.tensors()
    for name, output in measured.items():
        if output not in kept:
            graph.output.append(value_info(output, tensors[matched[name].twin]))
    return proto, fed, measured


def _chain(twin: Twin) -> list[gs.Node]:
    """[Clip], QuantizeLinear, DequantizeLinear of a twin."""
    quantize = twin.quantize
    assert quantize is not None
    clip = quantize.inputs[0].inputs[0] if quantize.inputs[0].inputs else None
    dequantize = next(n for n in quantize.outputs[0].outputs if n.outputs and n.outputs[0].name == twin.twin)
    return [*([clip] if grid_bits(clip) else []), quantize, dequantize]


def _copy(chain: list[NodeProto], copies: dict[str, list[NodeProto]], taken: set[str]) -> str:
    """The same nodes once more, on the tensor they read now; returns what the copy makes."""
    source = chain[0].input[0]
    for node in chain:
        twin = NodeProto()
        twin.CopyFrom(node)
        twin.name = fresh(f"{node.name}_alone", taken)
        twin.input[0] = source
        source = twin.output[0] = fresh(f"{node.output[0]}_alone", taken)
        copies.setdefault(chain[-1].name, []).append(twin)
    return source


def value_info(name: str, like: gs.Tensor) -> onnx.ValueInfoProto:
    """A graph input or output of the element type and the shape of a tensor, as far as they are known."""
    kind = TensorProto.FLOAT if like.dtype is None else element_type(like)
    return helper.make_tensor_value_info(name, kind, list(like.shape) if like.shape is not None else None)


def fresh(base: str, taken: set[str]) -> str:
    """`base`, or base_1, base_2… where it is taken; taken from then on."""
    name, i = base, 1
    while name in taken:
        name, i = f"{base}_{i}", i + 1
    taken.add(name)
    return name
