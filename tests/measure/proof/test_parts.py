"""The pure parts of a proof: distances, lost constants, bisection."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.graph.model import load
from onnxq.measure.proof.constants import ChannelTally
from onnxq.measure.proof.locate import culprit, first_node
from onnxq.measure.proof.outputs import distance


@given(st.integers(1, 40), st.data())
def test_the_one_optimizer_is_found(count: int, data: st.DataObject) -> None:
    names = [f"o{i}" for i in range(count)]
    guilty = data.draw(st.sampled_from(names))
    assert culprit(lambda off: guilty not in off, names) == guilty


def test_no_optimizer_is_named_without_proof() -> None:
    names = ["a", "b", "c", "d"]
    assert culprit(lambda off: True, names) is None
    assert culprit(lambda off: not {"a", "d"} <= set(off), names) is None  # two of them


@given(st.integers(1, 12), st.data())
def test_the_first_failing_node_is_found(count: int, data: st.DataObject) -> None:
    guilty = data.draw(st.integers(0, count - 1))
    body = " ".join(f"[n{i}] t{i + 1} = Relu(t{i})" for i in range(count))
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[2] t0) => (float[2] t{count}) {{ {body} }}'
    model = load(onnx.parser.parse_model(text))

    def fails(part: onnx.ModelProto) -> bool:
        return any(node.name == f"n{guilty}" for node in part.graph.node)

    assert first_node(model, fails) == f"n{guilty}"
    assert first_node(model, lambda part: False) is None


def test_parts_carry_what_subgraphs_read() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[2] x, bool c) => (float[2] z)
        { [a] y = Neg(x) [i] z = If(c) <then_branch = t () => (float[2] u) { u = Abs(y) },
                                        else_branch = e () => (float[2] v) { v = Relu(x) }> }"""
    seen: list[Sequence[str]] = []

    def fails(part: onnx.ModelProto) -> bool:
        made = {"x", "c"} | {name for node in part.graph.node for name in node.output}
        inner = {name for n in part.graph.node for a in n.attribute for m in a.g.node for name in m.input}
        assert inner | {name for node in part.graph.node for name in node.input} <= made
        seen.append([node.name for node in part.graph.node])
        return "i" in seen[-1]

    assert first_node(load(onnx.parser.parse_model(text)), fails) == "i"
    assert ["a", "i"] in seen


def test_distances() -> None:
    a = np.array([[1.0, -127.0]], np.float32)
    d = distance([a], [a + np.float32(1)])
    assert d is not None and d.steps == pytest.approx(1.0) and d.equal == 0 and d.sqnr_db is not None
    assert distance([a], [a]).sqnr_db == math.inf  # type: ignore[union-attr]
    assert distance([a], [a[0]]) is None and distance([a[:, :0]], [a[:, :0]]) is None
    assert distance([a], [a * np.nan]).nonfinite == 2  # type: ignore[union-attr]
    assert distance([a * np.inf], [a * np.nan]).nonfinite == 0  # type: ignore[union-attr]
    assert distance([np.array(["a", "b"], object)], [np.array(["a", "c"], object)]).equal == 0.5  # type: ignore
    assert distance([[a, a]], [[a, a]]).equal == 1 and distance([[a]], [[a, a]]).equal == 0  # type: ignore[union-attr]


@given(st.floats(1, 1e6), st.sampled_from([-1.0, 1.0]), st.integers(1, 4), st.integers(2, 4))
def test_lost_constants(size: float, sign: float, batches: int, rank: int) -> None:
    rng = np.random.default_rng(0)
    tally, kept = ChannelTally(), ChannelTally()
    for _ in range(batches):
        shape = (4, 3, *([5] * (rank - 2)))
        expected = rng.normal(size=shape) * size
        expected[:, 1] = sign * size
        found = expected + rng.normal(size=shape) * size / 500
        kept.add(expected, found.copy())
        found[:, 1] = 0
        tally.add(expected, found)
    assert [lost.channel for lost in tally.lost()] == [1] and tally.lost()[0].expected == pytest.approx(sign * size)
    assert not kept.lost()


@pytest.mark.filterwarnings("error")
def test_a_mask_of_infinities_beside_a_lost_constant() -> None:
    rng = np.random.default_rng(3)
    expected = rng.normal(size=(4, 3, 5, 5))
    expected[:, 0] = -np.inf
    expected[0, 0, 0, 0] = 0
    expected[:, 1] = 300
    expected[:, 2] = np.inf
    found = expected.copy()
    found[:, 1] = 0
    tally = ChannelTally()
    tally.add(expected, found)
    assert [lost.channel for lost in tally.lost()] == [1]


def test_constants_beyond_the_codes_are_clipping_not_loss() -> None:
    expected = np.zeros((4, 2, 3, 3))
    expected[:, 1] = 300
    found = np.clip(expected, -100, 100)
    tally = ChannelTally(step=0.8, limits=(-100.0, 100.0))
    tally.add(expected, found)
    assert not tally.lost()
