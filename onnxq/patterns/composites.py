"""Groups of operators that act as one: decomposed normalizations and functions."""

from __future__ import annotations

from collections.abc import Set

import onnx_graphsurgeon as gs

from onnxq.patterns.activations import Function, find_functions
from onnxq.patterns.normalization import Norm, find_norms
from onnxq.profiles.schema import Profile

Unit = Norm | Function


def find_units(graph: gs.Graph, profile: Profile, counted: Set[int]) -> dict[int, Unit]:
    """The unit of every node that is part of one, by node id. Functions only where the target has lookup tables.

    counted: attention.from_integers(graph).
    """
    found: dict[int, Unit] = {id(n): norm for norm in find_norms(graph) for n in norm.nodes}
    if profile.graph.lowered:
        functions = find_functions(graph, found.keys() | counted)
        found |= {id(n): function for function in functions for n in function.nodes}
    return found
