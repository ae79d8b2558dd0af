"""Placements of small graphs, and what they say of tensors and nodes."""

from dataclasses import replace

from onnxq.graph.element_types import fill_types
from onnxq.graph.model import Model
from onnxq.placement.plan import Placement
from onnxq.placement.planner import plan
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import Profile, load_profile

CONV = "(float[1,4,6,6] x) => (float[1,4,6,6] y)"
DEEP = """g (float[1,4,6,6] x) => (float[1,4] y) <float[4,4,1,1] w1, float[4,4,1,1] w2, float[4,4,1,1] w3>
{ [n] x2 = Mul(x, x) [a] p = Conv(x2, w1) [b] q = Conv(p, w2) [c] r = Conv(q, w3)
  [gap] s = GlobalAveragePool(r) [f] y = Flatten(s) }"""


def planned(model: Model, profile: str | Profile = "onnxruntime-cpu", **settings) -> Placement:
    """The placement of the top-level graph, types filled in as the pipeline does."""
    fill_types(model.graph)
    return plan(model.graph, load_profile(profile), QuantSettings(**settings))


def points(placement: Placement) -> dict[str, list[tuple[str, int]]]:
    """Quantized tensors and who reads them so: names of nodes and input indices."""
    return {p.tensor.name: sorted((n.name, i) for n, i in p.edges) for p in placement.points}


def read_by(placement: Placement, node: str) -> set[str]:
    """Quantized tensors that a node reads."""
    return {name for name, readers in points(placement).items() if any(n == node for n, _ in readers)}


def why(placement: Placement) -> dict[str, str]:
    """Why nodes stay in float, by node."""
    return {s.node: s.reason for s in placement.skipped}


def bits(placement: Placement) -> dict[str, int]:
    """The width of each quantized tensor."""
    return {p.tensor.name: p.format.bits for p in placement.points}


def kept(how: str) -> Profile:
    """Profile onnxq with residuals kept this way."""
    profile = load_profile("onnxq")
    return replace(profile, graph=replace(profile.graph, residual_kept=how))
