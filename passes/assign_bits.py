"""Bit-widths of layers, as part of a pipeline."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxq.context import PassContext
from onnxq.graph.walk import all_graphs
from onnxq.pipeline import Pass, PassResult
from onnxq.placement.settings import DEFAULT_FIRST_LAST_BITS, QuantSettings, check_patterns, load_config


@dataclass(frozen=True)
class AssignBits(Pass):
    """Set the bit-widths for the following passes: of all layers, of the first and last, and per node.

    weights, activations: bits of every layer; none uses the profile's. first_last: bits of the first and last
    layers; none treats them like the others. config: a TOML or JSON file of per-node overrides.
    """

    name: ClassVar[str] = "assign-bits"
    weights: int | None = None
    activations: int | None = None
    first_last: int | None = DEFAULT_FIRST_LAST_BITS
    config: str = ""

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        """Write the widths to ctx.settings; the graph is not changed."""
        settings = ctx.settings or QuantSettings()
        overrides = dict(settings.overrides)
        if self.config:
            config = load_config(self.config, ctx.model.sha256)
            check_patterns(config, (node.name for g in all_graphs(graph) for node in g.nodes), self.config)
            overrides |= config
        ctx.settings = dataclasses.replace(
            settings,
            weight_bits=self.weights,
            activation_bits=self.activations,
            first_last_bits=self.first_last,
            overrides=overrides,
        )
        return PassResult()
