"""Inputs, attributes and sentences that schemas share."""

from __future__ import annotations

from onnxq.operators.base.schema import ANY_WIDTH, EIGHT_BIT, INT32, WEIGHT, Attribute, Input, Output

X_ZERO_POINT = Attribute("x_zero_point", "zero point of x, a value of x's type", default=0)
AXIS = Attribute("axis", "the axis of y that vectors of length C run along; negative counts from the end", default=-1)
STRIDES = Attribute("strides", "steps of the window along H and W", (1, 1), True, 2, 1)
PADS = Attribute("pads", "padding: top, left, bottom, right", (0, 0, 0, 0), True, 4, 0)
DILATIONS = Attribute("dilations", "distances between the window's elements along H and W", (1, 1), True, 2, 1)
KERNEL_SHAPE = Attribute("kernel_shape", "height and width of the window", None, True, 2, 1)
# What every operator with a rescale ends with.
RESULT = (
    Attribute("y_zero_point", "zero point of y", default=0),
    Attribute("qmin", "least value of y; with qmax it also carries a fused Relu or Clip"),
    Attribute("qmax", "largest value of y"),
    Attribute("y_type", "element type of y: 2 uint8, 3 int8, 6 int32"),
)
RESCALE_NOTE = (
    "64-bit integers, arithmetic shift, one rounding (half up) for the whole sum; `saturate` limits the 64-bit value "
    "to [qmin, qmax]. b = `multiplier`, 0 to 2³¹ − 1; c = `shift`, 1 to 62; b = 2^c leaves the sum as it is. "
    "Lowering proves |sum| + 2^(c−1) < 2⁶³."
)
# What operators have that take two tensors, or vectors along an axis.
CHANNELS = "[1] or [C]"
VECTORS = "C is the length of y along `axis`; a vector of one value serves every place."
A_AND_B = (Attribute("a_zero_point", "zero point of a", 0), Attribute("b_zero_point", "zero point of b", 0))
BROADCAST = Output("y", ANY_WIDTH, "that of a and b broadcast together as in numpy", "the result")


def multiplier(shape: str, name: str = "multiplier") -> Input:
    """The multipliers of one term of a rescale."""
    return Input(name, INT32, shape, "b of the rescale", constant=True)


def shift(shape: str) -> Input:
    """The shift of a rescale."""
    return Input("shift", INT32, shape, "c of the rescale", constant=True)


def layer_inputs(x_shape: str, w_shape: str, channels: str) -> tuple[Input, ...]:
    """The inputs of a layer with weights; `channels` is the name of the number of its outputs."""
    return (
        Input("x", EIGHT_BIT, x_shape, "activations"),
        Input("w", WEIGHT, w_shape, "weights", constant=True),
        Input("bias", INT32, f"[{channels}]", "added to the products, in their scale", constant=True),
        multiplier(f"[1] or [{channels}]"),
        shift(f"[1] or [{channels}]"),
        Input("w_zero_point", ("int8",), f"[1] or [{channels}]", "zero points of the weights", constant=True),
    )


def residual_inputs(shape: str, channels: str) -> tuple[Input, ...]:
    """What a layer with a fused addition has besides the inputs of the layer."""
    return (
        Input("residual", ANY_WIDTH, shape, "added after its own multiplication"),
        multiplier(f"[1] or [{channels}]", "residual_multiplier"),
    )
