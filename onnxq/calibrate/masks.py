"""Ranges of attention scores and masks whose integers keep masked and unmasked scores apart.

A mask lowers scores so far that Softmax maps them to 0. How far does not matter: integers need only extend far enough
below the unmasked scores; lower values saturate there. Masks that the calibration data never uses (data without
padding) are covered as well.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.calibrate.buckets import value_buckets
from onnxq.calibrate.ranges import RangeChooser, choose_range
from onnxq.calibrate.statistics import Statistics, TensorStatistics
from onnxq.graph.match import constant_values, consumers, is_constant, is_op, producer, scalar_value
from onnxq.numeric.formats import QuantFormat
from onnxq.patterns.attention import feeds_softmax, from_integers, masked_tensors

# Values count as masked if they are below −DEEP and the GAP above them is empty; where a mask is added, also those
# below −SHALLOW. Swin's masks are −100.
DEEP = 4096.0
SHALLOW = 64.0
GAP = 32.0
# Required distance of a masked score below every unmasked one: 512 masked ones weigh 512 · e^-16 = 6e-5 of the largest.
MARGIN = 16.0


def mask_bound(stats: TensorStatistics, deep: float = DEEP) -> float | None:
    """A value with every masked value below it and every other above; None if nothing is masked."""
    if stats.count == 0 or stats.minimum > -deep:
        return None
    buckets = value_buckets(stats)
    ends, starts = buckets.high, np.append(buckets.low[1:], np.inf)
    splits = np.flatnonzero((ends <= -deep) & (starts - ends >= GAP))
    return None if splits.size == 0 else float(ends[splits[-1]])


class ScoreRanges:
    """Ranges for tensors that feed Softmax nodes. Must be queried before the graph is edited."""

    def __init__(self, graph: gs.Graph, statistics: Statistics) -> None:
        self._nodes = feeds_softmax(graph)
        self._tensors = masked_tensors(graph)
        self._counted = from_integers(graph)
        self._statistics = statistics
        self._lowest: dict[int, float] = {}

    def holds(self, tensor: gs.Tensor) -> bool:
        """Whether the tensor may contain masks."""
        return tensor.name in self._tensors

    def choose(
        self, tensors: list[gs.Tensor], stats: TensorStatistics, chooser: RangeChooser | str, fmt: QuantFormat
    ) -> tuple[float, float]:
        """(low, high) for tensors that share a scale. stats: of all of them."""
        masked = any(self._may_be_masked(t) for t in tensors)
        bound = mask_bound(stats, SHALLOW if masked else DEEP)
        if bound is None and not masked:
            return choose_range(stats, chooser, fmt)
        low, high = choose_range(stats if bound is None else stats.above(bound), chooser, fmt)
        return min([low, *(self.lowest(t) for t in tensors)]), max(high, 0.0)

    def _may_be_masked(self, tensor: gs.Tensor) -> bool:
        """Whether the tensor is a mask, or scores with one: computed from integers, or never anything but zeros."""
        if tensor.name in self._statistics:
            stats = self._statistics[tensor.name]
            if stats.count and stats.minimum == stats.maximum == 0:
                return True
        node = producer(tensor)
        if node is None:
            return False
        if id(node) in self._counted:
            return True
        return id(node) in self._nodes and any(
            _is_mask(t) if is_constant(t) else self._may_be_masked(t) for t in node.inputs
        )

    def lowest(self, tensor: gs.Tensor) -> float:
        """The lower bound that the tensor's integers must reach for masked values to stay masked."""
        if id(tensor) not in self._lowest:
            found = [self._needed_by(reader, tensor) for reader in consumers(tensor)]
            self._lowest[id(tensor)] = min(found, default=self._extremes(tensor)[0] - MARGIN)
        return self._lowest[id(tensor)]

    def constant(self, node: gs.Node, tensor: gs.Constant) -> float | None:
        """The lower bound that a constant mask read by `node` must reach; None if the constant is not a mask."""
        if id(node) not in self._nodes or not _is_mask(tensor):
            return None
        values = constant_values(tensor)
        assert values is not None
        return self._needed_by(node, tensor, float(values[values > -SHALLOW].max(initial=0.0)))

    def _needed_by(self, reader: gs.Node, tensor: gs.Tensor, high: float | None = None) -> float:
        if id(reader) not in self._nodes:
            return self._extremes(tensor)[0] - MARGIN
        result = reader.outputs[0]
        below = self.lowest(result)
        if is_op(reader, "Add", "Sub"):
            high = self._extremes(tensor)[1] if high is None else high
            return below - max(self._extremes(result)[1] - high, 0.0)
        if is_op(reader, "Mul", "Div") and is_constant(reader.inputs[1]):
            factor = scalar_value(reader.inputs[1])
            if factor is not None and float(factor) > 0:
                return below / float(factor) if reader.op == "Mul" else below * float(factor)
        return below

    def _extremes(self, tensor: gs.Tensor) -> tuple[float, float]:
        """The unmasked extremes, (0, 0) if nothing is known."""
        if tensor.name not in self._statistics:
            return 0.0, 0.0
        stats = self._statistics[tensor.name]
        bound = mask_bound(stats, SHALLOW if self._may_be_masked(tensor) else DEEP)
        kept = stats if bound is None else stats.above(bound)
        return (kept.minimum, kept.maximum) if kept.count else (0.0, 0.0)


def _is_mask(tensor: gs.Tensor) -> bool:
    """Whether a constant contains masks: some values far below the others, or only such values."""
    values = constant_values(tensor)
    return values is not None and values.size > 0 and values.dtype.kind == "f" and bool(values.min() <= -SHALLOW)
