"""Scale and zero point from a range, against exact rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from onnxq.numeric.formats import QuantFormat
from onnxq.numeric.qparams import SCALE_MIN, finite_scale, qparams_from_range
from onnxq.numeric.quantize import dequantize, quantize

FLOAT32_MAX = float(np.finfo(np.float32).max)
HALF_ULP = Fraction(1, 2**24)  # of a float32, relative

reals = st.floats(-FLOAT32_MAX, FLOAT32_MAX, width=32)
usual = st.floats(-1e6, 1e6, width=32).filter(lambda x: x == 0 or abs(x) > 1e-20)
formats = st.builds(
    QuantFormat,
    bits=st.integers(2, 8),
    signed=st.booleans(),
    symmetric=st.booleans(),
    narrow_range=st.booleans(),
    power_of_two=st.booleans(),
)


@given(usual, usual, st.integers(2, 8), st.booleans())
def test_symmetric_signed_scale(a: float, b: float, bits: int, narrow: bool) -> None:
    low, high = min(a, b), max(a, b)
    extent = max(abs(Fraction(low)), abs(Fraction(high)))
    assume(extent > 0)
    q = qparams_from_range(low, high, QuantFormat(bits, narrow_range=narrow))
    exact = extent / ((1 << (bits - 1)) - 1)
    assert abs(Fraction(float(q.scale)) - exact) <= exact * HALF_ULP
    assert q.scale.dtype == np.float32 and q.zero_point == 0


@given(usual, usual, st.integers(2, 8), st.booleans())
def test_affine_scale_and_zero_point(a: float, b: float, bits: int, signed: bool) -> None:
    fmt = QuantFormat(bits, signed=signed, symmetric=False)
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    assume(high > low)
    q = qparams_from_range(min(a, b), max(a, b), fmt)
    scale = Fraction(float(q.scale))
    exact = (Fraction(high) - Fraction(low)) / (2**bits - 1)
    assert abs(scale - exact) <= exact * HALF_ULP * 2
    assert fmt.qmin <= q.zero_point <= fmt.qmax
    # The zero point is the nearest code to where the lower end would put it: the range is covered up to half a step.
    assert abs(fmt.qmin - Fraction(low) / scale - int(q.zero_point)) <= Fraction(1, 2) + Fraction(1, 10**5)


@given(st.floats(2.0**-66, 1e6, width=32), st.integers(2, 8))
def test_symmetric_unsigned_looks_at_the_upper_end_only(high: float, bits: int) -> None:
    q = qparams_from_range(-12345.0, high, QuantFormat(bits, signed=False))
    assert float(q.scale) == float(np.float32(high / (2**bits - 1))) and q.zero_point == 0


@given(reals, reals, formats)
@example(-FLOAT32_MAX, FLOAT32_MAX, QuantFormat(8, signed=False, symmetric=False))
@example(0.0, FLOAT32_MAX, QuantFormat(2))
@example(-FLOAT32_MAX, 0.0, QuantFormat(8, power_of_two=True))
@example(0.0, 1e-45, QuantFormat(8, signed=False, symmetric=False))
@example(1e31, 1e31, QuantFormat(8, signed=False, symmetric=False))
def test_every_range_gives_usable_parameters(a: float, b: float, fmt: QuantFormat) -> None:
    q = qparams_from_range(min(a, b), max(a, b), fmt)
    assert np.isfinite(q.scale) and q.scale >= SCALE_MIN
    assert fmt.qmin <= q.zero_point <= fmt.qmax
    ends = np.array([fmt.qmin, fmt.qmax, int(q.zero_point)], np.int64)
    reals = dequantize(ends, q)
    assert np.isfinite(reals).all()
    assert reals[2] == 0
    assert (quantize(reals, q) == ends).all()
    assert (quantize(np.array(q.real_range(), np.float32), q) == ends[:2]).all()


@given(usual, usual, formats)
def test_range_is_covered_up_to_half_a_step(a: float, b: float, fmt: QuantFormat) -> None:
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    assume(fmt.signed or not fmt.symmetric)
    q = qparams_from_range(low, high, fmt)
    left, right = q.real_range()
    step = float(q.scale)
    assert left <= low + step * 0.50001 and right >= high - step * 0.50001


@pytest.mark.parametrize("value", [0.0, -0.0])
def test_a_range_of_zeros_has_scale_one(value: float) -> None:
    assert qparams_from_range(value, value, QuantFormat(8)).scale == 1


@given(st.floats(2.0**-149, 2.0**125, width=32), st.integers(2, 8))
@example(127.0, 8)
@example(float(np.nextafter(np.float32(127), np.float32(200))), 8)
@example(255.0, 8)
def test_power_of_two_is_the_next_one(high: float, bits: int) -> None:
    plain = float(qparams_from_range(-high, high, QuantFormat(bits)).scale)
    rounded = float(qparams_from_range(-high, high, QuantFormat(bits, power_of_two=True)).scale)
    mantissa, _ = np.frexp(rounded)
    assert mantissa == 0.5  # a power of two
    assert plain <= rounded < 2 * plain


@given(st.integers(-100, 100), st.booleans())
def test_exact_powers_of_two_stay(k: int, affine: bool) -> None:
    fmt = QuantFormat(8, signed=not affine, symmetric=not affine, power_of_two=True)
    high = float(np.ldexp(255.0 if affine else 127.0, k))
    assert float(qparams_from_range(0.0, high, fmt).scale) == 2.0**k


def test_channels() -> None:
    low, high = np.array([-1.0, 0.0, -3.0]), np.array([2.0, 0.0, 1.0])
    q = qparams_from_range(low, high, QuantFormat(8, signed=False, symmetric=False), axis=2)
    assert q.scale.shape == q.zero_point.shape == (3,) and q.axis == 2
    for i in range(3):
        one = qparams_from_range(low[i], high[i], q.format)
        assert (one.scale, one.zero_point) == (q.scale[i], q.zero_point[i])


def test_finite_scale() -> None:
    found = finite_scale(np.array([0.0, 1e-45, 0.5, 1e300]))
    assert found.tolist() == [1.0, SCALE_MIN, 0.5, FLOAT32_MAX]
