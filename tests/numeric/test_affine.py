"""The algebra of scales and shifts, against the plain loops that define it."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.numeric import affine
from onnxq.numeric.affine import Affine

seeds = st.integers(0, 2**32 - 1)


def test_batch_norm_by_hand():
    step = affine.batch_norm([2.0, 1.0], [1.0, 0.0], [3.0, -1.0], [4.0, 0.25], 0.0)
    assert step.a.tolist() == [1.0, 2.0]
    assert step.b.tolist() == [-2.0, 2.0]


@given(seeds)
def test_batch_norm_is_its_definition(seed):
    rng = np.random.default_rng(seed)
    gamma, beta, mean, x = rng.normal(size=(4, 5))
    var, epsilon = rng.uniform(0.01, 4, 5), 1e-3
    step = affine.batch_norm(gamma, beta, mean, var, epsilon)
    assert np.allclose(step.a * x + step.b, gamma * (x - mean) / np.sqrt(var + epsilon) + beta)


@pytest.mark.parametrize("var", [0.0, -1.0, np.nan])
def test_no_finite_step_without_a_positive_variance(var):
    assert not affine.batch_norm([1.0], [0.0], [0.0], [var], 0.0).is_finite
    assert affine.batch_norm([1.0], [0.0], [0.0], [abs(var) + 1], 0.0).is_finite or np.isnan(var)


@given(seeds)
def test_one_after_another(seed):
    rng = np.random.default_rng(seed)
    a1, b1, a2, b2, x = rng.normal(size=(5, 3))
    both = Affine(a1, b1).then(Affine(a2, b2))
    assert np.allclose(both.a * x + both.b, a2 * (a1 * x + b1) + b2)
    steps = affine.scale(a1).then(affine.shift(b1)).then(affine.scale(a2))
    assert np.allclose(steps.a * x + steps.b, a2 * (a1 * x + b1))


def test_float16_is_widened_before_it_is_multiplied():
    big = np.asarray([300.0], np.float16)
    assert affine.scale(big).then(affine.scale(big)).a == [90000.0]


@given(seeds, st.integers(0, 2))
def test_scale_axis(seed, axis):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(2, 3, 4))
    a = rng.normal(size=weight.shape[axis])
    expected = np.einsum(weight, [0, 1, 2], a, [axis], [0, 1, 2])
    assert np.allclose(affine.scale_axis(weight, a, axis), expected)
    assert np.allclose(affine.scale_axis(weight, a, axis - 3), expected)


@given(seeds, st.sampled_from([(1, 4, 3), (2, 2, 3), (3, 1, 1), (4, 3, 2)]))
def test_scale_grouped(seed, sizes):
    groups, rows, inner = sizes
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(groups * rows, inner, 2, 2))
    a = rng.normal(size=groups * inner)
    scaled = affine.scale_grouped(weight, a, groups)
    for m in range(groups * rows):
        for c in range(inner):
            channel = (m // rows) * inner + c
            assert np.array_equal(scaled[m, c], weight[m, c] * a[channel])


@given(seeds, st.sampled_from([(1, 4, 3), (2, 2, 3), (3, 1, 1)]))
def test_response_to_a_constant_input(seed, sizes):
    groups, rows, inner = sizes
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(groups * rows, inner, 3))
    b = rng.normal(size=groups * inner)
    expected = [
        sum(b[(m // rows) * inner + c] * weight[m, c, k] for c in range(inner) for k in range(3))
        for m in range(groups * rows)
    ]
    assert np.allclose(affine.response(weight, b, groups), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_store_in_a_type(dtype):
    stored = affine.store(np.asarray([1.0, -2.5, 0.0]), dtype)
    assert stored.dtype == dtype
    assert stored.astype(np.float64).tolist() == [1.0, -2.5, 0.0]


def test_store_refuses_what_overflows():
    assert affine.store(np.asarray([1.0, 70000.0]), np.float16) is None
    assert affine.store(np.asarray([1e39]), np.float32) is None
    assert affine.store(np.asarray([1e39]), ml_dtypes.bfloat16) is None
    assert affine.store(np.asarray(65504.0), np.float16).shape == ()


def test_reciprocal_of_zero_is_infinite():
    assert affine.reciprocal([2.0, 0.0]).tolist() == [0.5, np.inf]
