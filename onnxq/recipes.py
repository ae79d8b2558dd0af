"""The standard pipelines: preparing a float model, quantizing it, lowering a QDQ model."""

from __future__ import annotations

from pathlib import Path

from onnxq import pipeline
from onnxq.numeric.dyadic import Form
from onnxq.pipeline import Pass
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import Profile

INT4_BITS = 4
OPSET = 21


def prepare_pipeline(opset: int, fold_batchnorm: bool = True) -> str:
    """The float passes that come before quantization: types, opset, constants, no-ops, batch normalization."""
    fold = ",fold-batchnorm,fold-channel-affine,fuse-matmul-add" if fold_batchnorm else ""
    return (
        f"convert-float32,fold-constants,eliminate-identity,convert-opset{{version={opset}}},"
        f"fold-constants,eliminate-identity{fold}"
    )


def quantize_pipeline(
    target: Profile, settings: QuantSettings, profile: str | Path | Profile, strip: bool = False
) -> tuple[Pass, ...]:
    """The passes that `quantize` runs."""
    asked = (settings.weight_bits, settings.first_last_bits, *(o.weight_bits for o in settings.overrides.values()))
    narrowest = min(bits for bits in (*asked, target.weights.bits[0]) if bits is not None)
    opset = max(target.limits.opset_min, 21 if narrowest <= INT4_BITS else 13)
    name = {} if isinstance(profile, Profile) else {"profile": str(profile)}
    bits = {
        "weights": settings.weight_bits,
        "activations": settings.activation_bits,
        "first_last": settings.first_last_bits,
    }
    behind = {
        "assign-bits": {key: "none" if value is None else str(value) for key, value in bits.items()},
        "calibrate": name,
        "insert-qdq": name | {"calibration": settings.calibration},
        "fuse-activation-clips": {},
    }
    before = ("strip-qdq,eliminate-identity," if strip else "") + prepare_pipeline(opset, target.graph.fold_batchnorm)
    registry = pipeline.available()
    return (*pipeline.parse(before), *(pipeline.make(registry[key], options) for key, options in behind.items()))


def lower_pipeline(rescale: Form = "auto") -> tuple[Pass, ...]:
    """The passes that `lower` runs."""
    option = "" if rescale == "auto" else f"{{rescale={rescale}}}"
    return pipeline.parse(f"convert-opset{{version={OPSET}}},lower-dyadic{option},fuse-residual,layout-nhwc")
