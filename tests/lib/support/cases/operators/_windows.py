"""What pools are tested on: windows over images."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from support.cases.operators import Shape

WINDOWS: list[dict[str, Any]] = [
    {"kernel_shape": (3, 3)},
    {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)},
    {"kernel_shape": (3, 2), "strides": (2, 1), "pads": (1, 0, 2, 1)},
    {"kernel_shape": (2, 3), "pads": (1, 1, 1, 1), "dilations": (2, 1)},
    {"kernel_shape": (1, 1), "strides": (2, 2)},
    {"kernel_shape": (1, 3), "strides": (1, 2)},
    {"kernel_shape": (6, 7)},
    {"kernel_shape": (1, 2), "pads": (3, 2, 3, 2)},  # some windows hold nothing but padding
    {"kernel_shape": (2, 2), "pads": (5, 0, 0, 9), "dilations": (5, 4)},
]
SHAPES = ((2, 6, 7, 3), (1, 6, 7, 1), (0, 6, 7, 3), (1, 6, 7, 64), (2, 7, 8, 100), (2, 6, 7, 0))
BODY_WINDOWS: list[dict[str, Any]] = [
    {"kernel_shape": (3, 3)},
    {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)},
    {"kernel_shape": (3, 2), "strides": (2, 1), "pads": (1, 0, 2, 1)},
    {"kernel_shape": (2, 3), "pads": (1, 1, 1, 1), "dilations": (2, 1)},
    {"kernel_shape": (1, 1), "strides": (2, 2)},
    {"kernel_shape": (6, 7)},
    {"kernel_shape": (1, 2), "pads": (3, 2, 3, 2)},  # some windows hold nothing but padding
]
UNEVEN: dict[str, Any] = {"kernel_shape": (3, 2), "strides": (2, 1), "pads": (1, 0, 2, 1)}


def ones(*shape: int) -> np.ndarray:
    """int32 ones of this shape."""
    return np.ones(shape, np.int32)


@st.composite
def pools(draw: st.DrawFn) -> tuple[Shape, dict[str, Any]]:
    """The shape of an image and a window that fits it."""
    pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))
    kernel, strides, dilations = draw(pairs), draw(pairs), draw(pairs)
    pads = draw(st.tuples(*[st.integers(0, 4)] * 4))
    more = draw(st.tuples(st.integers(0, 9), st.integers(0, 9)))
    size = [max(1, (kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[i + 2]) + more[i] for i in (0, 1)]
    shape = (draw(st.integers(0, 2)), *size, draw(st.integers(1, 150)))
    return shape, {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}
