"""Inputs, attributes and sentences shared by the schemas."""

from __future__ import annotations

from onnxq.operators.base.schema import ANY_WIDTH, EIGHT_BIT, INT32, WEIGHT, Attribute, Input, Output

X_ZERO_POINT = Attribute("x_zero_point", "zero point of x, a value of x's type", default=0)
AXIS = Attribute("axis", "the axis of y for vectors of length C; negative counts from the end", default=-1)
STRIDES = Attribute("strides", "steps of the window along H and W", (1, 1), True, 2, 1)
PADS = Attribute("pads", "padding: top, left, bottom, right", (0, 0, 0, 0), True, 4, 0)
DILATIONS = Attribute("dilations", "distances between the window's elements along H and W", (1, 1), True, 2, 1)
KERNEL_SHAPE = Attribute("kernel_shape", "height and width of the window", None, True, 2, 1)
# The last attributes of every operator with a rescale.
RESULT = (
    Attribute("y_zero_point", "zero point of y", default=0),
    Attribute("qmin", "smallest value of y; qmin and qmax also implement a fused Relu or Clip"),
    Attribute("qmax", "largest value of y"),
    Attribute("y_type", "element type of y: 2 uint8, 3 int8, 5 int16, 6 int32"),
)
RESCALE_NOTE = (
    "64-bit integers, arithmetic shift, one rounding (half up) for the whole sum; `saturate` limits the 64-bit value "
    "to [qmin, qmax]. b = `multiplier`, 0 to 2³¹ − 1; c = `shift`, 1 to 62; b = 2^c leaves the sum unchanged. "
    "Lowering proves |sum| + 2^(c−1) < 2⁶³."
)
# For operators with two tensors, or with vectors along an axis.
CHANNELS = "[1] or [C]"
VECTORS = "C is the length of y along `axis`; a vector of one value applies to every index."
A_AND_B = (Attribute("a_zero_point", "zero point of a", 0), Attribute("b_zero_point", "zero point of b", 0))
BROADCAST = Output("y", ANY_WIDTH, "that of a and b broadcast together as in NumPy", "the result")


def multiplier(shape: str, name: str = "multiplier") -> Input:
    """The multipliers of one term of a rescale."""
    return Input(name, INT32, shape, "b of the rescale", constant=True)


def shift(shape: str) -> Input:
    """The shift of a rescale."""
    return Input("shift", INT32, shape, "c of the rescale", constant=True)


LAYER_PARAMETERS = ("w", "bias")  # of layer_inputs: OperatorSpec.parameters


def layer_inputs(x_shape: str, w_shape: str, channels: str) -> tuple[Input, ...]:
    """The inputs of a layer with weights. channels: the symbol for its number of outputs."""
    return (
        Input("x", EIGHT_BIT, x_shape, "activations"),
        Input("w", WEIGHT, w_shape, "weights", constant=True),
        Input("bias", INT32, f"[{channels}]", "added to the products, in their scale", constant=True),
        multiplier(f"[1] or [{channels}]"),
        shift(f"[1] or [{channels}]"),
        Input("w_zero_point", ("int8",), f"[1] or [{channels}]", "zero points of the weights", constant=True),
    )


def residual_inputs(shape: str, channels: str) -> tuple[Input, ...]:
    """The additional inputs of a layer with a fused addition."""
    return (
        Input("residual", ANY_WIDTH, shape, "added after multiplication by residual_multiplier"),
        multiplier(f"[1] or [{channels}]", "residual_multiplier"),
    )
