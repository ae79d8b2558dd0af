"""Blocks of networks as integer models: golden text, and Transposes only at the borders.

The text is written by tools/generators/update_golden.py and read by a person before it is committed.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs
import pytest
import update_golden

from onnxq.graph.match import is_channels_last
from onnxq.graph.model import Model
from onnxq.graph.protos import OWN_DOMAIN
from onnxq.layout.copies import perm_of
from onnxq.profiles.schema import builtin_names
from support.prove.passes import prove_exact

CASES = [(profile, block) for profile in builtin_names() for block in update_golden.INTEGER_BLOCKS]


@pytest.mark.parametrize("profile", update_golden.INTEGER_PROFILES)
def test_golden(profile: str) -> None:
    expected = (update_golden.GOLDEN / "integer" / f"{profile}.txt").read_text(encoding="utf-8")
    assert update_golden.golden_integer(profile) == expected, (
        "read the difference, then run tools/generators/update_golden.py"
    )


def own(node: gs.Node) -> bool:
    return node.domain == OWN_DOMAIN and not is_channels_last(node)


def inner_transposes(model: Model) -> list[str]:
    """Transposes with operators of com.onnxq upstream and downstream, at any distance."""
    upstream, downstream = set(), set()
    for node in model.graph.nodes:
        if any(own(p) or p.name in upstream for t in node.inputs for p in t.inputs):
            upstream.add(node.name)
    for node in reversed(model.graph.nodes):
        if any(own(c) or c.name in downstream for t in node.outputs for c in t.outputs):
            downstream.add(node.name)
    return [n.name for n in model.graph.nodes if perm_of(n) is not None and n.name in upstream & downstream]


@pytest.mark.parametrize(("profile", "block"), CASES)
def test_transposes_stand_at_the_borders(profile: str, block: str) -> None:
    """In every profile's blocks, downstream of the first QuantizeLinear and upstream of the last DequantizeLinear."""
    model = update_golden.integer(block, profile)
    island = [n.op for n in model.graph.nodes if n.op in ("GlobalAveragePool", "Conv", "Add") and not own(n)]
    moved = [n for n in model.graph.nodes if perm_of(n) is not None]
    if island:  # what ascend leaves float there needs channels-first
        assert (profile, block) in (("ascend", "squeeze and excite"), ("ascend", "inverted residual"))
        return
    assert inner_transposes(model) == []
    assert len(moved) <= 2
    for node in moved:
        assert node.inputs[0].dtype.kind in "iu"


@pytest.mark.parametrize("block", update_golden.INTEGER_BLOCKS)
def test_nothing_but_the_form_changes(block: str) -> None:
    model = update_golden.quantized(block, "onnxq")
    passes = update_golden.pipeline.parse(update_golden.INTEGER)
    update_golden.pipeline.run(model, passes[:-1], update_golden.PassContext(model))
    prove_exact(model, passes[-1])
