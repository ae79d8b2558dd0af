"""Operators that merely move values, as far as that depends on more than the operator."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxq.graph.refusal import Refused


def resize_computes(node: gs.Node) -> Refused | None:
    """Why a Resize does more than repeat and pick values; None where it does not."""
    if node.attrs.get("mode", "nearest") != "nearest":
        return Refused(f"it interpolates ({node.attrs['mode']})")
    if node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return Refused("it fills in what lies outside the picture")
    return None
