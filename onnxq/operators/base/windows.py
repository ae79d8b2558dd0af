"""Text shared by the pooling operators: windows over channels-last images."""

from __future__ import annotations

from onnxq.operators.base.signature import DILATIONS, KERNEL_SHAPE, PADS, STRIDES

WINDOW = (KERNEL_SHAPE, STRIDES, PADS, DILATIONS)

PLACES = """\
    row    = i·strides[0] − pads[0] + kh·dilations[0]
    column = j·strides[1] − pads[1] + kw·dilations[1]"""

# Pads pass through an Identity: onnxruntime 1.23 reads a constant before its attribute is known, and finds no pads.
# The shape of y, [N, OH, OW, C]: a convolution of the first channel with zeros gives the number of windows.
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


def over_windows(reduce: str, values: str, axis: int, result: str) -> str:
    """A reduction over the windows along H (axis 1) or W (axis 2) of [N, H, W, C], gathered into a separate axis."""
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
