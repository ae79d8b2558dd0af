"""Every decision names its rule; planning leaves the graph as it is and happens once in a pipeline."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxq import pipeline, recipes
from onnxq.context import PassContext
from onnxq.graph.element_types import fill_types
from onnxq.graph.model import from_proto, to_proto
from onnxq.placement import cache
from onnxq.placement import rules as rules_module
from onnxq.placement.facts import analyze, end_nodes
from onnxq.placement.plan import Placement
from onnxq.placement.planner import plan
from onnxq.placement.rules import Rule
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import builtin_names, load_profile
from support.build import qdq
from support.insertion import observe

TEXT = """g (float[1,4,6,6] x, bool k) => (float[1,4,6,6] y, float[1,4,3,3] p)
<float[4,4,1,1] w1, float[4,4,1,1] w2, float[6] odd>
{ [c1] a = Conv(x, w1) [r1] b = Relu(a) [c2] c = Conv(b, w2) [add] d = Add(c, x) [out] y = Softmax(d)
  [mp] p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(d) [shifted] e = Add(b, odd)
  [if] z = If (k) <then_branch = yes () => (float[1,4,6,6] t) { [inner] t = Conv(b, w2) },
                   else_branch = no () => (float[1,4,6,6] f) { [neg] f = Neg(e) }> }"""


def decided(profile: str, text: str = TEXT, **settings) -> dict[str, tuple[str, Rule]]:
    model = qdq.model(text)
    placement = plan(model.graph, load_profile(profile), QuantSettings(**settings))
    return {name: (decision.action, decision.rule) for name, decision in placement.decisions.items()}


def test_who_decides() -> None:
    found = decided("tensorrt", exclude=("c2",))
    assert found["c1"] == ("quantized", Rule.PROFILE)
    assert found["r1"] == ("fused", Rule.ACTIVATION)
    assert found["c2"] == ("float", Rule.USER)
    assert found["add"] == ("quantized", Rule.PROFILE)
    assert found["out"] == ("float", Rule.PROFILE)
    assert found["mp"] == ("float", Rule.UNUSED)
    assert found["shifted"] == ("float", Rule.OPERANDS)
    assert found["inner"] == ("float", Rule.BODY)
    assert decided("ascend")["add"] == ("float", Rule.PROFILE)
    assert decided("onnxq")["out"] == ("float", Rule.INNER)
    assert decided("tensorrt", op_types=("Add",))["c1"] == ("float", Rule.OP_TYPES)


BIAS = "g (float[2,4] x) => (float[2,4] y) <float[4,4] w, float[4] b> { [mm] a = MatMul(x, w) [add] y = Add(a, b) }"


def test_who_decides_about_a_bias() -> None:
    assert decided("onnxq", BIAS)["add"] == ("fused", Rule.MATMUL_BIAS)
    assert decided("tensorrt", BIAS)["add"] == ("float", Rule.OPERANDS)


def test_the_reason_of_a_decision_is_what_is_skipped() -> None:
    placement = plan(qdq.model(TEXT).graph, load_profile("openvino"), QuantSettings())
    reasons = {(d.node.name, d.reason) for d in placement.decisions.values() if d.reason}
    assert {(f.node, f.reason) for f in placement.skipped} == reasons
    assert all(placement.decisions[f.node].action == "float" for f in placement.skipped)


def test_every_rule_is_in_the_table() -> None:
    assert rules_module.__doc__ is not None
    for rule in Rule:
        assert f"\n{rule.value} {rule.name} " in rules_module.__doc__


UNKNOWN = """<ir_version: 8, opset_import: ["": 13, "own": 1]>
g (float[1,4,6,6] x) => (y) <float[4,4,1,1] w = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}>
{ [op] t = own.Something(x) [conv] y = Conv(t, w) }"""


def same(a: Placement, b: Placement) -> bool:
    return (a.points, a.layers, a.decisions, a.skipped) == (b.points, b.layers, b.decisions, b.skipped)


@pytest.mark.parametrize("profile", builtin_names())
def test_planning_leaves_the_graph_as_it_is(profile: str) -> None:
    model = from_proto(onnx.parser.parse_model(UNKNOWN))
    before = to_proto(model).SerializeToString(deterministic=True)
    placement = plan(model.graph, load_profile(profile), QuantSettings())
    assert to_proto(model).SerializeToString(deterministic=True) == before
    assert model.graph.nodes[1].inputs[0].dtype is None and not placement.points  # its type is not known
    fill_types(model.graph)
    assert plan(model.graph, load_profile(profile), QuantSettings()).points


def test_facts() -> None:
    model = qdq.model(TEXT)
    facts = analyze(model.graph, load_profile("onnxq"))
    depth = {node.name: layers for node, layers in facts.depth.items()}
    assert (depth["c1"], depth["c2"], depth["add"]) == (0, 1, 2)
    tail = {node.name for node in facts.tail}
    assert {"add", "out", "mp", "c2"} <= tail and not {"c1", "r1"} & tail
    assert {node.name for node in end_nodes(model.graph)} == tail | {"c1"}


def test_the_placement_is_planned_once_in_a_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*given) -> Placement:
        calls.append(given)
        return plan(*given)

    monkeypatch.setattr(cache, "plan", counted)
    model, target = qdq.model(TEXT), load_profile("onnxruntime-cpu")
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.normal(size=(1, 4, 6, 6)).astype(np.float32), "k": np.array(True)}]
    ctx = PassContext(model, target, QuantSettings(), statistics=observe(model, feeds))
    pipeline.run(model, recipes.quantize_pipeline(target, QuantSettings(), target), ctx)
    assert len(calls) == 1 and ctx.placement is not None and ctx.placement.points


def test_a_changed_graph_is_planned_again() -> None:
    model, target = qdq.model(TEXT), load_profile("tensorrt")
    kept = cache.PlanCache()
    first = kept.get(model.graph, target, QuantSettings())
    assert kept.get(model.graph, target, QuantSettings()) is first
    assert kept.get(model.graph, target, QuantSettings(exclude=("c1",))) is not first
    assert kept.get(model.graph, load_profile("openvino"), QuantSettings()).profile.name == "openvino"
    again = kept.get(model.graph, target, QuantSettings())
    assert again is not first and same(again, first)
    kept.clear()
    assert kept.get(model.graph, target, QuantSettings()) is not again
    removed = model.graph.nodes.pop()
    assert removed.name not in kept.get(model.graph, target, QuantSettings()).decisions
