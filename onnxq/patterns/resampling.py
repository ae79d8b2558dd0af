"""Operators that may only move values, where that depends on attributes as well as the operator."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxq.graph.refusal import Refused


def resize_computes(node: gs.Node) -> Refused | None:
    """Why a Resize does more than repeat and pick values; None if it does not."""
    if node.attrs.get("mode", "nearest") != "nearest":
        return Refused(f"it interpolates ({node.attrs['mode']})")
    if node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return Refused("it fills in values outside the picture")
    return None
