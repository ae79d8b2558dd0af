"""The card of a quantized model, section by section."""

from __future__ import annotations

from importlib import metadata

from onnxq._version import __version__
from onnxq.card.assembly.float_model import FloatInfo, cost, pretrained
from onnxq.card.assembly.layers import float_nodes, layer_records
from onnxq.card.assembly.method import method
from onnxq.card.assembly.operations import operations
from onnxq.card.assembly.paths import without_folders
from onnxq.card.assembly.precision import precision
from onnxq.card.assembly.remarks import remarks
from onnxq.card.assembly.resources import resources
from onnxq.card.assembly.run import Effort, Made, Provenance
from onnxq.card.assembly.search import search_record
from onnxq.card.card import Card
from onnxq.card.parts import ProfileRecord
from onnxq.cost.concrete_shapes import concrete_shapes
from onnxq.cost.layer_costs import layer_costs, totals, walk
from onnxq.graph.model import Model
from onnxq.profiles.schema import Profile


def build_card(model: Model, before: FloatInfo, made: Made, provenance: Provenance, effort: Effort) -> Card:
    """The card of a quantized model. model: the quantized one. before: describe_float of it before the passes."""
    shapes = concrete_shapes(model.graph, before.input_shapes)
    costs = layer_costs(model.graph, shapes)
    nodes = {n.name: n for _, n in walk(model.graph)}
    layers = layer_records(costs, made, before.layers)
    return Card(
        versions=_versions(),
        profile=_profile(made.profile),
        pipeline=without_folders(made.pipeline),
        method=method(made),
        operations=operations(made, nodes, before.batchnorms, layers),
        precision=precision(made, layers, model.graph, shapes),
        resources=resources(made.reports, provenance, effort),
        pretrained=pretrained(before),
        cost=cost(before, model, totals(model.graph, costs)),
        layers=layers,
        float_nodes=float_nodes(made, nodes),
        widened_biases=dict(made.placement.widened),
        remarks=remarks(model, made),
        search=search_record(provenance.search) if provenance.search is not None else None,
    )


def _versions() -> dict[str, str]:
    found = {"onnxq": __version__}
    for package in ("onnx", "onnxruntime", "onnxruntime-gpu", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _profile(profile: Profile) -> ProfileRecord:
    return ProfileRecord(profile.name, profile.summary, profile.source, profile.graph.scheme)
