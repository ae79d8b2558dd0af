"""From a QDQ model to an integer-only one in one call: lower, fuse residuals, keep tensors channels-last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack

import onnx
import onnx_graphsurgeon as gs

from onnxq import pipeline
from onnxq.card import Card, card_path, embed, find_card
from onnxq.card.assembly.lowered import with_lowering
from onnxq.check.findings import INTEGER_OPS
from onnxq.check.integer_only import FloatOp, check_integer
from onnxq.context import PassContext
from onnxq.data.spec import apply_shapes, input_specs
from onnxq.errors import ConfigError, ModelError
from onnxq.execution import save
from onnxq.graph import files, marks
from onnxq.graph.match import MatchFailure
from onnxq.graph.model import Libraries, Model, copy_of, load, to_proto
from onnxq.graph.qdq import has_qdq
from onnxq.graph.shapes import infer
from onnxq.graph.walk import all_graphs
from onnxq.measure.proof import Proof, ProofKeywords, ProofOptions, Subject, proven
from onnxq.numeric.dyadic import Form
from onnxq.operators import DOMAIN
from onnxq.recipes import lower_pipeline
from onnxq.records import check_keywords, refined
from onnxq.reporting import PassReport, Reporter

FORMS = ("auto", "fixed", "general")


@dataclass
class Lowered:
    """An integer-only model, or one with islands of float operators.

    reports: one per pass. islands: nodes that stayed in float, each with its reason, including those upstream and
    downstream of the integer part. card: that of the QDQ model, updated; None without one. proof: against the QDQ
    model; None without one.
    """

    graph_model: Model
    reports: list[PassReport] = field(default_factory=list)
    islands: tuple[MatchFailure, ...] = ()
    card: Card | None = None
    proof: Proof | None = None

    @property
    def model(self) -> onnx.ModelProto:
        """The model, with the function bodies of the operators it uses."""
        return to_proto(self.graph_model)

    @property
    def operators(self) -> dict[str, int]:
        """Number of nodes per operator of com.onnxq."""
        return dict(sorted(Counter(n.op for n in self.graph_model.graph.nodes if n.domain == DOMAIN).items()))

    @property
    def rescales(self) -> dict[str, int]:
        """Number of nodes per form of multipliers: fixed, general, or identity (none)."""
        forms = (marks.RESCALE.get(n) for n in self.graph_model.graph.nodes)
        return dict(sorted(Counter(f for f in forms if f).items()))

    def inside(self) -> list[FloatOp]:
        """Float operators between the first QuantizeLinear and the last DequantizeLinear; none: integer-only."""
        reasons = {failure.node: failure.reason for failure in self.islands}
        return check_integer(self.graph_model, reasons)

    def save(self, path: str | Path) -> None:
        """Validate and write the model, and its card, if any, next to it. Raises ModelError or OutputError."""
        target = files.check_writable(path)
        beside = {}
        if self.card is not None:
            beside[files.check_writable(card_path(target)).name] = self.card.to_json()
        save.save(self.graph_model, target, beside=beside)


class LowerKeywords(ProofKeywords, total=False):
    """Fields of Reporter and ProofOptions that lower accepts as keywords."""

    say: Callable[[str], None]
    on_report: Callable[[PassReport], None] | None


def lower(
    source: str | Path | bytes | onnx.ModelProto | Model,
    *,
    rescale: Form = "auto",
    shapes: Mapping[str, Sequence[int]] | None = None,
    verify: bool = False,
    reporter: Reporter | None = None,
    card: Card | None = None,
    custom_ops: Libraries = (),
    proving: ProofOptions | None = None,
    **keywords: Unpack[LowerKeywords],
) -> Lowered:
    """Lower a QDQ model, made by onnxq or another tool, to integer operators.

    source: path, bytes, ModelProto, or a loaded Model, which is changed in place. rescale: form of the multipliers,
    "fixed" (shift 32), "general", or "auto": fixed where it is as exact. shapes: fixes free dimensions of inputs,
    {name: dims}: means and products need the length of their sums. verify: check that the passes after lower-dyadic
    preserve every value. reporter: callbacks for reports; say and on_report are also keywords. card: of the QDQ model;
    None takes the one in it or next to it. custom_ops: libraries of operators that the model needs. What cannot be
    lowered stays in float, with the reason in `islands`. proving: how the result is proven, against the QDQ model on
    random samples (onnxq.measure.proof); proof, strict and min_sqnr are also keywords.
    Raises ProofError for a result that fails its proof if it must not, ModelError for a model that is not QDQ, and
    ConfigError for an unknown form.
    """
    check_keywords("lower", keywords, LowerKeywords)
    reporter = refined(reporter or Reporter(), keywords)
    proving = refined(proving or ProofOptions(), keywords)
    if rescale not in FORMS:
        raise ConfigError(f"rescale {rescale!r} is not one of {', '.join(FORMS)}")
    model = load(source, custom_ops)
    _check_quantized(model)
    _fix_shapes(model, shapes or {})
    for note in model.notes:
        reporter.say(note)
    reference = copy_of(model) if proving.proof != "none" else None
    passes = lower_pipeline(rescale)
    reports = pipeline.run(model, passes, PassContext(model, reporter=reporter), verify=verify)
    islands = next(r.skipped for r in reports if r.text.startswith("lower-dyadic"))
    lowered = Lowered(model, reports, islands)
    if reference is not None:
        subject = Subject(reference, model, what="QDQ model", integer_only=not lowered.inside())
        lowered.proof = proven(subject, None, proving, reporter)
    card = card or find_card(model)
    if card is not None:
        lowered.card = with_lowering(
            card, model, passes, reports, lowered.operators, lowered.rescales, lowered.inside()
        )
        if lowered.proof is not None:
            lowered.card = lowered.card.with_proof(lowered.proof)
        embed(model, lowered.card)
    return lowered


def _fix_shapes(model: Model, shapes: Mapping[str, Sequence[int]]) -> None:
    """Fix the dimensions of inputs and infer shapes again. Raises ConfigError where they contradict."""
    if not shapes:
        return
    fixed = {spec.name: spec.shape for spec in apply_shapes(input_specs(model.graph), shapes)}
    for tensor in model.graph.inputs:
        tensor.shape = list(fixed[tensor.name] or ()) if tensor.name in shapes else tensor.shape
    borders = {id(t) for t in (*model.graph.inputs, *model.graph.outputs)}
    for tensor in model.graph.tensors().values():
        if isinstance(tensor, gs.Variable) and id(tensor) not in borders:
            tensor.shape = None  # a known shape would override the inferred one
    infer(model.graph)


def _check_quantized(model: Model) -> None:
    if any(has_qdq(g) for g in all_graphs(model.graph)):
        return
    integer = next((n for g in all_graphs(model.graph) for n in g.nodes if n.op in INTEGER_OPS), None)
    if integer is not None:
        raise ModelError(
            f"{model.name} already contains integer operators (node {integer.name}, {integer.op}); only the QDQ form "
            "can be lowered, with QuantizeLinear and DequantizeLinear around float operators"
        )
    raise ModelError(
        f"{model.name} is a float model, nothing to lower: quantize it first (onnxq quantize --profile onnxq)"
    )


__all__ = ["Lowered", "lower"]
