"""How an operator commutes with a Transpose of its input, as data: onnxq.layout moves Transposes by these rules.

Names are those of the operator's inputs and attributes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Elementwise:
    """An element of y depends on the operands' elements at the same index; several operands broadcast as in NumPy.

    vectors: inputs of length 1, or with one value per index along the attribute `axis`.
    """

    operands: tuple[str, ...]
    vectors: tuple[str, ...] = ()
    axis: str = "axis"


@dataclass(frozen=True)
class AlongAxis:
    """Works along the operand's dimension given by the attribute `axis`, independently of the dimension order."""

    operand: str
    axis: str = "axis"


@dataclass(frozen=True)
class Joined:
    """Concatenates operands of equal rank along the attribute `axis`."""

    operands: tuple[str, ...]
    axis: str = "axis"


@dataclass(frozen=True)
class Reduction:
    """Reduces consecutive dimensions, the attribute `axes`; they are removed unless the attribute `keepdims` is 1."""

    operand: str
    axes: str = "axes"
    keepdims: str = "keepdims"


@dataclass(frozen=True)
class LastAxis:
    """Works along the operand's last dimension, independently of the order of the others."""

    operand: str


@dataclass(frozen=True)
class WeightRows:
    """Needs its operands in their order, but the rows of constant weights can be permuted with the data's last axis."""

    data: str
    weights: str


Layout = Elementwise | AlongAxis | Joined | Reduction | LastAxis | WeightRows
