"""The search benchmark: assignments to compare with, stored results, networks of the right size."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from bench_search import BLOCKS, resnet_weights

from bench_support.search_accuracy import Results, assignment_of, random_assignment, worst_assignment
from onnxq.cost.prepared import prepare
from onnxq.search.least_sensitivity import search_ilp
from onnxq.search.linear_program import value_of
from onnxq.search.sensitivity import LayerSensitivity, Sensitivity
from onnxq.search.space import Space, make_space

pytestmark = pytest.mark.filterwarnings("ignore:.*PuLP 4.0:DeprecationWarning")


@pytest.fixture(scope="module")
def space() -> Space:
    return make_space(resnet_weights((1, 1, 1, 1)), bits=(4, 6, 8))


@pytest.fixture(scope="module")
def known(space: Space) -> Sensitivity:
    values = np.random.default_rng(0).lognormal(size=len(space.costs.layers))
    layers = (
        LayerSensitivity(c.node, "weights", {4: 9 * float(v), 6: 3 * float(v), 8: 0.0})
        for c, v in zip(space.costs.layers, values, strict=True)
    )
    return Sensitivity(space.prepared.model.sha256, "m", "test", tuple(layers))


def test_comparisons_cost_the_same_and_the_worst_is_worse_than_random(space, known):
    best = assignment_of(space, search_ilp(space, known, {"size": "70%"}))
    target = space.totals(best)["size"]
    problem = space.problem(known)

    def value(found) -> float:
        return value_of(problem, found.weights, found.activations)

    drawn = [random_assignment(space, "size", target, seed) for seed in range(5)]
    worst = worst_assignment(space, known, "size", target)
    for found in (*drawn, worst):
        assert space.totals(found)["size"] == pytest.approx(target, rel=0.011)
        assert value(best) < value(found) <= value(worst) * 1.02
    assert len({tuple(f.weights.values()) for f in drawn}) == len(drawn)
    assert random_assignment(space, "size", target, 3) == drawn[3]


def test_results_are_kept_at_once_and_not_made_again(tmp_path: Path):
    path = tmp_path / "sub" / "r.json"
    results = Results(path)
    assert results.once("a", lambda x: {"x": x}, 1) == {"x": 1}
    assert json.loads(path.read_text()) == {"a": {"x": 1}}
    again = Results(path)
    assert again.once("a", lambda: {"x": 2}) == {"x": 1}


def test_networks_have_the_number_of_layers_in_their_names():
    assert {name: 2 + sum(3 * n + 1 for n in blocks) for name, blocks in BLOCKS.items()} == {
        "resnet50": 54,
        "resnet152": 156,
        "501 layers": 501,
    }
    prepared = prepare(resnet_weights((1, 1, 1, 1)), "onnxruntime-cpu")
    assert len(prepared.layers) == 2 + 4 * 4
    assert math.prod(prepared.layers[-1].weight.shape) == 2048 * 1000
