"""LayerNorm, or RMSNorm, in integers, after I-BERT (Kim et al., 2021)."""

from __future__ import annotations

import numpy as np

from onnxq.errors import NumericError
from onnxq.numeric.integer_norm import (
    EPSILON_MAX,
    FRACTION_BITS,
    LAYER_NORM_LENGTH,
    LAYER_NORM_LIMIT,
    integer_sqrt,
    normalized,
)
from onnxq.numeric.integer_output import Integers, centred, saturated
from onnxq.operators.base import body
from onnxq.operators.base.layouts import LastAxis
from onnxq.operators.base.schema import ANY_WIDTH, Attribute, Input, Output, Schema
from onnxq.operators.base.signature import RESULT, X_ZERO_POINT, shift
from onnxq.operators.base.spec import OperatorSpec


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
    """One step of the integer square root of v_5, from root_{step - 1} to root_{step}."""
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
        Input("beta", ("int64",), "[1] or [n]", "added; at most 2⁶² in magnitude", constant=True),
        shift("[1]"),
    ),
    Output("y", ANY_WIDTH, "the shape of x", "the result"),
    (
        Attribute("epsilon", "added to n² times the variance, 0 to 2⁶¹", least=0),
        Attribute("center", "1: LayerNorm; 0: RMSNorm, which subtracts no mean", 1, least=0),
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
    {body.centred("x", "x_zero_point")}
    low = Neg (power_15)
    high = Sub (power_15, int64_1)
    {body.limited("x_centred", "low", "high", "values")}
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
    {body.floor_divided("ratio_half", "fraction", "z")}
    {body.times("z", "gamma", "z_gamma")}
    affine = Add (z_gamma, beta)
    {body.flagged("center", "shift", "shift_flagged")}
    {body.rescaled("affine", "shift_flagged", "y_shape")}""",
    (
        "Nothing exceeds 64 bits for any x. In a row of equal values z = 0.",
        "For y = γ·(x − mean)/sqrt(variance + ε) + β: gamma/2^shift = γ/(s_y·2²⁰), beta/2^shift = β/s_y, "
        "epsilon = ε·n²/s_x². Lowering transposes other axes to the last one.",
        "The square root is I-BERT's (algorithm 4), on a number shifted into [2⁶⁰, 2⁶²). `saturate` limits the 64-bit "
        "value to [qmin, qmax].",
    ),
)


def layer_norm(
    x: Integers,
    gamma: Integers,
    beta: Integers,
    shift: Integers,
    *,
    epsilon: int,
    x_zero_point: int,
    center: int,
    **result: int,
) -> Integers:
    """Normalization of rows of n values along the last axis: LayerNorm, or with center = 0 RMSNorm.

    x: 8 to 32 bits [..., n], n ≤ 2¹⁵; x − x_zero_point saturates to 16 bits. gamma: int32, of either sign, [n] or
    [1]. beta: int64, |beta| ≤ 2⁶², likewise. shift: int32 [1]. epsilon: 0 … 2⁶¹. `numeric.integer_norm` computes
    these constants.

    S = Σ x (0 without center), d_i = n·x_i − S, V = max(n·Σx² − S² + epsilon, 1), which is n² times the variance;
    z_i = d_i / sqrt(V), rounded half up to 20 fraction bits, from the reciprocal of floor(sqrt(V · 4^h)) ≥ 2³⁰;
    y_i = sat(((z_i·gamma_i + beta_i + 2^(shift−1)) >> shift) + y_zero_point).
    """
    n = x.shape[-1]
    if n > LAYER_NORM_LENGTH or not 0 <= epsilon <= EPSILON_MAX:
        raise NumericError(f"rows of {n} values, or an epsilon of {epsilon}: at most 2¹⁵ and 2⁶¹")
    if center not in (0, 1):
        raise NumericError(f"center must be 0 or 1, not {center}")
    values = np.clip(centred(x, x_zero_point), -LAYER_NORM_LIMIT, LAYER_NORM_LIMIT - 1)
    total = values.sum(axis=-1, keepdims=True) * (1 if center else 0)
    square = np.maximum(n * (values * values).sum(axis=-1, keepdims=True) - total * total + epsilon, 1)
    normal, power = normalized(square)
    reciprocal = (1 << 61) // integer_sqrt(normal)
    unit = (1 << (61 - FRACTION_BITS)) // power
    z = ((n * values - total) * reciprocal + unit // 2) // unit
    c = int(shift.item())
    return saturated((z * gamma.astype(np.int64) + beta + (1 << (c - 1))) >> c, **result)


OPERATOR = OperatorSpec(LAYER_NORM, layer_norm, LastAxis("x"), parameters=("gamma", "beta"))
