"""ConvTranspose as a convolution: one per phase of the stride, interleaved by DepthToSpace.

With kernel k, stride s and J = ceil(k / s), output row q·s + r is the sum over j < J of x[q − j] · w[r + s·j]: a
convolution with J taps for each of the s phases r, over an input padded by J − 1. The phases are channels of one Conv,
[N, M·s², H + J − 1, W + J − 1]; DepthToSpace rearranges them to [N, M, (H + J − 1)·s, (W + J − 1)·s], and a Slice
removes what the pads crop. With stride 1 it is a convolution with the flipped kernel.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.graph.match import input_at
from onnxq.graph.refusal import RefusedError
from onnxq.lowering import nhwc, output
from onnxq.lowering.integers import weight_of
from onnxq.lowering.layers import accumulate, bias_of, per_channel, rescale_layer, stored
from onnxq.lowering.ledger import Work

END = np.iinfo(np.int64).max


def lower_transposed(work: Work, node: gs.Node) -> None:
    """A two-dimensional ConvTranspose of codes with a constant weight. Raises RefusedError."""
    x = work.codes(node.inputs[0])
    weight = weight_of(node.inputs[1])
    if weight.codes.ndim != 4:
        raise RefusedError(f"it is a {weight.codes.ndim - 2}-D transposed convolution")
    if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or "output_shape" in node.attrs:
        raise RefusedError("its pads depend on its output_shape")
    groups = int(node.attrs.get("group", 1))
    strides, dilations = (list(node.attrs.get(k) or [1, 1]) for k in ("strides", "dilations"))
    pads, extra = list(node.attrs.get("pads") or [0] * 4), list(node.attrs.get("output_padding") or [0, 0])
    stride = strides[0]
    if strides[1] != stride or (stride > 1 and dilations != [1, 1]):
        raise RefusedError(f"strides {strides} with dilations {dilations} do not map to a convolution and DepthToSpace")
    each = weight.codes.shape[1]
    scale, zero = per_channel(weight, 1, each)
    codes, zero_codes, kind = weight.signed()
    zero = zero - (weight.zero_point.flat[0] - zero_codes.flat[0])
    phases = stride * stride
    spread = [np.repeat(np.tile(v, groups), phases) if v.ndim else v for v in (scale, np.asarray(zero))]
    zero_points = spread[1].reshape(-1).astype(np.int64)
    taps = [-(-k // stride) for k in codes.shape[2:]]
    arranged = _phases(codes, zero, groups, stride, taps)
    bias = bias_of(input_at(node, 2), each * groups)
    acc = accumulate(
        x,
        arranged - zero_points.reshape(-1, 1, 1, 1),
        np.asarray(x.scale * spread[0]),
        None if bias is None else bias.repeated(phases),
    )
    if stride == 1:
        around = [(t - 1) * d - p for t, d, p in zip(taps * 2, dilations * 2, pads, strict=True)]
        around[2:] = [a + e for a, e in zip(around[2:], extra, strict=True)]
        crop = [0] * 4
    else:
        around = [t - 1 for t in taps] * 2
        kept = [stride * t - k - e for t, k, e in zip(taps, codes.shape[2:], extra, strict=True)]
        crop = [pads[0], pads[1], *(p + k for p, k in zip(pads[2:], kept, strict=True))]
    if min(*around, *crop) < 0:
        raise RefusedError(f"pads {pads} and output_padding {extra} reach beyond its kernel")
    made = output.plan(work, node.outputs[0], acc.scale, 1, acc.low, acc.high, may_be_raw=stride == 1)
    if made.type == "int32" and stride > 1:
        raise RefusedError("no QuantizeLinear follows it, and DepthToSpace needs 8 bits")
    how = rescale_layer(work, acc, made, bias)
    sources = [node, *made.nodes()]
    picture = nhwc.image(work, x.tensor, 2)
    target = output.settle(work, made, [node])
    whole = target if stride == 1 else work.variable(f"{target.name}_phases", made.type, None)
    written = nhwc.new_image(work, whole, 2)
    constants = [
        stored(work, weight, np.moveaxis(arranged, 1, -1), kind, f"phases{stride}_{groups}"),
        work.constant(f"{target.name}_bias", acc.bias.astype(np.int32)),
        *work.vectors(target.name, how),
        work.constant(f"{target.name}_w_zero_point", zero_points.astype(np.int8)),
    ]
    attrs = {
        "strides": [1, 1],
        "pads": around,
        "dilations": dilations,
        "group": groups,
        "x_zero_point": x.zero_point,
        **made.attributes(),
    }
    work.own("Conv", [picture, *constants], written, attrs, sources, how, whole)
    nhwc.leave(work, written, whole, 2)
    if stride > 1:
        _interleave(work, whole, target, stride, crop)


def _phases(codes: NDArray, zero: NDArray, groups: int, stride: int, taps: list[int]) -> NDArray[np.int64]:
    """w [C, M/g, kH, kW] as the weight of a Conv, [M·s², C/g, JH, JW], whose channels are m·s² + phase."""
    inputs, each = codes.shape[:2]
    full = np.empty((inputs, each, taps[0] * stride, taps[1] * stride), np.int64)
    full[:] = np.broadcast_to(np.asarray(zero).reshape(-1, 1, 1), (each, 1, 1))  # missing taps contribute nothing
    full[:, :, : codes.shape[2], : codes.shape[3]] = codes
    # [g, C/g, M/g, JH, s, JW, s], the taps flipped
    parts = full.reshape(groups, inputs // groups, each, taps[0], stride, taps[1], stride)[:, :, :, ::-1, :, ::-1]
    found: NDArray[np.int64] = parts.transpose(0, 2, 4, 6, 1, 3, 5).reshape(
        groups * each * stride * stride, inputs // groups, *taps
    )
    return found


def _interleave(work: Work, whole: gs.Tensor, target: gs.Tensor, stride: int, crop: list[int]) -> None:
    """DepthToSpace, and a Slice of the part to keep."""
    cropped = any(crop)
    spaced = work.variable(f"{target.name}_spaced", np.dtype(target.dtype).name, None) if cropped else target
    work.node("DepthToSpace", [whole], [spaced], {"blocksize": stride, "mode": "CRD"})
    if cropped:
        ends = [-c if c else END for c in crop[2:]]
        bounds = [
            work.constant(f"{target.name}_{name}", np.asarray(values, np.int64))
            for name, values in (("starts", crop[:2]), ("ends", ends), ("axes", [2, 3]))
        ]
        work.node("Slice", [spaced, *bounds], [target])


HANDLERS = {"ConvTranspose": lower_transposed}
