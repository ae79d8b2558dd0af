"""Write Pad, Resize and CenterCropPad in the form that survives in any layout: one entry for each dimension.

onnxruntime moves Transposes through them as if they had an entry for each dimension, and then does not load or run the
model (1.31, between quantized convolutions). With known sizes CenterCropPad becomes Pad and Slice, which targets know.

  Pad(x, p, v, axes)               Pad(x, p', v)             p' = 0 except at axes
  Resize<axes>(x, roi, s, n)       Resize(x, roi', s', n')   s' = 1, n' = the size of x, roi' = 0 to 1 except at axes
  CenterCropPad<axes>(x, n)        Slice(Pad(x))             CenterCropPad(x, n') where a size is only known at run time
  Resize<cubic>(x, s)              Reshape, Resize, Reshape  s < 1: onnxruntime has it in no other layout than this one
  Resize<axes, not_larger>(x, n)   Resize(x, n')             or between Reshapes, where the sizes of x are not known
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.context import PassContext
from onnxq.graph.match import Names, constant_values, consumers, input_at, is_op, producer, rank
from onnxq.graph.refusal import Refused
from onnxq.graph.sweep import sweep
from onnxq.pipeline import Pass, PassResult


@dataclass(frozen=True)
class ExpandAxes(Pass):
    """Write Pad, Resize and CenterCropPad of some axes in full, and keep cubic Resize from being moved."""

    name: ClassVar[str] = "expand-axes"
    preserves_values: ClassVar[bool] = True

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        names = Names(graph)
        # Older operators have no axes, but Pad then has an input less, and Resize may be cubic.
        steps = {"Pad": _pad, "Resize": _resize, "CenterCropPad": _center}
        return PassResult(
            *sweep(graph, lambda g, node: steps[node.op](g, node, names) if is_op(node, *steps) else False)
        )


def _pad(graph: gs.Graph, node: gs.Node, names: Names) -> bool | Refused:
    listed = input_at(node, 3)
    if listed is None:
        return False
    axes = _axes(node, constant_values(listed))
    if isinstance(axes, Refused):
        return axes
    size = rank(node.inputs[0])
    assert size is not None
    at = np.array([*axes, *(a + size for a in axes)], np.int64)
    pads = _scattered(graph, node, names, np.zeros(2 * size, np.int64), at, node.inputs[1], "pads")
    value = input_at(node, 2)
    node.inputs = [node.inputs[0], pads, *([] if value is None else [value])]
    return True


def _resize(graph: gs.Graph, node: gs.Node, names: Names) -> bool | Refused:
    if "axes" not in node.attrs:
        return _stay_put(graph, node, names)
    axes = _axes(node, np.asarray(node.attrs["axes"], np.int64))
    if isinstance(axes, Refused):
        return axes
    size, at = rank(node.inputs[0]), np.array(axes, np.int64)
    assert size is not None
    roi, scales, sizes = (_given(node, i) for i in (1, 2, 3))
    if sizes is not None and node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        found = _policy_sizes(node, axes, sizes)
        if found is None:
            return _in_one_channel(graph, node, names, axes)
        sizes = gs.Constant(names.fresh(f"{node.name}_sizes"), found)
        node.attrs.pop("keep_aspect_ratio_policy")
    if sizes is not None:
        node.inputs[3] = _full_sizes(graph, node, names, at, sizes)
    elif scales is not None:
        while len(node.inputs) < 3:
            node.inputs.append(gs.Variable.empty())
        node.inputs[2] = _scattered(graph, node, names, np.ones(size, np.float32), at, scales, "scales")
    if roi is not None:
        whole = np.repeat(np.array([0, 1], np.dtype(roi.dtype)), size)
        both = np.concatenate([at, at + size])
        node.inputs[1] = _scattered(graph, node, names, whole, both, roi, "roi")
    del node.attrs["axes"]
    _stay_put(graph, node, names)
    return True


def _stay_put(graph: gs.Graph, node: gs.Node, names: Names) -> bool:
    """Cubic Resize that shrinks has one channel, between Reshapes through which nothing is moved."""
    x, y = node.inputs[0], node.outputs[0]
    if node.attrs.get("mode") != "cubic" or int(node.attrs.get("antialias", 0)) or x.shape is None:
        return False
    scales, sizes = (None if t is None else constant_values(t) for t in (_given(node, 2), _given(node, 3)))
    if len(x.shape) != 4 or not isinstance(x.shape[1], int) or x.shape[1] == 1:
        return False
    if scales is not None:
        if not np.array_equal(scales[:2], [1, 1]) or np.all(scales >= 1):
            return False
    else:
        is_known = sizes is not None and all(isinstance(d, int) for d in x.shape)
        if sizes is None or not is_known or list(sizes[:2]) != list(x.shape[:2]) or np.all(sizes >= x.shape):
            return False
        full = np.array([x.shape[0] * x.shape[1], 1, *sizes[2:]], np.int64)
        node.inputs[3] = gs.Constant(names.fresh(f"{node.name}_sizes"), full)
    _between_reshapes(graph, node, names, x, y)
    return True


def _center(graph: gs.Graph, node: gs.Node, names: Names) -> bool | Refused:
    x = node.inputs[0]
    size = rank(x)
    listed = np.asarray(node.attrs["axes"], np.int64) if "axes" in node.attrs else None
    if listed is None and size is None:
        return False
    axes = _axes(node, np.arange(size or 0) if listed is None else listed)
    if isinstance(axes, Refused):
        return axes
    target = constant_values(node.inputs[1])
    now = [x.shape[a] for a in axes]
    if target is not None and all(isinstance(d, int) for d in now) and x.dtype is not None:
        return _pad_and_slice(graph, node, names, axes, now, target.reshape(-1).tolist())
    if listed is None:
        return False
    node.inputs[1] = _full_sizes(graph, node, names, np.array(axes, np.int64), node.inputs[1])
    del node.attrs["axes"]
    return True


def _pad_and_slice(
    graph: gs.Graph, node: gs.Node, names: Names, axes: Sequence[int], now: Sequence[int], target: Sequence[int]
) -> bool:
    """Pad where the target is larger, with the odd one at the end, then Slice where it is smaller."""
    x, size = node.inputs[0], len(node.inputs[0].shape)
    pads = np.zeros(2 * size, np.int64)
    middle = list(x.shape)
    for axis, old, new in zip(axes, now, target, strict=True):
        missing = max(new - old, 0)
        pads[axis], pads[size + axis] = missing // 2, missing - missing // 2
        middle[axis] = max(old, new)
    starts = np.array([max(old - new, 0) // 2 for old, new in zip(now, target, strict=True)], np.int64)
    is_padded, is_cropped = bool(pads.any()), any(old > new for old, new in zip(now, target, strict=True))

    def constant(name: str, values: NDArray) -> gs.Constant:
        return gs.Constant(names.fresh(f"{node.name}_{name}"), values)

    if is_cropped:
        source = x
        if is_padded:
            source = gs.Variable(names.fresh(f"{node.name}_padded"), x.dtype, middle)
            first = gs.Node("Pad", names.fresh(f"{node.name}_Pad"), {}, [x, constant("pads", pads)], [source])
            graph.nodes.insert(_position(graph, node), first)
        ends = starts + np.asarray(target, np.int64)
        node.op, node.inputs = (
            "Slice",
            [
                source,
                constant("starts", starts),
                constant("ends", ends),
                constant("axes", np.asarray(axes, np.int64)),
            ],
        )
    else:
        node.op, node.inputs = "Pad", [x, constant("pads", pads)]
    node.attrs.pop("axes", None)
    return True


def _axes(node: gs.Node, values: NDArray | None) -> list[int] | Refused:
    """The axes, non-negative, or why they cannot be written out."""
    size = rank(node.inputs[0])
    if values is None:
        return Refused("its axes are computed at run time")
    if size is None:
        return Refused("the rank of its input is not known")
    axes = [int(a) % size for a in values.reshape(-1)]
    return axes if len(set(axes)) == len(axes) else Refused("it names an axis twice")


def _given(node: gs.Node, index: int) -> gs.Tensor | None:
    """The input, unless it is omitted: also as a constant without elements, as older opsets require."""
    tensor = input_at(node, index)
    values = None if tensor is None else constant_values(tensor)
    return None if values is not None and not values.size else tensor


def _policy_sizes(node: gs.Node, axes: Sequence[int], sizes: gs.Tensor) -> NDArray[np.int64] | None:
    """The output's sizes, if all axes then have the one scale that keeps the aspect ratio; None if not known to."""
    policy, wanted = node.attrs["keep_aspect_ratio_policy"], constant_values(sizes)
    now = [node.inputs[0].shape[a] for a in axes]
    if wanted is None or not all(isinstance(d, int) and d > 0 for d in now):
        return None
    choose = min if policy == "not_larger" else max
    scale = choose(Fraction(int(w), d) for w, d in zip(wanted.reshape(-1), now, strict=True))
    exact = [scale * d for d in now]
    return np.array([int(e) for e in exact], np.int64) if all(e.denominator == 1 for e in exact) else None


def _in_one_channel(graph: gs.Graph, node: gs.Node, names: Names, axes: list[int]) -> bool | Refused:
    """Keep the axes and the policy, in one channel between Reshapes through which nothing is moved."""
    x, y = node.inputs[0], node.outputs[0]
    why = f"it has axes and {node.attrs['keep_aspect_ratio_policy']}, and its sizes are no multiples of its input's"
    size = rank(x)
    if size == 4 and x.shape[1] == 1 and _is_between_reshapes(node):
        return False
    if size != 4 or min(axes) < 2 or not isinstance(x.shape[1], int):
        return Refused(f"{why}; that takes images with a known number of channels")
    node.attrs["axes"] = axes
    _between_reshapes(graph, node, names, x, y)
    return True


def _is_between_reshapes(node: gs.Node) -> bool:
    before, after = producer(node.inputs[0]), consumers(node.outputs[0])
    return before is not None and is_op(before, "Reshape") and [n.op for n in after] == ["Reshape"]


def _between_reshapes(graph: gs.Graph, node: gs.Node, names: Names, x: gs.Tensor, y: gs.Tensor) -> None:
    """Reshape, the node on pictures of one channel each, Reshape. The number of channels of x is known."""
    apart = gs.Variable(names.fresh(f"{node.name}_apart"), x.dtype)
    resized = gs.Variable(names.fresh(f"{node.name}_resized"), x.dtype)
    split = gs.Constant(names.fresh(f"{node.name}_one_channel"), np.array([-1, 1, 0, 0], np.int64))
    joined = gs.Constant(names.fresh(f"{node.name}_channels"), np.array([-1, x.shape[1], 0, 0], np.int64))
    at = _position(graph, node)
    before = gs.Node("Reshape", names.fresh(f"{node.name}_Reshape"), {}, [x, split], [apart])
    node.inputs[0], node.outputs = apart, [resized]
    after = gs.Node("Reshape", names.fresh(f"{node.name}_Reshape"), {}, [resized, joined], [y])
    graph.nodes[at : at + 1] = [before, node, after]


def _full_sizes(graph: gs.Graph, node: gs.Node, names: Names, at: NDArray[np.int64], sizes: gs.Tensor) -> gs.Tensor:
    """The size of the node's input with `sizes` in place of some."""
    x, values = node.inputs[0], constant_values(sizes)
    others = [x.shape[a] for a in range(len(x.shape)) if a not in at]
    if values is not None and all(isinstance(d, int) for d in others):
        full = np.array([d if isinstance(d, int) else 0 for d in x.shape], np.int64)
        full[at] = values
        return gs.Constant(names.fresh(f"{node.name}_sizes"), full)
    now = gs.Variable(names.fresh(f"{node.name}_size"), np.dtype(np.int64), [len(x.shape)])
    shape = gs.Node("Shape", names.fresh(f"{node.name}_Shape"), {}, [x], [now])
    graph.nodes.insert(_position(graph, node), shape)
    return _scatter(graph, node, names, now, at, sizes, "sizes")


def _scattered(
    graph: gs.Graph, node: gs.Node, names: Names, whole: NDArray, at: NDArray[np.int64], part: gs.Tensor, what: str
) -> gs.Tensor:
    """The constant `whole` with `part` at these places."""
    values = constant_values(part)
    if values is None:
        base = gs.Constant(names.fresh(f"{node.name}_all_{what}"), whole)
        return _scatter(graph, node, names, base, at, part, what)
    full = whole.astype(values.dtype)
    full[at] = values.reshape(-1)
    return gs.Constant(names.fresh(f"{node.name}_{what}"), full)


def _scatter(
    graph: gs.Graph, node: gs.Node, names: Names, base: gs.Tensor, at: NDArray[np.int64], part: gs.Tensor, what: str
) -> gs.Variable:
    """A ScatterElements upstream of the node."""
    result = gs.Variable(names.fresh(f"{node.name}_{what}"), base.dtype, list(base.shape))
    where = gs.Constant(names.fresh(f"{node.name}_places"), at)
    scatter = gs.Node("ScatterElements", names.fresh(f"{node.name}_{what}_in_full"), {}, [base, where, part], [result])
    graph.nodes.insert(_position(graph, node), scatter)
    return result


def _position(graph: gs.Graph, node: gs.Node) -> int:
    return next(i for i, n in enumerate(graph.nodes) if n is node)
