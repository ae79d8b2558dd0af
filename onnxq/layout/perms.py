"""Permutations of dimensions, as in Transpose's perm attribute: result.shape[i] = shape[perm[i]]."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

T = TypeVar("T")
Perm = tuple[int, ...]


def identity(rank: int) -> Perm:
    """The permutation that moves nothing."""
    return tuple(range(rank))


def is_identity(perm: Perm) -> bool:
    """Whether the permutation moves nothing."""
    return perm == identity(len(perm))


def to_last(rank: int) -> Perm:
    """Channels-first to channels-last: dimension 1 moves to the end."""
    return (0, *range(2, rank), 1)


def inverse(perm: Perm) -> Perm:
    """The inverse permutation; also: the new index of each dimension."""
    found = [0] * len(perm)
    for to, axis in enumerate(perm):
        found[axis] = to
    return tuple(found)


def then(first: Perm, second: Perm) -> Perm:
    """The permutation equal to two consecutive Transposes."""
    return tuple(first[i] for i in second)


def permuted(values: Sequence[T], perm: Perm) -> list[T]:
    """A shape, or any other sequence with one entry per dimension, after the Transpose."""
    return [values[axis] for axis in perm]


def without(perm: Perm, axes: Collection[int]) -> Perm:
    """The permutation of the remaining dimensions when these (of the original tensor) are removed."""
    left = [axis for axis in perm if axis not in axes]
    order = sorted(left)
    return tuple(order.index(axis) for axis in left)


def moves_nothing(perm: Perm, shape: Sequence[object] | None) -> bool:
    """Whether only dimensions of size 1 move: the order of elements in memory is then unchanged."""
    if shape is None:
        return is_identity(perm)
    kept = [axis for axis in perm if shape[axis] != 1]
    return kept == sorted(kept)


def reshape_target(perm: Perm, shape: Sequence[object] | None) -> list[int] | None:
    """The constant shape of a Reshape that does what the Transpose does, in ONNX's terms (0: the size at this index,
    -1: the rest); None if the Transpose moves something, or leaves more than one unknown size at another index."""
    if shape is None or not moves_nothing(perm, shape):
        return None
    target = [
        size if isinstance(size, int) else 0 if axis == i else -1
        for i, (size, axis) in enumerate(zip(permuted(shape, perm), perm, strict=True))
    ]
    return target if target.count(-1) <= 1 else None


def or_none(perm: Perm) -> Perm | None:
    """None for a permutation that moves nothing."""
    return None if is_identity(perm) else perm
