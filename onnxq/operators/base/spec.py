"""All that onnxq knows of an operator of com.onnxq, but for its lowering and its kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from onnxq.operators.base.layouts import Layout
from onnxq.operators.base.schema import Schema

Reference = Callable[..., NDArray[Any]]


@dataclass(frozen=True)
class OperatorSpec:
    """An operator: a module of onnxq/operators exports one as OPERATOR, or several as OPERATORS.

    schema: inputs, attributes, function body and the text of its page.
    reference: the exact integers in NumPy, which the kernels and the function body equal bit for bit. It takes the
    inputs in order, INT4 weights as int8, and every attribute by its name; the schema alone has the defaults.
    layout: what becomes of it when a Transpose moves through; None if it needs the order of dimensions that it has.
    products: of a layer, its multiply-accumulates for one element of y: "filter", as many as a filter of input 1 has
    weights, or "row", as many as a row of input 0 has values. None for operators that multiply no matrices.
    """

    schema: Schema
    reference: Reference
    layout: Layout | None
    products: Literal["filter", "row"] | None = None

    @property
    def name(self) -> str:
        """The op_type of its nodes."""
        return self.schema.name

    @property
    def is_layer(self) -> bool:
        """Whether it is a layer of the network: a convolution or a matrix product."""
        return self.products is not None

    def compute(self, *inputs: NDArray[Any], **attributes: Any) -> NDArray[Any]:
        """The output for these inputs, in order; attributes that are left out have the schema's defaults.

        Raises NumericError for a result that y's type does not hold and for an accumulator beyond int32, which lowering
        proves that there is none of.
        """
        return self.reference(*inputs, **(self.schema.defaults | attributes))
