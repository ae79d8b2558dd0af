"""Inspecting a model: layers with their cost and widths, operators, and how much of a QDQ model runs in integers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_graphsurgeon as gs

from onnxq.card import Card, find_card
from onnxq.card.assembly.float_model import made_by
from onnxq.cost.concrete_shapes import concrete_shapes, format_shape
from onnxq.cost.feature_maps import IN_PLACE, FeatureMaps, feature_maps
from onnxq.cost.layer_costs import (
    FLOAT_MIN,
    LayerCost,
    Totals,
    bit_operations,
    is_dequantized_layer,
    is_lowered,
    known_tensors,
    layer_costs,
    operands,
    tensor_bits,
    totals,
    walk,
)
from onnxq.cost.macs import INTEGER_PRODUCTS, OPERANDS
from onnxq.graph.match import STANDARD_DOMAINS, consumers, producer
from onnxq.graph.model import Model, to_proto
from onnxq.graph.protos import FLOAT_TYPES, OWN_DOMAIN
from onnxq.graph.qdq import QDQ, is_grid_clip
from onnxq.graph.shapes import element_type
from onnxq.placement.fitness import SUMS

KINDS = ("integer", "fused", "in_float", "index", "constant", "qdq")


@dataclass(frozen=True)
class OperatorUse:
    """Number of nodes of one operator, including subgraphs, by how they run.

    integer: on quantized inputs. fused: inside the upstream integer node. in_float: on floats. index: on shapes and
    other integers. constant: on constants only, before any run. qdq: part of a Q/DQ pair.
    """

    op: str
    total: int
    integer: int
    fused: int
    in_float: int
    index: int
    constant: int
    qdq: int


@dataclass(frozen=True)
class ValueInfo:
    """An input or output. dtype: numpy's or ONNX's name. shape: as in the model, "N×3×224×224"."""

    name: str
    dtype: str
    shape: str


@dataclass(frozen=True)
class Inspection:
    """A model at a glance.

    domains: {operator domain: version}. file_bytes: of the file with its external data. nodes: including subgraphs.
    profile: of the card, "" without one. feature_maps: None if shapes are unknown. bodies: subgraphs, each counted
    as executed once. assumed: shapes that were assumed. notes: remarks from loading.
    """

    name: str
    sha256: str
    opset: int
    ir_version: int
    producer: str
    domains: dict[str, int]
    file_bytes: int
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    nodes: int
    quantized: bool
    profile: str
    operators: tuple[OperatorUse, ...]
    layers: tuple[LayerCost, ...]
    totals: Totals
    feature_maps: FeatureMaps | None
    bodies: tuple[str, ...]
    assumed: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return dataclasses.asdict(self)


def inspect_model(model: Model, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Inspection:
    """Inspect a float or QDQ model without changing it.

    input_shapes: {input name: dims} for what the model leaves open; an open batch counts as 1.
    Raises ConfigError for shapes that do not fit the model's inputs.
    """
    graph = model.graph
    shapes = concrete_shapes(graph, input_shapes)
    kinds = classify(graph)
    quantized = any(kind in ("integer", "qdq") for kind in kinds.values())
    card = find_card(model) if quantized else None
    costs = [_with_card(c, card) for c in layer_costs(graph, shapes)]
    counts: dict[str, Counter[str]] = {}
    for _, node in walk(graph):
        op = node.op if node.domain in STANDARD_DOMAINS else f"{node.domain}.{node.op}"
        counts.setdefault(op, Counter())[kinds[id(node)]] += 1
    bodies = [
        f"{n.name}.{key} ({n.op})" for _, n in walk(graph) for key, a in n.attrs.items() if isinstance(a, gs.Graph)
    ]
    total = totals(graph, costs)
    return Inspection(
        model.name,
        model.sha256,
        model.opset,
        int(model.header.ir_version),
        made_by(model),
        {o.domain or "ai.onnx": o.version for o in model.header.opset_import},
        _file_bytes(model, total),
        tuple(_value(t) for t in graph.inputs),
        tuple(_value(t) for t in graph.outputs),
        sum(c.total() for c in counts.values()),
        quantized,
        card.profile.name if card is not None else "",
        tuple(
            OperatorUse(op, c.total(), *(c[kind] for kind in KINDS))
            for op, c in sorted(counts.items(), key=lambda item: (-item[1].total(), item[0]))
        ),
        tuple(costs),
        total,
        feature_maps(graph, shapes),
        tuple(bodies),
        shapes.assumed,
        tuple(model.notes),
    )


def classify(graph: gs.Graph) -> dict[int, str]:
    """{id of a node: how it runs, one of KINDS (see OperatorUse)}, based on the Q/DQ around it."""
    known = known_tensors(graph)
    lowered = is_lowered(graph)
    kinds: dict[int, str] = {}
    for _, node in walk(graph):
        if node.op in QDQ:
            kinds[id(node)] = "qdq"
        elif id(node) in known:
            kinds[id(node)] = "constant"
        elif is_grid_clip(node):
            kinds[id(node)] = "qdq"
        elif lowered and is_dequantized_layer(node, known):
            kinds[id(node)] = "in_float"
        else:
            kinds[id(node)] = _kind(node, known, kinds)
    return kinds


def _kind(node: gs.Node, known: set[int], kinds: Mapping[int, str]) -> str:
    if node.domain == OWN_DOMAIN or node.op in INTEGER_PRODUCTS or node.op.startswith("QLinear"):
        return "integer"
    data = [t for t in node.inputs if not t.is_empty() and not isinstance(t, gs.Constant) and id(t) not in known]
    data = [t for t in data if element_type(t) in FLOAT_TYPES or element_type(t) == 0]
    if not data and not any(element_type(t) in FLOAT_TYPES for t in node.outputs):
        return "index"

    def dequantized(tensor: gs.Tensor) -> bool:
        made_by = producer(tensor)
        return made_by is not None and made_by.op == "DequantizeLinear"

    def accumulated(tensor: gs.Tensor) -> bool:
        made_by = producer(tensor)
        return made_by is not None and kinds.get(id(made_by)) in ("integer", "fused") and len(consumers(tensor)) == 1

    if node.op in IN_PLACE and data and accumulated(data[0]):
        return "fused"
    if node.op in OPERANDS and node.domain in STANDARD_DOMAINS:
        weight = operands(node, known)[1]
        widths = tensor_bits(weight) if weight is not None else 0
        return "integer" if data and all(map(dequantized, data)) and widths < FLOAT_MIN else "in_float"
    fed = [dequantized(t) for t in data]
    if node.op in SUMS and any(fed):
        fed = [f or accumulated(t) for f, t in zip(fed, data, strict=True)]
    return "integer" if data and all(fed) and _requantized(node) else "in_float"


def _requantized(node: gs.Node) -> bool:
    """Whether a QuantizeLinear reads an output, directly or after an activation."""
    pending, steps = list(node.outputs), 0
    while pending and steps < len(node.outputs) + 4:
        steps += 1
        for reader in consumers(pending.pop(0)):
            if reader.op == "QuantizeLinear":
                return True
            if reader.op in IN_PLACE:
                pending += reader.outputs
    return False


def _with_card(cost: LayerCost, card: Card | None) -> LayerCost:
    """The cost with widths below the storage type taken from the card, in case the marks in the graph were lost."""
    recorded = next((r for r in card.layers if r.name == cost.name), None) if card is not None else None
    if recorded is None or cost.weight_bits is None or cost.weight_bits >= FLOAT_MIN or cost.activation_bits is None:
        return cost
    weight = min(cost.weight_bits, recorded.weight_bits or cost.weight_bits)
    activation = min(cost.activation_bits, recorded.activation_bits or cost.activation_bits)
    if (weight, activation) == (cost.weight_bits, cost.activation_bits):
        return cost
    bops = bit_operations(cost.macs, weight, activation)
    return dataclasses.replace(cost, weight_bits=weight, activation_bits=activation, bops=bops)


def _file_bytes(model: Model, total: Totals) -> int:
    if model.path is None:
        return to_proto(model).ByteSize()
    return model.path.stat().st_size + (total.size if model.external else 0)


def _value(tensor: gs.Tensor) -> ValueInfo:
    import onnx

    kind = element_type(tensor)
    dtype = onnx.TensorProto.DataType.Name(kind).lower() if kind else "?"
    return ValueInfo(
        tensor.name, {"float": "float32", "double": "float64"}.get(dtype, dtype), format_shape(tensor.shape)
    )
