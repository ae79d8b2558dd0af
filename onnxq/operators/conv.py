"""Conv and ConvAdd: convolution with its bias, rescale, ReLU/Clip and, in ConvAdd, the addition that follows it."""

from __future__ import annotations

from collections.abc import Sequence

from onnxq.numeric.integer_output import Integers, centred, rescaled
from onnxq.numeric.integer_products import convolution
from onnxq.operators.base import body
from onnxq.operators.base.schema import ANY_WIDTH, Attribute, Output, Schema
from onnxq.operators.base.signature import (
    DILATIONS,
    LAYER_PARAMETERS,
    PADS,
    RESCALE_NOTE,
    RESULT,
    STRIDES,
    X_ZERO_POINT,
    layer_inputs,
    residual_inputs,
)
from onnxq.operators.base.spec import OperatorSpec

WINDOW = "strides: ints = @strides, pads: ints = @pads, dilations: ints = @dilations, group: int = @group"

# ConvInteger has one zero point for all weights, so it computes Σ (x − zp)·w, and zp_w[m]·Σ (x − zp) is subtracted:
# a second convolution, with one filter of ones per group.
ACCUMULATOR = f"""
    {body.unsigned("x")}
    {body.UNSIGNED_WEIGHTS}
    x_planes = Transpose <perm = [0, 3, 1, 2]> (x_u8)
    w_planes = Transpose <perm = [0, 3, 1, 2]> (w_u8)
    products_planes = ConvInteger <{WINDOW}> (x_planes, w_planes, x_zp, uint8_128)
    products = Transpose <perm = [0, 2, 3, 1]> (products_planes)
    groups = Range (int64_0, group, int64_1)
    filters = Gather <axis = 0> (w_planes, groups)
    filters_int = Cast <to = 6> (filters)
    nothing = Mul (filters_int, int32_0)
    ones = Add (nothing, int32_1)
    filters_of_ones = Cast <to = 2> (ones)
    sums_planes = ConvInteger <{WINDOW}> (x_planes, filters_of_ones, x_zp, uint8_0)
    sums_of_groups = Transpose <perm = [0, 2, 3, 1]> (sums_planes)
    channel_list = Shape <start = 0, end = 1> (w_u8)
    channels = Squeeze (channel_list, list_0)
    channel = Range (int64_0, channels, int64_1)
    channels_a_group = Div (channels, group)
    group_of_channel = Div (channel, channels_a_group)
    sums = Gather <axis = 3> (sums_of_groups, group_of_channel)
    w_zp = Cast <to = 6> (w_zero_point)
    excess = Mul (sums, w_zp)
    exact_products = Sub (products, excess)
    acc = Add (exact_products, bias)"""

ATTRIBUTES = (
    STRIDES,
    PADS,
    DILATIONS,
    Attribute("group", "number of groups, g; g = C is a depthwise convolution", 1, least=1),
    X_ZERO_POINT,
)

ACC_FORMULA = """\
acc[n, i, j, m] = bias[m] + sum over kh, kw, k of
                  (x[n, row, column, ci] − x_zero_point)·(w[m, kh, kw, k] − w_zero_point[m])
    row    = i·strides[0] − pads[0] + kh·dilations[0]
    column = j·strides[1] − pads[1] + kw·dilations[1]
    ci     = (m div (M/g))·(C/g) + k"""

NOTES = (
    "Channels-last; 1-D convolutions are lowered with H = 1.",
    "Padding is x_zero_point, so it adds nothing.",
    "acc is int32; lowering proves that it cannot overflow.",
    RESCALE_NOTE,
    "b = 2, c = 1 and y_type 6 give the raw accumulator.",
)

INPUTS = layer_inputs("[N, H, W, C]", "[M, kH, kW, C/g]", "M")

CONV = Schema(
    "Conv",
    "2-D convolution, channels-last, with bias, rescale and saturation.",
    INPUTS,
    Output("y", ANY_WIDTH, "[N, OH, OW, M]", "the result; OH and OW as in ONNX's Conv"),
    (*ATTRIBUTES, *RESULT),
    f"{ACC_FORMULA}\ny = saturate(((acc·b + 2^(c−1)) >> c) + y_zero_point)          b, c of channel m",
    ACCUMULATOR + body.ACC_RESCALED,
    NOTES,
)

CONV_ADD = Schema(
    "ConvAdd",
    "Conv with a residual input that is added before the rounding, each with its own multiplier.",
    (*INPUTS, *residual_inputs("[N, OH, OW, M]", "M")),
    CONV.output,
    (*ATTRIBUTES, Attribute("residual_zero_point", "zero point of residual", 0), *RESULT),
    f"{ACC_FORMULA}\n"
    "y = saturate(((acc·b + (residual − residual_zero_point)·b_r + 2^(c−1)) >> c) + y_zero_point)\n"
    "    b, b_r, c of channel m; b_r = residual_multiplier",
    ACCUMULATOR + body.ACC_AND_RESIDUAL_RESCALED,
    (*NOTES, "The two terms share the shift and the rounding (HAWQ-V3, eq. 9)."),
)


def conv(
    x: Integers,
    w: Integers,
    bias: Integers,
    multiplier: Integers,
    shift: Integers,
    w_zero_point: Integers,
    *,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
    x_zero_point: int,
    **result: int,
) -> Integers:
    """Convolution, channels-last: x [N, H, W, C], w [M, kH, kW, C/group], y [N, OH, OW, M].

    x 8-bit; w int8 (also for INT4 weights); bias int32 [M]; multiplier, shift int32 and w_zero_point int8 [1] or [M].
    acc = Σ (x − x_zero_point)(w − w_zero_point[m]) + bias[m], padding adds 0. Raises NumericError if it exceeds int32.
    """
    acc = convolution(x, w, bias, w_zero_point, strides, pads, dilations, group, x_zero_point)
    return rescaled([acc], [multiplier], shift, **result)


def conv_add(
    x: Integers,
    w: Integers,
    bias: Integers,
    multiplier: Integers,
    shift: Integers,
    w_zero_point: Integers,
    residual: Integers,
    residual_multiplier: Integers,
    *,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
    x_zero_point: int,
    residual_zero_point: int,
    **result: int,
) -> Integers:
    """`conv` plus residual, 8-bit, int16 or int32 [N, OH, OW, M], added before the single rounding (HAWQ-V3, eq. 9)."""
    acc = convolution(x, w, bias, w_zero_point, strides, pads, dilations, group, x_zero_point)
    terms = [acc, centred(residual, residual_zero_point)]
    return rescaled(terms, [multiplier, residual_multiplier], shift, **result)


OPERATORS = (
    OperatorSpec(CONV, conv, None, "filter", LAYER_PARAMETERS),
    OperatorSpec(CONV_ADD, conv_add, None, "filter", LAYER_PARAMETERS),
)
