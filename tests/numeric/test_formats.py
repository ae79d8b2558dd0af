"""Integer ranges of the number formats."""

import pytest

from onnxq.errors import ConfigError
from onnxq.numeric.formats import STORED_BITS, QuantFormat


@pytest.mark.parametrize(
    ("fmt", "qmin", "qmax"),
    [
        (QuantFormat(8), -128, 127),
        (QuantFormat(8, narrow_range=True), -127, 127),
        (QuantFormat(8, signed=False), 0, 255),
        (QuantFormat(4), -8, 7),
        (QuantFormat(4, narrow_range=True), -7, 7),
        (QuantFormat(4, signed=False), 0, 15),
        (QuantFormat(2), -2, 1),
        (QuantFormat(2, narrow_range=True), -1, 1),
        (QuantFormat(2, signed=False), 0, 3),
    ],
)
def test_range(fmt: QuantFormat, qmin: int, qmax: int) -> None:
    assert (fmt.qmin, fmt.qmax, fmt.levels) == (qmin, qmax, qmax - qmin + 1)


@pytest.mark.parametrize("bits", [-1, 0, 1, 9, 15, 17, 32])
def test_width_out_of_range(bits: int) -> None:
    with pytest.raises(ConfigError, match=f"{bits} bits"):
        QuantFormat(bits)


def test_stored_sums_have_16_bits() -> None:
    fmt = QuantFormat(STORED_BITS)
    assert (fmt.bits, fmt.qmin, fmt.qmax) == (16, -(2**15), 2**15 - 1)


def test_text() -> None:
    assert str(QuantFormat(4)) == "int4 symmetric"
    assert str(QuantFormat(8, signed=False, symmetric=False, power_of_two=True)) == "uint8 affine, power-of-two scale"
