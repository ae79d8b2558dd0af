"""The part of a model downstream of a layer or an activation, as a separate model: the part affected by quantizing it.

All its other inputs are fed: computed once by the float model and kept, however often the part runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
import onnx_graphsurgeon as gs
from onnx import NodeProto, TensorProto, helper

from onnxq.graph.model import Model
from onnxq.graph.shapes import element_type

WEIGHT = "onnxq_weight"
# Inputs of an activation's quantizer: one session serves every width.
GRID = SCALE, ZERO_POINT, QMIN, QMAX = "onnxq_scale", "onnxq_zero_point", "onnxq_qmin", "onnxq_qmax"


@dataclass(frozen=True)
class Part:
    """Some nodes of a model. fed: float-model tensors that it reads. outputs: requested output → its name here.

    Requested outputs that do not depend on the cut are not included.
    """

    fed: tuple[str, ...]
    outputs: Mapping[str, str]
    nodes: tuple[NodeProto, ...]
    inputs: tuple[onnx.ValueInfoProto, ...]
    constants: tuple[TensorProto, ...]
    whole: onnx.ModelProto

    def proto(self) -> onnx.ModelProto:
        """The part as a model, created on demand since it contains copies of weights."""
        part = onnx.ModelProto(ir_version=self.whole.ir_version)
        part.opset_import.extend(self.whole.opset_import)
        part.functions.extend(self.whole.functions)
        part.graph.name = self.whole.graph.name or "part"
        part.graph.node.extend(self.nodes)
        part.graph.initializer.extend(self.constants)
        part.graph.input.extend(self.inputs)
        part.graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.outputs.values()
        )
        return part


def weight_part(model: Model, proto: onnx.ModelProto, node: str, index: int, outputs: Sequence[str]) -> Part:
    """From a layer up to the requested outputs, with its weight (input `index`) as graph input WEIGHT.

    proto: to_proto(model), not modified. Other nodes that read the same weight keep the original.
    """
    nodes = list(proto.graph.node)
    at = next(i for i, n in enumerate(nodes) if n.name == node)
    own = NodeProto()
    own.CopyFrom(nodes[at])
    own.input[index] = WEIGHT
    nodes[at] = own
    weight = model.graph.tensors()[proto.graph.node[at].input[index]]
    value = helper.make_tensor_value_info(WEIGHT, TensorProto.FLOAT, list(weight.shape))
    return _part(model, proto, nodes, {WEIGHT: value}, {name: name for name in outputs})


def layer_part(
    model: Model,
    proto: onnx.ModelProto,
    node: str,
    index: int,
    rounded: Sequence[int],
    outputs: Sequence[str],
) -> Part:
    """From a layer up to the requested outputs, with its weight as WEIGHT and its inputs `rounded` each on a grid.

    Only the layer reads the rounded tensors. The grid of input i is fed as grid_names(i).
    """
    nodes = list(proto.graph.node)
    at = next(i for i, n in enumerate(nodes) if n.name == node)
    original, own = nodes[at], NodeProto()
    own.CopyFrom(original)
    own.input[index] = WEIGHT
    weight = model.graph.tensors()[original.input[index]]
    fed = {WEIGHT: helper.make_tensor_value_info(WEIGHT, TensorProto.FLOAT, list(weight.shape))}
    grids: list[NodeProto] = []
    for i in rounded:
        own.input[i] = f"onnxq_rounded_{i}"
        grids += _grid(original.input[i], own.input[i], grid_names(i))
        fed |= {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in grid_names(i)}
    nodes[at : at + 1] = [*grids, own]
    return _part(model, proto, nodes, fed, {name: name for name in outputs})


def grid_names(index: int) -> tuple[str, ...]:
    """Names of the grid of a layer's input: scale, zero point, smallest and largest code."""
    return tuple(f"{name}_{index}" for name in GRID)


def activation_part(
    model: Model,
    proto: onnx.ModelProto,
    readers: Mapping[str, Sequence[tuple[str, int]] | None],
    outputs: Sequence[str],
    suffix: str = "_onnxq",
) -> Part:
    """From some tensors on, each rounded to a grid before its readers.

    readers: tensor → the (node, input index) that read it rounded; None for all, including graph outputs.
    The grid is fed: (clip(round(x / SCALE) + ZERO_POINT, QMIN, QMAX) − ZERO_POINT) · SCALE, float32 scalars.
    """
    made: dict[str, str] = {}
    nodes: list[NodeProto] = []
    edges = {(node, i): name for name, users in readers.items() if users is not None for node, i in users}
    for tensor in proto.graph.input:
        if tensor.name in readers:
            made[tensor.name] = tensor.name + suffix
            nodes += _grid(tensor.name, made[tensor.name])
    for node in proto.graph.node:
        copy = NodeProto()
        copy.CopyFrom(node)
        for i, name in enumerate(copy.input):
            if name in made and (readers[name] is None or (node.name, i) in edges):
                copy.input[i] = made[name]
        nodes.append(copy)
        for name in node.output:
            if name in readers:
                made[name] = name + suffix
                nodes += _grid(name, made[name])
    grid = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, []) for n in GRID}
    inner = {n: made[n] if n in made and readers[n] is None else n for n in outputs}
    return _part(model, proto, nodes, grid, inner)


def _grid(source: str, target: str, names: Sequence[str] = GRID) -> Iterator[NodeProto]:
    scale, zero_point, qmin, qmax = names
    steps = [
        ("Div", [source, scale]), ("Round", ["{}"]), ("Add", ["{}", zero_point]), ("Clip", ["{}", qmin, qmax]),
        ("Sub", ["{}", zero_point]), ("Mul", ["{}", scale]),
    ]  # fmt: skip
    last = ""
    for op, inputs in steps:
        result = target if op == "Mul" else f"{target}_{op}"
        yield NodeProto(op_type=op, name=result, input=[i.format(last) for i in inputs], output=[result])
        last = result


def _part(
    model: Model,
    proto: onnx.ModelProto,
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, onnx.ValueInfoProto],
    outputs: Mapping[str, str],
) -> Part:
    """The nodes that depend on the new inputs and on which a requested output depends."""
    changed = set(inputs)
    downstream = []
    for node in nodes:
        if not changed.isdisjoint(reads(node)):
            downstream.append(node)
            changed.update(o for o in node.output if o)
    found = {name: inner for name, inner in outputs.items() if inner in changed}
    needed = set(found.values())
    kept: list[NodeProto] = []
    for node in reversed(downstream):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(reads(node))
    kept.reverse()
    made = {o for node in kept for o in node.output}
    read = list(dict.fromkeys(name for node in kept for name in reads(node)))
    constants = {t.name: t for t in proto.graph.initializer}
    tensors = model.graph.tensors()
    fed = tuple(n for n in read if n not in made and n not in constants and n not in inputs and n in tensors)
    values = [value for name, value in inputs.items() if name in read] + [_info(tensors[n]) for n in fed]
    return Part(fed, found, tuple(kept), tuple(values), tuple(constants[n] for n in read if n in constants), proto)


def reads(node: NodeProto) -> Iterator[str]:
    """Names that a node reads, including those captured by its subgraphs (and the subgraphs' inner names)."""
    yield from (n for n in node.input if n)
    for attr in node.attribute:
        if attr.type == onnx.AttributeProto.GRAPH:
            yield from _inner_reads(attr.g.node)
            yield from (o.name for o in attr.g.output)


def _inner_reads(nodes: Iterable[NodeProto]) -> Iterator[str]:
    for node in nodes:
        yield from reads(node)


def _info(tensor: gs.Tensor) -> onnx.ValueInfoProto:
    shape = None if tensor.shape is None else [d if isinstance(d, int) else None for d in tensor.shape]
    return helper.make_tensor_value_info(tensor.name, element_type(tensor) or TensorProto.FLOAT, shape)
