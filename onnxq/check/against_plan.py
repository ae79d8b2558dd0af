"""What stands in a QDQ model against what would be planned for it: its copy without Q/DQ, planned as `quantize` does.

The rules are those of placement (onnxq/placement/rules.py), cited by their numbers; none is decided here. A node is
known by its name in both graphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxq.check.findings import Finding
from onnxq.check.fixes import NONE, fix_of
from onnxq.check.float_model import matters
from onnxq.cost.layer_costs import tensor_bits
from onnxq.graph.axes import LINEAR_OPS
from onnxq.graph.element_types import fill_types
from onnxq.graph.identity import IdentityMap
from onnxq.graph.match import STANDARD_DOMAINS, consumers, is_constant, is_float, output_ids, producer
from onnxq.graph.qdq import (
    dequantizer,
    describe,
    entry,
    is_grid_clip,
    is_quantize,
    is_quantized_constant,
    pair,
    quantizers,
)
from onnxq.patterns.attention import float_softmax
from onnxq.patterns.composites import Unit
from onnxq.placement.facts import Facts, analyze
from onnxq.placement.fitness import SUMS
from onnxq.placement.plan import Placement, Point
from onnxq.placement.planner import plan
from onnxq.placement.rules import Decision, Rule
from onnxq.placement.settings import Override, QuantSettings
from onnxq.profiles.schema import Profile


@dataclass(frozen=True)
class Comparison:
    """A graph with Q/DQ and the plan of its float twin.

    standing: the graph's nodes by name. outputs, scores: match.output_ids and attention.feeds_softmax of the graph.
    facts, placement: of the twin. nodes: the twin's by name. reads: node name → inputs that the plan has quantized,
    constants among them. points: the twin's tensors that the plan quantizes.
    """

    target: Profile
    standing: dict[str, gs.Node]
    outputs: Set[int]
    scores: Set[int]
    facts: Facts
    placement: Placement
    nodes: dict[str, gs.Node]
    reads: dict[str, list[int]]
    points: IdentityMap[gs.Tensor, Point]

    @property
    def again(self) -> str:
        """The fix of what another placement would fix."""
        return f"onnxq quantize --requantize --profile {self.target.name}"

    def remark(self, node: gs.Node, problem: str, fix: str = "") -> Finding:
        """A finding of a node; without a fix, that is to quantize again."""
        return Finding("remark", node.name, problem, fix or self.again)


def compare(graph: gs.Graph, twin: gs.Graph, target: Profile, scores: Set[int]) -> Comparison:
    """Plan the float twin of a graph, with the widths of the graph's layers.

    twin: the graph without its Q/DQ, sorted. scores: feeds_softmax of the graph.
    """
    fill_types(twin)
    facts = analyze(twin, target)
    placement = plan(twin, target, QuantSettings(overrides=_widths(graph, target)), facts)
    reads: dict[str, list[int]] = {}
    edges = [edge for point in placement.points for edge in point.edges]
    for node, index in [*edges, *((c.node, c.input_index) for c in placement.constants)]:
        reads.setdefault(node.name, []).append(index)
    nodes = {node.name: node for node in twin.nodes}
    points = IdentityMap((point.tensor, point) for point in placement.points)
    standing = {node.name: node for node in graph.nodes}
    return Comparison(target, standing, output_ids(graph), scores, facts, placement, nodes, reads, points)


def _widths(graph: gs.Graph, target: Profile) -> dict[str, Override]:
    """The widths of the graph's layers, where the target has them."""
    found = {}
    for node in graph.nodes:
        if node.op in LINEAR_OPS and node.domain in STANDARD_DOMAINS and any(_is_known(t) for t in node.inputs[:2]):
            index = 1 if _is_known(node.inputs[1]) else 0
            weight, data = (tensor_bits(node.inputs[i]) for i in (index, 1 - index))
            found[node.name] = Override(
                weight if weight in target.weights.bits else None, data if data in target.activations.bits else None
            )
    return found


def upstream(node: gs.Node, to: Comparison) -> Iterator[Finding]:
    """Where what a node reads is quantized elsewhere than planned, and what the target runs in float."""
    twin, decision = to.nodes.get(node.name), to.placement.decisions.get(node.name)
    if twin is None or decision is None or node.domain not in STANDARD_DOMAINS:
        return  # part of the quantization itself, or reported for its domain
    if twin in to.facts.units:
        yield from _unit(node, to.facts.units[twin], decision, to)
    elif _is_score(node, twin, to):
        if _standing(node):
            where = f"it only feeds a Softmax, which {to.target.name} runs in float"
            yield to.remark(node, f"{where}: Q/DQ only costs accuracy here")
    elif twin in to.facts.counted:
        if _standing(node):
            yield to.remark(node, "it computes a mask or positions from integers: Q/DQ only costs accuracy here")
    elif decision.action != "fused":
        yield from _operator(node, decision, to)


def downstream(node: gs.Node, to: Comparison) -> Iterator[Finding]:
    """N12: no Q/DQ stands between a layer and what runs inside it. T3: Q/DQ after a node where the plan has it."""
    twin, decision = to.nodes.get(node.name), to.placement.decisions.get(node.name)
    if twin is None or decision is None or decision.action != "quantized" or twin in to.facts.units:
        return
    for reader in consumers(twin.outputs[0]):
        inside = to.standing.get(reader.name)
        if inside is None or to.placement.decisions[reader.name].rule is not Rule.ACTIVATION or not inside.inputs:
            continue
        dequantize = dequantizer(inside.inputs[0])
        quantize = None if dequantize is None else pair(dequantize)
        if quantize is not None and producer(entry(quantize)) is node:
            problem = f"Q/DQ stands between it and {inside.op} {inside.name}, which would run inside it"
            yield to.remark(node, problem)
    is_half = node.op in LINEAR_OPS and any(dequantizer(t) is None for t in node.inputs[:2])
    if _standing(node) and not _missing(node, to) and not is_half:
        yield from _output(node, decision, to)


def _is_score(node: gs.Node, twin: gs.Node, to: Comparison) -> bool:
    """N9, in either graph: a Relu that the twin has for a saturation ends the way to a Softmax there."""
    return float_softmax(to.target) and (id(node) in to.scores or twin in to.facts.scores)


def _standing(node: gs.Node) -> list[int]:
    """The inputs that come from a DequantizeLinear."""
    return [i for i, t in enumerate(node.inputs) if dequantizer(t) is not None]


def _standing_activations(node: gs.Node) -> list[int]:
    return [i for i in _standing(node) if not is_quantized_constant(node.inputs[i])]


def _missing(node: gs.Node, to: Comparison) -> list[int]:
    """The inputs that the plan has quantized and that are not."""
    return [i for i in to.reads.get(node.name, ()) if dequantizer(node.inputs[i]) is None]


def _is_known(tensor: gs.Tensor) -> bool:
    return is_constant(tensor) or is_quantized_constant(tensor)


def _unit(node: gs.Node, unit: Unit, decision: Decision, to: Comparison) -> Iterator[Finding]:
    """N1: what is one operator is reported once."""
    if node.name != unit.root.name:
        return
    parts = [n for n in (to.standing.get(part.name) for part in unit.nodes) if n is not None]
    what = f"{unit.rule_op} in {len(parts)} nodes"
    read = {(reader.name, index) for reader, index in unit.reads}
    standing = {(part.name, i) for part in parts for i in _standing_activations(part)}
    if decision.action == "float":
        yield to.remark(node, f"{what} runs in float on {to.target.name}", NONE)
        if standing - read:
            yield to.remark(node, f"Q/DQ stands inside {what} that run in float: it only costs accuracy")
    elif standing - read:
        yield to.remark(node, f"Q/DQ stands inside {what}, which {to.target.name} computes as one operator")
    elif read - standing:
        yield to.remark(node, f"{what} runs in float: its input is not quantized")
    else:
        yield from _output(node, decision, to)


def _operator(node: gs.Node, decision: Decision, to: Comparison) -> Iterator[Finding]:
    floats = [t for t in node.inputs if not t.is_empty() and is_float(t)]
    dynamic = [t for t in floats if not _is_known(t)]
    if node.op in LINEAR_OPS:
        is_layer = any(_is_known(t) for t in node.inputs[:2])
        yield from _layer(node, decision, to) if is_layer else _product(node, decision, to)
    elif to.target.rule(node.op).action == "passthrough":
        yield from _mover(node, to)
    elif node.op in SUMS and len(dynamic) == 2:
        yield from _sum(node, dynamic, decision, to)
    elif node.op == "Concat":
        yield from _concat(node, floats, decision, to)
    elif decision.action == "float":
        if decision.rule is Rule.PROFILE:
            if floats and matters(node):
                yield to.remark(node, f"{node.op} runs in float on {to.target.name}", NONE)
        elif len(_standing(node)) < len(floats) and matters(node):
            yield to.remark(node, f"{node.op} runs in float: {decision.reason}", NONE)
    elif _missing(node, to):
        yield to.remark(node, f"{node.op} runs in float: its input is not quantized")


def _layer(node: gs.Node, decision: Decision, to: Comparison) -> Iterator[Finding]:
    """T1 for a layer: its data input and its constant weight."""
    index = 1 if _is_known(node.inputs[1]) else 0
    weight, data = (dequantizer(node.inputs[i]) is not None for i in (index, 1 - index))
    if decision.rule is Rule.PROFILE and decision.action == "float":
        if weight or data:
            yield to.remark(node, f"{to.target.name} runs {node.op} in float: quantizing it only costs accuracy")
    elif weight and data:
        return
    elif decision.action == "float":
        yield to.remark(node, f"{node.op} runs in float: {decision.reason}", fix_of(decision))
    elif weight:
        yield to.remark(node, f"{node.op} runs in float: its weight is quantized, its input is not")
    elif data:
        yield to.remark(node, f"{node.op} runs in float: its input is quantized, its weight is not")
    else:
        yield to.remark(node, f"{node.op} runs in float: neither its input nor its weight is quantized")


def _product(node: gs.Node, decision: Decision, to: Comparison) -> Iterator[Finding]:
    """T1 for two activations multiplied."""
    missing = len(_missing(node, to))
    if decision.action == "quantized":
        if missing:
            yield to.remark(node, f"{node.op} runs in float: {missing} of its inputs are not quantized")
    elif node.op == "MatMul":
        yield to.remark(node, f"{node.op} of two activations runs in float on {to.target.name}", NONE)
    else:
        yield to.remark(node, f"{node.op} runs in float: {decision.reason}", fix_of(decision))


def _sum(node: gs.Node, inputs: list[gs.Tensor], decision: Decision, to: Comparison) -> Iterator[Finding]:
    """T2; T8 has its own."""
    if to.placement.wide.get(node.name):
        return
    target, count = to.target.name, sum(dequantizer(t) is not None for t in inputs)
    planned = to.reads.get(node.name, [])
    if decision.action != "quantized":
        lost = f", but {count} of its inputs went through Q/DQ" if count else ""
        yield to.remark(node, f"{target} adds in float{lost}", "" if count else NONE)
    elif len(planned) == 2:
        if count < 2:
            yield to.remark(node, f"{node.op} runs in float: {2 - count} of its inputs are not quantized")
    elif count == 0:
        yield to.remark(node, f"{node.op} is not fused: neither input is quantized, {target} wants the shortcut's")
    elif count == 2 and any(_serves_alone(t, to) for t in inputs):
        problem = f"both inputs are quantized, {target} takes the residual's layer wide"
        yield to.remark(node, f"{node.op} is not fused: {problem}")


def _serves_alone(tensor: gs.Tensor, to: Comparison) -> bool:
    """Whether the Q/DQ that makes the tensor has one reader."""
    dequantize = dequantizer(tensor)
    quantize = None if dequantize is None else pair(dequantize)
    if quantize is None or id(tensor) in to.outputs:
        return False
    return len(consumers(tensor)) == len(consumers(quantize.outputs[0])) == 1


def _concat(node: gs.Node, inputs: list[gs.Tensor], decision: Decision, to: Comparison) -> Iterator[Finding]:
    """T4 for Concat."""
    target, after = to.target, quantizers(node.outputs[0])
    wide = to.placement.wide.get(node.name, ())  # T8
    sides = [dequantizer(t) for i, t in enumerate(node.inputs) if i not in wide and is_float(t)]
    if decision.action == "float" and decision.rule in (Rule.PROFILE, Rule.SCHEME):
        if after and any(s is not None for s in sides):
            yield to.remark(
                node, f"Concat has Q/DQ on both sides; {target.name} places its own, so values are rounded twice"
            )
    elif after and any(s is None for s in sides):
        yield to.remark(node, "Concat runs in float: not all of its inputs are quantized")
    elif after and target.graph.concat == "shared":
        infos = [describe(n) for n in (*(s for s in sides if s is not None), *after)]
        if not all(infos[0].same_scale(i) for i in infos[1:]):
            problem = f"the inputs and the output of Concat differ in scale; {target.name} wants one for all"
            yield to.remark(node, problem)


def _mover(node: gs.Node, to: Comparison) -> Iterator[Finding]:
    """T4 for what moves values."""
    upstream = dequantizer(node.inputs[0]) if node.inputs else None
    after = quantizers(node.outputs[0])
    if not to.target.graph.tie_passthrough or upstream is None or not after or to.placement.wide.get(node.name):
        return
    if not all(describe(upstream).same_scale(describe(q)) for q in after):
        yield to.remark(node, f"{node.op} only moves values, but its output has a different scale from its input")


def _output(node: gs.Node, decision: Decision, to: Comparison) -> Iterator[Finding]:
    """T3 and T7."""
    point = to.points.get(_end(to.nodes[node.name].outputs[0], to, to.facts.outputs))
    end = _end(node.outputs[0], to, to.outputs)
    if point is not None and to.target.graph.all_readers and quantizers(end):
        others = [n.name for n in consumers(end) if not is_quantize(n) and not is_grid_clip(n)]
        others += ["the graph's output"] if id(end) in to.outputs else []
        if others:
            problem = (
                f"its result is read quantized, and as it is by {others[0]}: {to.target.name} wants one of the two"
            )
            yield to.remark(node, problem)
    if decision.action != "quantized" or point is None or not point.whole:
        return
    if to.target.graph.all_readers and to.target.rule(node.op).output != "always":
        return  # whole by T7
    if not quantizers(end):
        problem = f"no QuantizeLinear after it: {to.target.name} then computes {node.op} in float"
        yield to.remark(node, problem)


def _end(tensor: gs.Tensor, to: Comparison, outputs: Set[int]) -> gs.Tensor:
    """The tensor downstream of what the plan has run inside the node that makes this one; of either graph."""
    readers = [] if id(tensor) in outputs else consumers(tensor)
    fused = (Rule.ACTIVATION, Rule.MATMUL_BIAS)
    decisions = [to.placement.decisions.get(reader.name) for reader in readers]
    if not readers or any(d is None or d.action != "fused" or d.rule not in fused for d in decisions):
        return tensor
    last = next((n for n in readers if n.op != "IsNaN"), readers[0])  # of a guard against NaN, the Where
    return _end(last.outputs[0], to, outputs)
