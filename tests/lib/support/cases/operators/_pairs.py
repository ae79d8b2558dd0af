"""What operators of two tensors are tested on."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from support.cases.operators import Shape

MANY = (3, 70, 701)  # several parts on several threads


@st.composite
def broadcast_shapes(draw: st.DrawFn) -> tuple[tuple[Shape, Shape], int, int]:
    """Two shapes that broadcast, an axis of the result, and its length along that."""
    shape = draw(st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(lambda s: np.prod(s) < 20_000))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    shapes = [tuple(shape), tuple(shape)]
    for i in (0, 1):
        kept = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
        shapes[i] = tuple(n if keep else 1 for n, keep in zip(shape, kept, strict=True))
    shorter = draw(st.integers(0, len(shape) - 1))
    shapes[1] = shapes[1][shorter:]
    return (shapes[0], shapes[1]), axis, np.broadcast_shapes(*shapes)[axis]
