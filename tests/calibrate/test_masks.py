"""Ranges of scores and masks: masked values do not set the scale, and stay apart from the others."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import onnxq
from onnxq.calibrate.masks import GAP, MARGIN, SHALLOW, ScoreRanges, mask_bound
from onnxq.calibrate.statistics import Statistics, TensorStatistics
from onnxq.numeric.formats import QuantFormat
from support.build import floating

U8 = QuantFormat(8, signed=False, symmetric=False)
SCORES = np.random.default_rng(0).normal(0, 3, 5000).astype(np.float32)


def of(*arrays: np.ndarray) -> TensorStatistics:
    stats = TensorStatistics()
    for array in arrays:
        stats.update(np.asarray(array, np.float32))
    return stats


@pytest.mark.parametrize("mask", [-100.0, -1e4, -1e9, float(np.finfo(np.float32).min)])
def test_masked_values_are_told_from_scores(mask: float) -> None:
    stats = of(SCORES, SCORES[:100] + np.float32(mask))
    assert mask_bound(stats) == (None if mask == -100 else mask_bound(stats, SHALLOW))  # that could be scores
    bound = mask_bound(stats, SHALLOW)
    assert bound is not None and mask * 1.01 - 20 <= bound < SCORES.min() - GAP
    kept = stats.above(bound)
    assert (kept.count, kept.maximum) == (SCORES.size, SCORES.max())
    assert kept.minimum == pytest.approx(SCORES.min(), rel=2**-10)  # to a bucket


@pytest.mark.parametrize("values", [SCORES, SCORES * 50, [-1000.0, -980, -960], [-50.0, 0], [-500.0, 0], []])
def test_without_a_gap_far_below_nothing_is_masked(values: list[float]) -> None:
    """A wide spread of scores is no mask, and neither is one far from zero."""
    assert mask_bound(of(np.asarray(values))) is None


@given(st.lists(st.floats(-1000, 1000, width=32), min_size=1), st.floats(-900, -0.5))
def test_above_counts_what_lies_above(values: list[float], bound: float) -> None:
    array = np.array(values, np.float32)
    array = array[np.abs(array - bound) > 0.002 * abs(bound)]  # not in the bucket that the bound is in
    stats, kept = of(array), array[array > bound]
    found = stats.above(bound)
    assert found.count == kept.size
    if kept.size:
        assert found.maximum == kept.max() and found.minimum == pytest.approx(kept.min(), rel=0.002)


TEXT = """g (float[2,4,8] s, float[2,1,8] m) => (float[2,4,8] y)
    { [mask] a = Add(s, m) [soft] y = Softmax(a) }"""


def ranges(scores: np.ndarray, mask: np.ndarray) -> dict[str, tuple[float, float]]:
    model = floating.model(TEXT)
    statistics = Statistics()
    for name, values in (("s", scores), ("m", mask), ("a", scores + mask)):
        statistics.tensor(name).update(values)
    found = ScoreRanges(model.graph, statistics)
    tensors = model.graph.tensors()
    assert all(found.holds(tensors[n]) for n in ("m", "a", "s")) and not found.holds(tensors["y"])
    return {n: found.choose([tensors[n]], statistics[n], "max", U8) for n in ("s", "m", "a")}


@pytest.mark.parametrize("deep", [0.0, -1e4, float(np.finfo(np.float32).min)], ids=["not seen", "-10000", "least"])
def test_what_a_mask_needs(deep: float) -> None:
    scores = SCORES[:64].reshape(2, 4, 8)
    mask = np.zeros((2, 1, 8), np.float32)
    mask[0, 0, 3:] = deep
    found = ranges(scores, mask)
    assert found["s"] == (scores.min(), scores.max())
    seen = (scores + mask)[(scores + mask) > -64]
    low, high = found["a"]
    assert high == seen.max() and low == pytest.approx(seen.min() - MARGIN, abs=0.02)
    # The deepest value of the mask takes the largest unmasked score to the lower end.
    assert found["m"][1] == 0 and found["m"][0] == pytest.approx(low - high, abs=0.02)


def test_a_bias_of_scores_is_data() -> None:
    bias = np.linspace(-2, 3, 16, dtype=np.float32).reshape(2, 1, 8)
    scores = SCORES[:64].reshape(2, 4, 8)
    found = ranges(scores, bias)
    assert found["m"] == (-2, 3) and found["a"] == ((scores + bias).min(), (scores + bias).max())


CONSTANT = """g (float[2,4,8] x) => (float[2,4,8] y) <float[8,8] w, float[8,8] v, float[1,4,8] mask>
    { [mm] s = MatMul(x, w) [masked] a = Add(s, mask) [soft] p = Softmax(a) [out] y = MatMul(p, v) }"""


@pytest.mark.parametrize("deep", [-np.inf, -1e30, -100])
@pytest.mark.parametrize("profile", ["onnxq", "onnxruntime-cpu", "qnn"])
def test_a_mask_that_is_a_constant(profile: str, deep: float) -> None:
    proto = floating.proto(CONSTANT, mask=np.where(np.tri(4, 8, dtype=bool), 0, deep)[None])
    feeds = [{"x": np.random.default_rng(i).normal(size=(2, 4, 8)).astype(np.float32)} for i in range(4)]
    made = onnxq.quantize(proto, feeds, profile=profile, calibration="max").model
    assert max(scales(made)) < 1
    for feed in feeds:
        want = onnxq.session(proto, optimize=False).run(None, feed)[0]
        got = onnxq.session(made).run(None, feed)[0]
        assert np.abs(want - got).max() < 0.06 * np.abs(want).max()


def scales(model: onnx.ModelProto) -> list[float]:
    values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    return [float(values[n.input[1]].max()) for n in model.graph.node if n.op_type == "QuantizeLinear"]
