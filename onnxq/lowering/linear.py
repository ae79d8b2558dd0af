"""Gemm and MatMul, with a constant matrix and a following bias, or of two activations."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.graph.match import constant_values, input_at, is_constant, is_op
from onnxq.graph.qdq import constant_reals, dequantizer, is_quantized_constant
from onnxq.graph.refusal import RefusedError
from onnxq.lowering import output
from onnxq.lowering.integers import EIGHT_BIT, Integers, Weight, dequantized, weight_of
from onnxq.lowering.layers import ACC_MAX, Bias, accumulate, bias_of, per_channel, rescale_layer, stored
from onnxq.lowering.ledger import Work
from onnxq.lowering.rescale import IDENTITY, rescale


def lower_gemm(work: Work, node: gs.Node) -> None:
    """A Gemm with a constant B: alpha is folded into the scale, beta into the bias. Raises RefusedError."""
    alpha, beta = float(node.attrs.get("alpha", 1.0)), float(node.attrs.get("beta", 1.0))
    if not alpha > 0:
        raise RefusedError(f"alpha is {alpha}, but a rescale needs a positive factor")
    x = work.codes(node.inputs[0])
    weight = weight_of(node.inputs[1])
    rows = 0 if node.attrs.get("transB", 0) else 1
    channels = weight.codes.shape[rows]
    bias = bias_of(input_at(node, 2), channels)
    _lower(
        work,
        node,
        x,
        weight,
        rows,
        None if bias is None else bias.times(beta),
        alpha,
        bool(node.attrs.get("transA", 0)),
        [],
    )


def lower_matmul(work: Work, node: gs.Node) -> None:
    """A MatMul by a constant matrix (a layer), or of two activations. Raises RefusedError."""
    second = node.inputs[1]
    if is_constant(second) or is_quantized_constant(second):
        weight = weight_of(second)
        if weight.codes.ndim == 2:
            x = work.codes(node.inputs[0])
            if x.tensor.shape is not None and len(x.tensor.shape) < 2:
                raise RefusedError("its first factor is a vector")
            add, bias = _bias_behind(work, node, weight.codes.shape[1])
            _lower(work, node, x, weight, 1, bias, 1.0, False, [] if add is None else [add])
            return
    _lower_product(work, node)


def _bias_behind(work: Work, node: gs.Node, channels: int) -> tuple[gs.Node | None, Bias | None]:
    """The Add of one constant per channel that is the only reader, and the values that it adds."""
    add = work.sole_reader(node.outputs[0])
    if add is None or not is_op(add, "Add") or add.inputs[0] is add.inputs[1]:
        return None, None
    other = add.inputs[1] if add.inputs[0] is node.outputs[0] else add.inputs[0]
    values = constant_reals(other)
    if values is None or values.size not in (1, channels) or (values.size > 1 and values.shape[-1] != values.size):
        return None, None
    if node.outputs[0].shape is not None and values.ndim > len(node.outputs[0].shape):
        return None, None
    return add, bias_of(other, channels)


def _lower(
    work: Work,
    node: gs.Node,
    x: Integers,
    weight: Weight,
    channel_axis: int,
    bias: Bias | None,
    factor: float,
    transpose: bool,
    behind: list[gs.Node],
) -> None:
    """x times a constant matrix with output channels on channel_axis; behind: following nodes that are part of it."""
    channels = weight.codes.shape[channel_axis]
    scale, zero = per_channel(weight, channel_axis, channels)
    codes, zero_codes, kind = weight.signed()
    zero_points = np.asarray(zero - (weight.zero_point.flat[0] - zero_codes.flat[0])).reshape(-1)
    rows = codes if channel_axis == 0 else codes.T
    acc = accumulate(x, rows - zero_points[:, None], np.asarray(x.scale * scale * factor), bias)
    result = (behind[-1] if behind else node).outputs[0]
    axis = None if result.shape is None else len(result.shape) - 1
    made = output.plan(work, result, acc.scale, axis, acc.low, acc.high, may_be_raw=axis is not None)
    how = rescale_layer(work, acc, made, bias)
    sources = [node, *behind, *made.nodes()]
    target = output.settle(work, made, [node, *behind])
    source = x.tensor
    if transpose:
        shape = None if source.shape is None else list(reversed(source.shape))
        source = work.variable(f"{source.name}_transposed", x.type, shape)
        work.node("Transpose", [x.tensor], [source], {"perm": [1, 0]})
    constants = [
        stored(work, weight, rows.T, kind, "kn" if channel_axis else "nk_kn"),
        work.constant(f"{target.name}_bias", acc.bias.astype(np.int32)),
        *work.vectors(target.name, how),
        work.constant(f"{target.name}_w_zero_point", zero_points.astype(np.int8)),
    ]
    work.own("Gemm", [source, *constants], target, {"x_zero_point": x.zero_point, **made.attributes()}, sources, how)


def _lower_product(work: Work, node: gs.Node) -> None:
    """A product of two activations, or of one and a constant that is not a matrix."""
    factors = [_factor(work, tensor, i) for i, tensor in enumerate(node.inputs[:2])]
    a, b = factors
    for f in factors:
        if f.tensor.shape is None or len(f.tensor.shape) < 2:
            raise RefusedError("a factor is a vector, or its rank is unknown")
    lengths = {d for d in (a.tensor.shape[-1], b.tensor.shape[-2]) if isinstance(d, int)}
    most = ACC_MAX // max(a.reach * b.reach, 1)
    # Sums of unknown length are assumed to be the longest that fit: the kernel rejects longer ones.
    length = max(lengths, default=most)
    if length > most:
        raise RefusedError(f"its accumulator could reach {length * a.reach * b.reach}, beyond int32 ({ACC_MAX})")
    scale, reach = np.asarray(a.scale * b.scale), length * a.reach * b.reach
    made = output.plan(work, node.outputs[0], scale, None, np.asarray(-reach), np.asarray(reach), may_be_raw=True)
    how = IDENTITY if made.raw else rescale(work.form, [scale / made.unit], [reach])
    sources = [node, *made.nodes()]
    target = output.settle(work, made, [node])
    attrs = {"a_zero_point": a.zero_point, "b_zero_point": b.zero_point, **made.attributes()}
    work.own("MatMul", [a.tensor, b.tensor, *work.vectors(target.name, how)], target, attrs, sources, how)


def _factor(work: Work, tensor: gs.Tensor, index: int) -> Integers:
    """A factor of a product: 8-bit codes, of an activation or of a constant."""
    what = f"its {('first', 'second')[index]} factor"
    if not is_quantized_constant(tensor):
        return work.codes(tensor, what)
    node = dequantizer(tensor)
    assert node is not None
    value = dequantized(node) if constant_values(node.inputs[0]) is not None else None
    if value is None or value.type not in EIGHT_BIT or value.axis is not None:
        raise RefusedError(f"{what} is a constant with more than one scale or without 8-bit codes")
    return value


HANDLERS = {"Gemm": lower_gemm, "MatMul": lower_matmul}
