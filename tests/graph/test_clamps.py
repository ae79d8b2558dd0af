"""Bounds of Relu and Clip, as attributes and as inputs."""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnxq.graph.clamps import Clamp, clamp_of

X = gs.Variable("x", np.float32, [2])


def _number(value: float) -> gs.Constant:
    return gs.Constant(f"c{value}", np.asarray(value, np.float32))


@pytest.mark.parametrize(
    ("node", "bounds"),
    [
        (gs.Node("Relu", inputs=[X]), Clamp(0.0, math.inf)),
        (gs.Node("Clip", inputs=[X]), Clamp(-math.inf, math.inf)),
        (gs.Node("Clip", attrs={"min": -1.0, "max": 6.0}, inputs=[X]), Clamp(-1.0, 6.0)),
        (gs.Node("Clip", inputs=[X, _number(0), _number(6)]), Clamp(0.0, 6.0)),
        (gs.Node("Clip", inputs=[X, gs.Variable.empty(), _number(6)]), Clamp(-math.inf, 6.0)),
        (gs.Node("Clip", inputs=[X, gs.Variable("low", np.float32, [])]), None),
        (gs.Node("Clip", inputs=[X, _number(math.nan)]), None),
        (gs.Node("Tanh", inputs=[X]), None),
        (gs.Node("Clip", domain="other", inputs=[X]), None),
    ],
)
def test_bounds(node: gs.Node, bounds: Clamp | None) -> None:
    assert clamp_of(node) == bounds


def test_the_operator_of_bounds() -> None:
    assert (Clamp(0.0, math.inf).op, Clamp(0.0, 6.0).op, Clamp(-math.inf, math.inf).op) == ("Relu", "Clip", "Clip")
