"""Prove a product: run it as its target will, against the model it was made from, and name what is not right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from onnxq.data.source import DataSource
from onnxq.errors import OnnxqError, ProofError
from onnxq.graph.model import to_proto
from onnxq.graph.randomness import draws
from onnxq.measure.proof import judge, saturation
from onnxq.measure.proof.differences import Differences
from onnxq.measure.proof.inside import falls_at, lost_constants
from onnxq.measure.proof.locate import culprit, first_node
from onnxq.measure.proof.outputs import Ran
from onnxq.measure.proof.record import Proof, ProofFinding, ProofOptions, ProofRun
from onnxq.measure.proof.runs import PLAIN, Way, run, ways
from onnxq.measure.proof.samples import Samples, choose
from onnxq.measure.proof.subject import Subject
from onnxq.reporting import Reporter

LAYER_BATCHES = 2  # so many show whether a channel is constant
# Findings after which an output does not have the SQNR that the user requires.
WITHOUT_SQNR = ("low", "refused", "nonfinite")


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
    fatal = [f for f in proof.findings if options.strict or (options.min_sqnr is not None and f.kind in WITHOUT_SQNR)]
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
        self.random = draws(subject.reference.graph)
        self.notes: list[str] = []
        self.differences = Differences(
            subject, to_proto(subject.product), samples.batches, reference, self.random, self.notes
        )

    def result(self, proof: Proof) -> Proof:
        """The proof with its runs and findings."""
        target = ways(self.subject.product, self.subject.runtime, self.options.proof == "full")
        plain = self.differences.run(PLAIN)
        apart = judge.distances(self.reference, plain)
        runs = [judge.as_run(PLAIN.name, plain, apart)]
        if plain.failed:
            findings = [self._refused(PLAIN, plain)]
            return _noted(proof, *self.notes, runs=runs, findings=findings)
        findings = [*self._against_reference(PLAIN, apart), *self._lost()]
        refused: set[str] = set()
        for wanted in target:
            way, differences, found = self._on_target(wanted)
            other = judge.distances(self.reference, found)
            fewer = way.most if way.most and way.most < len(self.samples.batches) else None
            runs.append(judge.as_run(way.name, found, other if way.judged else {}, fewer))
            if found.failed:
                if found.failed not in refused:  # kernels and function bodies fail alike
                    findings.append(self._refused(way, found))
                refused.add(found.failed)
                continue
            if not way.judged:
                continue
            different = list(differences.findings(way, plain, found))
            findings += different
            below = any(f.kind == "low" for f in findings)
            # On fewer samples an equal output may have another SQNR: only that on all of them is judged.
            if not (below or fewer) and (not different or self.options.min_sqnr is not None):
                findings += self._against_reference(way, other)
        if not target:
            self.notes.append("nothing on this machine runs models as the target does: only the unoptimized run")
        if self.random:
            self.notes.append("the model draws random numbers: its outputs are not judged")
        return _noted(proof, *self.notes, runs=runs, findings=findings)

    def _on_target(self, way: Way) -> tuple[Way, Differences, Ran]:
        """The run of one way. Where only onnxruntime's exact mode refuses the product, that of an equal one."""
        found = self.differences.run(way)
        if not (found.failed and way.entries):
            return way, self.differences, found
        inexact = replace(way, entries=None)
        other = self.differences.run(inexact)
        if not other.failed:
            twin = replace(self.subject, product=saturation.with_own_weights(self.subject.product))
            differences = replace(self.differences, subject=twin, proto=to_proto(twin.product))
            found = differences.run(way)
            if not found.failed:
                return way, differences, found
        return inexact, self.differences, other

    def _refused(self, way: Way, found: Ran) -> ProofFinding:
        """The finding for a product that does not load or run."""
        product, batches = self.subject.product, self.samples.batches[:1]
        node = first_node(product, lambda part: bool(run(part, product, batches, way).failed)) or ""
        cause = (
            ""
            if way.level == "none" or way.openvino
            else culprit(lambda off: bool(run(self.differences.proto, product, batches, way.without(off)).failed)) or ""
        )
        text = f"{way.runtime} does not run the product: {found.failed}"
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
            text = f"output {output} has an SQNR of {sqnr:.1f} dB to the {self.subject.what} ({way.words}), under "
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
