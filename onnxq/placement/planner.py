"""Where a profile wants Q/DQ in a graph, and in which format: pure analysis, by the rules of rules.py.

The way of a plan: facts.py analyzes the graph; classify.py decides about each node, fusion.py finds what runs inside
layers; demand.py finds the tensors that this takes; formats.py gives them widths, signs and scales in common.
`plan` is used by the calibrate pass (which tensors to observe), insert-qdq (what to insert) and check (what is left in
float and why; what stands elsewhere than planned).
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxq.graph.walk import all_graphs
from onnxq.placement.classify import classify
from onnxq.placement.demand import demand, unused
from onnxq.placement.facts import Facts, Job, analyze
from onnxq.placement.formats import constant_plans, layer_plans, mixed_widths, points, stored_points
from onnxq.placement.fusion import fuse
from onnxq.placement.plan import Placement
from onnxq.placement.rules import Decision, Rule
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import Profile


def plan(graph: gs.Graph, profile: Profile, settings: QuantSettings, facts: Facts | None = None) -> Placement:
    """Decide Q/DQ placement for a graph whose nodes are sorted; the graph stays as it is.

    Element types must be known as far as they can be (graph.element_types.fill_types): what is not known to be float32
    is left alone. facts: of the graph and profile, where they are known already. Raises ConfigError for bits the
    profile does not take.
    """
    job = Job(facts or analyze(graph, profile), profile, settings)
    roles = fuse(job, classify(job))
    layers, notes = layer_plans(job, roles)
    found = demand(job, roles)
    quantized = points(found, job, roles)
    # A later decision about a node replaces an earlier one.
    decisions = [*roles.decisions.values(), *unused(job, roles, found), *_bodies(graph, profile)]
    return Placement(
        profile=profile,
        layers=layers,
        points=quantized,
        constants=constant_plans(found, job),
        decisions={decision.node.name: decision for decision in decisions},
        skipped=[failure for decision in decisions if (failure := decision.failure) is not None],
        notes=[*notes, *mixed_widths(quantized, job, roles)],
        wide={node.name: indices for node, indices in found.wide.nodes.items()},
        stored=stored_points(found, job),
    )


def _bodies(graph: gs.Graph, profile: Profile) -> Iterator[Decision]:
    """N14."""
    for node in graph.nodes:
        for body in (attr for attr in node.attrs.values() if isinstance(attr, gs.Graph)):
            for inner in (n for g in all_graphs(body) for n in g.nodes):
                is_lost = profile.rule(inner.op).action == "quantized"
                where = f"inside the body of {node.op} {node.name}"
                reason = f"{where}, whose tensors cannot be observed" if is_lost else ""
                yield Decision(inner, "float", Rule.BODY, reason)
