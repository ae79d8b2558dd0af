"""Class scores: ranks, ties, NaN and the Kullback-Leibler divergence, against plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from onnxq.numeric.classification import Scores, is_probability, kl_divergence, top_classes, true_ranks

# Few distinct values, so that ties are common.
SCORES = npst.arrays(
    np.float64, st.tuples(st.integers(1, 5), st.integers(2, 6)), elements=st.integers(-2, 2).map(float)
)


@given(SCORES, st.data())
def test_rank_is_the_place_in_a_stable_sort(scores, data):
    labels = np.array(
        data.draw(st.lists(st.integers(0, scores.shape[1] - 1), min_size=len(scores), max_size=len(scores)))
    )
    order = [sorted(range(scores.shape[1]), key=lambda c, row=row: (-row[c], c)) for row in scores]
    assert true_ranks(scores, labels).tolist() == [o.index(label) for o, label in zip(order, labels, strict=True)]
    assert top_classes(scores).tolist() == [o[0] for o in order]


def test_rows_with_nan_are_never_right():
    scores = Scores("y", 3).rows(np.array([[1, np.nan, 3], [1, 2, 3]], np.float32), 2)
    assert top_classes(scores).tolist() == [-1, 2]
    assert true_ranks(scores, np.array([2, 2])).tolist() == [3, 0]


@pytest.mark.parametrize(
    ("shapes", "samples", "expected"),
    [
        ({"y": (4, 10)}, 4, Scores("y", 10)),
        ({"y": (1, 1000, 1, 1)}, 1, Scores("y", 1000)),
        ({"y": (4, 1, 7)}, 4, Scores("y", 7)),
        ({"y": (4, 10), "mask": (4, 3, 8, 8)}, 4, Scores("y", 10)),
        ({"y": (4, 10), "z": (4, 3)}, 4, None),  # which of the two?
        ({"y": (4, 1)}, 4, None),  # one score is no choice
        ({"y": (3, 10)}, 4, None),  # not one row a sample
        ({"y": (4, 10, 2)}, 4, None),
        ({"y": ()}, 1, None),
    ],
)
def test_the_output_that_holds_class_scores(shapes, samples, expected):
    assert Scores.choose(shapes, samples) == expected


@given(
    npst.arrays(np.float64, (3, 4), elements=st.floats(-20, 20)),
    npst.arrays(np.float64, (3, 4), elements=st.floats(-20, 20)),
)
def test_divergence_of_logits_is_that_of_their_softmax(a, b):
    def softmax(x):
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    p, q = softmax(a), softmax(b)
    assert is_probability(p)
    expected = [
        sum(pi * (math.log(pi) - math.log(qi)) for pi, qi in zip(r, s, strict=True)) for r, s in zip(p, q, strict=True)
    ]
    found = kl_divergence(a, b, probability=False)
    assert np.allclose(found, np.maximum(expected, 0), atol=1e-9)
    assert (found >= 0).all()
    assert kl_divergence(a, a, probability=False).tolist() == [0.0, 0.0, 0.0]


def test_a_probability_quantized_to_zero_costs_a_finite_amount():
    found = kl_divergence(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]]), probability=True)
    assert 5 < found[0] < 20


def test_logits_are_no_distribution():
    assert not is_probability(np.array([[0.2, 0.3]]))
    assert not is_probability(np.array([[1.5, -0.5]]))
