"""Averages: pools, means and sums over axes. The divisor is part of the multiplier."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.graph.axes import reduced_axes
from onnxq.graph.refusal import RefusedError
from onnxq.lowering import nhwc, output
from onnxq.lowering.integers import Integers
from onnxq.lowering.layers import ACC_MAX
from onnxq.lowering.ledger import Work
from onnxq.lowering.requantize import one_scale
from onnxq.lowering.rescale import Rescale, rescale
from onnxq.lowering.windows import Windows, disputed_padding, outputs, sizes_of, valid_counts, windows_of


def lower_average_pool(work: Work, node: gs.Node) -> None:
    """An AveragePool along one or two axes. Raises RefusedError."""
    value = work.integers(node.inputs[0])
    rank = len(node.attrs["kernel_shape"])
    if rank not in (1, 2):
        raise RefusedError(f"it pools along {rank} axes")
    if (refused := disputed_padding(node)) is not None:
        raise RefusedError(refused.reason)
    sizes = sizes_of(node.inputs[0], rank)
    windows = windows_of(node, [int(k) for k in node.attrs["kernel_shape"]], sizes)
    counts = divisors(node, windows, [1, *sizes] if rank == 1 else sizes)
    elements = windows.kernel[0] * windows.kernel[1]
    value = _summable(work, node, value, elements)
    made, how, sources = _planned(work, node, value, elements, counts)
    picture = nhwc.image(work, value.tensor, rank)
    target = output.settle(work, made, [node])
    written = nhwc.new_image(work, target, rank)
    attrs = {
        "kernel_shape": list(windows.kernel),
        **windows.attributes(),
        "x_zero_point": value.zero_point,
        **made.attributes(),
    }
    work.own("AveragePool", [picture, *work.vectors(target.name, how)], written, attrs, sources, how, target)
    nhwc.leave(work, written, target, rank)


def divisors(node: gs.Node, windows: Windows, sizes: list[int | None]) -> NDArray[np.float64]:
    """The divisor of each window's sum: () if it is the same everywhere, else (OH, OW, 1)."""
    kernel, steps, strides, pads = windows.kernel, windows.dilations, windows.strides, windows.pads
    declared = [int(p) for p in node.attrs.get("pads") or [0] * 2 * (len(kernel) if len(sizes) == 2 else 1)]
    if not any(pads):
        return np.asarray(float(kernel[0] * kernel[1]))
    include = bool(int(node.attrs.get("count_include_pad", 0)))
    if include and not int(node.attrs.get("ceil_mode", 0)):
        return np.asarray(float(kernel[0] * kernel[1]))
    along = []
    for i in (0, 1):
        size = sizes[i]
        if size is None:
            raise RefusedError("the number of elements in its windows depends on unknown sizes")
        begin, end = pads[i], pads[i + 2]
        if include:  # explicit padding counts, padding added by ceil_mode does not
            count = outputs(size, (kernel[i] - 1) * steps[i] + 1, strides[i], begin, end)
            asked = _asked_end(node, declared, i, end)
            places = np.arange(count)[:, None] * strides[i] - begin + np.arange(kernel[i])[None, :] * steps[i]
            along.append((places < size + asked).sum(axis=1))
        else:
            along.append(valid_counts(size, kernel[i], steps[i], strides[i], begin, end))
    found = along[0][:, None, None] * along[1][None, :, None]
    return found.astype(np.float64) if (found != found.flat[0]).any() else np.asarray(float(found.flat[0]))


def _asked_end(node: gs.Node, declared: list[int], axis: int, end: int) -> int:
    """The padding at the end without that added by ceil_mode."""
    if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return end
    spatial = len(declared) // 2
    own = axis - (2 - spatial)
    return declared[spatial + own] if own >= 0 else 0


def lower_mean(work: Work, node: gs.Node) -> None:
    """GlobalAveragePool, ReduceMean and ReduceSum over known sizes. Raises RefusedError."""
    value = work.integers(node.inputs[0])
    shape = value.tensor.shape
    if shape is None:
        raise RefusedError("the rank of its input is unknown")
    rank = len(shape)
    axes, keep = _axes(node, rank)
    if not axes:
        raise RefusedError("it reduces nothing")
    sizes = [shape[i] for i in axes]
    if not all(isinstance(d, int) for d in sizes):
        raise RefusedError(f"the number of elements that it averages is unknown: {sizes}")
    if axes != list(range(axes[0], axes[-1] + 1)):
        raise RefusedError(f"its axes {axes} are not adjacent")
    elements = int(np.prod(sizes))
    if elements == 0:
        raise RefusedError("it averages zero elements")
    value = _summable(work, node, value, elements)
    divisor = np.asarray(1.0 if node.op == "ReduceSum" else float(elements))
    made, how, sources = _planned(work, node, value, elements, divisor)
    picture = rank in (3, 4) and axes == list(range(2, rank))
    spatial = rank - 2
    source = nhwc.image(work, value.tensor, spatial) if picture else value.tensor
    target = output.settle(work, made, [node])
    last = picture and keep
    written = nhwc.new_image(work, target, spatial) if last else target
    attrs = {
        "axes": [1, 2] if picture else axes,
        "keepdims": int(keep),
        "x_zero_point": value.zero_point,
        **made.attributes(),
    }
    work.own("ReduceMean", [source, *work.vectors(target.name, how)], written, attrs, sources, how, target)
    if last:
        nhwc.leave(work, written, target, spatial)


def _axes(node: gs.Node, rank: int) -> tuple[list[int], bool]:
    """The axes that a node reduces, sorted and non-negative, and whether they are kept with length 1."""
    if node.op == "GlobalAveragePool":
        return list(range(2, rank)), True
    axes = reduced_axes(node, rank)
    if axes is None:
        raise RefusedError("its axes are computed at run time")
    return axes, bool(int(node.attrs.get("keepdims", 1)))


def _summable(work: Work, node: gs.Node, value: Integers, elements: int) -> Integers:
    """The value with one scale, such that the sum of this many elements fits in int32. Raises RefusedError."""
    if not value.wide and value.axis is None:
        if value.reach * elements > ACC_MAX:
            raise RefusedError(f"its sum could reach {value.reach * elements}, beyond int32 ({ACC_MAX})")
        return value
    return one_scale(work, value, node.inputs[0].name, [node], reach=float(ACC_MAX // elements))


def _planned(
    work: Work, node: gs.Node, value: Integers, elements: int, divisor: NDArray[np.float64]
) -> tuple[output.Plan, Rescale, list[gs.Node]]:
    """The planned output, and the rescale of its sums."""
    scale = value.scale / divisor
    low, high = (elements * (int(np.max(v)) - value.zero_point) for v in (value.low, value.high))
    smallest = np.asarray(float(np.max(scale)))
    made = output.plan(work, node.outputs[0], smallest, None, np.asarray(min(low, 0)), np.asarray(max(high, 0)))
    how = rescale(work.form, [scale / made.unit], [value.reach * elements])
    return made, how, [node, *made.nodes()]


HANDLERS = {
    "AveragePool": lower_average_pool,
    **dict.fromkeys(("GlobalAveragePool", "ReduceMean", "ReduceSum"), lower_mean),
}
