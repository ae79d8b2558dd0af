"""Feature-map memory of a model, in float and as quantized (Garg et al., section 2.3: peak and average constraints).

A feature map is a tensor between operators that has to be stored. Not stored separately are: results of in-place
operators on a tensor that nothing else reads (activations, batch normalization), reshapes, Q/DQ and the grid Clip, and
a sum that directly adds a layer's output, which accumulates in that layer's buffer. A map that is only read quantized
is stored at its quantized width (packed, below 8 bits); one that is also read in float is stored at both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs
from onnx import TensorProto

from onnxq.cost.concrete_shapes import Shapes
from onnxq.cost.layer_costs import FLOAT_BITS, known_tensors, tensor_bits, type_bits
from onnxq.graph.axes import LINEAR_OPS
from onnxq.graph.match import STANDARD_DOMAINS, consumers, output_ids, producer
from onnxq.graph.protos import FLOAT_TYPES, OWN_DOMAIN
from onnxq.graph.qdq import QDQ, is_grid_clip
from onnxq.graph.shapes import element_type
from onnxq.placement.fitness import SUMS
from onnxq.placement.plan import Placement, Point

IN_PLACE = (
    "Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu", "Selu", "Softplus",
    "BatchNormalization",
)  # fmt: skip
CODE_TYPES = (TensorProto.UINT8, TensorProto.INT8, TensorProto.INT16, TensorProto.INT32)
VIEWS = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout")


@dataclass(frozen=True)
class FeatureMaps:
    """Bytes of feature maps: (float, quantized). largest: one map. peak: all maps alive at a time, in graph order.

    average: mean over the maps. count: number of maps. Subgraphs are not counted.
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
    tensors: set[str] = field(default_factory=set)  # those that are read quantized, for planning

    def bytes(self) -> tuple[int, int]:
        bits = (self.float_bits if self.in_float or not self.widths else 0) + max(self.widths, default=0)
        return (self.elements * self.float_bits + 7) // 8, (self.elements * bits + 7) // 8


@dataclass(frozen=True)
class PlannedMap:
    """A feature map of a float model that will be quantized: alive from step `first` to `last`.

    tensor: one stored in it that is read quantized, None if every reader reads it in float. in_float: some do. wide:
    bits of what sums and pools read wide (rule T8), 0 if none does.
    """

    elements: int
    float_bits: int
    first: int
    last: int
    tensor: str | None
    in_float: bool
    wide: int = 0

    def bytes(self, bits: int) -> int:
        """Bytes at the quantized readers' width."""
        codes = max(bits if self.tensor is not None else 0, self.wide)
        kept = self.float_bits if self.in_float or not codes else 0
        return (self.elements * (kept + codes) + 7) // 8


@dataclass(frozen=True)
class PlannedMaps:
    """Feature maps of a model to be quantized. steps: indices of the maps alive at a time, only the maximal sets.

    groups: tensor → activation group. same_width: tensors stored in one map, which therefore share its width.
    """

    maps: tuple[PlannedMap, ...]
    steps: tuple[tuple[int, ...], ...]
    same_width: tuple[tuple[str, ...], ...]
    groups: Mapping[str, str] = field(default_factory=dict)

    def group_of(self, index: int) -> str:
        """The activation group whose width map `index` has; "" if it is always 8 bits or float."""
        return self.groups.get(self.maps[index].tensor or "", "")

    def sizes(self, widths: Mapping[str, int]) -> list[int]:
        """Bytes of every map. widths: {group: bits}, 8 by default."""
        return [m.bytes(widths.get(self.group_of(i), 8)) for i, m in enumerate(self.maps)]

    def peak(self, widths: Mapping[str, int]) -> int:
        """Largest number of bytes of all maps alive at a time."""
        sizes = self.sizes(widths)
        return max(sum(sizes[i] for i in step) for step in self.steps)

    def largest(self, widths: Mapping[str, int]) -> int:
        """Bytes of the largest map."""
        return max(self.sizes(widths))

    def average(self, widths: Mapping[str, int]) -> float:
        """Mean bytes of a map."""
        sizes = self.sizes(widths)
        return sum(sizes) / len(sizes)


def feature_maps(graph: gs.Graph, shapes: Shapes) -> FeatureMaps | None:
    """Feature-map memory of the top-level graph; None if a shape is unknown or there is no map.

    graph: float or QDQ, nodes sorted. shapes: of the same graph (concrete_shapes).
    """

    def read(buffer: _Buffer, tensor: gs.Tensor, _reader: gs.Node | None) -> None:
        bits = tensor_bits(tensor)
        if bits < buffer.float_bits:
            buffer.widths.add(bits)
        else:
            buffer.in_float = True

    buffers = _buffers(graph, shapes, read, set())
    return _summary(buffers, len(graph.nodes)) if buffers else None


def planned_maps(graph: gs.Graph, shapes: Shapes, placement: Placement) -> PlannedMaps | None:
    """The feature maps that a float graph will have when quantized as planned; None as in feature_maps.

    The same as feature_maps finds in the QDQ model with this placement.
    """
    points = {id(p.tensor): p for p in placement.points}
    stored = {id(p.tensor): p.format.bits for p in placement.stored}
    edges = {(id(n), id(p.tensor)) for p in placement.points for n in _readers(p)}
    quantized = edges | {(id(n), id(p.tensor)) for p in placement.stored for n in consumers(p.tensor)}

    def read(buffer: _Buffer, tensor: gs.Tensor, reader: gs.Node | None) -> None:
        point = points.get(id(tensor))
        if point is not None and (point.whole or (reader is not None and (id(reader), id(tensor)) in edges)):
            buffer.tensors.add(tensor.name)
        elif id(tensor) in stored:
            buffer.widths.add(stored[id(tensor)])
        else:
            buffer.in_float = True

    buffers = _buffers(graph, shapes, read, quantized)
    if not buffers:
        return None
    maps = [
        PlannedMap(
            b.elements,
            b.float_bits,
            b.first,
            b.last,
            min(b.tensors, default=None),
            b.in_float,
            max(b.widths, default=0),
        )
        for b in buffers
    ]
    return PlannedMaps(
        tuple(maps), _steps(buffers), tuple(tuple(sorted(b.tensors)) for b in buffers if len(b.tensors) > 1)
    )


def _readers(point: Point) -> list[gs.Node]:
    """Those that read what was quantized."""
    return [*(n for n, _ in point.edges), *(consumers(point.tensor) if point.whole else ())]


def _steps(buffers: list[_Buffer]) -> tuple[tuple[int, ...], ...]:
    """Maximal sets of buffers alive at a time: one whenever a buffer is freed after one was allocated."""
    births = sorted({b.first for b in buffers})
    sets = [frozenset(i for i, b in enumerate(buffers) if b.first <= step <= b.last) for step in births]
    kept = [
        s for k, s in enumerate(sets) if not (k + 1 < len(sets) and s <= sets[k + 1]) and not (k and s < sets[k - 1])
    ]
    return tuple(tuple(sorted(s)) for s in kept)


def _buffers(
    graph: gs.Graph,
    shapes: Shapes,
    read: Callable[[_Buffer, gs.Tensor, gs.Node | None], None],
    quantized: set[tuple[int, int]],
) -> list[_Buffer]:
    """Every feature map with its readers; empty if a shape is unknown.

    read: called for each read that is not in place, with reader None for the model's outputs. quantized: (node, tensor)
    ids between which Q/DQ will be inserted.
    """
    known = known_tensors(graph)
    outputs = output_ids(graph)
    home: dict[int, _Buffer] = {}  # tensor → the buffer that stores it
    codes: set[int] = set()  # tensors of integer codes without a QuantizeLinear, of com.onnxq operators
    buffers: list[_Buffer] = []

    def place(tensor: gs.Tensor, step: int) -> bool:
        shape = shapes.of(tensor)
        if shape is None:
            return element_type(tensor) not in FLOAT_TYPES  # index arithmetic may stay unknown
        width = FLOAT_BITS if id(tensor) in codes else type_bits(tensor)
        home[id(tensor)] = _Buffer(math.prod(shape), width, step, step)
        buffers.append(home[id(tensor)])
        return True

    if not all(place(t, 0) for t in graph.inputs):
        return []
    for step, node in enumerate(graph.nodes):
        if id(node) in known:
            continue
        if node.domain == OWN_DOMAIN or any(id(t) in codes for t in node.inputs):
            codes.update(id(t) for t in node.outputs if element_type(t) in CODE_TYPES)
        shared = _same_buffer(node, outputs, home, quantized)
        if shared is not None:
            home.update((id(t), shared) for t in node.outputs if not t.is_empty())
        elif not all(place(t, step) for t in node.outputs if not t.is_empty()):
            return []
        if node.op not in QDQ and not is_grid_clip(node):
            for tensor in node.inputs:
                if id(tensor) in home:
                    buffer = home[id(tensor)]
                    buffer.last = max(buffer.last, step)
                    if buffer is not shared:
                        read(buffer, tensor, node)
    for tensor in graph.outputs:
        if id(tensor) in home:
            buffer = home[id(tensor)]
            buffer.last = len(graph.nodes)
            read(buffer, tensor, None)
    return buffers


def _same_buffer(
    node: gs.Node, outputs: set[int], home: dict[int, _Buffer], quantized: set[tuple[int, int]]
) -> _Buffer | None:
    """The input buffer in which the node's output is stored, if any."""
    if not node.inputs or node.domain not in STANDARD_DOMAINS:
        return None
    data = node.inputs[0]
    if node.op in QDQ or node.op in VIEWS or is_grid_clip(node):
        return home.get(id(data))
    if node.op in IN_PLACE:
        return home.get(id(data)) if _sole_reader(data, outputs) else None
    if node.op in SUMS:
        for tensor in node.inputs:
            made_by = producer(tensor)
            if (id(node), id(tensor)) in quantized:
                continue
            if made_by is not None and made_by.op in LINEAR_OPS and _sole_reader(tensor, outputs):
                return home.get(id(tensor))
    return None


def _sole_reader(tensor: gs.Tensor, outputs: set[int]) -> bool:
    return len(consumers(tensor)) == 1 and id(tensor) not in outputs


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


__all__ = ["FeatureMaps", "PlannedMap", "PlannedMaps", "feature_maps", "planned_maps"]
