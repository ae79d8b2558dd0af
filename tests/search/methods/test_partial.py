"""Which layers stay in float, and how many."""

from __future__ import annotations

import numpy as np
import pytest

import onnxq
from onnxq.errors import ConfigError
from onnxq.placement.settings import Override
from onnxq.search.choose import search_partial
from onnxq.search.keep_float import fewest
from onnxq.search.sensitivity import LayerSensitivity, Sensitivity
from support.build import floating

TEXT = """g (float[N,6] x) => (y) <float[6,8] w1, float[8,8] w2, float[8,4] w3> {
[one] a = MatMul(x, w1)
[r1] b = Relu(a)
[two] c = MatMul(b, w2)
[r2] d = Relu(c)
[three] y = MatMul(d, w3)
}"""

MOST = 0.2


@pytest.mark.parametrize("count", [1, 2, 5, 16, 53])
def test_the_fewest_are_found_with_few_trials(count):
    for wanted in range(count + 1):
        tried: list[int] = []

        def drop(left: int, wanted: int = wanted, tried: list[int] = tried) -> float:
            tried.append(left)
            return 0.0 if left >= wanted else 0.5

        left, trials = fewest(count, 0.01, drop)
        assert left == wanted
        assert len(tried) == len(set(tried)) == len(trials) <= 2 + int(np.ceil(np.log2(count + 1)))


def test_what_cannot_be_reached_is_said():
    with pytest.raises(ConfigError, match=r"even with all 3 layers in float the model loses 20\.00 points"):
        fewest(3, 0.01, lambda left: 0.2)


def proto():
    return floating.proto(TEXT, 17, 8)


def known(**values: float) -> Sensitivity:
    return Sensitivity(
        onnxq.load(proto()).sha256,
        "m",
        "test",
        tuple(LayerSensitivity(n, "weights", {3: v, 8: v / 100}) for n, v in values.items()),
    )


def data(count: int = 64) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((1, 6)).astype(np.float32)} for _ in range(count)]


def test_the_most_sensitive_layers_stay_in_float_and_the_model_keeps_what_was_asked():
    found = search_partial(proto(), data(), known(one=1.0, two=9.0, three=3.0), MOST, bits=3)
    left = [n for n, o in found.assignment.items() if o == Override(keep_float=True)]
    assert left == ["two", "three"]
    assert found.parameters["drop"] <= MOST
    made = onnxq.quantize(proto(), data(), overrides=dict(found.assignment))
    report = made.evaluate(proto(), data())
    assert 1 - report.against.agreement == pytest.approx(found.parameters["drop"])
    fewer = dict(found.parameters["trials"])
    assert all(drop > MOST for count, drop in fewer.items() if count < len(left))


def test_nothing_stays_in_float_where_nothing_is_lost():
    found = search_partial(proto(), data(), known(one=1.0, two=9.0, three=3.0), 0.9)
    assert found.parameters["left_float"] == 0
    assert found.counts() == {8: 3}
    assert found.predicted == {k: found.baseline[k] for k in ("size", "bops")}


def test_mistakes():
    with pytest.raises(ConfigError, match="no layer two at 8 bits"):
        search_partial(proto(), data(), known(one=1.0, three=3.0))
    with pytest.raises(ConfigError, match="another model"):
        search_partial(floating.proto(TEXT.replace("three", "four"), 17, 8), data(), known(one=1.0, two=1.0, four=1.0))
    with pytest.raises(ConfigError, match="a share from 0 to 1"):
        search_partial(proto(), data(), known(), 1.5)
