"""Prove a product: run it as its target will, against the model it was made from, and name what is not right."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx

from onnxq.data.source import Batch, DataSource
from onnxq.errors import OnnxqError, ProofError
from onnxq.execution import library
from onnxq.graph.model import Model, to_proto
from onnxq.graph.randomness import draws
from onnxq.measure.consistency import LayerConsistency
from onnxq.measure.proof import judge
from onnxq.measure.proof.inside import differing_layers, falls_at, lost_constants
from onnxq.measure.proof.locate import culprit, first_node
from onnxq.measure.proof.outputs import Ran
from onnxq.measure.proof.record import Proof, ProofFinding, ProofOptions, ProofRun
from onnxq.measure.proof.runs import EXACT, OPTIMIZED, PLAIN, Way, run, ways
from onnxq.measure.proof.samples import Samples, choose
from onnxq.reporting import Reporter

SATURATES = (
    "this CPU has no VNNI instructions, so that {runtime} adds products of uint8 and int8 in 16 bits, which saturate; "
    "with weights of 7 bits (--weight-bits 7 --first-last-bits 7) they do not{entry}"
)
ENTRY = ", nor with onnxruntime's session option session.x64quantprecision=1"
LAYER_BATCHES = 2  # so many show whether a channel is constant
VNNI = ("avx512vnni", "avx512_vnni", "avxvnni", "avx_vnni")


@dataclass(frozen=True)
class Subject:
    """What is proven. reference: the float model (or, for lowering alone, the QDQ model). product: of it.

    qdq: the product before lowering, if it is integer-only. runtime: the profile's. what: the reference, in words.
    integer_only: no float operator is between its integers, so that kernels and function bodies are equal.
    """

    reference: Model
    product: Model
    qdq: Model | None = None
    runtime: str = "onnxruntime"
    what: str = "float model"
    integer_only: bool = False

    @property
    def quantized(self) -> Model | None:
        """The model with Q/DQ, in which layers can be looked at one by one."""
        return self.product if self.qdq is None and self.what == "float model" else self.qdq


def prove(subject: Subject, source: DataSource | None, options: ProofOptions) -> Proof:
    """Run the product and its reference on a few samples and compare them.

    source: the calibration data; None, or data that cannot be read again, is replaced by random samples. The runs: the
    reference and the product without optimizations, and the product in every way in which its target runs it (Way).
    Never raises for what is wrong with the product: that is what findings are for.
    """
    full = options.proof == "full"
    samples = choose(subject.reference, source, full)
    proof = Proof(options.proof, subject.what, samples.count, samples.random, options.floor)
    if samples.why:
        return _noted(proof, f"nothing was run: {samples.why}")
    reference = run(to_proto(subject.reference), subject.reference, samples.batches, PLAIN)
    if reference.failed:
        return _noted(proof, f"nothing was compared: the {subject.what} does not run: {reference.failed}")
    return _Prover(subject, samples, options, reference).result(proof)


def proven(subject: Subject, source: DataSource | None, options: ProofOptions, reporter: Reporter) -> Proof:
    """The proof of a product; what it finds is said, one warning a finding.

    Raises ProofError for findings that options make errors.
    """
    proof = prove(subject, source, options)
    for finding in proof.findings:
        reporter.say(f"warning: {finding.text}")
    require(proof, options)
    return proof


def require(proof: Proof, options: ProofOptions) -> None:
    """Raise ProofError for findings, if they are to be errors."""
    fatal = [f for f in proof.findings if options.strict or (options.min_sqnr is not None and f.kind == "low")]
    if options.min_sqnr is not None and proof.notes and not proof.runs:
        raise ProofError(f"the product is not proven: {proof.notes[0]}")
    if fatal:
        more = f" (and {len(fatal) - 1} more finding(s))" if len(fatal) > 1 else ""
        raise ProofError(f"the product fails its proof: {fatal[0].text}{more}")


def _noted(proof: Proof, *notes: str, runs: Sequence[ProofRun] = (), findings: Sequence[ProofFinding] = ()) -> Proof:
    return Proof(
        proof.level,
        proof.reference,
        proof.samples,
        proof.random,
        proof.floor_db,
        tuple(runs),
        tuple(findings),
        (*proof.notes, *notes),
    )


class _Prover:
    """One proof, once its reference has run."""

    def __init__(self, subject: Subject, samples: Samples, options: ProofOptions, reference: Ran) -> None:
        self.subject, self.samples, self.options, self.reference = subject, samples, options, reference
        self.proto = to_proto(subject.product)
        self.random = draws(subject.reference.graph)
        self.notes: list[str] = []

    def result(self, proof: Proof) -> Proof:
        """The proof with its runs and findings."""
        target = ways(self.subject.product, self.subject.runtime, self.options.proof == "full")
        plain = self._run(PLAIN)
        apart = judge.distances(self.reference, plain)
        runs = [judge.as_run(PLAIN.name, plain, apart)]
        if plain.failed:
            findings = [self._refused(PLAIN, plain)]
            return _noted(proof, *self.notes, runs=runs, findings=findings)
        findings = [*self._against_reference(PLAIN, apart), *self._lost()]
        refused: set[str] = set()
        for way in target:
            found = self._run(way)
            other = judge.distances(self.reference, found)
            runs.append(judge.as_run(way.name, found, other))
            if found.failed:
                if found.failed not in refused:  # kernels and function bodies fail alike
                    findings.append(self._refused(way, found))
                refused.add(found.failed)
                continue
            between = judge.distances(plain, found)
            different = list(self._differs(way, list(judge.differing_outputs(apart, other, between, self._exact(way)))))
            findings += different
            if not different and not any(f.kind == "low" for f in findings):
                findings += self._against_reference(way, other)
        if not target:
            self.notes.append("nothing on this machine runs models as the target does: only the unoptimized run")
        if self.random:
            self.notes.append("the model draws random numbers: its outputs are not judged")
        return _noted(proof, *self.notes, runs=runs, findings=findings)

    def _run(self, way: Way) -> Ran:
        return run(to_proto(self.subject.product), self.subject.product, self.samples.batches, way)

    def _exact(self, way: Way) -> bool:
        return self.subject.integer_only and way.name != OPTIMIZED and not way.openvino

    def _refused(self, way: Way, found: Ran) -> ProofFinding:
        """The finding for a product that does not load or run."""
        product, batches = self.subject.product, self.samples.batches[:1]
        node = first_node(product, lambda part: bool(run(part, product, batches, way).failed)) or ""
        cause = (
            ""
            if way.level == "none" or way.openvino
            else culprit(lambda off: bool(run(to_proto(product), product, batches, way.without(off)).failed)) or ""
        )
        text = f"{_runtime(way)} does not run the product: {found.failed}"
        text += f"; already the part up to node {node} fails" if node else ""
        text += f"; without onnxruntime's optimizer {cause} it runs" if cause else ""
        return ProofFinding("refused", way.name, "", node, cause, text)

    def _against_reference(self, way: Way, apart: judge.Distances) -> Iterator[ProofFinding]:
        if self.random:
            return
        for output, count in judge.nonfinite_outputs(apart):
            text = f"output {output} has {count} value(s) that are NaN or infinite, the {self.subject.what} none"
            yield ProofFinding("nonfinite", way.name, output, "", "", text)
        low = list(judge.low_outputs(apart, self.options.floor))
        node = self._falls_at() if low and way.level == "none" else ""
        for output, sqnr in low:
            text = f"output {output} has an SQNR of {sqnr:.1f} dB to the {self.subject.what} ({_shown(way)}), under "
            text += f"{self.options.floor:g} dB" + (f"; it falls under that at node {node}" if node else "")
            yield ProofFinding("low", way.name, output, node, "", text)

    def _falls_at(self) -> str:
        tested = self.subject.quantized
        if tested is None:
            return ""
        try:
            return falls_at(self.subject.reference, tested, self.samples.batches[:1], self.options.floor)
        except OnnxqError as err:
            self.notes.append(f"the node where it falls was not found: {err}")
            return ""

    def _lost(self) -> Iterator[ProofFinding]:
        tested = self.subject.quantized
        if tested is None or self.random:
            return
        try:
            found = lost_constants(self.subject.reference, tested, self.samples.batches[:LAYER_BATCHES])
        except OnnxqError as err:
            self.notes.append(f"layers were not looked at one by one: {err}")
            return
        for node, lost in found:
            first = lost[0]
            text = f"layer {node} loses the constant of {len(lost)} of its channels: channel {first.channel} is "
            text += f"{first.expected:.4g} in the {self.subject.what} and {first.found:.4g} here"
            yield ProofFinding("lost", PLAIN.name, "", node, "", text)

    def _differs(self, way: Way, outputs: list[str]) -> Iterator[ProofFinding]:
        """Findings for a run that differs from the unoptimized one, in its outputs or inside."""
        if way.name == OPTIMIZED:
            layers = self._layers((), None)
            if layers:
                row = layers[0]
                cause = self._layer_cause()
                text = f"layer {row.layer} ({row.op}) is up to {row.max_lsb:.0f} steps off in onnxruntime's default "
                text += f"optimization, on the same codes{_more(len(layers) - 1)}"
                yield ProofFinding(
                    "differs", way.name, outputs[0] if outputs else "", row.layer, *_explained(text, cause)
                )
                return
        if self.random or not outputs:
            return
        product, batches = self.subject.product, self.samples.batches[:2]

        def differs(off: Sequence[str]) -> bool:
            return self._outputs_differ(way.without(off), outputs)

        cause = "" if way.openvino else culprit(differs) or ""
        if not cause and self._saturates(way, outputs):
            cause = "saturation"
        node = ""
        if cause != "saturation":  # then the cause is known, and it is in every layer
            node = first_node(product, lambda part: _part_differs(part, product, batches, way)) or ""
        text = f"output {judge.named(outputs)} differs beyond rounding between {_shown(way)} and the unoptimized run"
        text += f", first at node {node}" if node else ""
        yield ProofFinding("differs", way.name, outputs[0], node, *_explained(text, cause, way.openvino))

    def _outputs_differ(self, way: Way, outputs: Sequence[str]) -> bool:
        plain, found = self._run(PLAIN), self._run(way)
        if found.failed:
            return True
        first, second = judge.distances(self.reference, plain), judge.distances(self.reference, found)
        differing = judge.differing_outputs(first, second, judge.distances(plain, found), self._exact(way))
        return any(name in outputs for name in differing)

    def _saturates(self, way: Way, outputs: Sequence[str]) -> bool:
        if way.openvino:
            return saturating_cpu()
        return not self._outputs_differ(Way(way.name, way.level, way.kernels, way.disabled, EXACT), outputs)

    def _layers(self, disabled: Sequence[str], entries: dict[str, str] | None) -> list[LayerConsistency]:
        if self.subject.quantized is None:
            return []
        try:
            return differing_layers(self.subject.product, self.samples.batches[:1], disabled, entries)
        except OnnxqError as err:
            note = f"optimized layers were not looked at one by one: {err}"
            self.notes += [note] if note not in self.notes else []
            return []

    def _layer_cause(self) -> str:
        if not self._layers((), EXACT) and saturating_cpu():
            return "saturation"
        return culprit(lambda off: bool(self._layers(off, None))) or ""


def _part_differs(part: onnx.ModelProto, product: Model, batches: Sequence[Batch], way: Way) -> bool:
    """Whether a part of the product differs between two runs by more than rounding, at its one output."""
    plain, found = run(part, product, batches, PLAIN), run(part, product, batches, way)
    if plain.failed or found.failed:
        return False
    return any(d is None or d.steps > judge.LAYER_STEPS * 2 for d in judge.distances(plain, found).values())


def saturating_cpu() -> bool:
    """Whether this CPU adds products of uint8 and int8 in 16 bits: x86 without VNNI."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        return not any(name in VNNI for name in library.cpu_features())
    except OnnxqError:
        return True  # not known: the caller has already seen a difference that the exact mode removes


def _more(count: int) -> str:
    return f" (and {count} more layer(s))" if count > 0 else ""


def _explained(text: str, cause: str, openvino: bool = False) -> tuple[str, str]:
    """(cause, text with the cause in words)."""
    if cause == "saturation":
        words = SATURATES.format(runtime="OpenVINO" if openvino else "onnxruntime", entry="" if openvino else ENTRY)
        return cause, f"{text}: {words}"
    return cause, text + (f"; onnxruntime's optimizer {cause} does it" if cause else "")


def _runtime(way: Way) -> str:
    if way.openvino:
        return "OpenVINO"
    return {"none": "onnxruntime, without optimizations,"}.get(way.level, f"onnxruntime ({_shown(way)})")


def _shown(way: Way) -> str:
    return {"unoptimized": "unoptimized", OPTIMIZED: "default optimization"}.get(way.name, way.name)
