"""Text shared by function bodies; `schema` explains the shorthands."""

from __future__ import annotations


def unsigned(name: str) -> str:
    """{name}, 8-bit, as uint8 {name}_u8, with {name}_min, the least value of its type, and the zero point {name}_zp.

    Both operands of every product are uint8: onnxruntime is exact with them on every CPU, including those where its
    uint8 × int8 kernels saturate in 16 bits.
    """
    return f"""
    {name}_128 = CastLike (int32_128, {name})
    {name}_wrapped = Cast <to = 6> ({name}_128)
    {name}_min = Min ({name}_wrapped, int32_0)
    {name}_int = Cast <to = 6> ({name})
    {name}_raised = Sub ({name}_int, {name}_min)
    {name}_u8 = Cast <to = 2> ({name}_raised)
    {name}_zp_int = Cast <to = 6> ({name}_zero_point)
    {name}_zp_raised = Sub ({name}_zp_int, {name}_min)
    {name}_zp = Cast <to = 2> ({name}_zp_raised)"""


UNSIGNED_WEIGHTS = """
    w_int = Cast <to = 6> (w)
    w_raised = Add (w_int, int32_128)
    w_u8 = Cast <to = 2> (w_raised)"""


def centred(name: str, zero_point: str) -> str:
    """{name}_centred = {name} - zero_point in 64 bits; zero_point: the name of an int64 scalar."""
    return f"""
    {name}_wide = Cast <to = 7> ({name})
    {name}_centred = Sub ({name}_wide, {zero_point})"""


def wrapped(value: str, result: str) -> str:
    """result = value, int64, modulo 2^32 as kernels sum: what an int32 accumulator holds."""
    return f"""
    {result}_32 = Cast <to = 6> ({value})
    {result} = Cast <to = 7> ({result}_32)"""


def flagged(attribute: str, tensor: str, result: str) -> str:
    """result = tensor; an attribute other than 0 and 1 gives an index out of range: the body fails as kernels do."""
    return f"""
    {attribute}_negated = Neg ({attribute})
    {attribute}_zero = Gather (list_0, {attribute}_negated)
    {attribute}_none = CastLike ({attribute}_zero, {tensor})
    {result} = Add ({tensor}, {attribute}_none)"""


def times(value: str, by: str, product: str) -> str:
    """product = value * by; value: int64, by: int32."""
    return f"""
    {by}_wide = Cast <to = 7> ({by})
    {product} = Mul ({value}, {by}_wide)"""


def floor_divided(numerator: str, divisor: str, quotient: str) -> str:
    """quotient = floor(numerator / divisor), for divisors above 0. ONNX's Div truncates, its Mod floors."""
    return f"""
    {quotient}_rest = Mod ({numerator}, {divisor})
    {quotient}_whole = Sub ({numerator}, {quotient}_rest)
    {quotient} = Div ({quotient}_whole, {divisor})"""


def shifted(total: str, by: str = "shift", prefix: str = "") -> str:
    """{prefix}quotient = (total + 2^(c-1)) >> c."""
    return f"""
    {prefix}c = Cast <to = 7> ({by})
    {prefix}c_less_1 = Sub ({prefix}c, int64_1)
    {prefix}half = Pow (int64_2, {prefix}c_less_1)
    {prefix}unit = Pow (int64_2, {prefix}c)
    {prefix}numerator = Add ({total}, {prefix}half)
    {floor_divided(f"{prefix}numerator", f"{prefix}unit", f"{prefix}quotient")}"""


def limited(value: str, low: str, high: str, result: str) -> str:
    """result = value limited to [low, high], int64.

    Comparisons, because Min, Max and Clip of int64 are wrong beyond 32 bits in onnxruntime (seen in 1.23 and 1.31).
    """
    return f"""
    {result}_too_small = Less ({value}, {low})
    {result}_at_least = Where ({result}_too_small, {low}, {value})
    {result}_too_large = Greater ({result}_at_least, {high})
    {result} = Where ({result}_too_large, {high}, {result}_at_least)"""


def saturated(value: str) -> str:
    """y = value + y_zero_point, limited to [qmin, qmax], in y's type."""
    return f"""
    with_zero_point = Add ({value}, y_zero_point)
    {limited("with_zero_point", "qmin", "qmax", "y_wide")}
    y = Cast <to: int = @y_type> (y_wide)"""


def rescaled(total: str, by: str = "shift", shape: str = "") -> str:
    """The end of every operator with a rescale. shape: the name of y's shape, if broadcasting may have added axes."""
    reshaped = f"\n    reshaped = Reshape <allowzero = 1> (quotient, {shape})" if shape else ""
    return shifted(total, by) + reshaped + saturated("reshaped" if shape else "quotient")


ACC_RESCALED = f"""
    acc_wide = Cast <to = 7> (acc){times("acc_wide", "multiplier", "acc_term")}{rescaled("acc_term")}"""
ACC_AND_RESIDUAL_RESCALED = f"""
    acc_wide = Cast <to = 7> (acc){times("acc_wide", "multiplier", "acc_term")}\
{centred("residual", "residual_zero_point")}{times("residual_centred", "residual_multiplier", "residual_term")}
    total = Add (acc_term, residual_term){rescaled("total")}"""


def along_axis(*vectors: str) -> str:
    """{v}_shaped for each vector: reshaped with trailing axes of length 1 to broadcast along `axis` of y_shape.

    Also correct for tensors of rank 0, which have vectors of one value.
    """
    lines = """
    rank = Size (y_shape)
    axes = Max (rank, int64_1)
    from_front = Mod (axis, axes)
    from_back = Sub (axes, from_front)
    after = Sub (from_back, int64_1)
    after_list = Unsqueeze (after, list_0)
    ones = Expand (int64_1, after_list)
    all_values = Neg (list_1)
    vector_shape = Concat <axis = 0> (all_values, ones)"""
    return lines + "".join(f"\n    {v}_shaped = Reshape ({v}, vector_shape)" for v in vectors)
