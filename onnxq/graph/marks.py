"""Marks: what onnxq writes into node metadata (`metadata_props` in the file) and reads back.

Every key is declared here with its meaning, value type, writers and readers. Keys and texts are part of the file
format: later versions must be able to read models that are already written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import onnx_graphsurgeon as gs

from onnxq.errors import ModelError, printable
from onnxq.graph.clamps import Clamp

T = TypeVar("T")


@dataclass(frozen=True)
class Mark(Generic[T]):
    """One node metadata key. parse, render: convert its text in the file to its value and back."""

    key: str
    parse: Callable[[str], T]
    render: Callable[[T], str] = str

    def on(self, node: gs.Node | None) -> bool:
        """Whether the node carries the mark."""
        return node is not None and self.key in getattr(node, "metadata", {})

    def get(self, node: gs.Node | None) -> T | None:
        """The mark's value on the node; None where it is absent or empty. Raises ModelError if it is damaged."""
        text = getattr(node, "metadata", {}).get(self.key)
        if node is None or not text:
            return None
        try:
            return self.parse(text)
        except (ValueError, TypeError, LookupError):
            raise ModelError(
                f"node {printable(node.name)} ({printable(node.op)}): its metadata {self.key} is damaged; remove it, "
                "or write the model again"
            ) from None

    def set(self, node: gs.Node, value: T) -> None:
        """Set the mark on the node, replacing any value. The node's other metadata is unchanged."""
        node.metadata = {**getattr(node, "metadata", {}), self.key: self.render(value)}

    def drop(self, node: gs.Node) -> None:
        """Remove the mark from the node."""
        node.metadata = {k: v for k, v in getattr(node, "metadata", {}).items() if k != self.key}


class Flattened(NamedTuple):
    """A last dimension that merges dimensions of these sizes, transposed by `perm` before merging."""

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
# and on the DequantizeLinear of a weight. 0 for text that is not a number.
# Written by insert-qdq; read by qdq.grid_bits, fuse-activation-clips, strip-qdq, cost and inspect.
BITS: Mark[int] = Mark("onnxq.bits", _parse_bits)

# The pass that created an activation's QuantizeLinear. Written by insert-qdq; read by strip-qdq.
MADE_BY: Mark[str] = Mark("onnxq.pass", str)

# The Relu or Clip that the saturation of a QuantizeLinear replaces; several are merged into one.
# Written by fuse-activation-clips; read by strip-qdq and the card.
ABSORBED: Mark[Clamp] = Mark("onnxq.absorbed", _parse_clamp, _render_clamp)

# Names of the QDQ model's nodes from which an integer operator was lowered.
# Written by lowering and fuse-residual; read by fuse-residual and the latency search.
SOURCES: Mark[tuple[str, ...]] = Mark("onnxq.source", _parse_names, "\n".join)

# The tensor of the QDQ model that an integer operator's result represents.
# Written by lowering; read by layout-nhwc, which uses it to name tensors.
STANDS_FOR: Mark[str] = Mark("onnxq.tensor", str)

# The form of an operator's multipliers: "fixed", "general" or "identity" (numeric.dyadic).
# Written by lowering and fuse-residual; read by fuse-residual, Work.forms and Lowered.rescales.
RESCALE: Mark[str] = Mark("onnxq.rescale", str)

# A node's output tensors are those that their names refer to, transposed by this permutation.
# Written by layout-nhwc; read by layout-nhwc and layer-wise verification.
LAYOUT: Mark[tuple[int, ...]] = Mark("onnxq.layout", _parse_perm, _render_ints)

# The last dimension of a node's output tensors merges dimensions of the named tensor in a different order.
# Written by layout-nhwc; read by layout-nhwc and layer-wise verification.
FLATTENED: Mark[Flattened] = Mark(
    "onnxq.flattened", _parse_flattened, lambda value: f"{_render_ints(value.sizes)}|{_render_ints(value.perm)}"
)

MARKS = (BITS, MADE_BY, ABSORBED, SOURCES, STANDS_FOR, RESCALE, LAYOUT, FLATTENED)
