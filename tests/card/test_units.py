"""Figures as people read them."""

import pytest

from onnxq.card import (
    units,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1536, "1.54 kB"),
        (13_951_272, "13.95 MB"),
        (999_999, "1 MB"),
        (123_456_789, "123.5 MB"),
        (2_500_000_000, "2.5 GB"),
    ],
)
def test_sizes(value, expected):
    assert units.size(value) == expected


def test_other_units():
    assert [units.seconds(v) for v in (0.123, 12.34, 59.96, 83.4, 7800)] == [
        "0.12 s", "12.3 s", "60.0 s", "1 min 23 s", "2 h 10 min",
    ]  # fmt: skip
    assert (units.number(None), units.number(1.5), units.number(12)) == ("?", "1.5", "12")
    assert (units.share(1, 4), units.share(1, 0), units.percent(0.5), units.percent(None)) == (
        "25.0 %",
        "–",
        "50.00 %",
        "–",
    )
    assert (units.bits(4), units.bits(32), units.bits(16), units.bits(None)) == ("4", "float32", "float16", "–")
