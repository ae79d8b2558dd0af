"""The bundled demo model and its data: a small CNN for handwritten digits.

The model is float32 with unfolded BatchNormalization nodes, opset 17; input `image`, N x 1 x 8 x 8, gray values
0..16 divided by 16; output `logits`, N x 10. Images: Optical Recognition of Handwritten Digits, E. Alpaydin and
C. Kaynak, UCI Machine Learning Repository, 1998 (CC BY 4.0, see ATTRIBUTION.md here), as copied by scikit-learn.
tools/generators/train_demo.py generates both files.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

INPUT = "image"
LABELS = "labels"
# The gray value that maps to 1.0; a power of two, so that the division is exact.
GREY_MAX = 16.0


def _file(name: str) -> Path:
    return Path(str(resources.files(__name__) / name))


def model_path() -> Path:
    """Path of digits_cnn.onnx in the installed package. Read only: copy it to change it."""
    return _file("digits_cnn.onnx")


def data_path() -> Path:
    """Path of digits.npz: `calibration_image`, `calibration_labels`, `validation_image`, `validation_labels`.

    Images are uint8 [N, 1, 8, 8] in 0..16, labels uint8 [N].
    """
    return _file("digits.npz")


def calibration_data() -> dict[str, NDArray[Any]]:
    """512 of the training images: {"image": float32 [512, 1, 8, 8] in 0..1, "labels": int64 [512]}."""
    return _split("calibration")


def validation_data() -> dict[str, NDArray[Any]]:
    """The 500 images held out from training: {"image": float32 [500, 1, 8, 8] in 0..1, "labels": int64 [500]}."""
    return _split("validation")


def _split(part: str) -> dict[str, NDArray[Any]]:
    with np.load(data_path()) as arrays:
        image = arrays[f"{part}_image"].astype(np.float32) / np.float32(GREY_MAX)
        return {INPUT: image, LABELS: arrays[f"{part}_labels"].astype(np.int64)}
