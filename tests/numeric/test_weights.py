"""Weight ranges, and biases that must fit int32."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from onnxq.numeric.formats import QuantFormat
from onnxq.numeric.qparams import QParams, qparams_from_range
from onnxq.numeric.quantize import along_axis, fake_quantize
from onnxq.numeric.weights import INT32_MAX, BiasFit, BiasReader, fit_biases, quantize_bias, weight_qparams

S8 = QuantFormat(8, narrow_range=True)
POW2 = QuantFormat(8, narrow_range=True, power_of_two=True)
U8 = QuantFormat(8, signed=False, symmetric=False)


def test_max_per_channel() -> None:
    w = np.array([[1.0, -2.0], [0.5, 0.25], [0.0, 0.0]], np.float32)
    q = weight_qparams(w, S8, 0)
    assert q.scale[:2].tolist() == [np.float32(2 / 127), np.float32(0.5 / 127)] and q.axis == 0
    assert weight_qparams(w, S8, None).scale == np.float32(2 / 127)
    assert weight_qparams(w, S8, 1).scale.tolist() == [np.float32(1 / 127), np.float32(2 / 127)]


def test_a_zero_channel_takes_a_scale_that_exists() -> None:
    # With scale 1 its rescale multiplier scale_x · 1 / scale_y would be far from those of the other channels.
    w = np.array([[0.5, -1.0], [0.0, 0.0], [0.25, 0.1]], np.float32)
    for fmt in (S8, U8, POW2):
        q = weight_qparams(w, fmt, 0)
        assert q.scale[1] == q.scale[2] < q.scale[0]
        assert not fake_quantize(w, q)[1].any()
    assert weight_qparams(np.zeros((2, 2), np.float32), S8, 0).scale.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("axis", [None, 0, 1, 3])
def test_empty_weight(axis: int | None) -> None:
    q = weight_qparams(np.zeros((4, 0, 3, 3), np.float32), S8, axis)
    assert (q.scale == 1).all() and q.scale.shape == (() if axis is None else ((4, 0, 3, 3)[axis],))


@pytest.mark.parametrize(
    "fmt", [*(QuantFormat(b, narrow_range=True) for b in (2, 3, 4, 6, 8)), QuantFormat(4, False, False)]
)
@pytest.mark.parametrize("axis", [None, 0])
def test_mse_is_never_worse_than_any_other_range(fmt: QuantFormat, axis: int | None) -> None:
    rng = np.random.default_rng(3)
    w = rng.standard_t(3, (6, 50)).astype(np.float32)
    w[2] = 0
    best, widest = weight_qparams(w, fmt, axis, "mse"), weight_qparams(w, fmt, axis, "max")
    error = weighted_error(w, best)
    for shrink in np.linspace(1.0, 0.1, 91):
        low, high = (w.min(), w.max()) if axis is None else (w.min(axis=1), w.max(axis=1))
        trial = qparams_from_range(low * shrink, high * shrink, fmt, axis)
        assert (error <= weighted_error(w, trial) * (1 + 1e-5) + 1e-12).all()
    if fmt.bits <= 4:
        assert error.sum() < weighted_error(w, widest).sum()  # heavy tails: that is what it is for


def weighted_error(w: np.ndarray, q: QParams) -> np.ndarray:
    """Squared error of each channel (of all for per-tensor), three times where a weight lies outside the codes."""
    scale, zero_point = (along_axis(v, q.axis, w.ndim) for v in (q.scale, q.zero_point))
    codes = np.rint(w / scale) + zero_point
    outside = (codes < q.format.qmin) | (codes > q.format.qmax)
    error = (fake_quantize(w, q).astype(np.float64) - w) ** 2 * np.where(outside, 3, 1)
    return error.sum() if q.axis is None else error.sum(axis=1)


def test_mse_in_blocks_is_mse() -> None:
    # Larger than a block in both directions, and as one tensor.
    w = np.random.default_rng(1).standard_t(3, (3, 40_000)).astype(np.float32)
    fmt = QuantFormat(4, narrow_range=True)
    assert (weight_qparams(w, fmt, 0, "mse").scale == [weight_qparams(c, fmt, None, "mse").scale for c in w]).all()
    q = weight_qparams(w, fmt, None, "mse")
    around = (weighted_error(w, QParams((q.scale * f).astype(np.float32), q.zero_point, fmt)) for f in (0.9, 1.1))
    assert all(weighted_error(w, q) <= e for e in around)


def test_mse_chooses_for_each_channel_by_itself() -> None:
    rng = np.random.default_rng(0)
    w = rng.standard_t(3, (5, 40)).astype(np.float32)
    together = weight_qparams(w, QuantFormat(4, narrow_range=True), 0, "mse")
    for i in range(5):
        assert together.scale[i] == weight_qparams(w[i], QuantFormat(4, narrow_range=True), None, "mse").scale


def fit_bias(
    weight: QParams, zero: np.ndarray, bias: np.ndarray, input_scale: float, reach: int, reduction: int
) -> BiasFit:
    """The fit for one layer. zero: which channels have no weight but zeros."""
    largest = np.where(zero, 0, weight.scale.astype(np.float64) * weight.format.qmax)
    (fit,) = fit_biases(weight, [BiasReader(bias, largest, input_scale, reach, reduction)])
    return fit


biases = st.lists(st.floats(-1e9, 1e9, width=32), min_size=1, max_size=6)
scales = st.floats(2.0**-40, 2.0**10, width=32)


@given(biases, st.data(), scales, st.sampled_from([S8, POW2, U8, QuantFormat(4)]), st.booleans())
@example([1e9], None, 2.0**-40, S8, True)
def test_bias_never_overflows(bias: list[float], data, input_scale: float, fmt: QuantFormat, per_channel: bool) -> None:
    n = len(bias)
    pick = data.draw if data is not None else lambda _: [2.0**-40] * n
    weight_scale = np.array(pick(st.lists(scales, min_size=n, max_size=n)), np.float32)
    zero = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)) if data else [False] * n)
    reach = data.draw(st.integers(1, 255)) if data else 255
    reduction = data.draw(st.integers(1, 50_000)) if data else 4608
    if not per_channel:
        weight_scale, zero = weight_scale[:1].reshape(()), np.full(n, zero.all())
    if fmt.power_of_two:
        weight_scale = np.exp2(np.round(np.log2(weight_scale))).astype(np.float32)
    zero_point = np.full(weight_scale.shape, 128 if fmt is U8 else 0)
    max_w = 128 if fmt is U8 else max(fmt.qmax, -fmt.qmin)
    assume(reduction * reach * max_w < INT32_MAX * 0.9)
    before = QParams(weight_scale, zero_point, fmt, 0 if per_channel else None)
    fit = fit_bias(before, zero, np.array(bias, np.float32), input_scale, reach, reduction)
    codes, scale = quantize_bias(np.array(bias, np.float32), input_scale, fit.weight)

    assert fit.weight.scale.shape == before.scale.shape
    assert np.isfinite(fit.weight.scale).all() and (fit.weight.scale > 0).all()
    product = np.float32(input_scale) * fit.weight.scale
    np.testing.assert_array_equal(scale, np.maximum(product, np.finfo(np.float32).tiny))
    for i in range(n):
        # The bound of design.md, in integers.
        assert abs(int(codes[i])) + reduction * reach * max_w <= INT32_MAX
        # Nothing was saturated: the code is the nearest to bias / scale.
        step = Fraction(float(np.broadcast_to(scale, n)[i]))
        assert abs(Fraction(bias[i]) - int(codes[i]) * step) <= step * Fraction(1, 2) * (1 + Fraction(1, 10**6))
    grown = np.broadcast_to(fit.weight.scale > before.scale, n)
    keeps = ~np.asarray(zero) if per_channel else np.full(n, not zero.all())
    assert (np.broadcast_to(fit.weight.scale >= before.scale, n)[keeps]).all()
    if fmt.power_of_two:
        assert (np.frexp(fit.weight.scale)[0] == 0.5).all()
    assert set(np.flatnonzero(grown & keeps)) <= set(fit.widened[0])


def test_scale_grows_only_where_it_must() -> None:
    weight = QParams(np.array([1e-9, 0.01, 0.01], np.float32), np.zeros(3, np.int64), S8, 0)
    fit = fit_bias(weight, np.zeros(3, bool), np.array([100.0, 100.0, -0.1], np.float32), 0.001, 255, 576)
    assert fit.widened == ((0,),)
    assert fit.weight.scale[0] > 1e-9 and (fit.weight.scale[1:] == weight.scale[1:]).all()


@pytest.mark.parametrize("value", [3.0, -3.0, 1e-6, 1e6])
def test_a_zero_channel_takes_its_scale_from_the_bias(value: float) -> None:
    weight = QParams(np.array([0.01, 0.02], np.float32), np.zeros(2, np.int64), S8, 0)
    fit = fit_bias(weight, np.array([False, True]), np.array([1.0, value], np.float32), 0.05, 255, 27)
    codes, scale = quantize_bias(np.array([1.0, value], np.float32), 0.05, fit.weight)
    assert fit.weight.scale[0] == weight.scale[0] and fit.widened == ((),)
    assert abs(codes[1] * float(scale[1]) - value) <= 1e-6 * abs(value)


def test_a_zero_channel_without_bias_keeps_its_scale() -> None:
    weight = QParams(np.array([0.01, 0.02], np.float32), np.zeros(2, np.int64), S8, 0)
    fit = fit_bias(weight, np.array([False, True]), np.zeros(2, np.float32), 0.05, 255, 27)
    assert (fit.weight.scale == weight.scale).all()


def test_bias_codes() -> None:
    per_channel = QParams(np.array([0.5, 0.25], np.float32), np.zeros(2, np.int64), S8, 0)
    codes, scale = quantize_bias(np.array([1.0, -1.0], np.float32), 0.125, per_channel)
    assert codes.dtype == np.int32 and codes.tolist() == [16, -32]
    assert scale.dtype == np.float32 and scale.tolist() == [0.0625, 0.03125]
    per_tensor = QParams(np.array(0.5, np.float32), np.zeros((), np.int64), S8)
    codes, scale = quantize_bias(np.array([1.0, -1.0], np.float32), 0.125, per_tensor)
    assert codes.tolist() == [16, -16] and scale.shape == ()


def readers(biases: list[list[float]], input_scales: list[float], largest: list[float]) -> list[BiasReader]:
    return [
        BiasReader(np.array(b, np.float32), np.array(largest), s, 255, 27)
        for b, s in zip(biases, input_scales, strict=True)
    ]


@pytest.mark.parametrize("fmt", [S8, POW2, U8, QuantFormat(4)])
@pytest.mark.parametrize("axis", [None, 0])
@given(
    st.lists(
        st.tuples(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), scales), min_size=1, max_size=4
    ),
    st.lists(st.sampled_from([0.0, 1e-9, 1e-3, 1.0, 50.0]), min_size=3, max_size=3),
)
def test_every_reader_of_a_weight_has_its_bias(fmt: QuantFormat, axis: int | None, asked, largest: list[float]) -> None:
    w = np.array(largest, np.float32)[:, None] * np.array([[1.0, -1.0]], np.float32)
    weight = weight_qparams(w, fmt, axis)
    layers = readers([b for b, _ in asked], [s for _, s in asked], largest)
    fits = fit_biases(weight, layers)
    assert sorted(i for fit in fits for i in fit.readers) == list(range(len(layers)))
    for fit in fits:
        for i in fit.readers:
            (own,) = fit_biases(weight, [layers[i]])
            bias, step = (
                np.asarray(asked[i][0], np.float64),
                layers[i].input_scale * fit.weight.scale.astype(np.float64),
            )
            assert (np.abs(bias) / step <= INT32_MAX).all()
            # It costs a reader a bit of the bias that it has alone, or a small part of it.
            alone = layers[i].input_scale * own.weight.scale.astype(np.float64)
            codes, scale = quantize_bias(bias.astype(np.float32), layers[i].input_scale, fit.weight)
            error = np.abs(codes * scale.astype(np.float64) - bias)
            assert (error <= np.maximum(np.abs(bias) / 256, alone) * 1.01 + 1e-30).all()


def test_a_channel_of_zeros_serves_inputs_of_all_sizes() -> None:
    weight = QParams(np.array([0.01, 0.01], np.float32), np.zeros(2, np.int64), S8, 0)
    layers = readers([[1.0, 300.0]] * 3, [0.01, 10.0, 3000.0], [1.27, 0.0])
    (fit,) = fit_biases(weight, layers)  # stored once
    for layer in layers:
        codes, scale = quantize_bias(layer.bias, layer.input_scale, fit.weight)
        assert abs(codes[1] * scale[1] - 300) < 1.2
    assert fit_biases(weight, layers[::-1])[0].weight.scale.tolist() == fit.weight.scale.tolist()


def test_a_weight_is_duplicated_where_one_scale_cannot_serve() -> None:
    # Inputs further apart than int32 is wide, and a layer for which the weights of the channel do matter.
    zeros = QParams(np.array([0.01], np.float32), np.zeros(1, np.int64), S8, 0)
    assert len(fit_biases(zeros, readers([[300.0]] * 2, [1e-9, 1e9], [0.0]))) == 2
    tiny = QParams(np.array([1e-10], np.float32), np.zeros(1, np.int64), S8, 0)
    apart = fit_biases(tiny, readers([[300.0], [0.0]], [0.01, 1e6], [1.27e-8]))
    assert [fit.readers for fit in apart] == [(0,), (1,)] and apart[1].weight.scale == tiny.scale
    assert len(fit_biases(tiny, readers([[300.0], [300.0]], [0.01, 1.0], [1.27e-8]))) == 1


@pytest.mark.parametrize("axis", [None, 0])
def test_affine_channels_of_nothing_have_small_codes(axis: int | None) -> None:
    # Codes of -128 would saturate the 16-bit sums of CPUs without VNNI, though they mean 0.
    fmt = QuantFormat(8, symmetric=False)
    w = np.array([[0.0, 0.0], [-1e-9, -2e-9], [1e-9, 2e-9]], np.float32)
    w[1:] *= axis is not None
    weight = weight_qparams(w, fmt, axis)
    (fit,) = fit_biases(weight, readers([[300.0, 300.0, -300.0]], [0.01], np.abs(w).max(axis=1).tolist()))
    assert not fit.weight.zero_point.any()
    assert np.abs(fake_quantize(w, fit.weight) - w).max() < 1e-8


def test_a_widened_affine_channel_still_covers_its_range() -> None:
    fmt = QuantFormat(8, symmetric=False)
    w = np.array([[0.0, 1.0], [-1.0, 0.0], [-0.25, 0.75]], np.float32)
    weight = weight_qparams(w, fmt, 0)
    needed = float(weight.scale.max()) * INT32_MAX / 4
    (fit,) = fit_biases(weight, readers([[needed] * 3], [1.0], [1.0, 1.0, 0.75]))
    assert (fit.weight.scale < 1).all() and (fit.weight.scale >= weight.scale).all()
    assert (np.abs(fake_quantize(w, fit.weight) - w) <= fit.weight.scale[:, None] * 0.5001).all()
