"""ReduceMean: the mean over some axes. The divisor of a mean is part of its multiplier."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxq.errors import NumericError
from onnxq.numeric.integer_output import Integers, accumulated, centred, rescaled
from onnxq.operators.base import body
from onnxq.operators.base.layouts import Reduction
from onnxq.operators.base.schema import ANY_WIDTH, Attribute, Input, Output, Schema
from onnxq.operators.base.signature import RESCALE_NOTE, RESULT, X_ZERO_POINT, multiplier, shift
from onnxq.operators.base.spec import OperatorSpec

REDUCE_MEAN = Schema(
    "ReduceMean",
    "Mean over some axes; global average pooling is axes = [1, 2].",
    (Input("x", ANY_WIDTH, "any", "activations"), multiplier("[1]"), shift("[1]")),
    Output("y", ANY_WIDTH, "that of ONNX's ReduceMean", "the result"),
    (
        Attribute("axes", "the axes to average over: consecutive, not negative", is_list=True, least=0),
        Attribute("keepdims", "1: they stay, with length 1; 0: they are removed", 1),
        X_ZERO_POINT,
        *RESULT,
    ),
    "sum = sum over axes of (x − x_zero_point)\ny = saturate(((sum·b + 2^(c−1)) >> c) + y_zero_point)",
    f"""
    {body.centred("x", "x_zero_point")}
    sum = ReduceSum <keepdims: int = @keepdims> (x_centred, axes)
    y_shape = Shape (sum)
    {body.wrapped("sum", "accumulator")}
    {body.times("accumulator", "multiplier", "term")}
    {body.flagged("keepdims", "shift", "shift_flagged")}
    {body.rescaled("term", "shift_flagged", "y_shape")}""",
    (
        "The divisor is part of the multiplier. Over an axis of length 0 the sum is 0.",
        "The sum is int32, modulo 2³²; lowering proves that it cannot overflow.",
        RESCALE_NOTE,
    ),
)


def reduce_mean(
    x: Integers,
    multiplier: Integers,
    shift: Integers,
    *,
    axes: Sequence[int],
    keepdims: int,
    x_zero_point: int,
    **result: int,
) -> Integers:
    """Rescaled sums over axes: x 8 to 32 bits; multiplier, shift [1]. Raises NumericError if a sum exceeds int32."""
    if keepdims not in (0, 1):
        raise NumericError(f"keepdims must be 0 or 1, not {keepdims}")
    total = centred(x, x_zero_point).sum(axis=tuple(axes), keepdims=bool(keepdims))
    acc = accumulated(np.asarray(total), "the sum over the axes")
    y = rescaled([acc], [multiplier], shift, **result)
    return y.reshape(acc.shape)


OPERATOR = OperatorSpec(REDUCE_MEAN, reduce_mean, Reduction("x"))
