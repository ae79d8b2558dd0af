"""Requantize, Add, Sub, Mul, LookupTable and Concat of com.onnxq in NumPy.

result: y_zero_point (default 0), qmin, qmax and y_type, as `integer_output.rescaled` takes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxq.numeric.integer_output import Integers, centred, rescaled
from onnxq.numeric.quantize import along_axis


def requantize(
    x: Integers,
    multiplier: Integers,
    shift: Integers,
    *,
    x_zero_point: int = 0,
    axis: int = -1,
    **result: int,
) -> Integers:
    """Another scale, zero point or type: x 8-bit or int32 of any shape; multiplier, shift [1] or [C] along `axis`."""
    b, c = (_along(v, axis, x.ndim) for v in (multiplier, shift))
    return rescaled([centred(x, x_zero_point)], [b], c, **result).reshape(x.shape)


def add(
    a: Integers,
    b: Integers,
    a_multiplier: Integers,
    b_multiplier: Integers,
    shift: Integers,
    *,
    a_zero_point: int = 0,
    b_zero_point: int = 0,
    axis: int = -1,
    **result: int,
) -> Integers:
    """a + b with a multiplier each, one shift and one rounding (HAWQ-V3, eq. 9).

    a, b: 8-bit or int32, broadcast as in NumPy. a_multiplier, b_multiplier, shift: [1] or [C] along `axis` of y.
    """
    terms = [centred(a, a_zero_point), centred(b, b_zero_point)]
    return _sum(terms, a_multiplier, b_multiplier, shift, axis, result)


def sub(
    a: Integers,
    b: Integers,
    a_multiplier: Integers,
    b_multiplier: Integers,
    shift: Integers,
    *,
    a_zero_point: int = 0,
    b_zero_point: int = 0,
    axis: int = -1,
    **result: int,
) -> Integers:
    """a − b, else as `add`."""
    terms = [centred(a, a_zero_point), -centred(b, b_zero_point)]
    return _sum(terms, a_multiplier, b_multiplier, shift, axis, result)


def mul(
    a: Integers,
    b: Integers,
    multiplier: Integers,
    shift: Integers,
    *,
    a_zero_point: int = 0,
    b_zero_point: int = 0,
    **result: int,
) -> Integers:
    """Rescaled product, element by element: a, b 8-bit, broadcast as in NumPy; multiplier, shift [1]."""
    product = np.asarray(centred(a, a_zero_point) * centred(b, b_zero_point))
    return rescaled([product], [multiplier], shift, **result).reshape(product.shape)


def lookup_table(x: Integers, table: Integers) -> Integers:
    """table[x − least value of x's type]: x 8-bit of any shape, table 8-bit [256]; y has the table's type."""
    return np.asarray(table[x.astype(np.int64) - np.iinfo(x.dtype).min])


def concat(
    multiplier: Integers,
    shift: Integers,
    *parts: Integers,
    axis: int,
    zero_points: Sequence[int],
    **result: int,
) -> Integers:
    """Concat2 … Concat8: the parts, 8-bit or int32, each rescaled on its own (HAWQ-V3, eq. 10).

    multiplier, shift, zero_points: one value a part.
    """
    found = [
        rescaled([centred(x, z)], [b], c, **result)
        for x, z, b, c in zip(parts, zero_points, multiplier, shift, strict=True)
    ]
    return np.concatenate(found, axis)


def _sum(
    terms: Sequence[NDArray], b_a: NDArray, b_b: NDArray, c: NDArray, axis: int, result: dict[str, int]
) -> Integers:
    shape = np.broadcast_shapes(terms[0].shape, terms[1].shape)
    b_a, b_b, c = (_along(v, axis, len(shape)) for v in (b_a, b_b, c))
    return rescaled(terms, [b_a, b_b], c, **result).reshape(shape)


def _along(vector: NDArray, axis: int, rank: int) -> NDArray:
    """A vector of [1] or [C], so that it broadcasts along `axis` of a tensor of this rank."""
    return vector if vector.size == 1 else along_axis(vector, axis, rank)
