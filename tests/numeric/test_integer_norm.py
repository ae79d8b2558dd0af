"""Integer Softmax and LayerNorm: against unlimited integers, and how far they are from reals and onnxruntime."""

from math import isqrt, prod
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnxq.errors import NumericError
from onnxq.numeric import integer_norm as norm
from onnxq.operators import OPERATORS
from support.build import qdq
from support.runs import run

softmax, layer_norm = OPERATORS["Softmax"].compute, OPERATORS["LayerNorm"].compute

seeds = st.integers(0, 2**32 - 1)
normals = st.integers(2**60, 2**62 - 1)
roots = st.integers(2**30, 2**31 - 1)
INT8 = {"qmin": -128, "qmax": 127, "y_type": 3}
UINT8 = {"qmin": 0, "qmax": 255, "y_type": 2}


def in_64_bits(value: int) -> int:
    assert -(2**63) <= value < 2**63, "an intermediate value does not fit 64 bits"
    return value


@given(st.lists(st.one_of(normals, roots.map(lambda m: m * m), roots.map(lambda m: m * m + 2 * m)), min_size=1))
@example([2**60, 2**60 + 1, 2**60 + 2**31, 2**62 - 1, 2**62 - 2, 9 << 58, (9 << 58) - 1])
def test_square_root_is_exact(values: list[int]) -> None:
    found = norm.integer_sqrt(np.array(values, np.int64))
    assert found.tolist() == [isqrt(v) for v in values]


def test_square_root_around_squares() -> None:
    root = np.random.default_rng(0).integers(2**30 + 1, 2**31, 200_000)
    for offset, expected in ((-1, root - 1), (0, root), (2 * root, root)):
        np.testing.assert_array_equal(norm.integer_sqrt(root * root + offset), expected)


def layer_norm_by_hand(row: list[int], gamma: int, beta: int, shift: int, epsilon: int, center: bool) -> list[int]:
    """y before saturation, of a row with its zero point subtracted, in unlimited integers that must fit 64 bits."""
    values = [min(max(v, -(2**15)), 2**15 - 1) for v in row]
    n, total = len(values), sum(values) if center else 0
    square = in_64_bits(n * sum(v * v for v in values)) - in_64_bits(total * total) + epsilon
    square = max(in_64_bits(square), 1)
    assert square < 2**62
    half_bits = (62 - square.bit_length()) // 2  # the largest h with square · 4^h < 2⁶²
    root = isqrt(square << (2 * half_bits))
    assert 2**30 <= root < 2**31
    reciprocal, s = 2**61 // root, 41 - half_bits
    found = []
    for v in values:
        z = in_64_bits(in_64_bits((n * v - total) * reciprocal) + 2 ** (s - 1)) >> s
        assert abs(z) < 2**28
        found.append(in_64_bits(z * gamma + beta + 2 ** (shift - 1)) >> shift)
    return found


@settings(max_examples=150)
@given(
    st.lists(st.integers(-128, 127), min_size=1, max_size=12),
    st.integers(-128, 127),
    st.integers(-(2**31) + 1, 2**31 - 1),
    st.integers(-(2**62), 2**62),
    st.integers(1, 62),
    st.one_of(st.sampled_from([0, 1, 2**61]), st.integers(0, 10**6)),
    st.booleans(),
)
@example([5, 5, 5], 0, 2**30, 0, 40, 0, True)
@example([1, 0], 0, 2**24, 0, 40, 0, True)
@example([127, -128], 0, 2**31 - 1, 2**62, 62, 0, True)
def test_layer_norm_is_its_definition(
    row: list[int], zero_point: int, gamma: int, beta: int, shift: int, epsilon: int, center: bool
) -> None:
    y = layer_norm(
        np.array([[row]], np.int8),
        np.array([gamma], np.int32),
        np.array([beta], np.int64),
        np.array([shift], np.int32),
        epsilon=epsilon,
        x_zero_point=zero_point,
        center=int(center),
        y_zero_point=5,
        **INT8,
    )
    expected = layer_norm_by_hand([v - zero_point for v in row], gamma, beta, shift, epsilon, center)
    assert y.dtype == np.int8 and y.shape == (1, 1, len(row))
    assert y.reshape(-1).tolist() == [min(max(v + 5, -128), 127) for v in expected]


@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize("shape", ["spike", "halves", "low", "random"])
def test_longest_rows_of_wide_values_fit_64_bits(shape: str, center: int) -> None:
    n, low, high = 2**15, -(2**31), 2**31 - 1
    x = {
        "spike": [low] + [high] * (n - 1),
        "halves": [low, high] * (n // 2),
        "low": [low] * n,
        "random": np.random.default_rng(0).integers(-40000, 40000, n).tolist(),
    }[shape]
    for epsilon in (0, 2**61):
        wide = {"qmin": -(2**31), "qmax": 2**31 - 1, "y_type": 6}
        gamma, beta, shift = np.array([-(2**31) + 1]), np.array([2**62]), np.array([40])
        y = layer_norm(np.array([x], np.int32), gamma, beta, shift, epsilon=epsilon, center=center, **wide)
        expected = layer_norm_by_hand(x, -(2**31) + 1, 2**62, 40, epsilon, bool(center))
        assert y[0].tolist() == [min(max(v, low), high) for v in expected]


def test_gamma_and_beta_by_channel() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2, 3, 6)).astype(np.uint8)
    gamma, beta = rng.integers(-(2**30), 2**30, 6).astype(np.int32), rng.integers(-(2**50), 2**50, 6)
    shift = np.array([45], np.int32)
    y = layer_norm(x, gamma, beta, shift, epsilon=7, x_zero_point=100, y_zero_point=128, **UINT8)
    for k in range(6):
        alone = layer_norm(
            x, gamma[k : k + 1], beta[k : k + 1], shift, epsilon=7, x_zero_point=100, y_zero_point=128, **UINT8
        )
        np.testing.assert_array_equal(y[..., k], alone[..., k])


def real_layer_norm(x: NDArray, gamma: Any, beta: Any, epsilon: float, center: bool) -> NDArray[np.float64]:
    centred = x - (x.mean(-1, keepdims=True) if center else 0)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * gamma + beta


# Rows as in transformers: normal, normal with a few channels 20 times larger, almost constant, sparse.
ROWS = {
    "normal": lambda rng, n: rng.normal(0, 1, (4000 // n * 25, n)),
    "outliers": lambda rng, n: rng.normal(0, 1, (4000 // n * 25, n)) * np.where(np.arange(n) % 97 == 5, 20, 1),
    "nearly constant": lambda rng, n: 3 + rng.normal(0, 0.05, (4000 // n * 25, n)),
    "sparse": lambda rng, n: np.where(rng.random((4000 // n * 25, n)) < 0.1, rng.normal(0, 1, (4000 // n * 25, n)), 0),
}


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("n", [32, 197, 768])
@pytest.mark.parametrize("rows", ROWS)
def test_layer_norm_is_within_one_step_of_real_arithmetic(rows: str, n: int, center: bool) -> None:
    rng = np.random.default_rng(n)
    real = ROWS[rows](rng, n)
    x_scale, x_zero_point = float(np.float32((real.max() - real.min()) / 255)), 0
    x_zero_point = int(np.clip(np.rint(-real.min() / x_scale), 0, 255))
    x = np.clip(np.rint(real / x_scale) + x_zero_point, 0, 255).astype(np.uint8)
    gamma, beta = rng.normal(1, 0.3, n).astype(np.float32), rng.normal(0, 0.3, n).astype(np.float32)
    wanted = real_layer_norm((x.astype(int) - x_zero_point) * x_scale, gamma, beta, 1e-5, center)
    y_scale = float(np.float32(np.abs(wanted).max() / 127))
    made = norm.layer_norm_constants(gamma, beta, 1e-5, n, x_scale, y_scale)
    y = layer_norm(
        x, made.gamma, made.beta, made.shift, epsilon=made.epsilon, x_zero_point=x_zero_point, center=center, **INT8
    )
    codes = np.clip(np.rint(wanted / y_scale), -128, 127)
    difference = np.abs(y - codes)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-4, (difference > 0).mean()


def test_layer_norm_against_onnxruntime() -> None:
    rng = np.random.default_rng(0)
    n = 192
    gamma, beta = rng.normal(1, 0.3, n).astype(np.float32), rng.normal(0, 0.3, n).astype(np.float32)
    x = np.clip(np.rint(rng.normal(10, 30, (500, n))), -128, 127).astype(np.int8)
    graph = qdq.proto(
        f"""g (int8[500,{n}] q) => (int8[500,{n}] r) <float sx, int8 zx, float sy, int8 zy, float[{n}] g, float[{n}] b>
        {{ x = DequantizeLinear(q, sx, zx) y = LayerNormalization<epsilon = 0.00001>(x, g, b)
        r = QuantizeLinear(y, sy, zy) }}""",
        opset=21,
        sx=np.array(0.031, np.float32),
        zx=np.array(10, np.int8),
        sy=np.array(0.03, np.float32),
        zy=np.array(-3, np.int8),
        g=gamma,
        b=beta,
    )
    expected = run(graph, {"q": x})["r"]
    made = norm.layer_norm_constants(gamma, beta, 1e-5, n, float(np.float32(0.031)), float(np.float32(0.03)))
    y = layer_norm(x, made.gamma, made.beta, made.shift, epsilon=made.epsilon, x_zero_point=10, y_zero_point=-3, **INT8)
    difference = np.abs(y.astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() <= 1e-4


def test_layer_norm_constants() -> None:
    made = norm.layer_norm_constants([1.0, -0.5], [0.0, 3.0], 1e-5, 2, 0.01, 0.02)
    assert made.gamma.dtype == np.int32 and made.beta.dtype == np.int64 and made.shift.dtype == np.int32
    shift = int(made.shift[0])
    assert np.abs(made.gamma).max() > 2**30
    np.testing.assert_allclose(made.gamma / 2.0 ** (shift - 20), [50, -25], rtol=1e-9)
    np.testing.assert_allclose(made.beta / 2.0**shift, [0, 150], rtol=1e-9)
    assert made.epsilon == round(1e-5 * 4 / 0.01**2)
    # A large beta takes bits from gamma, and one alone has all of them.
    crowded = norm.layer_norm_constants([1.0], [1e6], 0.0, 2, 0.01, 1e-3)
    assert np.abs(crowded.beta).max() <= 2**62 and np.abs(crowded.gamma).max() < 2**30
    assert norm.layer_norm_constants(0.0, 0.0, 0.0, 2, 1.0, 1.0).shift.tolist() == [62]


@pytest.mark.parametrize(
    "numbers",
    [
        (1.0, 0.0, 1e-5, 2**15 + 1, 0.1, 0.1),
        (np.nan, 0.0, 1e-5, 8, 0.1, 0.1),
        (1.0, np.inf, 1e-5, 8, 0.1, 0.1),
        (1.0, 0.0, -1e-5, 8, 0.1, 0.1),
        (1.0, 0.0, 1e-5, 8, 1e-14, 0.1),
        (1.0, 1e30, 1e-5, 8, 0.1, 0.1),
    ],
)
def test_layer_norm_constants_refused(numbers: tuple[float, float, float, int, float, float]) -> None:
    with pytest.raises(NumericError):
        norm.layer_norm_constants(*numbers)


def test_layer_norm_refused() -> None:
    one = np.array([1])
    with pytest.raises(NumericError, match="32769"):
        layer_norm(np.zeros((1, 2**15 + 1), np.int8), one, one, one, epsilon=0, **INT8)
    with pytest.raises(NumericError, match="epsilon"):
        layer_norm(np.zeros((1, 2), np.int8), one, one, one, epsilon=-1, **INT8)


@settings(max_examples=150)
@given(seeds, st.floats(1e-4, 2.0), st.sampled_from([1 / 256, 1 / 128, 0.01, 2.0**-20]), st.integers(-3, 2))
def test_softmax_is_its_definition(seed: int, x_scale: float, y_scale: float, axis: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(v) for v in rng.integers(1, 5, 3))
    x = rng.integers(-128, 128, shape).astype(np.int8)
    table = norm.exp_table(x_scale)
    multiplier, shift = norm.softmax_multiplier(y_scale)
    b, c = int(multiplier[0]), int(shift[0])
    assert 1 <= c <= 16
    y = softmax(x, table, multiplier, shift, axis=axis, y_zero_point=-128, **INT8)
    assert y.shape == shape and y.dtype == np.int8
    rows = np.moveaxis(x, axis, -1).reshape(-1, shape[axis]).astype(int)
    found = np.moveaxis(y, axis, -1).reshape(-1, shape[axis])
    for row, codes in zip(rows.tolist(), found.tolist(), strict=True):
        e = [int(table[max(row) - v]) for v in row]
        expected = [(2 * v * b + sum(e) * 2**c) // (sum(e) * 2 ** (c + 1)) - 128 for v in e]
        assert codes == [min(max(v, -128), 127) for v in expected]


def test_exp_table() -> None:
    table = norm.exp_table(0.05)
    assert table.dtype == np.int32 and table.shape == (256,)
    assert table[0] == 2**20 and table[20] == round(2**20 / np.e)
    assert norm.exp_table(1.0)[255] == 0
    with pytest.raises(NumericError):
        norm.softmax_multiplier(1e-12)


@pytest.mark.parametrize(
    ("shape", "spread", "x_scale", "y_scale"),
    [
        ((64, 8, 49), 2.0, 0.06, 1 / 256),  # attention over windows
        ((16, 8, 197), 3.0, 0.1, 1 / 256),
        ((100, 1000), 3.0, 0.12, 1 / 256),  # a classifier
        ((100, 10), 5.0, 0.15, 1 / 255),
        ((400, 2), 8.0, 0.25, 1 / 256),
        ((50, 4096), 1.0, 0.03, 2.0**-12),  # long and flat, with a scale to match
    ],
)
def test_softmax_is_within_one_step_of_real_arithmetic(
    shape: tuple[int, ...], spread: float, x_scale: float, y_scale: float
) -> None:
    rng = np.random.default_rng(prod(shape))
    x = np.clip(np.rint(rng.normal(0, spread, shape) / x_scale) + 128, 0, 255).astype(np.uint8)
    y = softmax(x, norm.exp_table(x_scale), *norm.softmax_multiplier(y_scale), **UINT8)
    e = np.exp((x.astype(float) - x.max(-1, keepdims=True)) * x_scale)
    exact = e / e.sum(-1, keepdims=True)
    codes = np.clip(np.rint(exact / y_scale), 0, 255)
    difference = np.abs(y - codes)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-3, (difference > 0).mean()


def test_softmax_against_onnxruntime() -> None:
    x = np.clip(np.rint(np.random.default_rng(0).normal(128, 30, (500, 64))), 0, 255).astype(np.uint8)
    graph = qdq.proto(
        """g (uint8[500,64] q) => (uint8[500,64] r) <float sx, uint8 zx, float sy, uint8 zy>
        { x = DequantizeLinear(q, sx, zx) y = Softmax(x) r = QuantizeLinear(y, sy, zy) }""",
        sx=np.array(0.11, np.float32),
        zx=np.array(128, np.uint8),
        sy=np.array(1 / 256, np.float32),
        zy=np.array(0, np.uint8),
    )
    expected = run(graph, {"q": x})["r"]
    table, scale = norm.exp_table(float(np.float32(0.11))), norm.softmax_multiplier(1 / 256)
    difference = np.abs(softmax(x, table, *scale, **UINT8).astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() <= 1e-3


def test_softmax_of_the_longest_rows_fits_64_bits() -> None:
    x = np.zeros((1, 2**20), np.uint8)
    multiplier, shift = norm.softmax_multiplier(2.0**-24)
    y = softmax(x, norm.exp_table(0.1), multiplier, shift, **UINT8)
    assert np.all(y == 16)
