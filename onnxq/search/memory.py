"""Feature-map memory of a model, in float and as quantized (Garg et al., section 2.3: peak and average constraints).

A feature map is a tensor between operators that has to be stored. Not stored apart are: what runs in place on a tensor
nothing else reads (activations, batch normalization), what only changes the shape, Q/DQ and the Clip before it, and a
sum that a layer's output enters directly, which accumulates in that layer's buffer. A map whose readers all read it
quantized takes its quantized width (packed, below 8 bits), one read in float as well takes both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs

from onnxq.axes import LINEAR_OPS
from onnxq.match import STANDARD_DOMAINS, consumers, output_ids, producer
from onnxq.search.concrete import Shapes
from onnxq.search.cost import BITS_KEY, FLOAT_TYPES, known_tensors, tensor_bits, type_bits
from onnxq.shapes import element_type

IN_PLACE = (
    "Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu", "Selu", "Softplus",
    "BatchNormalization",
)  # fmt: skip
VIEWS = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout")
QDQ = ("QuantizeLinear", "DequantizeLinear")
SUMS = ("Add", "Sum")


@dataclass(frozen=True)
class FeatureMaps:
    """Bytes of feature maps: (float, quantized). largest: one map. peak: all maps alive at once, in the graph's order.

    average: mean over the maps. count: how many maps. For subgraphs nothing is counted.
    """

    largest: tuple[int, int]
    peak: tuple[int, int]
    average: tuple[float, float]
    count: int


@dataclass
class _Buffer:
    elements: int
    float_bits: int
    first: int
    last: int
    in_float: bool = False
    widths: set[int] = field(default_factory=set)

    def bytes(self) -> tuple[int, int]:
        bits = (self.float_bits if self.in_float or not self.widths else 0) + max(self.widths, default=0)
        return (self.elements * self.float_bits + 7) // 8, (self.elements * bits + 7) // 8


def feature_maps(graph: gs.Graph, shapes: Shapes) -> FeatureMaps | None:
    """Feature-map memory of the top-level graph; None when a shape is unknown or there is no map.

    graph: float or QDQ, nodes sorted. shapes: of the same graph (concrete_shapes).
    """
    known = known_tensors(graph)
    outputs = output_ids(graph)
    home: dict[int, _Buffer] = {}  # tensor → the buffer it lives in
    buffers: list[_Buffer] = []

    def place(tensor: gs.Tensor, step: int) -> bool:
        shape = shapes.of(tensor)
        if shape is None:
            return element_type(tensor) not in FLOAT_TYPES  # index arithmetic may stay unknown
        home[id(tensor)] = _Buffer(math.prod(shape), type_bits(tensor), step, step)
        buffers.append(home[id(tensor)])
        return True

    if not all(place(t, 0) for t in graph.inputs):
        return None
    for step, node in enumerate(graph.nodes):
        if id(node) in known:
            continue
        shared = _same_buffer(node, outputs, home)
        if shared is not None:
            home.update((id(t), shared) for t in node.outputs if not t.is_empty())
        elif not all(place(t, step) for t in node.outputs if not t.is_empty()):
            return None
        if node.op not in QDQ and not _is_grid_clip(node):
            for tensor in node.inputs:
                if id(tensor) in home:
                    _read(home[id(tensor)], tensor, step, in_place=home[id(tensor)] is shared)
    end = len(graph.nodes)
    for tensor in graph.outputs:
        if id(tensor) in home:
            _read(home[id(tensor)], tensor, end, in_place=False)
    return _summary(buffers, end) if buffers else None


def _read(buffer: _Buffer, tensor: gs.Tensor, step: int, in_place: bool) -> None:
    buffer.last = max(buffer.last, step)
    if in_place:
        return
    bits = tensor_bits(tensor)
    if bits < buffer.float_bits:
        buffer.widths.add(bits)
    else:
        buffer.in_float = True


def _same_buffer(node: gs.Node, outputs: set[int], home: dict[int, _Buffer]) -> _Buffer | None:
    """The buffer of an input that the node's output lives in, if any."""
    if not node.inputs or node.domain not in STANDARD_DOMAINS:
        return None
    data = node.inputs[0]
    if node.op in QDQ or node.op in VIEWS or _is_grid_clip(node):
        return home.get(id(data))
    if node.op in IN_PLACE:
        return home.get(id(data)) if _sole_reader(data, outputs) else None
    if node.op in SUMS:
        for tensor in node.inputs:
            made_by = producer(tensor)
            if made_by is not None and made_by.op in LINEAR_OPS and _sole_reader(tensor, outputs):
                return home.get(id(tensor))
    return None


def _sole_reader(tensor: gs.Tensor, outputs: set[int]) -> bool:
    return len(consumers(tensor)) == 1 and id(tensor) not in outputs


def _is_grid_clip(node: gs.Node) -> bool:
    return node.op == "Clip" and BITS_KEY in getattr(node, "metadata", {})


def _summary(buffers: list[_Buffer], end: int) -> FeatureMaps:
    alive = [[0, 0] for _ in range(end + 2)]
    sizes = [b.bytes() for b in buffers]
    for buffer, size in zip(buffers, sizes, strict=True):
        for kind in (0, 1):
            alive[buffer.first][kind] += size[kind]
            alive[buffer.last + 1][kind] -= size[kind]
    peak, now = [0, 0], [0, 0]
    for change in alive:
        for kind in (0, 1):
            now[kind] += change[kind]
            peak[kind] = max(peak[kind], now[kind])
    return FeatureMaps(
        (max(s[0] for s in sizes), max(s[1] for s in sizes)),
        (peak[0], peak[1]),
        (sum(s[0] for s in sizes) / len(sizes), sum(s[1] for s in sizes) / len(sizes)),
        len(sizes),
    )


__all__ = ["FeatureMaps", "feature_maps"]
