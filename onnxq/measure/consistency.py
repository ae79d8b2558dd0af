"""Check that onnxruntime computes the same codes with and without optimizations, layer by layer on the same integers.

A layer extends from the integers of the nearest upstream QuantizeLinears to the next QuantizeLinear, or to a graph
output if none follows. The integers come from one run of the whole model at ORT_DISABLE_ALL. The model is then cut at
every QuantizeLinear (onnxq.execution.cuts), so that one optimized session computes every layer from the same integers
and errors do not propagate.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.data.source import Batch, batches, input_specs
from onnxq.errors import ConfigError, DataError
from onnxq.execution.cuts import Cut, cut_model
from onnxq.execution.inner_tensors import real_part, run_batch
from onnxq.execution.known_ops import lost_tensors
from onnxq.execution.sessions import observed_session, variant_session
from onnxq.graph.match import is_op, producer
from onnxq.graph.model import Libraries, Model, load
from onnxq.graph.qdq import describe, entry
from onnxq.measure.code_steps import SIXTEEN_BIT_STEP, StepTally
from onnxq.measure.counterparts import is_float
from onnxq.measure.inputs import open_samples
from onnxq.numeric.quantize import along_axis
from onnxq.reporting import Progress

ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish")


@dataclass(frozen=True)
class LayerConsistency:
    """One layer, on the same integers at two optimization levels.

    quantized: its output consists of integers; a float output is measured in steps of 1/127 of its largest magnitude,
    and an element differs if it is off by more than half a step. max_lsb: largest difference in steps of the output.
    share: of the `elements` that differ, 0 to 1.
    """

    layer: str
    op: str
    tensor: str
    quantized: bool
    max_lsb: float
    share: float
    elements: int


def optimization_consistency(
    model: str | Path | bytes | onnx.ModelProto | Model,
    data: Any,
    samples: int | None = 8,
    *,
    preprocess: Any = None,
    threads: int = 0,
    level: str = "all",
    custom_ops: Libraries = (),
    disabled: Sequence[str] = (),
    entries: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> list[LayerConsistency]:
    """Every quantized layer at ORT_DISABLE_ALL against another optimization level, on the same integers; worst first.

    model: a QDQ model. data: an open DataSource, or anything open_data accepts. samples: number to use, None for all.
    level: of onnxq.execution.runtime.LEVELS. custom_ops: libraries of operators that the model needs.
    disabled, entries: optimizers to switch off and session entries of the optimized session (see runtime.session).
    Raises ConfigError for a model without QuantizeLinear, DataError without samples.
    """
    tested = load(model, custom_ops)
    lost = lost_tensors(tested)
    known = {n.name for n in tested.graph.nodes if not any(t.name in lost for t in n.outputs)}
    proto, cuts = cut_model(tested, known) if lost else cut_model(tested)
    if not cuts:
        raise ConfigError(f"{tested.name} has no QuantizeLinear: there are no integers to compare")
    inputs = input_specs(tested.graph)
    source = open_samples(data, inputs, preprocess, samples)
    tallies = [_Tally(end) for end in _ends(tested.graph, cuts) if end.expected not in lost]
    if not tallies:
        return []  # asked for no outputs, onnxruntime would return all
    expected_names = list(dict.fromkeys([*(t.end.expected for t in tallies), *(c.dequantized for c in cuts)]))
    found_names = [t.end.found for t in tallies]
    own_inputs = {spec.name for spec in inputs}
    fed = {c.fed: c.dequantized for c in cuts if c.fed not in own_inputs}
    done = 0
    with (
        observed_session(tested, expected_names, threads=threads, optimize=False) as plain,
        variant_session(
            proto, tested, threads=threads, optimize=level, disabled=disabled, entries=entries
        ) as optimized,
    ):
        for batch in itertools.islice(batches(source, inputs, 1), samples):
            expected = dict(zip(expected_names, run_batch(plain, expected_names, batch), strict=True))
            # A dequantized value quantizes back to its code: q·s / s is within an ulp of the integer q.
            feeds = {**batch.feeds, **{new: expected[name] for new, name in fed.items()}}
            found = run_batch(optimized, found_names, Batch(feeds, batch.labels, batch.count, batch.names))
            for tally, values in zip(tallies, found, strict=True):
                tally.add(real_part(expected[tally.end.expected], batch), real_part(values, batch))
            done += batch.count
            if progress:
                progress(done, samples)
    if not done:
        raise DataError("the data for the comparison has no samples")
    return sorted((t.result() for t in tallies), key=lambda r: (-r.max_lsb, -r.share))


@dataclass(frozen=True)
class _End:
    """The end of a layer: a quantized activation, or (scale None) a float graph output.

    expected, found: its name in the whole model and in the cut one. scale: of its codes, shaped to broadcast.
    """

    expected: str
    found: str
    layer: str
    op: str
    scale: NDArray | None


def _ends(graph: gs.Graph, cuts: list[Cut]) -> list[_End]:
    ends = []
    for cut in cuts:
        info, source = describe(cut.quantize), entry(cut.quantize)
        if info.scale is not None and producer(source) is not None:
            dims = len(source.shape) if source.shape is not None else 0
            scale = along_axis(info.scale, info.axis, dims) * (SIXTEEN_BIT_STEP if info.bits == 16 else 1)
            ends.append(_End(cut.dequantized, cut.measured, *_layer(source), scale))
    dequantized = {c.dequantized for c in cuts}
    for tensor in graph.outputs:
        inner = producer(tensor) is not None and tensor.name not in dequantized
        if inner and tensor.dtype is not None and is_float(tensor):
            ends.append(_End(tensor.name, tensor.name, *_layer(tensor), None))
    return ends


def _layer(tensor: gs.Tensor) -> tuple[str, str]:
    """Name and operators of the layer that produces a tensor: its node, looking through activations."""
    node, ops = producer(tensor), []
    assert node is not None
    while is_op(node, *ACTIVATIONS):
        before = producer(node.inputs[0])
        if before is None or is_op(before, "DequantizeLinear"):
            break
        ops.append(node.op)
        node = before
    return node.name, "+".join([node.op, *reversed(ops)])


class _Tally(StepTally):
    """The tally of one layer."""

    def __init__(self, end: _End) -> None:
        super().__init__(end.scale)
        self.end = end

    def result(self) -> LayerConsistency:
        """The layer's row."""
        end = self.end
        quantized = end.scale is not None
        return LayerConsistency(end.layer, end.op, end.expected, quantized, self.max_lsb, self.share, self.elements)
