"""Marks: what onnxq writes into the metadata of nodes (`metadata_props` in the file) and reads from there again.

Every key is declared here, with its meaning, the type of its value, who writes it and who reads it. Keys and texts
are part of the file format: a model that was written once must be read by later versions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import onnx_graphsurgeon as gs

from onnxq.graph.clamps import Clamp

T = TypeVar("T")


@dataclass(frozen=True)
class Mark(Generic[T]):
    """One metadata key of nodes. parse, render: between its text in the file and its value."""

    key: str
    parse: Callable[[str], T]
    render: Callable[[T], str] = str

    def on(self, node: gs.Node | None) -> bool:
        """Whether the node carries the mark."""
        return node is not None and self.key in getattr(node, "metadata", {})

    def get(self, node: gs.Node | None) -> T | None:
        """The mark's value on the node; None where it is absent or empty. Raises ValueError if it does not parse."""
        text = getattr(node, "metadata", {}).get(self.key)
        return self.parse(text) if text else None

    def set(self, node: gs.Node, value: T) -> None:
        """Put the mark on the node, in place of a former value. The node's other metadata stay as they are."""
        node.metadata = {**getattr(node, "metadata", {}), self.key: self.render(value)}

    def drop(self, node: gs.Node) -> None:
        """Take the mark off the node."""
        node.metadata = {k: v for k, v in getattr(node, "metadata", {}).items() if k != self.key}


class Flattened(NamedTuple):
    """A last dimension that joins dimensions of these sizes, transposed by `perm` before they were joined."""

    sizes: tuple[int, ...]
    perm: tuple[int, ...]


def _parse_bits(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _parse_clamp(text: str) -> Clamp:
    low, high = ("0", "inf") if text == "Relu" else text.split()[1:]
    return Clamp(float(low), float(high))


def _render_clamp(clamp: Clamp) -> str:
    return clamp.op if clamp.op == "Relu" else f"Clip {clamp.low!r} {clamp.high!r}"


def _parse_names(text: str) -> tuple[str, ...]:
    return tuple(text.split("\n"))


def _parse_ints(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _render_ints(values: tuple[int, ...]) -> str:
    return ",".join(map(str, values))


def _parse_perm(text: str) -> tuple[int, ...]:
    perm = _parse_ints(text)
    if sorted(perm) != list(range(len(perm))):
        raise ValueError(f"{text!r} is not a permutation")
    return perm


def _parse_flattened(text: str) -> Flattened:
    sizes, perm = text.split("|")
    return Flattened(_parse_ints(sizes), _parse_perm(perm))


# Effective width in bits of codes that are stored in a wider type: on the Clip before a QuantizeLinear (the grid Clip)
# and on the DequantizeLinear of a weight. 0 for a text that is no number.
# Written by insert-qdq; read by qdq.grid_bits, fuse-activation-clips, strip-qdq, cost and inspect.
BITS: Mark[int] = Mark("onnxq.bits", _parse_bits)

# The pass that made a QuantizeLinear of an activation. Written by insert-qdq; read by strip-qdq.
MADE_BY: Mark[str] = Mark("onnxq.pass", str)

# The Relu or Clip that the saturation of a QuantizeLinear stands for; several of them as one.
# Written by fuse-activation-clips; read by strip-qdq and the card.
ABSORBED: Mark[Clamp] = Mark("onnxq.absorbed", _parse_clamp, _render_clamp)

# Names of the nodes of the QDQ model that an integer operator comes from.
# Written by lowering and fuse-residual; read by fuse-residual and the latency search.
SOURCES: Mark[tuple[str, ...]] = Mark("onnxq.source", _parse_names, "\n".join)

# The tensor of the QDQ model that an integer operator's result stands for.
# Written by lowering; read by layout-nhwc, which names tensors by it.
STANDS_FOR: Mark[str] = Mark("onnxq.tensor", str)

# The form of an operator's multipliers: "fixed", "general" or "identity" (numeric.dyadic).
# Written by lowering and fuse-residual; read by fuse-residual, Work.forms and Lowered.rescales.
RESCALE: Mark[str] = Mark("onnxq.rescale", str)

# The tensors that a node makes are what their names stand for, transposed by this permutation.
# Written by layout-nhwc; read by layout-nhwc and layer-wise verification.
LAYOUT: Mark[tuple[int, ...]] = Mark("onnxq.layout", _parse_perm, _render_ints)

# The last dimension of the tensors that a node makes joins dimensions of the named tensor in another order.
# Written by layout-nhwc; read by layout-nhwc and layer-wise verification.
FLATTENED: Mark[Flattened] = Mark(
    "onnxq.flattened", _parse_flattened, lambda value: f"{_render_ints(value.sizes)}|{_render_ints(value.perm)}"
)

MARKS = (BITS, MADE_BY, ABSORBED, SOURCES, STANDS_FOR, RESCALE, LAYOUT, FLATTENED)
