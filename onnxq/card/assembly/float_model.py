"""Section 5, "pretrained model": the float model before any pass, and the costs a card compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxq.card.parts import Change, Cost, Pretrained
from onnxq.cost.concrete_shapes import concrete_shapes, format_shape
from onnxq.cost.layer_costs import LayerCost, Totals, layer_costs, totals, walk
from onnxq.graph.model import INLINE_LIMIT, Model, to_proto


@dataclass(frozen=True)
class FloatInfo:
    """The float model before any pass: the reference of a card's comparisons.

    inputs: {name: shape}. input_shapes: as given to describe_float. batchnorms: BatchNormalization nodes.
    file_bytes: of the model file and its external data. layers: {name: cost}. assumed: shapes that were
    assumed.
    """

    name: str
    sha256: str
    opset: int
    ir_version: int
    producer: str
    inputs: dict[str, str]
    input_shapes: Mapping[str, Sequence[int]] | None
    batchnorms: int
    file_bytes: int
    totals: Totals
    layers: dict[str, LayerCost]
    assumed: tuple[str, ...]


def describe_float(model: Model, input_shapes: Mapping[str, Sequence[int]] | None = None) -> FloatInfo:
    """Record the float model; call this before the passes, which edit the model in place.

    input_shapes: {input name: dims} where the model leaves dimensions open; an open batch counts as 1.
    Raises ConfigError for shapes that do not fit the model's inputs.
    """
    shapes = concrete_shapes(model.graph, input_shapes)
    costs = layer_costs(model.graph, shapes)
    total = totals(model.graph, costs)
    return FloatInfo(
        model.name,
        model.sha256,
        model.opset,
        int(model.header.ir_version),
        made_by(model),
        {t.name: format_shape(t.shape) for t in model.graph.inputs},
        input_shapes,
        sum(n.op == "BatchNormalization" for _, n in walk(model.graph)),
        _float_file_bytes(model, total),
        total,
        {c.name: c for c in costs},
        shapes.assumed,
    )


def pretrained(before: FloatInfo) -> Pretrained:
    """The section."""
    return Pretrained(
        before.name,
        before.sha256,
        before.opset,
        before.ir_version,
        before.producer,
        before.inputs,
        before.totals.parameters,
        before.totals.macs,
        before.totals.unknown,
        before.assumed,
    )


def cost(before: FloatInfo, model: Model, after: Totals) -> Cost:
    """Costs of the float and the quantized model. after: totals of the quantized model."""
    return Cost(
        Change(before.file_bytes, quantized_file_bytes(model, after)),
        Change(before.totals.size, after.size),
        Change(before.totals.bops, after.bops),
    )


def quantized_file_bytes(model: Model, total: Totals) -> int:
    """Bytes of the file to be written, without its card; of its constants if those go to a separate file."""
    return total.size if model.external or total.size > INLINE_LIMIT else file_bytes(model)


def made_by(model: Model) -> str:
    """The tool that wrote the model, with its version; empty if the file does not name it."""
    return " ".join(filter(None, (model.header.producer_name, model.header.producer_version)))


def file_bytes(model: Model) -> int:
    """Size of the model as a file, without its card."""
    proto = to_proto(model)
    kept = [p for p in proto.metadata_props if not p.key.startswith("onnxq.card")]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    return proto.ByteSize()


def _float_file_bytes(model: Model, total: Totals) -> int:
    if model.path is not None and model.path.is_file():
        return model.path.stat().st_size + (total.size if model.external else 0)
    return total.size if total.size > INLINE_LIMIT else to_proto(model).ByteSize()
