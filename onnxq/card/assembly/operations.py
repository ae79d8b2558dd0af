"""Section 2, "quantized operations": the treatment of the operators, as counts and sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import onnx_graphsurgeon as gs

from onnxq.card.assembly.run import Made
from onnxq.card.parts import EndLayer, LayerRecord, Operations, OperatorCount
from onnxq.cost.layer_costs import FLOAT_BITS, FLOAT_MIN
from onnxq.graph import marks
from onnxq.graph.axes import LINEAR_OPS
from onnxq.graph.match import is_constant
from onnxq.graph.qdq import QDQ
from onnxq.placement.fitness import SUMS

POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool", "ReduceMean")


def operations(made: Made, nodes: Mapping[str, gs.Node], batchnorms: int, layers: Sequence[LayerRecord]) -> Operations:
    """The section. nodes: of the quantized model, by name. batchnorms: of the float model. layers: their records."""
    graph = made.profile.graph
    absorbed = _absorbed(nodes)
    counts = _counts(made, nodes, absorbed)
    adds = sum(n.op in SUMS and sum(not is_constant(t) for t in n.inputs) > 1 for n in nodes.values())
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
    """How sums of two activations are treated (MQBench's graph schemes)."""
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
