"""Every chooser gives a usable range for any tensor, and the one it promises."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxq import plugins
from onnxq.calibrate import usage as usage_module
from onnxq.calibrate.choosers.percentile import Percentile
from onnxq.calibrate.ranges import available, choose_range, parse_chooser, usage
from onnxq.calibrate.statistics import TensorStatistics
from onnxq.errors import ConfigError
from onnxq.numeric.formats import QuantFormat
from onnxq.numeric.qparams import SCALE_MIN, qparams_from_range

INT8 = QuantFormat(8, signed=True, symmetric=True)
UINT8_AFFINE = QuantFormat(8, signed=False, symmetric=False)
UINT8 = QuantFormat(8, signed=False, symmetric=True)
FORMATS = [
    INT8,
    UINT8_AFFINE,
    UINT8,
    QuantFormat(8, signed=True, symmetric=False),
    QuantFormat(8, power_of_two=True),
    QuantFormat(4),
    QuantFormat(2, signed=False, symmetric=False),
    QuantFormat(3, narrow_range=True),
]
CHOOSERS = tuple(available())
FINITE32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def of(x: object) -> TensorStatistics:
    stats = TensorStatistics()
    stats.update(np.asarray(x, np.float32))
    return stats


@pytest.mark.parametrize("text", ["max", "percentile:99.99", "percentile:99", "percentile:99.99999", "entropy", "mse"])
def test_a_method_prints_back_what_was_read(text: str) -> None:
    assert str(parse_chooser(text)) == text


@given(st.floats(0, 100, exclude_min=True))
def test_any_percentile_survives_its_text(percent: float) -> None:
    method = Percentile(percent)
    assert parse_chooser(str(method)) == method


@pytest.mark.parametrize("name", CHOOSERS)
def test_every_chooser_has_help_and_a_text_form(name: str) -> None:
    cls = available()[name]
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{cls.__name__}("), "the docstring that dataclass makes up is no help"
    assert str(parse_chooser(name)).partition(":")[0] == name
    assert name in usage()
    with pytest.raises(ConfigError, match=name):
        parse_chooser("unheard-of")


def test_help_lists_the_choosers_without_importing_them():
    found = plugins.outlines(usage_module.CHOOSERS)
    assert {name: list(o.options) for name, o in found.items()} == {
        name: [f.name for f in dataclasses.fields(cls)] for name, cls in available().items()
    }
    assert [part.partition("[")[0].partition(":")[0] for part in usage().split(", ")] == list(available())
    for command in ("quantize", "search", "sensitivity"):
        code = f"import sys; from onnxq.cli.group import commands; commands.main([{command!r}, '--help'])"
        seen = "import atexit, sys; atexit.register(lambda: print('numpy' in sys.modules)); " + code
        done = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True)
        assert "percentile[:P]" in done.stdout
        assert done.stdout.splitlines()[-1] == "False"


def test_the_default_percentile() -> None:
    assert parse_chooser("percentile") == Percentile(99.99) == parse_chooser(" percentile:99.99 ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kl", r"choose max, percentile\[:P\], entropy, mse"),
        ("", "choose max, percentile"),
        ("MAX", "choose max, percentile"),
        ("max:3", "max takes no value"),
        ("percentile:9:9", "percentile takes 1 value"),
        ("percentile:", "is not a number"),
        ("percentile:high", "'high' is not a number"),
        ("percentile:0", "above 0 and at most 100"),
        ("percentile:100.1", "above 0 and at most 100"),
        ("percentile:nan", "must be a finite number"),
    ],
)
def test_bad_methods_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_chooser(text)
    with pytest.raises(ConfigError, match=message):
        choose_range(of([1.0]), text, INT8)


SPECIAL = {
    "zeros": np.zeros(10),
    "one zero": [0.0],
    "one value": [3.25],
    "one negative value": [-3.25],
    "constant": np.full(1000, 0.1),
    "huge": [1e31, -2e31, 5e30],
    "the extremes of float32": [3.4028234e38, -3.4028234e38, 1.0],
    "one huge among small": np.append(np.linspace(-1, 1, 999), 1e31),
    "denormals": [1e-40, -3e-41, 0.0],
    "positive denormals": [1e-40, 2e-40],
    "smallest normal": [1.1754944e-38, 0.0],
    "denormal below normal": [1e-40, 1.0],
    "few values": [0.0, 1.0, 1.0, 100.0],
    "away from zero": np.linspace(5, 6, 100),
    "away from zero, negative": np.linspace(-6, -5, 100),
    "relu": np.maximum(np.sin(np.arange(5000.0)), 0),
    "relu6 saturated": np.full(100, 6.0),
    "only negative": -np.abs(np.sin(np.arange(1.0, 5000.0))),
}


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("method", [*CHOOSERS, "percentile:50", "percentile:100"])
@pytest.mark.parametrize("name", SPECIAL)
def test_odd_tensors_give_usable_ranges(name: str, method: str, fmt: QuantFormat) -> None:
    check_usable(of(SPECIAL[name]), method, fmt)


@given(
    hnp.arrays(np.float32, st.integers(1, 40), elements=FINITE32), st.sampled_from(CHOOSERS), st.sampled_from(FORMATS)
)
def test_any_tensor_gives_a_usable_range(x: np.ndarray, method: str, fmt: QuantFormat) -> None:
    check_usable(of(x), method, fmt)


def check_usable(stats: TensorStatistics, method: str, fmt: QuantFormat) -> None:
    low, high = choose_range(stats, method, fmt)
    assert isinstance(low, float) and isinstance(high, float)
    assert low <= high
    if fmt.symmetric and not fmt.signed and method != "max":
        assert low >= 0.0 and high <= max(stats.maximum, 0.0)
    else:
        assert stats.minimum <= low and high <= stats.maximum
    scale = float(qparams_from_range(low, high, fmt).scale)
    assert math.isfinite(scale) and scale >= SCALE_MIN


@pytest.mark.parametrize("method", CHOOSERS)
def test_a_tensor_that_was_never_filled_has_an_empty_range(method: str) -> None:
    assert choose_range(TensorStatistics(), method, INT8) == (0.0, 0.0)


@given(hnp.arrays(np.float32, st.integers(1, 200), elements=FINITE32), st.sampled_from(FORMATS))
def test_max_is_the_extremes_and_so_is_the_100th_percentile(x: np.ndarray, fmt: QuantFormat) -> None:
    extremes = (float(x.min()), float(x.max()))
    assert choose_range(of(x), "max", fmt) == extremes
    if fmt.signed or not fmt.symmetric:
        assert choose_range(of(x), "percentile:100", fmt) == extremes


def within_a_bucket(value: float, expected: float) -> bool:
    return abs(value - expected) <= max(abs(expected), abs(value)) * 2**-10 + SCALE_MIN


PERCENTS = st.sampled_from(["50", "90", "99", "99.9", "99.99", "33.3", "0.1"])


@given(hnp.arrays(np.float32, st.integers(1, 300), elements=FINITE32), PERCENTS)
def test_symmetric_percentile_is_that_of_the_magnitude(x: np.ndarray, percent: str) -> None:
    low, high = choose_range(of(x), f"percentile:{percent}", INT8)
    magnitude = np.sort(np.abs(x))
    expected = float(magnitude[math.ceil(Fraction(percent) / 100 * x.size) - 1])
    assert within_a_bucket(max(-low, high), expected)
    # Both ends are ±t, cut to the extremes.
    assert low == max(-max(-low, high), float(x.min())) and high == min(max(-low, high), float(x.max()))


@given(hnp.arrays(np.float32, st.integers(1, 300), elements=FINITE32), PERCENTS)
def test_affine_percentile_takes_half_from_each_tail(x: np.ndarray, percent: str) -> None:
    low, high = choose_range(of(x), f"percentile:{percent}", UINT8_AFFINE)
    ordered = np.sort(x)

    def order_statistic(part: Fraction) -> float:
        return float(ordered[max(math.ceil(part * x.size), 1) - 1])

    outside = 1 - Fraction(percent) / 100
    if x.min() >= 0:
        assert low == float(x.min()) and within_a_bucket(high, order_statistic(1 - outside))
    elif x.max() <= 0:
        assert high == float(x.max()) and within_a_bucket(low, order_statistic(outside))
    else:
        assert within_a_bucket(low, order_statistic(outside / 2))
        assert within_a_bucket(high, order_statistic(1 - outside / 2))


@pytest.mark.parametrize("percent", [90.0, 99.0, 99.9, 99.99])
def test_percentiles_agree_with_numpy(percent: float) -> None:
    x = np.random.default_rng(0).laplace(size=500_001).astype(np.float32)
    _, high = choose_range(of(x), f"percentile:{percent}", INT8)
    assert high == pytest.approx(float(np.percentile(np.abs(x), percent)), rel=2**-9)
    low, high = choose_range(of(x), f"percentile:{percent}", UINT8_AFFINE)
    tail = (100 - percent) / 2
    assert [low, high] == pytest.approx(np.percentile(x, [tail, 100 - tail]).tolist(), rel=2**-9)


def test_a_post_relu_tensor_keeps_zero_and_all_of_its_tail_budget() -> None:
    x = np.maximum(np.random.default_rng(0).standard_normal(100_000), 0).astype(np.float32)
    low, high = choose_range(of(x), "percentile:99.9", UINT8_AFFINE)
    assert low == 0.0
    assert high == pytest.approx(float(np.percentile(x, 99.9)), rel=2**-9)


@pytest.mark.parametrize("method", ["percentile:99.9", "entropy", "mse"])
def test_an_unsigned_symmetric_format_ignores_negative_values(method: str) -> None:
    x = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    lopsided = np.where(x < 0, 20 * x, x)
    assert choose_range(of(lopsided), method, UINT8) == choose_range(of(np.maximum(x, 0)), method, UINT8)
