"""What a Transpose in front of an operator does to it, as data: onnxq.layout moves Transposes by these.

Names are those of the operator's inputs and attributes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Elementwise:
    """An element of y depends on the elements of the operands at its place; several operands broadcast as in numpy.

    vectors: inputs of length 1, or with a value for each place along the attribute `axis`.
    """

    operands: tuple[str, ...]
    vectors: tuple[str, ...] = ()
    axis: str = "axis"


@dataclass(frozen=True)
class AlongAxis:
    """It works along the dimension of its operand that the attribute `axis` names, in the same way in any order."""

    operand: str
    axis: str = "axis"


@dataclass(frozen=True)
class Joined:
    """The operands, all of one rank, one after the other along the attribute `axis`."""

    operands: tuple[str, ...]
    axis: str = "axis"


@dataclass(frozen=True)
class Reduction:
    """It reduces consecutive dimensions, the attribute `axes`; they go unless the attribute `keepdims` is 1."""

    operand: str
    axes: str = "axes"
    keepdims: str = "keepdims"


@dataclass(frozen=True)
class LastAxis:
    """It works along the last dimension of its operand, and on the others in the same way in any order."""

    operand: str


@dataclass(frozen=True)
class WeightRows:
    """It needs the order that its operands have; but rows of constant weights can follow the last dimension of data."""

    data: str
    weights: str


Layout = Elementwise | AlongAxis | Joined | Reduction | LastAxis | WeightRows
