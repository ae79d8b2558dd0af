"""ChannelsLast on every tier, against NumPy."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.execution import runtime
from support.cases.operator_cases import Case, Draw
from support.kernel_runs import Bundle, bundle, check, chosen, needs_library, on_every_tier, refusal, run_refusal

pytestmark = needs_library

EIGHT = ("uint8", "int8")
# On both sides of what a register, a block of channels and a part hold.
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 48, 70)
PLACES = (1, 2, 15, 16, 17, 31, 32, 33, 35, 49, 63, 64, 65, 100)


@functools.cache
def cases() -> Bundle:
    draw = Draw(1)
    made = [draw.channels_last((2, c, n), x=EIGHT[(c + n) % 2]) for c in CHANNELS for n in PLACES]
    made += [draw.channels_last(s) for s in ((0, 3, 4), (2, 0, 4), (2, 3, 0), (2, 3, 0, 5), (0, 0, 0), (1, 16, 0))]
    made += [draw.channels_last(s) for s in ((2, 3, 4, 5), (1, 6, 3, 4, 5), (3, 17, 2, 3, 1, 7), (1, 1, 1))]
    # Several parts on several threads, which begin and end within an image.
    many = ((1, 3, 400, 401), (5, 3, 173, 171), (7, 20, 63, 61), (3, 2, 555, 300), (300, 5, 17, 19), (1, 4000, 9, 11))
    return bundle(made + [draw.channels_last(s, x="int8") for s in many])


@on_every_tier
def test_equals_numpy(tier: str) -> None:
    with chosen(tier):
        check(cases())


@on_every_tier
@settings(max_examples=12)
@given(
    shapes=st.lists(
        st.lists(st.integers(0, 70), min_size=3, max_size=5).filter(lambda s: np.prod(s) < 200_000),
        min_size=1,
        max_size=6,
    ),
    seed=st.integers(0, 2**32),
)
def test_drawn_shapes(tier: str, shapes: list[list[int]], seed: int) -> None:
    draw = Draw(seed)
    with chosen(tier):
        check(bundle([draw.channels_last(tuple(s), x=EIGHT[i % 2]) for i, s in enumerate(shapes)]))


def test_the_shape_is_known_before_it_runs() -> None:
    made = bundle([Draw(2).channels_last((2, 3, 4, 5))])
    for dim, (value, name) in zip(
        made.proto.graph.input[0].type.tensor_type.shape.dim, ((0, "N"), (3, ""), (0, "H"), (5, "")), strict=True
    ):
        dim.Clear()
        if value:
            dim.dim_value = value
        else:
            dim.dim_param = name
    assert runtime.session(made.proto).get_outputs()[0].shape == ["N", "H", 5, 3]


CASE = Draw(3).channels_last((2, 3, 4))


def with_(values: np.ndarray) -> Case:
    return replace(CASE, arrays={"x": values})


def test_refuses_wide_values() -> None:
    assert "Could not find an implementation for ChannelsLast" in refusal(with_(np.zeros((2, 3, 4), np.int32)))


@pytest.mark.parametrize("shape", [(), (6,), (2, 3)])
def test_refuses_what_has_no_places(shape: tuple[int, ...]) -> None:
    assert f"x must have at least 3 dimensions, its shape is [{','.join(map(str, shape))}]" in run_refusal(
        with_(np.zeros(shape, np.uint8))
    )
