"""The layers for which a search chooses widths: those that quantizing for a profile would quantize."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.errors import ConfigError, ModelError
from onnxq.execution.known_ops import find_unknown
from onnxq.graph.axes import channel_axis
from onnxq.graph.element_types import fill_types
from onnxq.graph.match import constant_values
from onnxq.graph.model import Model, load
from onnxq.graph.qdq import has_qdq
from onnxq.graph.walk import all_graphs
from onnxq.placement.plan import LayerPlan, Placement
from onnxq.placement.planner import plan
from onnxq.placement.settings import Override, QuantSettings, check_patterns
from onnxq.profiles.schema import Profile, load_profile
from onnxq.recipes import prepare_pipeline

OPSET_INT4 = 21
Source = str | Path | bytes | onnx.ModelProto | Model


@dataclass(frozen=True)
class Prepared:
    """A float model as insert-qdq receives it, and where the profile requires Q/DQ.

    names: every node of the original model; a config may use these names. exclude: what stays in float.
    """

    model: Model
    profile: Profile
    placement: Placement
    names: frozenset[str]
    exclude: tuple[str, ...] = ()

    def left_out(self) -> dict[str, Override]:
        """The overrides that leave `exclude` in float."""
        return {pattern: Override(keep_float=True) for pattern in self.exclude}

    @property
    def layers(self) -> list[LayerPlan]:
        """The weighted layers, in topological order."""
        return self.placement.layers

    def layer_names(self) -> list[str]:
        """Their nodes' names."""
        return [layer.node.name for layer in self.layers]


def prepare(source: Source, profile: str | Path | Profile, exclude: Sequence[str] = ()) -> Prepared:
    """Run the float passes of `quantize` and place Q/DQ; a given Model is changed in place.

    exclude: node names or regular expressions left in float. Raises ModelError for a quantized model or one without
    layers to quantize, ConfigError for an exclude that matches no node.
    """
    model = load(source)
    if any(has_qdq(g) for g in all_graphs(model.graph)):
        raise ModelError(f"{model.name} is already quantized; search widths on the float model")
    target = load_profile(profile)
    names = frozenset(n.name for g in all_graphs(model.graph) for n in g.nodes)
    check_patterns(exclude, names, "exclude")
    opset = max(target.limits.opset_min, OPSET_INT4)
    pipeline.run(model, prepare_pipeline(opset, target.graph.fold_batchnorm), PassContext(model, target))
    fill_types(model.graph)
    find_unknown(model)
    placement = plan(model.graph, target, QuantSettings(exclude=tuple(exclude)))
    if not placement.layers:
        raise ModelError(
            f"{model.name}: profile {target.name} quantizes none of its layers; there are no widths to choose"
        )
    return Prepared(model, target, placement, names, tuple(exclude))


def weights_of(layers: Iterable[LayerPlan]) -> Iterator[tuple[LayerPlan, NDArray, int | None]]:
    """(layer, weight as float32, channel axis) of each."""
    for layer in layers:
        values = constant_values(layer.weight)
        assert values is not None
        yield layer, np.asarray(values, np.float32), channel_axis(layer.node)


def check_layers(given: Iterable[str], prepared: Prepared, where: str) -> None:
    """Raise ConfigError for a name that is not a layer of the model."""
    check_patterns(given, prepared.layer_names(), where)


def check_bits(bits: Sequence[int], profile: Profile, kind: str, where: str) -> tuple[int, ...]:
    """The widths, descending and without duplicates. Raises ConfigError for an unsupported width, or for none."""
    if not bits:
        raise ConfigError(f"{where}: give at least one width")
    for b in bits:
        profile.check_bits("weights" if kind == "weights" else "activations", b, where)
    return tuple(sorted(set(bits), reverse=True))
