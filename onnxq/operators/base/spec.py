"""The description of an operator of com.onnxq, except for its lowering and its kernel."""

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
    reference: the exact integers in NumPy, which the kernels and the function body match bit for bit. Its arguments are
    the inputs in order, INT4 weights as int8, and every attribute by name; only the schema defines the defaults.
    layout: how it commutes with a Transpose; None if it needs its order of dimensions.
    products: for a layer, the multiply-accumulates per element of y: "filter", the number of weights in a filter of
    input 1, or "row", the number of values in a row of input 0. None for operators without matrix products.
    parameters: names of the inputs that hold what it computes with, where they are constants, the weight first; the
    other constants are the arithmetic of its rescale.
    """

    schema: Schema
    reference: Reference
    layout: Layout | None
    products: Literal["filter", "row"] | None = None
    parameters: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The op_type of its nodes."""
        return self.schema.name

    @property
    def is_layer(self) -> bool:
        """Whether it is a layer of the network: a convolution or a matrix product."""
        return self.products is not None

    @property
    def parameter_indices(self) -> tuple[int, ...]:
        """Positions of the `parameters` among the inputs."""
        names = [i.name for i in self.schema.inputs]
        return tuple(names.index(name) for name in self.parameters)

    def compute(self, *inputs: NDArray[Any], **attributes: Any) -> NDArray[Any]:
        """The output for these inputs, in order; omitted attributes have the schema's defaults.

        Raises NumericError for a result outside y's type and for an accumulator beyond int32; lowering proves that
        neither happens.
        """
        return self.reference(*inputs, **(self.schema.defaults | attributes))
