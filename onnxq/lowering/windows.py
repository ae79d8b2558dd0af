"""Windows of convolutions and pools: strides, dilations and pads of a node, with auto_pad and ceil_mode resolved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.graph.refusal import Refused, RefusedError


@dataclass(frozen=True)
class Windows:
    """Windows over H and W; 1-D ones have H = 1. pads: ONNX's order, (top, left, bottom, right), none negative.

    counts: divisors of a mean in elements, int64 [OH, OW, 1] if they vary, else [1]; set for pools.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]

    def attributes(self) -> dict[str, list[int]]:
        """Attributes of com.onnxq operators, without the kernel size."""
        return {"strides": list(self.strides), "pads": list(self.pads), "dilations": list(self.dilations)}


def sizes_of(tensor: gs.Tensor, rank: int) -> list[int | None]:
    """Sizes along the spatial axes of [N, C, …], None where unknown."""
    if tensor.shape is None:
        return [None] * rank
    return [d if isinstance(d, int) else None for d in tensor.shape[2:]]


def disputed_padding(node: gs.Node) -> Refused | None:
    """Why the windows of a pool are not certain; None if they are.

    With auto_pad SAME_UPPER and SAME_LOWER onnxruntime 1.32 pads for windows without gaps, and makes smaller results
    than ONNX says.
    """
    mode = node.attrs.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID") or all(d == 1 for d in node.attrs.get("dilations") or ()):
        return None
    return Refused(f"it has dilations and auto_pad {mode}, on which runtimes disagree")


def windows_of(node: gs.Node, kernel: list[int], sizes: list[int | None]) -> Windows:
    """The windows of a Conv or pool node; kernel and sizes (of the input) along its one or two spatial axes.

    Raises RefusedError if they depend on unknown sizes.
    """
    rank = len(kernel)
    strides = _listed(node, "strides", [1] * rank)
    dilations = _listed(node, "dilations", [1] * rank)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    begins, ends = _pads(node, rank, strides, reach, sizes)
    if int(node.attrs.get("ceil_mode", 0)):
        for i in range(rank):
            ends[i] = _ceil_end(sizes[i], reach[i], strides[i], begins[i], ends[i])
    if rank == 1:
        kernel, strides, dilations = [1, *kernel], [1, *strides], [1, *dilations]
        begins, ends = [0, *begins], [0, *ends]
    if min(*begins, *ends) < 0:
        raise RefusedError("it crops its input (negative pads)")
    return Windows(
        (kernel[0], kernel[1]), (strides[0], strides[1]), (dilations[0], dilations[1]),
        (begins[0], begins[1], ends[0], ends[1]),
    )  # fmt: skip


def _listed(node: gs.Node, name: str, default: list[int]) -> list[int]:
    return [int(v) for v in node.attrs.get(name) or default]


def _pads(
    node: gs.Node, rank: int, strides: list[int], reach: list[int], sizes: list[int | None]
) -> tuple[list[int], list[int]]:
    """Pads before and after along each axis."""
    mode = node.attrs.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        pads = _listed(node, "pads", [0] * 2 * rank) if mode == "NOTSET" else [0] * 2 * rank
        return pads[:rank], pads[rank:]
    begins, ends = [], []
    for size, stride, length in zip(sizes, strides, reach, strict=True):
        if size is None:
            raise RefusedError(f"auto_pad {mode} depends on unknown sizes")
        total = max((-(-size // stride) - 1) * stride + length - size, 0)
        smaller = total // 2
        begins.append(smaller if mode == "SAME_UPPER" else total - smaller)
        ends.append(total - begins[-1])
    return begins, ends


def outputs(size: int, length: int, stride: int, begin: int, end: int) -> int:
    """Number of windows along an axis; the last one is complete."""
    return (size + begin + end - length) // stride + 1


def _ceil_end(size: int | None, length: int, stride: int, begin: int, end: int) -> int:
    """The end pad with which the partial windows of ceil_mode become complete. Raises RefusedError."""
    if size is None:
        raise RefusedError("ceil_mode depends on unknown sizes")
    count = -(-(size + begin + end - length) // stride) + 1
    if (count - 1) * stride >= size + begin:
        count -= 1  # the last window would start beyond the input
    return max(end, (count - 1) * stride + length - size - begin)


def valid_counts(size: int, length: int, step: int, stride: int, begin: int, end: int) -> NDArray[np.int64]:
    """Number of non-padding elements of each window along an axis. length: of the kernel; step: its dilation."""
    count = outputs(size, (length - 1) * step + 1, stride, begin, end)
    places = np.arange(count)[:, None] * stride - begin + np.arange(length)[None, :] * step
    found: NDArray[np.int64] = ((places >= 0) & (places < size)).sum(axis=1)
    return found
