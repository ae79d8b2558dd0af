"""The samples of a proof: the first ones of the calibration data, or random ones that fit the model's inputs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.data.random_data import RandomData
from onnxq.data.source import Batch, DataSource, batches, input_specs
from onnxq.errors import OnnxqError
from onnxq.graph.model import Model
from onnxq.graph.qdq import describe, quantizers

QUICK_SAMPLES = 4
# Inputs of more elements (a megapixel image) are run once: the proof stays within seconds.
LARGE_INPUT = 1 << 20
FULL_SAMPLES = 64
# Multiply-accumulates of all quick samples together; at least one is run.
QUICK_WORK = 3_000_000_000


@dataclass(frozen=True)
class Samples:
    """Batches to prove with. random: not real data. why: there are none, else empty."""

    batches: tuple[Batch, ...] = ()
    random: bool = False
    why: str = ""

    @property
    def count(self) -> int:
        """Number of samples."""
        return sum(batch.count for batch in self.batches)


def choose(model: Model, source: DataSource | None, full: bool) -> Samples:
    """The first samples of a source, or random ones if there is none or it cannot be read again."""
    inputs = input_specs(model.graph)
    most = FULL_SAMPLES if full else min(QUICK_SAMPLES, max(1, QUICK_WORK // max(1, work(model.graph))))
    why = ""
    if source is not None:
        try:
            if found := _first(batches(source, inputs, 1), most, full):
                return Samples(found, random=source.kind == "random")
        except OnnxqError as err:
            why = str(err)
    try:
        drawn = RandomData(inputs, most)
        return Samples(tuple(_fitted(model, b) for b in _first(batches(drawn, inputs, 1), most, full)), random=True)
    except OnnxqError as err:
        return Samples(why=why or str(err))


def _first(stream: Iterable[Batch], most: int, full: bool) -> tuple[Batch, ...]:
    found: list[Batch] = []
    for batch in itertools.islice(stream, most):
        found.append(batch)
        size = sum(math.prod(a.shape) for a in batch.feeds.values())
        if not full and size > LARGE_INPUT:
            break
    return tuple(found)


def work(graph: gs.Graph) -> int:
    """Multiply-accumulates of the layers of one sample, as far as shapes are known."""
    return sum(_macs(node) for node in graph.nodes)


def _macs(node: gs.Node) -> int:
    if node.op not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    x, w, y = ([*(t.shape or ())] for t in (*node.inputs[:2], node.outputs[0]))
    if not (x and w and y):
        return 0
    if node.op in ("Conv", "ConvTranspose"):
        sizes = [*(y if node.op == "Conv" else x)[1:], *w[1:]]
    else:
        sizes = [*y[1:], w[-1] if node.op == "Gemm" and node.attrs.get("transB") else w[max(len(w) - 2, 0)]]
    return math.prod(sizes) if all(isinstance(size, int) for size in sizes) else 0


def _fitted(model: Model, batch: Batch) -> Batch:
    """Random samples scaled to the range that the input's QuantizeLinear represents, six deviations wide."""
    feeds = dict(batch.feeds)
    for tensor in model.graph.inputs:
        nodes = quantizers(tensor)
        if not nodes or tensor.name not in feeds or feeds[tensor.name].dtype.kind != "f":
            continue
        limits = code_limits(nodes[0])
        if limits is not None:
            low, high = limits
            array = feeds[tensor.name]
            feeds[tensor.name] = ((low + high) / 2 + array * (high - low) / 6).astype(array.dtype)
    return Batch(feeds, batch.labels, batch.count, batch.names)


def code_limits(quantize: gs.Node) -> tuple[float, float] | None:
    """The least and the largest real value of a per-tensor QuantizeLinear's codes; None if not known."""
    info = describe(quantize)
    if info.scale is None or info.zero_point is None or info.scale.size != 1 or "int" not in info.type:
        return None
    low = -(1 << (info.bits - 1)) if info.signed else 0
    high = low + (1 << info.bits) - 1
    scale, zero = float(info.scale), int(np.asarray(info.zero_point).reshape(()))
    return scale * (low - zero), scale * (high - zero)
