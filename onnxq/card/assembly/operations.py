"""Section 2, "quantized operations": the treatment of the operators, as counts and sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import onnx_graphsurgeon as gs

from onnxq.card.assembly.run import Made
from onnxq.card.parts import EndLayer, LayerRecord, Operations, OperatorCount
from onnxq.cost.layer_costs import FLOAT_BITS, FLOAT_MIN
from onnxq.graph import marks
from onnxq.graph.axes import LINEAR_OPS
from onnxq.graph.match import is_constant, producer
from onnxq.graph.qdq import QDQ, is_grid_clip
from onnxq.placement.fitness import SUMS
from onnxq.placement.rules import Action

POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool", "ReduceMean")


def operations(made: Made, nodes: Mapping[str, gs.Node], batchnorms: int, layers: Sequence[LayerRecord]) -> Operations:
    """The section. nodes: of the quantized model, by name. batchnorms: of the float model. layers: their records."""
    graph = made.profile.graph
    absorbed = _absorbed(nodes)
    counts = _counts(made, nodes, absorbed)
    adds = sum(n.op in SUMS and sum(not is_constant(t) for t in n.inputs) > 1 for n in nodes.values())
    skips = skip_concats(nodes.values())
    left = sum(n.op == "BatchNormalization" for n in nodes.values())
    return Operations(
        tuple(
            OperatorCount(op, c.total(), c["quantized"], c["passthrough"], c["fused"], c["float"])
            for op, c in sorted(counts.items(), key=lambda item: (-item[1]["quantized"], item[0]))
        ),
        adds,
        _residual(graph.scheme, adds),
        _concat(graph.concat, counts),
        _pooling(counts),
        _embeddings([r for r in layers if r.op == "Gather"]),
        graph.fused_activations,
        absorbed.total(),
        _batchnorm(batchnorms, left),
        _ends(layers),
        len(skips),
        _skip(skips, made.placement.actions),
    )


def _absorbed(nodes: Mapping[str, gs.Node]) -> Counter[str]:
    """Activations absorbed by the saturation of a QuantizeLinear, by operator."""
    clamps = (marks.ABSORBED.get(n) for n in nodes.values())
    return Counter(clamp.op for clamp in clamps if clamp is not None)


def _counts(made: Made, nodes: Mapping[str, gs.Node], absorbed: Counter[str]) -> dict[str, Counter[str]]:
    """{operator: {action: node count}}; absorbed activations count as fused."""
    counts: dict[str, Counter[str]] = {}
    for name, action in made.placement.actions.items():
        if name in nodes and nodes[name].op not in QDQ:
            counts.setdefault(nodes[name].op, Counter())[action] += 1
    for op, count in absorbed.items():
        counts.setdefault(op, Counter())["fused"] += count
    return counts


def _ends(layers: Sequence[LayerRecord]) -> tuple[EndLayer, ...]:
    """The first and the last layer with a weight, with their widths."""
    products = [r for r in layers if r.op in LINEAR_OPS and r.weight_bits is not None]
    ends = {r.name: r for r in (products[:1] + products[-1:])}
    return tuple(EndLayer(r.name, r.weight_bits or FLOAT_BITS, r.activation_bits or FLOAT_BITS) for r in ends.values())


def _residual(scheme: int, adds: int) -> str:
    """How sums of two activations are treated (MQBench's graph schemes, figure 4)."""
    if not adds:
        return "none in the model"
    return {
        1: "sums stay in float (graph scheme 1)",
        2: "one input of each sum, the shortcut, is quantized; the layer's output enters wide (graph scheme 2)",
        3: "every input of each sum is quantized (graph scheme 3)",
    }[scheme]


def _concat(rule: str, counts: Mapping[str, Counter[str]]) -> str:
    """How concatenations are treated."""
    count = counts.get("Concat", Counter())
    if not count.total():
        return "none in the model"
    how = {
        "float": "no Q/DQ is placed for them",
        "per-input": "each input has its own scale",
        "shared": "inputs and output share one scale",
    }[rule]
    return f"{count['quantized']} of {count.total()} in integers; {how}"


def skip_concats(nodes: Iterable[gs.Node]) -> list[str]:
    """Names of the concatenations that join a tensor with one computed from it (skip connections)."""
    found = []
    for node in nodes:
        if node.op != "Concat":
            continue
        joined = [_origin(t) for t in node.inputs if not is_constant(t)]
        if any(_reaches(end, {id(t) for t in joined if t is not end}) for end in joined):
            found.append(node.name)
    return found


def _origin(tensor: gs.Tensor) -> gs.Tensor:
    """The tensor before the Q/DQ that produces it."""
    made_by = producer(tensor)
    while made_by is not None and (made_by.op in QDQ or is_grid_clip(made_by)):
        tensor = made_by.inputs[0]
        made_by = producer(tensor)
    return tensor


def _reaches(tensor: gs.Tensor, wanted: set[int]) -> bool:
    """Whether the tensor is computed from one of those wanted."""
    pending, seen = [tensor], {id(tensor)}
    while pending:
        made_by = producer(pending.pop())
        for source in made_by.inputs if made_by is not None else ():
            if id(source) in wanted:
                return True
            if id(source) not in seen:
                seen.add(id(source))
                pending.append(source)
    return False


def _skip(names: Sequence[str], actions: Mapping[str, Action]) -> str:
    """How skip connections are treated."""
    if not names:
        return "none in the model"
    quantized = sum(actions.get(name) in ("quantized", "passthrough") for name in names)
    return f"{quantized} of {len(names)} concatenation(s) of a tensor with one computed from it in integers"


def _pooling(counts: Mapping[str, Counter[str]]) -> str:
    """Which pooling operators run in integers."""
    parts = [
        f"{op}: {c['quantized'] + c['passthrough']} of {c.total()} in integers"
        for op in POOLS
        if (c := counts.get(op)) is not None
    ]
    return "; ".join(parts) or "none in the model"


def _embeddings(tables: Sequence[LayerRecord]) -> str:
    """How embedding tables (Gather of a constant) are treated."""
    if not tables:
        return "none in the model"
    quantized = sum(t.weight_bits is not None and t.weight_bits < FLOAT_MIN for t in tables)
    return f"{quantized} of {len(tables)} tables in integers"


def _batchnorm(before: int, left: int) -> str:
    """How many BatchNormalization nodes were folded."""
    if not before:
        return "none in the float model"
    return f"{before} in the float model, {before - left} folded, {left} left"
