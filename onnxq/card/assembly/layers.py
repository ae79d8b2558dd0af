"""Sections "layers" and "left in float": every layer with its widths, format and costs, every float node's reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_graphsurgeon as gs

from onnxq.card.assembly.run import Made
from onnxq.card.parts import Change, FloatNode, LayerRecord
from onnxq.cost.layer_costs import FLOAT_BITS, FLOAT_MIN, LayerCost, bit_operations
from onnxq.graph.qdq import QDQ
from onnxq.numeric.qparams import QParams
from onnxq.placement.plan import Placement


def layer_records(costs: Iterable[LayerCost], made: Made, before: Mapping[str, LayerCost]) -> tuple[LayerRecord, ...]:
    """One record per layer. costs: of the quantized model's layers. before: of the float model's, by name."""
    per_channel = {p.node.name: p.per_channel for p in made.placement.layers}
    inputs = _input_qparams(made.placement)
    reasons = made.float_reasons()
    rows = []
    for cost in costs:
        weight, activation = made.placement.weight_qparams.get(cost.name), inputs.get(cost.name)
        action = made.placement.actions.get(cost.name, "float")
        in_float = before.get(cost.name)
        weight_bits = weight.format.bits if weight is not None else cost.weight_bits
        activation_bits = activation.format.bits if activation is not None else cost.activation_bits
        if action == "float" and (weight_bits or FLOAT_BITS) >= FLOAT_MIN:
            activation_bits = weight_bits  # it computes in float even on a quantized input
        rows.append(
            LayerRecord(
                cost.name,
                cost.op,
                action,
                reasons.get(cost.name, "") if action == "float" else "",
                cost.weight_shape,
                weight_bits,
                str(weight.format) if weight is not None else "",
                per_channel.get(cost.name, False) and weight is not None and weight.axis is not None,
                (float(weight.scale.min()), float(weight.scale.max())) if weight is not None else None,
                activation_bits,
                str(activation.format) if activation is not None else "",
                cost.parameters,
                cost.macs,
                bit_operations(cost.macs, weight_bits, activation_bits) if weight_bits is not None else cost.bops,
                Change(in_float.size if in_float is not None else cost.parameters * 4, cost.size),
            )
        )
    return tuple(rows)


def _input_qparams(placement: Placement) -> dict[str, QParams]:
    """{node: parameters of its first quantized activation}."""
    found: dict[str, QParams] = {}
    for point in placement.points:
        qparams = placement.activation_qparams.get(point.tensor.name)
        if qparams is not None:
            for node, _ in point.edges:
                found.setdefault(node.name, qparams)
    return found


def float_nodes(made: Made, nodes: Mapping[str, gs.Node]) -> tuple[FloatNode, ...]:
    """Every node that stays in float, with the reason. nodes: of the quantized model, by name."""
    reasons = made.float_reasons()
    default = f"profile {made.profile.name} runs it in float"
    return tuple(
        FloatNode(name, nodes[name].op, reasons.get(name) or default)
        for name, action in made.placement.actions.items()
        if action == "float" and name in nodes and nodes[name].op not in QDQ
    )
