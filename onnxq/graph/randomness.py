"""Operators that draw random numbers: measured with fixed seeds, so that two models, or two runs, draw the same."""

from __future__ import annotations

from binascii import crc32
from collections.abc import Sequence

import onnx
import onnx_graphsurgeon as gs
from onnx import helper

from onnxq.graph.walk import all_graphs

GENERATORS = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
STANDARD = (None, "", "ai.onnx")
SEEDS = 1 << 24  # whole numbers up to here are exact in the float32 attribute


def draws(graph: gs.Graph) -> bool:
    """Whether a node of the graph or of its subgraphs may draw random numbers."""
    nodes = (node for g in all_graphs(graph) for node in g.nodes if node.domain in STANDARD)
    return any(_draws(node.op, [t.name for t in node.inputs]) for node in nodes)


def fix_seeds(graph: onnx.GraphProto) -> None:
    """Give every random node without a seed one that follows from the name of its output, subgraphs included.

    Nodes that produce a tensor of the same name then draw the same numbers in every model, run by run. The graph is
    changed in place.
    """
    for node in graph.node:
        seeded = any(a.name == "seed" for a in node.attribute)
        if node.domain in STANDARD and _draws(node.op_type, node.input) and not seeded:
            seed = crc32((node.output[0] if node.output else node.name).encode()) % SEEDS
            node.attribute.append(helper.make_attribute("seed", seed if node.op_type == "Dropout" else float(seed)))
        for attribute in node.attribute:
            if attribute.HasField("g"):
                fix_seeds(attribute.g)


def _draws(op: str, inputs: Sequence[str]) -> bool:
    """Whether it is a generator, or a Dropout that may be in training mode."""
    return op in GENERATORS or (op == "Dropout" and len(inputs) > 2 and inputs[2] != "")
