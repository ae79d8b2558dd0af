"""Conv: one- and two-dimensional convolutions, with groups, bias and the following activation."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.graph.match import input_at
from onnxq.graph.refusal import RefusedError
from onnxq.lowering import nhwc, output
from onnxq.lowering.integers import weight_of
from onnxq.lowering.layers import accumulate, bias_of, per_channel, rescale_layer, stored
from onnxq.lowering.ledger import Work
from onnxq.lowering.windows import sizes_of, windows_of


def lower_conv(work: Work, node: gs.Node) -> None:
    """A Conv of codes with a constant weight. Raises RefusedError."""
    x = work.codes(node.inputs[0])
    weight = weight_of(node.inputs[1])
    spatial = weight.codes.ndim - 2
    if spatial not in (1, 2):
        raise RefusedError(f"it is a {spatial}-D convolution")
    channels = weight.codes.shape[0]
    scale, zero = per_channel(weight, 0, channels)
    codes, zero_codes, kind = weight.signed()
    zero_points = np.asarray(zero - (weight.zero_point.flat[0] - zero_codes.flat[0])).reshape(-1)
    centred = codes - zero_points.reshape(-1, *[1] * (codes.ndim - 1))
    bias = bias_of(input_at(node, 2), channels)
    acc = accumulate(x, centred, np.asarray(x.scale * scale), bias)
    windows = windows_of(node, list(weight.codes.shape[2:]), sizes_of(node.inputs[0], spatial))

    made = output.plan(work, node.outputs[0], acc.scale, 1, acc.low, acc.high, may_be_raw=True)
    how = rescale_layer(work, acc, made, bias)
    sources = [node, *made.nodes()]
    picture = nhwc.image(work, x.tensor, spatial)
    groups = int(node.attrs.get("group", 1))
    target = output.settle(work, made, [node])
    written = nhwc.new_image(work, target, spatial)
    arranged = np.moveaxis(codes if spatial == 2 else codes[:, :, None], 1, -1)
    constants = [
        stored(work, weight, arranged, kind, "ohwi"),
        work.constant(f"{target.name}_bias", acc.bias.astype(np.int32)),
        *work.vectors(target.name, how),
        work.constant(f"{target.name}_w_zero_point", zero_points.astype(np.int8)),
    ]
    attrs = {**windows.attributes(), "group": groups, "x_zero_point": x.zero_point, **made.attributes()}
    work.own("Conv", [picture, *constants], written, attrs, sources, how, target)
    nhwc.leave(work, written, target, spatial)


HANDLERS = {"Conv": lower_conv}
