"""Train the bundled demo model and write onnxq/demo/digits_cnn.onnx and onnxq/demo/digits.npz.

    python tools/generators/train_demo.py [--out onnxq/demo]

Needs packages that onnxq does not depend on: `pip install torch==2.13.0 scikit-learn onnx onnxruntime`, in an
environment of its own. It takes about half a minute on one thread. It is seeded: the same machine and versions give the
same bytes; another CPU or torch version may end at slightly different weights.

The network is small but contains what a quantizer must handle: convolutions with unfolded BatchNormalization, a
residual block, a downsampling residual block with a 1x1 convolution on its shortcut, an inverted residual block
(depthwise, ReLU6 as Clip, linear output) and a concatenation of two convolutions and a pooling.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

# torch and scikit-learn are imported where they are used: --help works without them.
if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from digits_cnn.network import DigitsCNN

SEED = 2
TRAINING, CALIBRATION, VALIDATION = 1297, 512, 500
# No weight decay, small batches: with more regularization the network is so robust on this small task that 4-bit
# weights cost nothing, and the demo would have nothing to show. Seeds 1 to 3 give 98.6, 99.0 and 99.2 % on the
# validation images.
EPOCHS, BATCH, LEARNING_RATE, LABEL_SMOOTHING = 60, 32, 2e-3, 0.2
ONNX_TOLERANCE = 1e-5

DATASET = (
    "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998, "
    "https://doi.org/10.24432/C50P49"
)


def replace_file(path: Path, content: bytes) -> None:
    """Write to a temporary file next to `path`, then move it there: no partial file is left."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def split_digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.intp], NDArray[np.intp]]:
    """The 1797 digits as uint8 [1797, 1, 8, 8] in 0..16, their labels, and the indices of training and validation.

    Validation is the set's last 500 images, not a random draw: neighbours in the set are mostly by the same writer, so
    a shuffled split would test on writers seen in training. The training indices are shuffled, so that any leading part
    is a fair sample for calibration.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.uint8)[:, None]
    labels = digits.target.astype(np.uint8)
    training = np.random.default_rng(SEED).permutation(TRAINING)
    return images, labels, training, np.arange(TRAINING, TRAINING + VALIDATION)


def write_model(net: DigitsCNN, path: Path, accuracy: float) -> None:
    """Write the network as ONNX. accuracy: on the validation images, for the metadata."""
    from digits_cnn.onnx_graph import to_onnx

    metadata = {
        "dataset": DATASET,
        "dataset_licence": "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
        "dataset_copy": "scikit-learn load_digits (the data set's test part, 1797 images)",
        "preprocessing": "image = grey value (0..16) / 16",
        "classes": "0 1 2 3 4 5 6 7 8 9",
        "training": f"{TRAINING} images, seed {SEED}, {EPOCHS} epochs",
        "validation_accuracy": f"{accuracy:.4f} ({VALIDATION} images, onnxq/demo/digits.npz)",
    }
    replace_file(path, to_onnx(net, metadata).SerializeToString(deterministic=True))


def write_data(path: Path) -> None:
    """Write the calibration part of the training images and the validation images, both as uint8 0..16."""
    images, labels, training, validation = split_digits()
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        calibration_image=images[training[:CALIBRATION]],
        calibration_labels=labels[training[:CALIBRATION]],
        validation_image=images[validation],
        validation_labels=labels[validation],
    )
    replace_file(path, buffer.getvalue())


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate by up to 12 degrees, scale by up to 10 % and shift by up to one pixel, each image on its own."""
    import torch
    from torch.nn import functional

    n = len(images)
    angle, zoom, dx, dy = (torch.rand(4, n, generator=generator) * 2 - 1).unbind()
    angle, zoom = angle * math.radians(12), 1 + 0.1 * zoom
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack([torch.stack([cos, -sin, dx / 4], 1), torch.stack([sin, cos, dy / 4], 1)], 1)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def train() -> DigitsCNN:
    """Train for a fixed number of epochs; the validation images play no part in it."""
    import torch
    from torch.nn import functional

    from digits_cnn.network import DigitsCNN

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    images, labels, training, _ = split_digits()
    x = torch.from_numpy(images[training].astype(np.float32) / 16)
    y = torch.from_numpy(labels[training].astype(np.int64))
    net = DigitsCNN()
    optimizer = torch.optim.Adam(net.parameters(), LEARNING_RATE)
    steps = EPOCHS * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
    for epoch in range(EPOCHS):
        net.train()
        order = torch.randperm(len(x), generator=generator)
        total = 0.0
        for start in range(0, len(x) - BATCH + 1, BATCH):
            batch = order[start : start + BATCH]
            logits = net(augment(x[batch], generator))
            loss = functional.cross_entropy(logits, y[batch], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * BATCH
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3d}  training loss {total / len(x):.4f}", flush=True)
    return net.eval()


def main() -> None:
    """Train, write both files, and prove that the ONNX file computes what torch computes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).resolve().parents[2] / "onnxq" / "demo"
    parser.add_argument("--out", type=Path, default=default, help="folder for digits_cnn.onnx and digits.npz")
    out = parser.parse_args().out
    import onnxruntime
    import torch

    started = time.perf_counter()
    net = train()

    images, labels, _, validation = split_digits()
    feed = images[validation].astype(np.float32) / 16
    with torch.no_grad():
        expected = net(torch.from_numpy(feed)).numpy()
    accuracy = float((expected.argmax(1) == labels[validation]).mean())
    model, data = out / "digits_cnn.onnx", out / "digits.npz"
    write_model(net, model, accuracy)
    write_data(data)

    (logits,) = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"image": feed})
    difference = float(np.abs(logits - expected).max())
    if difference > ONNX_TOLERANCE:
        raise SystemExit(f"onnxruntime differs from torch by {difference:.1e}, more than {ONNX_TOLERANCE:.0e}")
    print(f"parameters {sum(p.numel() for p in net.parameters())}, {time.perf_counter() - started:.0f} s")
    print(f"validation accuracy {100 * accuracy:.2f} % of {VALIDATION}, onnxruntime - torch at most {difference:.1e}")
    for path in (model, data):
        print(f"{path.name}: {path.stat().st_size / 1000:.1f} kB")


if __name__ == "__main__":
    main()
