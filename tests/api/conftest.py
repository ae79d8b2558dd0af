"""The demo's images, and the demo model quantized with every default."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import onnxq
from onnxq import demo
from support.demo_model import SAMPLES


@pytest.fixture(scope="session")
def images() -> NDArray[np.float32]:
    """Calibration images, N×1×8×8."""
    return demo.calibration_data()["image"][:SAMPLES]


@pytest.fixture(scope="session")
def expected(images: NDArray[np.float32]) -> onnx.ModelProto:
    """The demo quantized with every default."""
    return onnxq.quantize(demo.model_path(), {"image": images}).model
