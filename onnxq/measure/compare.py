"""Float against quantized, tensor by tensor, on the same samples: where the error comes from.

Every activation of the float model is compared with its twin in the quantized one (onnxq.measure.counterparts). Both
run without onnxruntime's optimizations, so that what is compared is the models and not what a runtime makes of them.
Outputs are summed batch by batch and never kept.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.data.source import Batch, DataSource, batches, input_specs, open_data
from onnxq.errors import ConfigError, DataError
from onnxq.execution import runtime
from onnxq.execution.inner_tensors import Fetcher, observed_model, output_info, real_part, run_batch
from onnxq.execution.isolate import cut_model
from onnxq.execution.save import model_dir, runnable
from onnxq.graph.axes import LINEAR_OPS
from onnxq.graph.match import constant_values, consumers, is_constant, is_op, output_ids, producer, sole_consumer
from onnxq.graph.model import Model, load
from onnxq.graph.qdq import activation_bits, constant_reals, dequantizer, describe, entry
from onnxq.measure.counterparts import Twin, twins
from onnxq.numeric.metrics import ErrorSums

Progress = Callable[[int, int | None], None]
COLUMNS = (
    "position", "tensor", "node", "op", "sqnr_db", "cosine", "max_abs_error", "isolated_sqnr_db", "bits", "weight_bits",
    "weight_sqnr_db",
)  # fmt: skip


@dataclass(frozen=True)
class TensorRow:
    """One activation. SQNR in dB; math.inf when equal.

    position: in the float model's order. node, op: what makes it in the quantized model, "Conv+Relu" where Q/DQ does
    the Relu; "" and "input" for graph inputs. bits: of its Q/DQ, None without. isolated_sqnr_db: of what the layer adds
    by itself, fed with the float model's values; None unless asked for. weight_bits, weight_sqnr_db: of the layer's
    weight; None without one.
    """

    position: int
    tensor: str
    node: str
    op: str
    sqnr_db: float
    cosine: float
    max_abs_error: float
    bits: int | None = None
    weight_bits: int | None = None
    weight_sqnr_db: float | None = None
    isolated_sqnr_db: float | None = None


@dataclass(frozen=True)
class Comparison:
    """rows: worst first (lowest SQNR, then cosine). skipped: float activations that the quantized model lacks."""

    float_model: str
    quantized_model: str
    samples: int
    rows: tuple[TensorRow, ...]
    skipped: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)

    def to_csv(self) -> str:
        """The rows as CSV, worst first, with a heading."""
        out = io.StringIO()
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({k: "" if v is None else v for k, v in asdict(row).items()})
        return out.getvalue()


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
    progress: Progress | None = None,
) -> Comparison:
    """SQNR and cosine of every activation that both models have, over all samples of `data`.

    data: an open DataSource, or whatever open_data takes (with preprocess and limit). isolated: also the error that
    each layer adds by itself, when every quantized tensor before it holds the float model's values.
    Raises ConfigError for models that have nothing in common, DataError for samples that do not fit.
    """
    reference, tested = load(float_model), load(quantized)
    inputs = input_specs(reference.graph)
    if {s.name for s in inputs} != {s.name for s in input_specs(tested.graph)}:
        raise ConfigError(f"{reference.name} and {tested.name} do not have the same inputs")
    matched = twins(reference.graph, tested.graph)
    fed = {t.name for t in reference.graph.inputs}
    inner = _inner(reference.graph, matched)
    compared = {name: twin for name, twin in matched.items() if twin.twin not in fed and name not in inner}
    if not compared:
        raise ConfigError(
            f"{reference.name} and {tested.name} have no activation in common: are they the same network?"
        )
    source = data if isinstance(data, DataSource) else open_data(data, inputs, preprocess=preprocess, limit=limit)
    sums = {name: ErrorSums() for name in compared}
    alone = {name: ErrorSums() for name in compared} if isolated else {}
    done, total = 0, source.count()
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(_lockstep(reference, tested, compared, threads))
        by_layer = stack.enter_context(_isolated(reference, tested, compared, threads)) if isolated else None
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
        raise DataError("the data to compare on has no samples")
    rows = _rows(reference.graph, tested.graph, compared, sums, alone)
    every = [t.name for n in reference.graph.nodes for t in n.outputs if not t.is_empty()]
    skipped = tuple(name for name in every if name not in matched and _is_float(reference.graph.tensors()[name]))
    return Comparison(reference.name, tested.name, done, rows, skipped, source.describe())


def _inner(reference: gs.Graph, matched: dict[str, Twin]) -> set[str]:
    """Float tensors inside a layer: only the layer's own Relu or Clip reads them, and its output is compared."""
    outputs = output_ids(reference)
    found = set()
    for node in reference.nodes:
        if is_op(node, "Relu", "Clip") and node.outputs[0].name in matched:
            source = node.inputs[0]
            twin = matched.get(source.name)
            if twin is not None and twin.quantize is None and sole_consumer(source, outputs) is node:
                found.add(source.name)
    return found


Group = dict[str, tuple[NDArray, NDArray]]


def _add(sums: dict[str, ErrorSums], group: Group) -> None:
    for name, (expected, found) in group.items():
        if expected.shape != found.shape:
            raise ConfigError(
                f"tensor {name} is {list(expected.shape)} in the float model and {list(found.shape)} in the other: are "
                "they the same network?"
            )
        sums[name].add(expected, found)


@contextlib.contextmanager
def _lockstep(
    reference: Model, tested: Model, matched: dict[str, Twin], threads: int
) -> Iterator[Callable[[Batch], Iterator[Group]]]:
    """Both models on the same batch, group of tensors by group."""
    fed = {t.name for t in reference.graph.inputs}
    left = [n for n in matched if n not in fed]
    with contextlib.ExitStack() as stack:
        first, second = (
            runtime.session(
                stack.enter_context(runnable(observed_model(model, names), model_dir(model))),
                threads=threads,
                optimize=False,
            )
            for model, names in ((reference, left), (tested, [t.twin for t in matched.values()]))
        )
        fetcher = Fetcher(first, left)

        def run(batch: Batch) -> Iterator[Group]:
            inputs = [n for n in matched if n in fed]
            for group in [*([inputs] if inputs else []), *fetcher.groups(batch.count)]:
                expected = {n: batch.feeds[n] for n in group} if group is inputs else fetcher.fetch(group, batch)
                found = run_batch(second, [matched[n].twin for n in group], batch)
                yield {
                    n: (real_part(expected[n], batch), real_part(v, batch)) for n, v in zip(group, found, strict=True)
                }

        yield run


@contextlib.contextmanager
def _isolated(
    reference: Model, tested: Model, matched: dict[str, Twin], threads: int
) -> Iterator[Callable[[Batch], Iterator[Group]]]:
    """The quantized model with the float model's values fed in at every QuantizeLinear, against the float model."""
    proto, cuts = cut_model(tested)
    by_node = {id(c.quantize): c for c in cuts}
    fed = {n: by_node[id(t.quantize)].fed for n, t in matched.items() if t.quantize is not None}
    measured = {n: by_node[id(t.quantize)].measured if t.quantize is not None else t.twin for n, t in matched.items()}
    present = {o.name for o in proto.graph.output}
    tensors = tested.graph.tensors()
    proto.graph.output.extend(
        output_info(tensors[name]) for name in dict.fromkeys(measured.values()) if name not in present
    )
    plain = {t.name for t in reference.graph.inputs}
    names = [n for n in matched if n not in plain]
    feed_names = [n for n in fed if n not in plain]
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(runnable(observed_model(reference, names), model_dir(reference)))
        first = runtime.session(opened, threads=threads, optimize=False)
        second = runtime.session(
            stack.enter_context(runnable(proto, model_dir(tested))), threads=threads, optimize=False
        )
        fetcher = Fetcher(first, names)

        def run(batch: Batch) -> Iterator[Group]:
            values = run_batch(first, feed_names, batch) if feed_names else []
            feeds = {**batch.feeds, **{fed[n]: v for n, v in zip(feed_names, values, strict=True)}}
            forced = Batch(feeds, batch.labels, batch.count, batch.names)
            for group in fetcher.groups(batch.count):
                expected = fetcher.fetch(group, batch)
                found = run_batch(second, [measured[n] for n in group], forced)
                yield {
                    n: (real_part(expected[n], batch), real_part(v, batch)) for n, v in zip(group, found, strict=True)
                }

        yield run


def _rows(
    reference: gs.Graph,
    tested: gs.Graph,
    matched: dict[str, Twin],
    sums: dict[str, ErrorSums],
    alone: dict[str, ErrorSums],
) -> tuple[TensorRow, ...]:
    tensors = reference.tensors()
    weights = _weights(reference, tested)
    rows = []
    for position, (name, twin) in enumerate(matched.items()):
        node, op = _layer(producer(tensors[name]), twin, tested)
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
                activation_bits(twin.quantize) if twin.quantize is not None else None,
                weight_bits,
                weight_sqnr,
                alone[name].sqnr_db if name in alone and sums[name].count == alone[name].count else None,
            )
        )
    return tuple(sorted(rows, key=lambda r: (_order(r.sqnr_db), r.cosine, r.position)))


def _layer(made_by: gs.Node | None, twin: Twin, tested: gs.Graph) -> tuple[str, str]:
    """Name and operator of a row: the quantized model's node, "Conv+Relu" where its QuantizeLinear does the Relu."""
    if made_by is None:
        return "", "input"
    source = entry(twin.quantize) if twin.quantize is not None else tested.tensors()[twin.twin]
    node = producer(source) or made_by
    absorbed = is_op(made_by, "Relu", "Clip") and node.op != made_by.op
    return node.name, f"{node.op}+{made_by.op}" if absorbed else node.op


def _order(sqnr: float) -> float:
    return -math.inf if math.isnan(sqnr) else sqnr


def _weights(reference: gs.Graph, tested: gs.Graph) -> dict[str, tuple[int | None, float | None]]:
    """Bits and SQNR of the quantized weights, by the float model's node; layers are matched by their name."""
    others = {n.name: n for n in tested.nodes}
    found: dict[str, tuple[int | None, float | None]] = {}
    for node in reference.nodes:
        other = others.get(node.name)
        if not is_op(node, *LINEAR_OPS) or other is None or other.op != node.op:
            continue
        index = next((i for i in (1, 0) if is_constant(node.inputs[i])), None)
        if index is None or dequantizer(other.inputs[index]) is None:
            continue
        expected = _folded(node, index, others)
        actual = constant_reals(other.inputs[index])
        if actual is None:
            continue
        sums = ErrorSums()
        if expected is not None and expected.shape == actual.shape:
            sums.add(expected, actual)
        bits = describe(dequantizer(other.inputs[index])).bits
        found[node.name] = (bits, sums.sqnr_db if sums.count else None)
    return found


def _folded(node: gs.Node, index: int, others: dict[str, gs.Node]) -> NDArray | None:
    """The float weight as the quantized model has it: with the batch normalization behind it, where that is gone.

    None where one before it went in, or both: what the weight should be is then not known here.
    """
    weight = constant_values(node.inputs[index])
    before = producer(node.inputs[1 - index])
    if weight is None or (before is not None and _is_gone(before, others)):
        return None
    readers = consumers(node.outputs[0])
    if len(readers) != 1 or not _is_gone(readers[0], others):
        return weight
    parts = [_through_identity(t) for t in readers[0].inputs[1:5]]
    if node.op != "Conv" or any(p is None for p in parts):
        return None
    gamma, _beta, _mean, variance = parts
    scale = gamma / np.sqrt(variance + float(readers[0].attrs.get("epsilon", 1e-5)))  # type: ignore[operator]
    return np.asarray(weight * scale.reshape(-1, *[1] * (weight.ndim - 1)))


def _through_identity(tensor: gs.Tensor) -> NDArray | None:
    node = producer(tensor)
    return constant_values(node.inputs[0] if node is not None and is_op(node, "Identity") else tensor)


def _is_gone(node: gs.Node, others: dict[str, gs.Node]) -> bool:
    return is_op(node, "BatchNormalization") and node.name not in others


def _is_float(tensor: gs.Tensor) -> bool:
    return tensor.dtype is None or (not isinstance(tensor.dtype, int) and np.dtype(tensor.dtype).kind == "f")
