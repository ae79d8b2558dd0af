"""How the kernels plan a convolution or a product with weights: the kernel library's own plan, in words."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import NodeProto, TensorProto, helper

from onnxq.execution import library

RESIDUAL = 6  # its index among the inputs
FIELDS = 8


@dataclass(frozen=True)
class ConvPlan:
    """The plan of one run on the selected tier.

    path: "rows", "tiles" or "depthwise". pieces: of the products' inner dimension, each of piece_bytes, for tiles.
    row_group: kernel rows that the copy of x puts beside each other, 0 for none. row_parts, panel_parts: parts that may
    run at the same time, by pixels and by channels. packed_bytes: of weights. copy_bytes: of the copy of x, or of
    what a part copies of it at a time; 0 for none.
    """

    path: str
    pieces: int
    piece_bytes: int
    row_group: int
    row_parts: int
    panel_parts: int
    packed_bytes: int
    copy_bytes: int

    def __str__(self) -> str:
        """In a few words: `tiles 9×64 B, 3×1 parts, copy 215 KB`."""
        words = f"{self.path} {self.pieces}×{self.piece_bytes} B" if self.path == "tiles" else self.path
        if self.row_group:
            words += f" of {self.row_group} rows"
        words += f", {self.row_parts}×{self.panel_parts} parts"
        return f"{words}, copy {self.copy_bytes / 1000:.0f} KB" if self.copy_bytes else words


def conv_plan(node: NodeProto, x: Sequence[int], weight: TensorProto, *, signed: bool = False) -> ConvPlan | None:
    """The plan of a Conv, ConvAdd, Gemm or GemmAdd of com.onnxq for an x of this shape; None where there is none.

    weight: of the node. signed: x is int8. Assumes results of bytes with one shift for all channels. Raises OnnxqError
    if there is no kernel library.
    """
    if 0 in x:
        return None
    attributes: Mapping[str, object] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    nibbles, residual = weight.data_type == TensorProto.INT4, node.op_type.endswith("Add")
    if node.op_type.startswith("Gemm"):
        rows = 1
        for size in x[:-1]:
            rows *= size
        layer = [1, 1, rows, weight.dims[0], weight.dims[1], *[1] * 7, *[0] * 4]
    else:
        pairs = [attributes.get(name, default) for name, default in (("strides", (1, 1)), ("dilations", (1, 1)))]
        group, pads = attributes.get("group", 1), attributes.get("pads", (0, 0, 0, 0))
        layer = [*x[:3], x[3], weight.dims[0], group, *weight.dims[1:3], *pairs[0], *pairs[1], *pads]  # type: ignore
    given = (ctypes.c_int64 * 19)(*layer, nibbles, signed, residual)
    found = (ctypes.c_int64 * FIELDS)()
    if not library.load().onnxq_conv_plan(given, found):
        return None
    path, pieces, steps, *rest = found
    return ConvPlan(("rows", "tiles", "depthwise")[path], pieces, 4 * steps, *rest)
