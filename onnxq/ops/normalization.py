"""Softmax and LayerNorm in integers, after I-BERT (Kim et al., 2021)."""

from __future__ import annotations

from onnxq.ops.schema import ANY_WIDTH, EIGHT_BIT, Attribute, Input, Output, Schema
from onnxq.ops.snippets import (
    RESULT,
    X_ZERO_POINT,
    centred,
    floor_divided,
    limited,
    multiplier,
    rescaled,
    saturated,
    shift,
    times,
)

SOFTMAX = Schema(
    "Softmax",
    "Softmax along an axis.",
    (
        Input("x", EIGHT_BIT, "any, rank at least 1", "the values"),
        Input("table", ("int32",), "[256]", "entry d is round(exp(−s_x·d)·2^20), s_x the scale of x", constant=True),
        multiplier("[1]"),
        shift("[1]"),
    ),
    Output("y", ANY_WIDTH, "the shape of x", "the result"),
    (Attribute("axis", "the axis that is normalized; negative counts from the end", -1), *RESULT),
    "e = table[max − x]          max: the largest x along axis\n"
    "S = sum of e along axis\n"
    "y = saturate(floor((2·e·b + S·2^c) / (S·2^(c+1))) + y_zero_point)",
    f"""
    x_int = Cast <to = 6> (x)
    axis_list = Unsqueeze (axis, list_0)
    largest = ReduceMax (x_int, axis_list)
    below = Sub (largest, x_int)
    e_int = Gather <axis = 0> (table, below)
    e = Cast <to = 7> (e_int)
    sum = ReduceSum (e, axis_list)
    b_wide = Cast <to = 7> (multiplier)
    b = Squeeze (b_wide, list_0)
    c_wide = Cast <to = 7> (shift)
    c = Squeeze (c_wide, list_0)
    unit = Pow (int64_2, c)
    sum_scaled = Mul (sum, unit)
    e_scaled = Mul (e, b)
    e_twice = Mul (e_scaled, int64_2)
    numerator = Add (e_twice, sum_scaled)
    denominator = Mul (sum_scaled, int64_2)
    quotient = Div (numerator, denominator)
    y_shape = Shape (x)
    reshaped = Reshape <allowzero = 1> (quotient, y_shape)
    {saturated("reshaped")}""",
    (
        "1/s_y ≈ b/2^c with c ≤ 16. The quotient is rounded once, half up. Everything fits 64-bit integers for rows of "
        "up to 2²⁵ values.",
    ),
)


def _normalize() -> str:
    """v · 4^h in [2⁶⁰, 2⁶²) and 2^h of 1 ≤ v < 2⁶²."""
    lines, v, power = "", "v_0", "int64_1"
    for step, k in enumerate((16, 8, 4, 2, 1), 1):
        lines += f"""
        short_{k} = Less ({v}, power_{62 - 2 * k})
        factor_{k} = Where (short_{k}, power_{k}, int64_1)
        square_{k} = Mul (factor_{k}, factor_{k})
        v_{step} = Mul ({v}, square_{k})
        p_{step} = Mul ({power}, factor_{k})"""
        v, power = f"v_{step}", f"p_{step}"
    return lines


def _newton(step: int) -> str:
    """A step of the integer square root of v_5, from root_{step - 1} to root_{step}."""
    return f"""
    ratio_{step} = Div (v_5, root_{step - 1})
    sum_{step} = Add (root_{step - 1}, ratio_{step})
    root_{step} = Div (sum_{step}, int64_2)"""


LAYER_NORM = Schema(
    "LayerNorm",
    "LayerNorm, or RMSNorm, along the last axis.",
    (
        Input("x", ANY_WIDTH, "[..., n], n at most 32768", "the values; x − x_zero_point is limited to 16 bits"),
        Input("gamma", ("int32",), "[1] or [n]", "factors, of either sign", constant=True),
        Input("beta", ("int64",), "[1] or [n]", "added; at most 2⁶² in size", constant=True),
        shift("[1]"),
    ),
    Output("y", ANY_WIDTH, "the shape of x", "the result"),
    (
        Attribute("epsilon", "added to n² times the variance, 0 to 2⁶¹", least=0),
        Attribute("center", "1: LayerNorm; 0: RMSNorm, which takes off no mean", 1, least=0),
        X_ZERO_POINT,
        *RESULT,
    ),
    """\
x' = x − x_zero_point, limited to [−2^15, 2^15 − 1]
S  = sum of x' along the last axis; 0 if center is 0
d  = n·x' − S
V  = max(n·(sum of x'^2) − S^2 + epsilon, 1)         n^2 times the variance
P  = 1; for k in 16, 8, 4, 2, 1: if V < 2^(62−2k): V = V·4^k, P = P·2^k
R  = floor(sqrt(V))                                  2^30 ≤ R < 2^31
     as R = 3·2^28 + V div (3·2^30); three times R = (R + V div R) div 2; then R = R − (1 if R·R > V else 0)
Q  = 2^61 div R
z  = floor((d·Q + u div 2) / u), u = 2^41 div P      the normalized value with 20 fraction bits
y  = saturate(((z·gamma + beta + 2^(shift−1)) >> shift) + y_zero_point)""",
    f"""
    {centred("x", "x_zero_point")}
    low = Neg (power_15)
    high = Sub (power_15, int64_1)
    {limited("x_centred", "low", "high", "values")}
    y_shape = Shape (x)
    n_list = Shape <start = -1> (x)
    n = Squeeze (n_list, list_0)
    last_axis = Neg (list_1)
    sum = ReduceSum (values, last_axis)
    total = Mul (sum, center)
    scaled = Mul (values, n)
    d = Sub (scaled, total)
    squares = Mul (values, values)
    sum_of_squares = ReduceSum (squares, last_axis)
    scaled_squares = Mul (sum_of_squares, n)
    square_of_sum = Mul (total, total)
    variance = Sub (scaled_squares, square_of_sum)
    variance_epsilon = Add (variance, epsilon)
    is_zero = Less (variance_epsilon, int64_1)
    v_0 = Where (is_zero, int64_1, variance_epsilon)
    {_normalize()}
    three = Add (int64_1, int64_2)
    start = Mul (three, power_28)
    tangent = Mul (three, power_30)
    slope = Div (v_5, tangent)
    root_0 = Add (start, slope)
    {_newton(1)}
    {_newton(2)}
    {_newton(3)}
    root_squared = Mul (root_3, root_3)
    above = Greater (root_squared, v_5)
    correction = Cast <to = 7> (above)
    root = Sub (root_3, correction)
    reciprocal = Div (power_61, root)
    fraction = Div (power_41, p_5)
    half_fraction = Div (fraction, int64_2)
    ratio = Mul (d, reciprocal)
    ratio_half = Add (ratio, half_fraction)
    {floor_divided("ratio_half", "fraction", "z")}
    {times("z", "gamma", "z_gamma")}
    affine = Add (z_gamma, beta)
    {rescaled("affine", "shift", "y_shape")}""",
    (
        "Nothing exceeds 64 bits for any x. In a row of equal values z = 0.",
        "For y = γ·(x − mean)/sqrt(variance + ε) + β: gamma/2^shift = γ/(s_y·2²⁰), beta/2^shift = β/s_y, "
        "epsilon = ε·n²/s_x². Lowering transposes other axes to the last one.",
        "The square root is I-BERT's (algorithm 4) of a number brought into [2⁶⁰, 2⁶²). `saturate` limits the 64-bit "
        "value to [qmin, qmax].",
    ),
)

SCHEMAS = (SOFTMAX, LAYER_NORM)
