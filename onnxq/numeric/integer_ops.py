"""The operators of domain com.onnxq in NumPy: the reference that kernels and function bodies equal bit for bit.

Each takes its inputs in the operator's order as arrays, and its attributes as keyword arguments of the same names. All
tensors are integers; INT4 weights come as int8. A result of the wrong type or an accumulator beyond int32 is a
NumericError: lowering proves that there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from onnxq.errors import NumericError
from onnxq.numeric.integer_elementwise import add, concat, lookup_table, mul, requantize, sub
from onnxq.numeric.integer_movement import channels_last
from onnxq.numeric.integer_norm import layer_norm, softmax
from onnxq.numeric.integer_pooling import average_pool, max_pool, reduce_mean
from onnxq.numeric.integer_products import conv, conv_add, gemm, gemm_add, matmul

OPERATORS: dict[str, Callable[..., NDArray[Any]]] = {
    "Add": add,
    "AveragePool": average_pool,
    "ChannelsLast": channels_last,
    **{f"Concat{count}": concat for count in range(2, 9)},
    "Conv": conv,
    "ConvAdd": conv_add,
    "Gemm": gemm,
    "GemmAdd": gemm_add,
    "LayerNorm": layer_norm,
    "LookupTable": lookup_table,
    "MatMul": matmul,
    "MaxPool": max_pool,
    "Mul": mul,
    "ReduceMean": reduce_mean,
    "Requantize": requantize,
    "Softmax": softmax,
    "Sub": sub,
}


def compute(op: str, inputs: Sequence[NDArray[Any]], attributes: Mapping[str, Any]) -> NDArray[Any]:
    """The output of one node. Raises NumericError for an unknown operator, and as the operators do."""
    if op not in OPERATORS:
        raise NumericError(f"com.onnxq has no operator {op}")
    return OPERATORS[op](*inputs, **attributes)


__all__ = [
    "OPERATORS",
    "add",
    "average_pool",
    "channels_last",
    "compute",
    "concat",
    "conv",
    "conv_add",
    "gemm",
    "gemm_add",
    "layer_norm",
    "lookup_table",
    "matmul",
    "max_pool",
    "mul",
    "reduce_mean",
    "requantize",
    "softmax",
    "sub",
]
