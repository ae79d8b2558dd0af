"""Integer operators by plain loops: random codes and attributes, the windows of an image, one rounding."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from([np.uint8, np.int8])
TYPE_NUMBER = {np.uint8: 2, np.int8: 3, np.int32: 6}
RAW = {"qmin": -(2**31), "qmax": 2**31 - 1, "y_type": 6}


def codes(rng: np.random.Generator, kind: Any, *shape: int) -> NDArray[Any]:
    """Random integers over the whole range of a type."""
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, shape, endpoint=True).astype(kind)


def result(rng: np.random.Generator, kind: Any) -> dict[str, int]:
    """Random attributes of an output: its zero point, limits and element type."""
    limits = np.iinfo(kind)
    low, high = sorted(rng.integers(limits.min, limits.max, 2, endpoint=True).tolist())
    zero_point = int(rng.integers(-128, 255))
    return {"y_zero_point": zero_point, "qmin": low, "qmax": high, "y_type": TYPE_NUMBER[kind]}


def vectors(rng: np.random.Generator, length: int, low: int, high: int) -> NDArray[np.int32]:
    """int32 of the length, or of length 1."""
    return rng.integers(low, high, int(rng.choice([1, length]))).astype(np.int32)


def at(vector: NDArray[Any], i: int) -> int:
    """The element of a channel; a vector of length 1 serves all."""
    return int(vector[i if vector.size > 1 else 0])


def finish(total: int, shift: int, attributes: dict[str, int]) -> int:
    """A sum as a code: shifted, rounded half up, moved by the zero point, cut to the limits."""
    y = ((total + 2 ** (shift - 1)) >> shift) + attributes["y_zero_point"]
    return min(max(y, attributes["qmin"]), attributes["qmax"])


def placed(size: tuple[int, int], kernel: tuple[int, int], a: dict[str, Any]) -> tuple[range, range]:
    """The rows and columns of y."""
    pads, strides, dilations = a["pads"], a["strides"], a["dilations"]
    counts = [
        (size[i] + pads[i] + pads[i + 2] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in range(2)
    ]
    return range(counts[0]), range(counts[1])


def window(
    size: tuple[int, int], kernel: tuple[int, int], place: tuple[int, int], a: dict[str, Any]
) -> Iterator[tuple[tuple[int, int], tuple[int, int] | None]]:
    """The elements of the window at a place of y, and the pixels under them, None for padding."""
    for tap in product(range(kernel[0]), range(kernel[1])):
        row, column = (place[i] * a["strides"][i] - a["pads"][i] + tap[i] * a["dilations"][i] for i in range(2))
        inside = 0 <= row < size[0] and 0 <= column < size[1]
        yield tap, (row, column) if inside else None


def draw_window(rng: np.random.Generator, size: tuple[int, int]) -> tuple[tuple[int, int], dict[str, Any]]:
    """A random kernel with strides, pads and dilations for an image of this size."""
    kernel = tuple(int(k) for k in rng.integers(1, 4, 2))
    dilations = [int(d) if (k - 1) * d < s else 1 for k, d, s in zip(kernel, rng.integers(1, 3, 2), size, strict=True)]
    pads = [int(p) for p in rng.integers(0, 3, 4)]
    strides = [int(s) for s in rng.integers(1, 4, 2)]
    return (kernel[0], kernel[1]), {"strides": strides, "pads": pads, "dilations": dilations}
