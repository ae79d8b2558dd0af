"""The reference models of ../shared (or $ONNXQ_SHARED) and their data. Imports nothing heavy."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

SHARED = Path(os.environ.get("ONNXQ_SHARED") or Path(__file__).resolve().parents[4] / "shared")


@dataclass(frozen=True)
class Dataset:
    """Images in ../shared to calibrate and to validate on, and their preprocessing."""

    calibration_name: str
    validation_name: str
    preprocess: str

    @property
    def calibration(self) -> Path:
        """Path of the images to calibrate on."""
        return SHARED / "data" / self.calibration_name

    @property
    def validation(self) -> Path:
        """Path of the labelled images."""
        return SHARED / "data" / self.validation_name


@dataclass(frozen=True)
class Reference:
    """A trained model of ../shared.

    output: the tensor that is compared, where that is not the model's own output. batch: samples per run, 1 where the
    model's file fixes it.
    """

    file: str
    data: Dataset
    output: str | None = None
    batch: int = 1

    @property
    def path(self) -> Path:
        """Path of the model."""
        return SHARED / "models" / self.file


def imagenet(preprocess: str) -> Dataset:
    """The ImageNet images with a model's own preprocessing."""
    return Dataset("imagenet_calib", "imagenet_val", preprocess)


REFERENCES = {
    "mobilenetv2": Reference("mobilenetv2_imagenet.onnx", imagenet("imagenet-tf")),
    "squeezenet": Reference("squeezenet_imagenet.onnx", imagenet("caffe"), output="pool10_1"),
    "resnet20": Reference(
        "resnet20_cifar10.onnx", Dataset("cifar10_calib.npz", "cifar10_val.npz", "cifar10"), batch=32
    ),
}


def require_shared() -> None:
    """Exit with a message where ../shared is missing."""
    if not SHARED.is_dir():
        sys.exit(f"the reference models are missing ({SHARED.name}); set ONNXQ_SHARED")
