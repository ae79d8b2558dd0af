"""Why a run of a product differs from its unoptimized run: the layer or node, and what does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import onnx

from onnxq.data.source import Batch
from onnxq.errors import OnnxqError
from onnxq.graph.model import Model, to_proto
from onnxq.measure.consistency import LayerConsistency
from onnxq.measure.proof import judge, saturation
from onnxq.measure.proof.inside import differing_layers
from onnxq.measure.proof.locate import culprit, first_node
from onnxq.measure.proof.outputs import Ran
from onnxq.measure.proof.record import ProofFinding
from onnxq.measure.proof.runs import EXACT, PLAIN, Way, run
from onnxq.measure.proof.subject import Subject


@dataclass
class Differences:
    """Runs of one product on the same samples.

    proto: the product. reference: the run of the model it was made from. random: it draws random numbers, so outputs
    are not compared. notes: what could not be done is added.
    """

    subject: Subject
    proto: onnx.ModelProto
    batches: tuple[Batch, ...]
    reference: Ran
    random: bool
    notes: list[str] = field(default_factory=list)

    def run(self, way: Way, variant: Model | None = None, most: int | None = None) -> Ran:
        """The outputs of the product, or of a variant of it, on the batches. most: on so many of them."""
        product = variant or self.subject.product
        return run(self.proto if variant is None else to_proto(variant), product, self.batches[:most], way)

    def outputs(self, way: Way, plain: Ran, found: Ran) -> list[str]:
        """The outputs that a run computes differently from the unoptimized one, beyond rounding."""
        exact = self.subject.integer_only and not way.optimizes and not way.openvino
        first, second = judge.distances(self.reference, plain), judge.distances(self.reference, found)
        return list(judge.differing_outputs(first, second, judge.distances(plain, found), exact))

    def findings(self, way: Way, plain: Ran, found: Ran) -> Iterator[ProofFinding]:
        """Findings for a run that differs from the unoptimized one, in its outputs or inside."""
        outputs = self.outputs(way, plain, found)
        layers = self._differing_layers(way) if way.optimizes else []
        if layers:
            row, more = layers[0], f" (and {len(layers) - 1} more layer(s))" if len(layers) > 1 else ""
            text = f"layer {row.layer} ({row.op}) is up to {row.max_lsb:.0f} steps off in onnxruntime's {way.words}, "
            text += f"on the same codes{more}"
            explained = self._explained(text, way, self._layer_cause(way))
            yield ProofFinding("differs", way.name, outputs[0] if outputs else "", row.layer, *explained)
            return
        if self.random or not outputs:
            return
        product, batches = self.subject.product, self.batches[:2]
        cause = self._where_it_shows(way, plain, found)._output_cause(way, outputs)
        node = ""
        if cause != saturation.CAUSE:  # then the cause is known, and it is in every layer
            node = first_node(product, lambda part: _part_differs(part, product, batches, way)) or ""
        text = f"output {judge.named(outputs)} differs beyond rounding between {way.words} and the unoptimized run"
        text += f", first at node {node}" if node else ""
        yield ProofFinding("differs", way.name, outputs[0], node, *self._explained(text, way, cause))

    def _where_it_shows(self, way: Way, plain: Ran, found: Ran) -> Differences:
        """On one sample that shows the difference, if any does alone, so that its cause is found sooner."""
        for i in range(len(self.batches)):
            one, first, second = (_only(ran, i) for ran in (self.reference, plain, found))
            alone = replace(self, batches=self.batches[i : i + 1], reference=one)
            if first.outputs and second.outputs and alone.outputs(way, first, second):
                return alone
        return self

    def _differing_layers(self, way: Way) -> list[LayerConsistency]:
        if self.subject.quantized is None:
            return []
        try:
            return differing_layers(self.subject.product, self.batches[:1], way)
        except OnnxqError as err:
            self.notes.append(f"optimized layers were not looked at one by one: {err}")
            return []

    def _layer_cause(self, way: Way) -> str:
        def differ(way: Way, variant: Model | None = None) -> bool:
            try:
                return bool(differing_layers(variant or self.subject.product, self.batches[:1], way))
            except OnnxqError:
                return True  # not known to be right

        if self._saturates(way, differ):
            return saturation.CAUSE
        return culprit(lambda off: differ(way.without(off))) or ""

    def _output_cause(self, way: Way, outputs: Sequence[str]) -> str:
        def differ(way: Way, variant: Model | None = None) -> bool:
            found = self.run(way, variant)
            return bool(found.failed) or any(o in outputs for o in self.outputs(way, self.run(PLAIN, variant), found))

        if self._saturates(way, differ):
            return saturation.CAUSE
        return "" if way.openvino else culprit(lambda off: differ(way.without(off))) or ""

    def _saturates(self, way: Way, differ: Callable[[Way, Model | None], bool]) -> bool:
        """Whether a difference is this CPU's saturation: with exact sums there is none.

        differ: whether it is there on a way, in the product or in a variant of it.
        """
        if way.entries or not saturation.saturating_cpu():
            return False
        product = self.subject.product
        if not way.openvino:
            if self._runs_exactly(way):
                return not differ(_exactly(way), None)
            apart = saturation.with_own_weights(product)
            if self._runs_exactly(way, apart):
                return not differ(_exactly(way), apart)
        return not differ(way, saturation.with_narrow_weights(product))

    def _runs_exactly(self, way: Way, variant: Model | None = None) -> bool:
        """Whether onnxruntime's exact mode runs the product or a variant of it."""
        return not self.run(_exactly(way), variant, most=1).failed

    def _explained(self, text: str, way: Way, cause: str) -> tuple[str, str]:
        """(cause, text with the cause in words)."""
        if cause == saturation.CAUSE:
            runtime = "OpenVINO" if way.openvino else "onnxruntime"
            exact = not way.openvino and self._runs_exactly(way)
            text += f": {saturation.in_words(runtime, self.subject.weight_bits, exact)}"
        elif cause:
            text += f"; onnxruntime's optimizer {cause} does it"
        return cause, text


def _only(ran: Ran, index: int) -> Ran:
    """One sample of a run; without outputs, if it did not run that."""
    return Ran({name: values[index : index + 1] for name, values in ran.outputs.items() if len(values) > index})


def _exactly(way: Way) -> Way:
    return replace(way, entries=EXACT)


def _part_differs(part: onnx.ModelProto, product: Model, batches: Sequence[Batch], way: Way) -> bool:
    """Whether a part of the product differs between two runs by more than rounding, at its one output."""
    plain, found = run(part, product, batches, PLAIN), run(part, product, batches, way)
    if plain.failed or found.failed:
        return False
    return any(d is None or d.steps > judge.LAYER_STEPS * 2 for d in judge.distances(plain, found).values())
