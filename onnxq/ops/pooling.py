"""AveragePool, ReduceMean and MaxPool. The divisor of a mean is part of its multiplier."""

from __future__ import annotations

from onnxq.ops.schema import ANY_WIDTH, EIGHT_BIT, Attribute, Input, Output, Schema
from onnxq.ops.snippets import (
    DILATIONS,
    KERNEL_SHAPE,
    PADS,
    RESCALE_NOTE,
    RESULT,
    STRIDES,
    X_ZERO_POINT,
    centred,
    multiplier,
    rescaled,
    shift,
    times,
)

WINDOW = (KERNEL_SHAPE, STRIDES, PADS, DILATIONS)
BY_POSITION = "[1] or [OH, OW, 1]"
PLACES = """\
    row    = i·strides[0] − pads[0] + kh·dilations[0]
    column = j·strides[1] − pads[1] + kw·dilations[1]"""

# Pads go through an Identity: onnxruntime 1.23 reads a constant before its attribute is known, and finds no pads.
# The shape of y, [N, OH, OW, C]: a convolution of the first channel with zeros says how many windows there are.
Y_SHAPE = """
    first_channel = Gather <axis = 3> (x, list_0)
    first_plane = Transpose <perm = [0, 3, 1, 2]> (first_channel)
    first_u8 = Cast <to = 2> (first_plane)
    zeros_shape = Concat <axis = 0> (list_1_1, kernel_shape)
    zeros = Expand (uint8_0, zeros_shape)
    windows = ConvInteger <strides: ints = @strides, pads: ints = @pads, dilations: ints = @dilations> (first_u8, zeros)
    batch = Shape <start = 0, end = 1> (windows)
    places = Shape <start = 2> (windows)
    channels = Shape <start = 3> (x)
    y_shape = Concat <axis = 0> (batch, places, channels)"""


def _over_windows(reduce: str, values: str, axis: int, result: str) -> str:
    """A reduction over the windows along H (axis 1) or W (axis 2) of [N, H, W, C], gathered as an axis of their own."""
    i, a = axis - 1, f"along_{axis}"
    return f"""
    {a}_count = Gather <axis = 0> (places, int64_{i})
    {a}_stride = Gather <axis = 0> (strides, int64_{i})
    {a}_size = Gather <axis = 0> (kernel_shape, int64_{i})
    {a}_dilation = Gather <axis = 0> (dilations, int64_{i})
    {a}_windows = Range (int64_0, {a}_count, int64_1)
    {a}_starts = Mul ({a}_windows, {a}_stride)
    {a}_elements = Range (int64_0, {a}_size, int64_1)
    {a}_offsets = Mul ({a}_elements, {a}_dilation)
    {a}_starts_column = Unsqueeze ({a}_starts, list_1)
    {a}_positions = Add ({a}_starts_column, {a}_offsets)
    {a}_gathered = Gather <axis = {axis}> ({values}, {a}_positions)
    {result} = {reduce} <keepdims = 0> ({a}_gathered, list_{axis + 1})"""


AVERAGE_POOL = Schema(
    "AveragePool",
    "Average pooling, channels-last.",
    (Input("x", ANY_WIDTH, "[N, H, W, C]", "activations"), multiplier(BY_POSITION), shift(BY_POSITION)),
    Output("y", ANY_WIDTH, "[N, OH, OW, C]", "the result; OH and OW as ONNX's AveragePool without ceil_mode has them"),
    (*WINDOW, X_ZERO_POINT, *RESULT),
    "sum[n, i, j, c'] = sum over kh, kw of (x[n, row, column, c'] − x_zero_point), padding adds 0\n"
    f"{PLACES}\n"
    "y = saturate(((sum·b + 2^(c−1)) >> c) + y_zero_point)          b, c of position (i, j)",
    f"""
    {centred("x", "x_zero_point")}
    padding = Identity (pads)
    padded = Pad (x_centred, padding, int64_0, list_1_2)
    {Y_SHAPE}
    {_over_windows("ReduceSum", "padded", 1, "sums_of_rows")}
    {_over_windows("ReduceSum", "sums_of_rows", 2, "sums")}
    {times("sums", "multiplier", "term")}
    {rescaled("term", "shift", "y_shape")}""",
    (
        "The divisor is in the multiplier. Where it varies with the position (padding that is not counted, ceil_mode), "
        "multiplier and shift have a value for each; ceil_mode itself is lowered into pads.",
        "The sum is int32; lowering proves that it cannot overflow.",
        RESCALE_NOTE,
    ),
)

REDUCE_MEAN = Schema(
    "ReduceMean",
    "Mean over some axes; global average pooling is axes = [1, 2].",
    (Input("x", ANY_WIDTH, "any", "activations"), multiplier("[1]"), shift("[1]")),
    Output("y", ANY_WIDTH, "that of ONNX's ReduceMean", "the result"),
    (
        Attribute("axes", "the axes to average over: consecutive, not negative", is_list=True, least=0),
        Attribute("keepdims", "1: they stay, with length 1; 0: they go", 1),
        X_ZERO_POINT,
        *RESULT,
    ),
    "sum = sum over axes of (x − x_zero_point)\ny = saturate(((sum·b + 2^(c−1)) >> c) + y_zero_point)",
    f"""
    {centred("x", "x_zero_point")}
    sum = ReduceSum <keepdims: int = @keepdims> (x_centred, axes)
    y_shape = Shape (sum)
    {times("sum", "multiplier", "term")}
    {rescaled("term", "shift", "y_shape")}""",
    (
        "The divisor is in the multiplier. Over an axis of length 0 the sum is 0.",
        "The sum is int32; lowering proves that it cannot overflow.",
        RESCALE_NOTE,
    ),
)

# Not with ONNX's MaxPool: ReferenceEvaluator's fails for int8 unless a stride or a dilation is more than 1.
MAX_POOL = Schema(
    "MaxPool",
    "Max pooling, channels-last.",
    (Input("x", EIGHT_BIT, "[N, H, W, C]", "activations"),),
    Output("y", EIGHT_BIT, "[N, OH, OW, C]", "the result, of x's type; OH and OW as ONNX's MaxPool without ceil_mode"),
    WINDOW,
    f"y[n, i, j, c] = largest of x[n, row, column, c] over kh, kw, padding holds the least value of x's type\n{PLACES}",
    f"""
    x_128 = CastLike (int32_128, x)
    x_wrapped = Cast <to = 6> (x_128)
    x_least = Min (x_wrapped, int32_0)
    x_min = CastLike (x_least, x)
    padding = Identity (pads)
    padded = Pad (x, padding, x_min, list_1_2)
    {Y_SHAPE}
    {_over_windows("ReduceMax", "padded", 1, "largest_of_rows")}
    {_over_windows("ReduceMax", "largest_of_rows", 2, "largest")}
    y = Reshape <allowzero = 1> (largest, y_shape)""",
    ("Scale and zero point of y are those of x.",),
)

SCHEMAS = (AVERAGE_POOL, REDUCE_MEAN, MAX_POOL)
