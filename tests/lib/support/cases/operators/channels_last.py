"""ChannelsLast."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from hypothesis import strategies as st

from support.cases.operators import EIGHT, Case, Draw, OperatorCases, Shape, with_


def channels_last(draw: Draw, shape: Shape, *, x: str = "uint8") -> Case:
    return Case("ChannelsLast", {"x": draw.tensor(x, shape)}, {})


def nodes(draw: Draw) -> list[Case]:
    return [channels_last(draw, (2, 5, 7, 9), x="int8")]


def small(draw: Draw) -> list[Case]:
    return [channels_last(draw, (2, 3, 4, 5), x="int8")]


def bodies() -> Iterator[Case]:
    many = [(2, 3, 30, 40), (1, 5, 7), (2, 1, 3, 4, 5), (2, 3, 1, 2, 1, 4), (0, 3, 4, 5), (2, 0, 4), (2, 3, 0, 5)]
    for x, shape in itertools.product(EIGHT, many):
        yield channels_last(Draw(18), shape, x=x)


# On both sides of what a register, a block of channels and a part hold.
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 48, 70)
PLACES = (1, 2, 15, 16, 17, 31, 32, 33, 35, 49, 63, 64, 65, 100)


def shapes() -> list[Case]:
    draw = Draw(1)
    made = [channels_last(draw, (2, c, n), x=EIGHT[(c + n) % 2]) for c in CHANNELS for n in PLACES]
    made += [channels_last(draw, s) for s in ((0, 3, 4), (2, 0, 4), (2, 3, 0), (2, 3, 0, 5), (0, 0, 0), (1, 16, 0))]
    made += [channels_last(draw, s) for s in ((2, 3, 4, 5), (1, 6, 3, 4, 5), (3, 17, 2, 3, 1, 7), (1, 1, 1))]
    # Several parts on several threads, which begin and end within an image.
    many = ((1, 3, 400, 401), (5, 3, 173, 171), (7, 20, 63, 61), (3, 2, 555, 300), (300, 5, 17, 19), (1, 4000, 9, 11))
    return made + [channels_last(draw, s, x="int8") for s in many]


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    sizes = st.lists(st.integers(0, 70), min_size=3, max_size=5).filter(lambda s: np.prod(s) < 200_000)
    values = Draw(draw(st.integers(0, 2**32)))
    return channels_last(values, tuple(draw(sizes)), x=draw(st.sampled_from(EIGHT)))


CASE = channels_last(Draw(3), (2, 3, 4))


CASES = OperatorCases(
    nodes,
    small,
    {"shapes": bodies},
    {"shapes": shapes},
    drawn(),
    refused=[
        (
            with_(CASE, {"x": np.zeros((2, 3, 4), np.int32)}),
            "Could not find an implementation for ChannelsLast",
        ),
    ],
    refused_inputs=[
        (
            with_(CASE, {"x": np.zeros(shape, np.uint8)}),
            f"x must have at least 3 dimensions, its shape is [{','.join(map(str, shape))}]",
        )
        for shape in ((), (6,), (2, 3))
    ],
)
