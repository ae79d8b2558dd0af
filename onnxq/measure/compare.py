"""Float against quantized, tensor by tensor, on the same samples: locates the sources of error.

Every activation of the float model is compared with its counterpart in the quantized one (onnxq.measure.counterparts).
Both run without onnxruntime's optimizations, so that the models are compared, not a runtime's transformation of them.
Outputs are summed batch by batch and never kept.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import onnx
import onnx_graphsurgeon as gs

from onnxq.data.source import batches, input_specs
from onnxq.errors import ConfigError, DataError
from onnxq.execution.known_ops import lost_tensors
from onnxq.graph.match import is_op, output_ids, producer, sole_consumer
from onnxq.graph.model import Libraries, Model, load
from onnxq.graph.qdq import activation_bits, entry
from onnxq.measure.comparison import Comparison, TensorRow
from onnxq.measure.counterparts import Counterpart, counterparts, is_float
from onnxq.measure.inputs import open_samples
from onnxq.measure.lockstep import Group, isolated_run, lockstep_run
from onnxq.measure.weight_errors import weight_errors
from onnxq.numeric.metrics import ErrorSums
from onnxq.reporting import Progress


def compare(
    float_model: str | Path | bytes | onnx.ModelProto | Model,
    quantized: str | Path | bytes | onnx.ModelProto | Model,
    data: Any,
    *,
    preprocess: Any = None,
    limit: int | None = None,
    batch_size: int | None = None,
    threads: int = 0,
    isolated: bool = False,
    custom_ops: Libraries = (),
    progress: Progress | None = None,
) -> Comparison:
    """SQNR and cosine of every activation that both models have, over all samples of `data`.

    data: an open DataSource, or anything open_data accepts (with preprocess and limit). batch_size: samples per run;
    None is chosen from the model. threads: 0 is onnxruntime's default. isolated: also the error that each layer adds by
    itself, when every upstream quantized tensor has the float model's values. custom_ops: libraries of operators that
    the models need; what depends on operators in none of them is left out. progress: called with (samples done, total
    samples or None) after every batch.
    Raises ConfigError for models with nothing in common, DataError for samples that do not fit.
    """
    reference, tested = load(float_model, custom_ops), load(quantized, custom_ops)
    inputs = input_specs(reference.graph)
    if {s.name for s in inputs} != {s.name for s in input_specs(tested.graph)}:
        raise ConfigError(f"{reference.name} and {tested.name} do not have the same inputs")
    lost = lost_tensors(reference, tested)
    found = counterparts(reference.graph, tested.graph)
    matched = {name: other for name, other in found.items() if name not in lost and other.tensor not in lost}
    fed = {t.name for t in reference.graph.inputs}
    inner = _inner(reference.graph, matched)
    compared = {name: other for name, other in matched.items() if other.tensor not in fed and name not in inner}
    if not compared:
        raise ConfigError(
            f"{reference.name} and {tested.name} have no activation in common: are they the same network?"
        )
    source = open_samples(data, inputs, preprocess, limit)
    sums = {name: ErrorSums() for name in compared}
    alone = {name: ErrorSums() for name in compared} if isolated else {}
    done, total = 0, source.count()
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(lockstep_run(reference, tested, compared, threads))
        by_layer = stack.enter_context(isolated_run(reference, tested, compared, threads)) if isolated else None
        for batch in batches(source, inputs, batch_size):
            for group in run(batch):
                _add(sums, group)
            if by_layer is not None:
                for group in by_layer(batch):
                    _add(alone, group)
            done += batch.count
            if progress:
                progress(done, total)
    if not done:
        raise DataError("the data for the comparison has no samples")
    rows = _rows(reference.graph, tested.graph, compared, sums, alone)
    every = [t.name for n in reference.graph.nodes for t in n.outputs if not t.is_empty()]
    skipped = tuple(name for name in every if name not in matched and is_float(reference.graph.tensors()[name]))
    return Comparison(reference.name, tested.name, done, rows, skipped, source.describe())


def _inner(reference: gs.Graph, matched: dict[str, Counterpart]) -> set[str]:
    """Float tensors inside a layer: read only by its own Relu or Clip, whose output is compared."""
    outputs = output_ids(reference)
    found = set()
    for node in reference.nodes:
        if is_op(node, "Relu", "Clip") and node.outputs[0].name in matched:
            source = node.inputs[0]
            other = matched.get(source.name)
            if other is not None and other.quantize is None and sole_consumer(source, outputs) is node:
                found.add(source.name)
    return found


def _add(sums: dict[str, ErrorSums], group: Group) -> None:
    for name, (expected, found) in group.items():
        if expected.shape != found.shape:
            raise ConfigError(
                f"tensor {name} is {list(expected.shape)} in the float model and {list(found.shape)} in the other: are "
                "they the same network?"
            )
        sums[name].add(expected, found)


def _rows(
    reference: gs.Graph,
    tested: gs.Graph,
    matched: dict[str, Counterpart],
    sums: dict[str, ErrorSums],
    alone: dict[str, ErrorSums],
) -> tuple[TensorRow, ...]:
    tensors = reference.tensors()
    weights = weight_errors(reference, tested)
    rows = []
    for position, (name, other) in enumerate(matched.items()):
        node, op = _layer(producer(tensors[name]), other, tested)
        weight_bits, weight_sqnr = weights.get(node, (None, None))
        rows.append(
            TensorRow(
                position,
                name,
                node,
                op,
                sums[name].sqnr_db,
                sums[name].cosine,
                sums[name].err_max,
                activation_bits(other.quantize) if other.quantize is not None else None,
                weight_bits,
                weight_sqnr,
                alone[name].sqnr_db if name in alone and sums[name].count == alone[name].count else None,
            )
        )
    return tuple(sorted(rows, key=lambda r: (_order(r.sqnr_db), r.cosine, r.position)))


def _layer(made_by: gs.Node | None, other: Counterpart, tested: gs.Graph) -> tuple[str, str]:
    """Name and operator of a row: the quantized model's node, "Conv+Relu" if its QuantizeLinear performs the Relu."""
    if made_by is None:
        return "", "input"
    source = entry(other.quantize) if other.quantize is not None else tested.tensors()[other.tensor]
    node = producer(source) or made_by
    absorbed = is_op(made_by, "Relu", "Clip") and node.op != made_by.op
    return node.name, f"{node.op}+{made_by.op}" if absorbed else node.op


def _order(sqnr: float) -> float:
    return -math.inf if math.isnan(sqnr) else sqnr
