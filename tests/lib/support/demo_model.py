"""The demo model quantized: what tests of the API read from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

import onnxq
from onnxq import demo
from onnxq.card import CARD_KEY
from onnxq.numeric.metrics import sqnr_db

SAMPLES = 48  # calibration images that the tests quantize on


def bare(model: onnx.ModelProto) -> bytes:
    """The model without its card, which records times and the source of the data."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [p for p in copy.metadata_props if p.key != CARD_KEY]
    del copy.metadata_props[:]
    copy.metadata_props.extend(kept)
    return copy.SerializeToString(deterministic=True)


def logits(model: onnx.ModelProto | bytes | Path, count: int = 200) -> NDArray[np.float32]:
    """Outputs for validation images, without onnxruntime's own optimizations."""
    opened = onnxq.session(model, threads=1, optimize=False)
    return opened.run(["logits"], {"image": demo.validation_data()["image"][:count]})[0]


def sqnr(model: onnx.ModelProto) -> float:
    """Signal to noise of the logits against the float model, in dB."""
    return sqnr_db(logits(demo.model_path()), logits(model))


def weights_of(model: onnx.ModelProto) -> dict[str, int]:
    """ONNX element type of every layer's weight, by the layer's name."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    types = {t.name: t.data_type for t in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            weight = made_by.get(node.input[1])
            found[node.name] = types[weight.input[0]] if weight is not None else types[node.input[1]]
    return found
