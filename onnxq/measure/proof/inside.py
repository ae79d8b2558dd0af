"""Looking into a product layer by layer: which differ when optimized, which lose a constant, where the SQNR falls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnxq.data.source import Batch
from onnxq.errors import ConfigError
from onnxq.execution.inner_tensors import Fetcher, known_bytes
from onnxq.execution.sessions import observed_session
from onnxq.graph.match import producer
from onnxq.graph.model import Model
from onnxq.graph.qdq import describe
from onnxq.measure.consistency import LayerConsistency, optimization_consistency
from onnxq.measure.counterparts import Counterpart, counterparts
from onnxq.measure.lockstep import isolated_run, lockstep_run
from onnxq.measure.proof.constants import ChannelTally, LostConstant
from onnxq.measure.proof.judge import LAYER_STEPS
from onnxq.measure.proof.runs import Way
from onnxq.measure.proof.samples import code_limits
from onnxq.numeric.metrics import ErrorSums


def differing_layers(product: Model, batches: Sequence[Batch], way: Way) -> list[LayerConsistency]:
    """Layers that are more than rounding off where onnxruntime optimizes, on the same codes, in graph order.

    Raises OnnxqError if the product cannot be cut or run.
    """
    feeds = [dict(batch.feeds) for batch in batches]
    try:
        rows = optimization_consistency(
            product,
            feeds,
            None,
            threads=1,
            level=way.level,
            custom_ops=product.custom_ops,
            disabled=way.disabled,
            entries=way.entries,
        )
    except ConfigError:
        return []  # no QuantizeLinear: nothing is in integers
    order = {node.name: index for index, node in enumerate(product.graph.nodes)}
    found = [row for row in rows if row.max_lsb > LAYER_STEPS]
    return sorted(found, key=lambda row: order.get(row.layer, len(order)))


def lost_constants(
    reference: Model, quantized: Model, batches: Sequence[Batch]
) -> list[tuple[str, list[LostConstant]]]:
    """Layers whose channels lose their constant when fed the reference's values: (node, channels), in graph order."""
    matched = counterparts(reference.graph, quantized.graph)
    tensors = reference.graph.tensors()
    inner = {name: found for name, found in matched.items() if producer(tensors[name]) is not None}
    constant = _with_constants(reference, inner, batches)
    tallies = {name: _tally(found) for name, found in inner.items() if name in constant}
    if not tallies:
        return []
    with isolated_run(reference, quantized, matched, 1, constant) as run:
        for batch in batches:
            for group in run(batch):
                for name, (expected, found) in group.items():
                    if getattr(expected, "ndim", 0) > 1:
                        tallies[name].add(expected, found)
    makers = {t.name: node.name for node in reference.graph.nodes for t in node.outputs}
    return [(makers[n], lost) for n, tally in tallies.items() if n in makers and (lost := tally.lost())]


def _with_constants(reference: Model, matched: Mapping[str, Counterpart], batches: Sequence[Batch]) -> set[str]:
    """The tensors that have a constant channel: few, if any, so that the others need not be looked at again."""
    names, tallies = list(matched), {name: _tally(found) for name, found in matched.items()}
    if not names:
        return set()
    with observed_session(reference, names, threads=1, optimize=False) as session:
        fetcher = Fetcher(session, names, known=known_bytes(reference, names))
        for batch in batches:
            for group in fetcher.run(batch):
                for name, values in group.items():
                    if getattr(values, "ndim", 0) > 1:
                        tallies[name].add(values, values)
    return {name for name, tally in tallies.items() if tally.constant().any()}


def falls_at(reference: Model, quantized: Model, batches: Sequence[Batch], floor: float) -> str:
    """The first node whose output falls under the floor (dB), the models running by themselves; empty if none does."""
    matched = counterparts(reference.graph, quantized.graph)
    sums = {name: ErrorSums() for name in matched}
    with lockstep_run(reference, quantized, matched, 1) as run:
        for batch in batches:
            for group in run(batch):
                for name, (expected, found) in group.items():
                    if getattr(expected, "shape", None) == getattr(found, "shape", ()):
                        sums[name].add(expected, found)
    tensors = reference.graph.tensors()
    first = next((n for n, s in sums.items() if s.count and s.sqnr_db < floor), None)
    node = producer(tensors[first]) if first is not None else None
    return node.name if node is not None else ""


def _tally(found: Counterpart) -> ChannelTally:
    if found.quantize is None:
        return ChannelTally()
    info = describe(found.quantize)
    step = float(info.scale) if info.scale is not None and info.scale.size == 1 else None
    return ChannelTally(step, code_limits(found.quantize))
