"""What windows and weights of convolutions and pools must fulfil: numbers of strides, pads, channels and groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import onnx_graphsurgeon as gs

CONVOLUTIONS = ("Conv", "ConvInteger", "ConvTranspose")
POOLS = ("AveragePool", "LpPool", "MaxPool")
Shapes = Sequence[list[Any] | None]  # of the inputs, where they are certain


def window_problems(node: gs.Node, shapes: Shapes) -> Iterator[str]:
    """What is wrong with kernel_shape, strides, dilations and pads: their numbers, and those that are not positive."""
    if node.op not in CONVOLUTIONS and node.op not in POOLS:
        return
    kernel = node.attrs.get("kernel_shape") or ()
    found = {f"{len(kernel)} kernel lengths": len(kernel)} if kernel else {}
    for what, shape in zip(("input", "weight"), shapes[: 2 if node.op in CONVOLUTIONS else 1], strict=False):
        if shape is not None:
            found[f"{'an' if what == 'input' else 'a'} {what} of shape {shape}"] = len(shape) - 2
    if len(set(found.values())) > 1:
        yield f"{' and '.join(found)} do not fit: there is one window length for each axis but the first two"
    axes = next(iter(found.values()), None)
    if axes is not None and axes < 1:
        yield f"{next(iter(found))} has no axis that a window could move on; its rank must be 3 or more"
    for name, count in (("strides", 1), ("dilations", 1), ("pads", 2)):
        values = list(node.attrs.get(name) or ())
        if values and axes is not None and len(values) != count * axes:
            yield f"its {name} {values} must be {count * axes} numbers"
        if name != "pads" and any(v < 1 for v in values):
            yield f"its {name} {values} must be positive"
    if any(v < 1 for v in kernel):
        yield f"its kernel_shape {list(kernel)} must be positive"


def weight_problems(node: gs.Node, shapes: Shapes) -> Iterator[str]:
    """What is wrong with the channels of a convolution: groups, weight, bias and input must fit each other."""
    if node.op not in CONVOLUTIONS:
        return
    group = int(node.attrs.get("group", 1))
    if group < 1:
        yield f"its group {group} must be positive"
    data, weight = shapes[0], shapes[1]
    if weight is None or group < 1:
        return
    if not all(isinstance(d, int) for d in weight[:2]):  # a model's input with free lengths
        return
    if weight[0] % group:
        yield f"its weight of shape {weight} cannot be divided into {group} groups"
    transposed = node.op == "ConvTranspose"
    inner, outer = (weight[0], weight[1] * group) if transposed else (weight[1] * group, weight[0])
    if data is not None and isinstance(data[1], int) and data[1] >= 0 and data[1] != inner:
        yield f"its weight of shape {weight} in {group} groups is for {inner} input channels, its input has {data[1]}"
    bias = shapes[2] if node.op != "ConvInteger" and len(shapes) > 2 else None
    if bias is None or (len(bias) == 1 and (not isinstance(bias[0], int) or bias[0] in (-1, outer))):
        return
    yield f"its bias of shape {bias} must have one number for each of {outer} output channels"
