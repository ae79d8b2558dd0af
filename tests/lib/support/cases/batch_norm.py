"""BatchNormalization in ONNX text: declarations, the node, and values of its parameters."""

import numpy as np

CONV = "float[1,4,7,7] x) => (float[N,M,H,W] y)"  # inputs and outputs of a graph around a convolution


def bn(channels: int, dtype: str = "float") -> str:
    """Declarations of its four parameters, for the text of a model."""
    return ", ".join(f"{dtype}[{channels}] {name}" for name in ("ga", "be", "mu", "va"))


def norm(of: str) -> str:
    """The node that normalizes the tensor `of`."""
    return f"BatchNormalization({of}, ga, be, mu, va)"


def values(channels: int, seed: int = 3) -> dict[str, np.ndarray]:
    """Parameters far from 0 and 1, some gammas negative, one zero."""
    rng = np.random.default_rng(seed)
    gamma = rng.uniform(0.5, 2, channels) * rng.choice([-1, 1], channels)
    gamma[0] = 0
    return {
        "ga": gamma,
        "be": rng.normal(size=channels),
        "mu": rng.normal(size=channels),
        "va": rng.uniform(0.2, 3, channels),
    }
