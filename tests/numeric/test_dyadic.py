"""Dyadic rescaling against unlimited integers and exact fractions."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from onnxq.errors import NumericError
from onnxq.numeric import dyadic as dn

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
ratios = st.one_of(
    st.floats(0, 2.0**30 - 1),
    st.floats(-45, 29.9).map(lambda e: 2.0**e),
    st.integers(-40, 29).map(lambda e: 2.0**e),
    st.integers(-40, 29).map(lambda e: float(np.nextafter(2.0**e, 0))),
)
int32s = st.one_of(st.integers(INT32_MIN, INT32_MAX), st.sampled_from([INT32_MIN, -1, 0, 1, INT32_MAX]))
small = st.floats(-45, 0.0).map(lambda e: 2.0**e)


def half_up(x: Fraction) -> int:
    return floor(x + Fraction(1, 2))


def one(r: float) -> tuple[int, int]:
    b, c = dn.dyadic(r)
    return int(b), int(c)


@given(ratios)
@example(0.0)
@example(5e-324)
@example(2.0**-32)
@example(float(np.nextafter(2.0**-32, 0)))
@example(1 - 2.0**-40)  # the mantissa rounds up to 2³¹
@example(2.0**30 - 0.5)
def test_the_largest_shift_and_its_error(r: float) -> None:
    b, c = one(r)
    assert 0 <= b <= 2**31 - 1 and 1 <= c <= 62
    if r < 2.0**-32:
        assert b == 0
        return
    exact = Fraction(r)
    assert b == round(exact * 2**c)  # round(Fraction): half to even
    assert c == 62 or round(exact * 2 ** (c + 1)) > 2**31 - 1
    error = abs(Fraction(b, 2**c) - exact)
    assert error <= Fraction(1, 2 ** (c + 1))
    assert error <= exact * Fraction(1, 2**31) or c == 62
    assert Fraction(float(dn.error_bound(r, b, c))) == error


def test_carry_of_the_mantissa() -> None:
    just_below_one = 1 - 2.0**-40
    assert one(just_below_one) == (2**30, 30)
    assert one(1.0) == (2**30, 30)
    assert one(1 - 2.0**-31) == (2**31 - 1, 31)


def test_ends_of_the_range() -> None:
    assert one(2.0**30 - 0.5) == (2**31 - 1, 1)
    assert one(2.0**-31) == (2**30, 61)
    assert one(2.0**-32) == (2**30, 62)
    assert one(float(np.nextafter(2.0**-32, 0)))[0] == 0
    assert one(0.0) == (0, 62)


@pytest.mark.parametrize("r", [-1e-9, np.nan, np.inf, -np.inf, 2.0**30, 2.0**30 - 0.25, 1e300])
def test_refused(r: float) -> None:
    for refused in (
        dn.dyadic,
        dn.dyadic_fixed,
        lambda v: dn.dyadic_sum([v, 0.1], [1, 1]),
        lambda v: dn.choose([v], [1]),
    ):
        with pytest.raises(NumericError):
            refused([0.5, r])


@given(st.lists(ratios, min_size=1, max_size=6))
def test_arrays_are_their_elements(rs: list[float]) -> None:
    b, c = dn.dyadic(np.reshape(rs, (-1, 1)))
    assert b.dtype == c.dtype == np.int32 and b.shape == c.shape == (len(rs), 1)
    assert list(zip(b[:, 0].tolist(), c[:, 0].tolist(), strict=True)) == [one(r) for r in rs]


def test_scalars_and_no_elements() -> None:
    b, c = dn.dyadic(0.3)
    assert b.shape == c.shape == ()
    assert dn.dyadic(np.zeros(0))[0].shape == (0,)


def test_limited_shift() -> None:
    b, c = dn.dyadic([256.0, 1 / 3, 2.0**15], 16)
    assert c.tolist() == [16, 16, 15]
    assert b.tolist() == [2**24, 21845, 2**30]


@given(st.floats(0, 0.5 - 2.0**-32))
@example(0.5 - 2.0**-32)
@example(2.0**-32)
def test_fixed_shift(r: float) -> None:
    b, c = dn.dyadic_fixed([r])
    assert c.tolist() == [32] and 0 <= b[0] <= 2**31 - 1
    assert b[0] == (round(Fraction(r) * 2**32) if r >= 2.0**-32 else 0)
    assert abs(Fraction(int(b[0]), 2**32) - Fraction(r)) <= (Fraction(1, 2**33) if r >= 2.0**-32 else Fraction(r))


@pytest.mark.parametrize("r", [0.5, 0.5 - 2.0**-33, 7.0])
def test_fixed_shift_refuses_what_does_not_fit(r: float) -> None:
    with pytest.raises(NumericError):
        dn.dyadic_fixed([0.1, r])
    with pytest.raises(NumericError, match=r"0\.5"):
        dn.choose([[0.1, r]], [1000], form="fixed")
    assert dn.choose([[0.1, r]], [1000]).form == "general"


@given(int32s, ratios, st.integers(-1000, 1000), st.integers(-(2**31), 0), st.integers(0, 2**31 - 1))
def test_rescale_is_its_definition(acc: int, r: float, zero_point: int, qmin: int, qmax: int) -> None:
    b, c = one(r)
    y = dn.rescale([acc], [b], c, zero_point, qmin, qmax)
    assert y.dtype == np.int64
    exact = half_up(Fraction(acc * b, 2**c))
    assert int(y) == min(max(exact + zero_point, qmin), qmax)
    # Before saturation it is the real product to within the stated error.
    assert abs(Fraction(exact) - acc * Fraction(r)) <= Fraction(1, 2) + abs(acc) * Fraction(
        float(dn.error_bound(r, b, c))
    )


@given(st.integers(-(2**20), 2**20), st.integers(1, 62))
def test_ties_round_up(k: int, c: int) -> None:
    b = 2 ** min(c - 1, 30)  # k · b / 2^c is a tie when c ≤ 31 and k odd
    expected = half_up(Fraction(k * b, 2**c))
    assert int(dn.rescale([k], [b], c)) == expected


def test_ties_by_hand() -> None:
    acc = [-5, -3, -1, 1, 3, 5]
    assert dn.rescale([acc], [1], 1).tolist() == [-2, -1, 0, 1, 2, 3]
    assert dn.rescale([acc], [2**30], 31).tolist() == [-2, -1, 0, 1, 2, 3]


def test_saturates_from_64_bits() -> None:
    # 2³¹ − 1 times 2³⁰ − 1/2 is far beyond int32; cut to 32 bits first it would be negative.
    acc = np.array([INT32_MAX, INT32_MIN, 1, 0, -1])
    assert dn.rescale([acc], [2**31 - 1], 1, 5, 0, 255).tolist() == [255, 0, 255, 5, 0]
    assert dn.rescale([acc], [2**31 - 1], 1).tolist() == [INT32_MAX, INT32_MIN, 2**30, 0, -(2**30) + 1]


@given(int32s, st.integers(0, 30))
def test_identity(acc: int, k: int) -> None:
    assert int(dn.rescale([acc], [dn.IDENTITY[0]], dn.IDENTITY[1])) == acc
    if k:
        assert int(dn.rescale([acc], [2**k], k)) == acc


@given(int32s, st.integers(-60, -33).map(lambda e: 2.0**e))
def test_tiny_factors_give_zero(acc: int, r: float) -> None:
    for b, c in (dn.dyadic(r), dn.dyadic_fixed(r)):
        assert dn.rescale([acc], [b], c, 7).tolist() in (7, [7])
    # Which is what the real product rounds to.
    assert half_up(acc * Fraction(r)) == 0


@st.composite
def sums(draw: st.DrawFn) -> tuple[list[float], list[int]]:
    count = draw(st.integers(1, 8))
    bounds = st.one_of(st.integers(0, 2**31), st.sampled_from([128, 255, 2**31 - 1, 2**31, 2**32]))
    return (
        draw(st.lists(ratios, min_size=count, max_size=count)),
        draw(st.lists(bounds, min_size=count, max_size=count)),
    )


def proven(bs: list[int], bounds: list[int], c: int) -> bool:
    return sum(b * t for b, t in zip(bs, bounds, strict=True)) + 2 ** (c - 1) < 2**63


@given(sums())
@example(([0.4999999, 0.4999999], [2**31, 2**31]))
@example(([1.0, 1e-6], [255, 2**31]))
def test_one_shift_for_a_sum(case: tuple[list[float], list[int]]) -> None:
    rs, bounds = case
    try:
        multipliers, shift = dn.dyadic_sum(rs, bounds)
    except NumericError:
        # No shift at all: even with c = 1 the proof fails.
        assert not proven([round(2 * Fraction(r)) for r in rs], bounds, 1)
        return
    c, bs = int(shift), [int(b) for b in multipliers]
    assert 1 <= c <= 62 and all(0 <= b <= 2**31 - 1 for b in bs)
    assert bs == [round(Fraction(r) * 2**c) for r in rs]
    assert proven(bs, bounds, c)
    longer = [round(Fraction(r) * 2 ** (c + 1)) for r in rs]
    assert c == 62 or max(longer) > 2**31 - 1 or not proven(longer, bounds, c + 1)
    # The proof is right: the extreme terms go through, with either sign, and give the exact quotient.
    for signs in ([1] * len(bs), [-1] * len(bs), [1, -1] * len(bs)):
        terms = [s * t for s, t in zip(signs, bounds, strict=False)]
        total = sum(t * b for t, b in zip(terms, bs, strict=True))
        exact = half_up(Fraction(total, 2**c))
        assert int(dn.rescale(terms, bs, c)) == min(max(exact, INT32_MIN), INT32_MAX)


def test_sum_by_channel() -> None:
    multipliers, shift = dn.dyadic_sum([[0.7, 1e-3, 0.0], 0.01], [[2**31, 1000, 5], 255])
    assert all(m.shape == (3,) and m.dtype == np.int32 for m in (*multipliers, shift))
    for k, (r, bound) in enumerate(zip([0.7, 1e-3, 0.0], [2**31, 1000, 5], strict=True)):
        alone, c = dn.dyadic_sum([r, 0.01], [bound, 255])
        assert [int(m[k]) for m in multipliers] == [int(m) for m in alone] and shift[k] == c


def test_fewer_bits_where_the_proof_needs_them() -> None:
    # Two int32 terms fit with full multipliers, 2 · 2³¹ · (2³¹ − 1) + 2³⁰ < 2⁶³; three do not.
    most = 1 - 2.0**-31
    (b, _), c = dn.dyadic_sum([most, most], [2**31, 2**31])
    assert int(c) == 31 and int(b) == 2**31 - 1
    (b, _, _), c = dn.dyadic_sum([most] * 3, [2**31] * 3)
    assert int(c) == 30 and int(b) == 2**30
    (b, _, _), c = dn.dyadic_sum([most] * 3, [255] * 3)
    assert int(c) == 31


def test_choose_records_the_form() -> None:
    fixed = dn.choose([[0.1, 0.2], 0.003], [1000, 255])
    assert fixed.form == "fixed" and fixed.shift.tolist() == [32]
    assert [m.shape for m in fixed.multipliers] == [(2,), (1,)]
    assert fixed.error <= 1000 * 2.0**-33 + 255 * 2.0**-33
    general = dn.choose([[0.1, 0.2], 0.003], [1000, 255], form="general")
    assert general.form == "general" and general.error < fixed.error
    assert [m.shape for m in general.multipliers] == [(2,), (2,)] and general.shift.shape == (2,)
    assert dn.choose([1.5], [255]).form == "general"
    assert dn.choose([1.5], [255]).multipliers[0].shape == (1,)
    # Three int32 terms near 1/2 need more than 64 bits at shift 32.
    assert dn.choose([0.49] * 3, [2**31] * 3).form == "general"
    with pytest.raises(NumericError, match="64-bit"):
        dn.choose([0.49] * 3, [2**31] * 3, form="fixed")
    with pytest.raises(NumericError, match="2 factors for 1 terms"):
        dn.choose([0.1, 0.2], [5])


def test_choose_goes_general_where_the_fixed_shift_would_show() -> None:
    # An accumulator of 2³⁰ times 2⁻²² is 256 steps; a multiplier of 10 bits is off by up to a thousandth of that.
    r = 2.0**-22 * 1.0003
    assert dn.choose([r], [2**30]).form == "general"
    assert dn.choose([r], [2**30], form="fixed").error > 2.0**-9
    # For terms that stay small nothing is lost.
    assert dn.choose([r], [2**20]).form == "fixed"
    # By position, three axes, as average pooling has them.
    by_position = dn.choose([np.full((2, 3, 1), 0.2)], [9 * 255])
    assert by_position.multipliers[0].shape == (2, 3, 1) and by_position.shift.shape == (1,)


@given(st.lists(small, min_size=1, max_size=4), st.integers(1, 2**31), st.sampled_from(["auto", "general"]))
def test_choice_keeps_its_error(rs: list[float], bound: int, form: dn.Form) -> None:
    made = dn.choose(rs, [bound] * len(rs), form)
    c = int(made.shift[0])
    bs = [int(m[0]) for m in made.multipliers]
    exact = sum(bound * abs(Fraction(b, 2**c) - Fraction(r)) for b, r in zip(bs, rs, strict=True))
    assert abs(made.error - exact) <= exact * Fraction(1, 2**40)
    assert proven(bs, [bound] * len(rs), c)
    if made.form == "fixed":
        assert c == 32 and all(r < 0.5 for r in rs)
    y = int(dn.rescale([bound] * len(rs), bs, c))
    real = sum(bound * Fraction(r) for r in rs)
    assume(real < 2**31 - 1)
    assert abs(y - real) <= exact + Fraction(1, 2)


def test_rescale_refuses_what_kernels_would_wrap() -> None:
    with pytest.raises(NumericError, match="64-bit"):
        dn.rescale([2**31] * 3, [2**31 - 1] * 3, 32)
    # The same sizes with both signs fit, and are computed.
    assert dn.rescale([2**31, 2**31, -(2**31)], [2**31 - 1] * 3, 61).tolist() == 2


@pytest.mark.parametrize(("b", "c"), [(-1, 5), (2**31, 5), (1, 0), (1, 63)])
def test_rescale_refuses_pairs_out_of_range(b: int, c: int) -> None:
    with pytest.raises(NumericError):
        dn.rescale([1], [b], c)


def test_rescale_broadcasts() -> None:
    x = np.arange(-12, 12).reshape(2, 3, 4)
    b, c = dn.dyadic([0.1, 0.5, 1.0, 3.0])
    y = dn.rescale([x], [b], c, 1, -10, 10)
    expected = [
        [[one_rescale(int(x[i, j, k]), int(b[k]), int(c[k])) for k in range(4)] for j in range(3)] for i in (0, 1)
    ]
    assert y.tolist() == expected


def one_rescale(acc: int, b: int, c: int) -> int:
    return min(max(half_up(Fraction(acc * b, 2**c)) + 1, -10), 10)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 255))
def test_accumulator_bounds_hold_and_are_reached(seed: int, reduction: int, zero_point: int) -> None:
    rng = np.random.default_rng(seed)
    w = rng.integers(-128, 128, (3, reduction))
    bias = rng.integers(-1000, 1000, 3)
    low, high = -zero_point, 255 - zero_point
    tight = dn.weighted_bound(w, bias, low, high)
    coarse = dn.accumulator_bound(bias, reduction, max(-low, high), 128)
    assert np.all(tight <= coarse)
    for m in range(3):
        up = np.where(w[m] > 0, high, low)
        down = np.where(w[m] > 0, low, high)
        assert max(abs(int(w[m] @ up + bias[m])), abs(int(w[m] @ down + bias[m]))) == tight[m]
    np.testing.assert_array_equal(dn.weighted_bound(w.T, bias, low, high, axis=1), tight)


def test_fits_accumulator() -> None:
    assert dn.fits_accumulator([2**31 - 1, 0]) and not dn.fits_accumulator([0, 2**31])
    assert dn.fits_accumulator(np.zeros(0, np.int64))
    assert dn.weighted_bound(np.zeros((2, 0)), [3, -4], 0, 255).tolist() == [3, 4]
    assert int(dn.accumulator_bound(-(2**31), 2**20, 255, 255)) == 2**31 + 2**20 * 255 * 255
