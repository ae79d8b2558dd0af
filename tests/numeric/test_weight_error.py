"""Errors of weights at several widths against quantizing and dequantizing them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.numeric import weight_error
from onnxq.numeric.formats import QuantFormat
from onnxq.numeric.qparams import qparams_from_range
from onnxq.numeric.quantize import fake_quantize
from onnxq.numeric.weight_error import weight_errors

FORMS = {
    "affine": {"signed": False, "symmetric": False},
    "symmetric": {"signed": True, "symmetric": True, "narrow_range": True},
    "wide": {"signed": True, "symmetric": True},
    "power of two": {"signed": True, "symmetric": True, "narrow_range": True, "power_of_two": True},
}


def formats(form: str) -> list[QuantFormat]:
    return [QuantFormat(bits, **FORMS[form]) for bits in range(8, 1, -1)]


def expected(w: np.ndarray, fmt: QuantFormat, axis: int | None) -> float:
    other = None if axis is None else tuple(i for i in range(w.ndim) if i != axis)
    qparams = qparams_from_range(w.min(axis=other), w.max(axis=other), fmt, axis)
    return float(np.mean((w.astype(np.float64) - fake_quantize(w, qparams)) ** 2))


@pytest.mark.parametrize("form", FORMS)
@given(st.integers(0, 1 << 30), st.sampled_from([None, 0, 1]), st.floats(1e-6, 1e4), st.floats(-2, 2))
@settings(max_examples=25)
def test_the_error_is_that_of_quantizing(form, seed, axis, scale, offset):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 9, 4))
    w = (scale * (rng.standard_normal(shape) + offset) * rng.lognormal(size=(1, shape[1], 1, 1))).astype(np.float32)
    found = weight_errors(w, formats(form), axis)
    wanted = [expected(w, fmt, axis) for fmt in formats(form)]
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=1e-12 * scale**2)


def test_large_tensors_are_cut_into_blocks_in_both_directions(monkeypatch):
    w = np.random.default_rng(0).standard_normal((7, 300)).astype(np.float32)
    whole = [weight_errors(w, formats("symmetric"), axis) for axis in (None, 0)]
    monkeypatch.setattr(weight_error, "BLOCK", 128)
    for axis, known in zip((None, 0), whole, strict=True):
        np.testing.assert_allclose(weight_errors(w, formats("symmetric"), axis), known, rtol=1e-5)


def test_channels_of_zeros_and_empty_tensors_have_no_error():
    w = np.zeros((3, 4), np.float32)
    assert not weight_errors(w, formats("symmetric"), 0).any()
    assert not weight_errors(np.zeros((0, 4), np.float32), formats("affine")).any()
    w[1] = [1, -1, 0.5, 0.25]
    np.testing.assert_allclose(
        weight_errors(w, formats("symmetric"), 0), [expected(w, f, 0) for f in formats("symmetric")], rtol=1e-4
    )


def test_scales_at_the_end_of_float32_are_no_ratio_of_each_other():
    w = np.array([[1e-37, -3e-38], [1.0, 0.3]], np.float32)
    np.testing.assert_allclose(
        weight_errors(w, formats("symmetric"), 0), [expected(w, f, 0) for f in formats("symmetric")], rtol=1e-4
    )


def test_a_tie_at_both_ends_saturates():
    """−1.5 and 1.5 steps at 2 bits: both round away, which is one code more than there are."""
    w = np.array([-1.5, 1.5, 0.4], np.float32)
    affine = QuantFormat(2, signed=False, symmetric=False)
    assert weight_errors(w, [affine])[0] == pytest.approx(expected(w, affine, None), rel=1e-5)
    assert weight_errors(w, [affine])[0] > (0.25 + 0.25 + 0.16) / 3 - 1e-6
