"""Quantize and dequantize, against exact rational arithmetic and against onnxruntime's own operators."""

from fractions import Fraction

import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnxq.numeric.formats import QuantFormat
from onnxq.numeric.qparams import QParams, qparams_from_range
from onnxq.numeric.quantize import along_axis, dequantize, fake_quantize, quantize
from support.build import qdq
from support.runs import run

SCALES = [1.0, 0.1, 0.0123, 2.0**-20, 3e5, 1e30, 1.1754944e-38]


def params(scale: float, zero_point: int, fmt: QuantFormat) -> QParams:
    return QParams(np.asarray(scale, np.float32), np.asarray(zero_point), fmt)


@given(
    st.floats(-1e5, 1e5, width=32),
    st.floats(2.0**-10, 2.0**10, width=32),
    st.integers(2, 8),
    st.booleans(),
    st.floats(0, 1),
)
@example(0.5, 1.0, 8, True, 0.0)
@example(1.5, 1.0, 8, True, 0.0)
@example(-2.5, 1.0, 8, True, 0.5)
@example(1e5, 2.0**-10, 2, False, 1.0)
def test_exact(x: float, scale: float, bits: int, signed: bool, where: float) -> None:
    fmt = QuantFormat(bits, signed=signed, symmetric=False)
    zero_point = round(fmt.qmin + where * (fmt.qmax - fmt.qmin))
    # The quotient is a float32 (as in onnxruntime); from there on everything is exact.
    quotient = Fraction(float(np.float32(x) / np.float32(scale)))
    expected = min(max(round(quotient) + zero_point, fmt.qmin), fmt.qmax)  # round(Fraction): half to even
    q = params(scale, zero_point, fmt)
    code = int(quantize(np.array([x], np.float32), q)[0])
    assert code == expected
    real = dequantize(np.array([code]), q)[0]
    assert real.dtype == np.float32
    assert float(real) == float(np.float32(float((code - zero_point) * Fraction(float(np.float32(scale))))))


def test_ties_saturation_and_infinity() -> None:
    q = params(0.5, 3, QuantFormat(4, signed=False, symmetric=False))
    x = np.array([-np.inf, -1e38, -0.25, 0.0, 0.25, 0.75, 1.25, 1e38, np.inf], np.float32)
    assert quantize(x, q).tolist() == [0, 0, 3, 3, 3, 5, 5, 15, 15]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("scale", SCALES)
def test_equals_onnxruntime(dtype: type, scale: float) -> None:
    signed = dtype is np.int8
    fmt = QuantFormat(8, signed=signed, symmetric=False)
    kind = "int8" if signed else "uint8"
    rng = np.random.default_rng(0)
    steps = np.concatenate([np.arange(-300, 300, 0.25), rng.uniform(-400, 400, 2000), [np.inf, -np.inf, 1e38, -1e38]])
    with np.errstate(over="ignore"):
        x = (steps * scale).astype(np.float32)
        # Right beside the ties too.
        ties = (np.arange(-260, 260) + 0.5).astype(np.float32) * np.float32(scale)
        x = np.concatenate([x, ties, np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(-np.inf))])
    for zero_point in (fmt.qmin, fmt.qmax, 7):
        graph = qdq.proto(
            f"""g (float[{x.size}] x) => ({kind}[{x.size}] q, float[{x.size}] y) <float s, {kind} z>
            {{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }}""",
            s=np.array(scale, np.float32),
            z=np.array(zero_point, dtype),
        )
        found = run(graph, {"x": x})
        q = params(scale, zero_point, fmt)
        codes = quantize(x, q)
        np.testing.assert_array_equal(found["q"].astype(np.int64), codes)
        np.testing.assert_array_equal(found["y"], dequantize(codes, q))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_per_channel_equals_onnxruntime(axis: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 3, (3, 4, 5)).astype(np.float32)
    other = tuple(i for i in range(3) if i != axis)
    q = qparams_from_range(x.min(axis=other), x.max(axis=other), QuantFormat(8, signed=False, symmetric=False), axis)
    n = x.shape[axis]
    graph = qdq.proto(
        f"""g (float[3,4,5] x) => (float[3,4,5] y) <float[{n}] s, uint8[{n}] z>
        {{ q = QuantizeLinear<axis={axis}>(x, s, z) y = DequantizeLinear<axis={axis}>(q, s, z) }}""",
        s=q.scale,
        z=q.zero_point.astype(np.uint8),
    )
    np.testing.assert_array_equal(run(graph, {"x": x})["y"], fake_quantize(x, q))


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20), st.integers(2, 8), st.booleans())
def test_fake_quantize_twice_is_once(values: list[float], bits: int, symmetric: bool) -> None:
    x = np.array(values, np.float32)
    q = qparams_from_range(x.min(), x.max(), QuantFormat(bits, symmetric=symmetric))
    once = fake_quantize(x, q)
    np.testing.assert_array_equal(fake_quantize(once, q), once)


def test_zero_stays_zero_and_shapes_stay() -> None:
    q = qparams_from_range(0.3, 7.0, QuantFormat(3, signed=False, symmetric=False))
    for shape in ((), (0,), (2, 0, 3), (2, 3)):
        x = np.zeros(shape, np.float32)
        y = fake_quantize(x, q)
        assert np.shape(y) == shape and not np.any(y)


def test_along_axis() -> None:
    scale = np.arange(3.0)
    assert along_axis(scale, 1, 4).shape == (1, 3, 1, 1)
    assert along_axis(scale, -1, 2).shape == (1, 3)
    scalar: NDArray = np.asarray(1.0)
    assert along_axis(scalar, 1, 4) is scalar and along_axis(scale, None, 4) is scale


def test_helpers_make_valid_models() -> None:
    onnx.checker.check_model(qdq.proto("g (float[2] x) => (float[2] y) { y = Relu(x) }"), full_check=True)
