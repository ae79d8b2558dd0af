"""Pipeline text and the runner."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.errors import ModelError, PassError, PipelineError, PostconditionError, PreconditionError, VerificationError
from onnxq.pipeline import MatchFailure, Pass, PassReport, PassResult, describe, parse, print_pipeline
from onnxq.pipeline import text as pipeline_text
from onnxq.reporting import Reporter
from support.build import floating

NET = "g (float[1,4] x) => (float[1,5] y) <float[4,5] w, float[5] b> { h = MatMul(x, w) i = Identity(h) y = Add(i, b) }"


@dataclass(frozen=True)
class Probe(Pass):
    """A pass with an option of every type, and a switch for everything that can go wrong."""

    name: ClassVar[str] = "probe"
    preserves_values: ClassVar[bool] = True
    count: int = 3
    factor: float = 0.5
    quick: bool = False
    label: str = "plain"
    limit: int | None = None
    kind: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()
    deed: str = ""

    def requires(self, graph, ctx):
        if self.deed == "requires":
            raise PreconditionError("the model is too small")

    def apply(self, graph, ctx):
        if self.deed == "bug":
            raise KeyError("w")
        if self.deed == "user":
            raise ModelError("the model is broken")
        if self.deed == "cut":
            graph.nodes.pop()
        if self.deed == "scale":
            weight = graph.nodes[0].inputs[1]
            graph.nodes[0].inputs[1] = gs.Constant(weight.name, weight.values * np.float32(1.01))
        if self.deed == "shuffle":
            graph.nodes[:] = graph.nodes[::-1]
            graph.nodes.append(gs.Node("Neg", "dead", {}, [graph.inputs[0]], [gs.Variable("dead", np.float32, [1, 4])]))
        return PassResult(1, (MatchFailure("it is shared", "n1"),), ("a note",))

    def ensures(self, graph, ctx):
        if self.deed == "ensures":
            raise PostconditionError("something is left")


@dataclass(frozen=True)
class Needy(Pass):
    """A pass with an option that must be given."""

    name: ClassVar[str] = "needy"
    version: int

    def apply(self, graph, ctx):
        return PassResult()


@pytest.fixture
def probe(monkeypatch):
    found = pipeline.available()
    monkeypatch.setattr(pipeline_text, "available", lambda: found | {"probe": Probe, "needy": Needy})


def test_every_pass_is_found_by_its_file_name(root):
    files = {p.stem.replace("_", "-") for p in (root / "passes").glob("*.py") if not p.name.startswith("_")}
    found = pipeline.available()
    assert set(found) == files
    for name, cls in found.items():
        assert cls.name == name
        assert cls.__doc__, name
        assert not cls.__doc__.startswith(f"{cls.__name__}("), f"{name} has no sentence of its own"


def test_text_and_passes(probe):
    text = "fold-constants,probe{count=7 quick=true limit=9 kind=b},fold-batchnorm,needy{version=13}"
    passes = parse(text)
    assert [p.name for p in passes] == ["fold-constants", "probe", "fold-batchnorm", "needy"]
    assert passes[1] == Probe(count=7, quick=True, limit=9, kind="b")
    assert print_pipeline(passes) == text


def test_defaults_are_left_out_and_blanks_do_not_matter(probe):
    passes = parse("  probe { count = 3   label = plain } ,\n needy{version=13} ")
    assert print_pipeline(passes) == "probe,needy{version=13}"
    assert parse("probe{names=x,y}")[0].names == ("x", "y")
    assert parse("probe{limit=none}")[0].limit is None
    assert parse("convert-float32{keep-io=false}") == parse("convert-float32{keep_io=false}")


# Quoted names of any kind; tuples are joined by commas, so their parts have none.
labels = st.text(st.characters(exclude_categories=("Cs",)), max_size=12).filter(lambda s: s != "none")


@given(
    count=st.integers(-(10**6), 10**6),
    factor=st.floats(allow_nan=False, allow_infinity=False),
    quick=st.booleans(),
    label=labels,
    limit=st.none() | st.integers(0, 9),
    kind=st.sampled_from(["a", "b"]),
)
def test_printing_and_parsing_are_inverse(count, factor, quick, label, limit, kind):
    written = Probe(count, factor, quick, label, limit, kind)
    registry = {"probe": Probe}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_text, "available", lambda: registry)
        assert parse(print_pipeline([written, written])) == (written, written)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the pipeline is empty"),
        ("fold-constant", r"column 1: no pass is called 'fold-constant'; did you mean fold-constants\?"),
        ("xyzzy", r"no pass is called 'xyzzy' \(there are: "),
        ("probe,", "column 7: expected a pass name"),
        ("probe,,probe", "column 7: expected a pass name"),
        ("probe probe", "column 7: expected ',' or the end"),
        ("probe{count=1", "column 6: expected ',' or the end"),
        ("probe{count}", "column 7: expected key=value"),
        ("probe{count=x}", "pass probe, option count: 'x' is not an integer"),
        ("probe{factor=x}", "'x' is not a number"),
        ("probe{quick=yes}", "'yes' is neither true nor false"),
        ("probe{kind=c}", "'c' is not one of a, b"),
        ("probe{colour=1}", r"pass probe: unknown option 'colour' \(known: count, factor"),
        ("probe{count=1 count=2}", "column 15: option count is given twice"),
        ("needy", "column 1: pass needy: option 'version' is missing"),
        ("eliminate-identity{x=1}", r"unknown option 'x' \(known: none\)"),
    ],
)
def test_text_that_does_not_parse(probe, text, why):
    with pytest.raises(PipelineError, match=why) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def run(*passes: Pass, reporter: Reporter | None = None, **options) -> list[PassReport]:
    source = floating.model(NET)
    return pipeline.run(source, passes, PassContext(source, reporter=reporter or Reporter()), **options)


def test_reports():
    seen = []
    reports = run(Probe(count=7), *parse("eliminate-identity"), reporter=Reporter(on_report=seen.append))
    assert seen == reports
    assert [r.text for r in reports] == ["probe{count=7}", "eliminate-identity"]
    assert (reports[0].changed, reports[0].notes) == (1, ("a note",))
    assert reports[0].skipped == (MatchFailure("it is shared", "n1"),)
    assert reports[0].seconds >= 0
    assert reports[0].differences == {}
    assert describe(reports[0]).splitlines()[1:] == ["  not changed (1): it is shared: n1", "  a note"]


def test_the_graph_is_sorted_and_cleared_between_passes():
    source = floating.model(NET)
    pipeline.run(source, [Probe(deed="shuffle")], PassContext(source))
    assert [n.name for n in source.graph.nodes] == ["h", "i", "y"]


@pytest.mark.parametrize(
    ("deed", "kind", "text"),
    [
        ("requires", PreconditionError, "pass probe (after eliminate-identity): the model is too small"),
        ("ensures", PostconditionError, "pass probe (after eliminate-identity): something is left"),
        ("cut", PostconditionError, "pass probe (after eliminate-identity): tensor y, read by the graph's outputs, is"),
        ("bug", PassError, "pass probe (after eliminate-identity) failed: KeyError: 'w'"),
        ("user", ModelError, "the model is broken"),
    ],
)
def test_a_failing_pass_is_named_with_those_before_it(deed, kind, text):
    with pytest.raises(kind) as caught:
        run(*parse("eliminate-identity"), Probe(deed=deed))
    assert str(caught.value).startswith(text)


def test_the_first_pass_has_none_before_it():
    with pytest.raises(PreconditionError, match=r"^pass probe: the model is too small$"):
        run(Probe(deed="requires"))


def test_save_after(tmp_path):
    target = tmp_path / "m.onnx"
    reports = run(*parse("eliminate-identity,fuse-matmul-add"), save_after=("eliminate-identity", target))
    assert [r.changed for r in reports] == [1, 1]
    assert [n.op_type for n in onnx.load(target).graph.node] == ["MatMul", "Add"]
    with pytest.raises(PipelineError, match=r"--save-after probe: not in the pipeline eliminate-identity"):
        run(*parse("eliminate-identity"), save_after=("probe", target))


def test_verification_shows_the_largest_difference():
    (report,) = run(*parse("eliminate-identity"), verify=True)
    assert report.differences == {"y": 0.0}
    assert "verified: output y differs by at most 0" in describe(report)


def test_verification_catches_a_pass_that_changes_values():
    with pytest.raises(VerificationError, match=r"pass probe changed output y \(sample 0\) by "):
        run(Probe(deed="scale"), verify=True)
    assert run(Probe(deed="scale"))[0].differences == {}


def test_what_does_not_claim_to_preserve_values_is_not_verified():
    source = floating.model(NET)
    ctx = PassContext(source)
    (report,) = pipeline.run(source, parse("convert-float32{keep_io=false}"), ctx, verify=True)
    assert report.differences == {}
