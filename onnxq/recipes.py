"""The standard pipelines: preparing a float model, quantizing it, lowering a QDQ model."""

from __future__ import annotations

from pathlib import Path

from onnxq.numeric.dyadic import Form
from onnxq.passes.assign_bits import AssignBits
from onnxq.passes.calibrate import Calibrate
from onnxq.passes.convert_float32 import ConvertFloat32
from onnxq.passes.convert_opset import ConvertOpset, require_convertible
from onnxq.passes.dilated_pool_to_conv import DilatedPoolToConv
from onnxq.passes.eliminate_identity import EliminateIdentity
from onnxq.passes.expand_axes import ExpandAxes
from onnxq.passes.fold_batchnorm import FoldBatchNorm
from onnxq.passes.fold_channel_affine import FoldChannelAffine
from onnxq.passes.fold_constants import FoldConstants
from onnxq.passes.fuse_activation_clips import FuseActivationClips
from onnxq.passes.fuse_matmul_add import FuseMatMulAdd
from onnxq.passes.insert_qdq import InsertQdq
from onnxq.passes.strip_qdq import StripQdq
from onnxq.pipeline import Pass
from onnxq.placement.residual import FULL
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import Profile

INT4_BITS = 4
OPSET_PER_CHANNEL, OPSET = 13, 21  # 21: INT4 weights, sums of 16 bits, the bodies of our operators


def prepare_pipeline(opset: int, fold_batchnorm: bool = True) -> tuple[Pass, ...]:
    """The float passes before quantization: types, opset, constants, no-ops, batch normalization."""
    fold = (FoldBatchNorm(), FoldChannelAffine(), FuseMatMulAdd()) if fold_batchnorm else ()
    tidy = (FoldConstants(), EliminateIdentity())
    return (ConvertFloat32(), *tidy, ConvertOpset(version=opset), *tidy, ExpandAxes(), DilatedPoolToConv(), *fold)


def quantize_pipeline(
    target: Profile, settings: QuantSettings, profile: str | Path | Profile, strip: bool = False
) -> tuple[Pass, ...]:
    """The passes that `quantize` runs. profile: the target as given by the user. strip: remove existing Q/DQ first."""
    overrides = settings.overrides.values()
    weights = (settings.weight_bits, settings.first_last_bits, *(o.weight_bits for o in overrides))
    activations = (settings.activation_bits, *(o.activation_bits for o in overrides))
    narrowest = _narrowest(*weights, target.weights.bits[0])
    stored = target.graph.residual_kept == "int16" and min(narrowest, _narrowest(*activations, FULL)) < FULL
    opset = max(target.limits.opset_min, OPSET if narrowest <= INT4_BITS or stored else OPSET_PER_CHANNEL)
    name = "" if isinstance(profile, Profile) else str(profile)
    return (
        *((StripQdq(), EliminateIdentity()) if strip else ()),
        *prepare_pipeline(opset, target.graph.fold_batchnorm),
        AssignBits(settings.weight_bits, settings.activation_bits, settings.first_last_bits),
        Calibrate(name),
        InsertQdq(name, settings.calibration),
        FuseActivationClips(),
    )


def _narrowest(*widths: int | None) -> int:
    return min(bits for bits in widths if bits is not None)


def lower_pipeline(rescale: Form = "auto") -> tuple[Pass, ...]:
    """The passes that `lower` runs."""
    # Loaded when needed: they bring the rooms lowering and layout, half of the package.
    from onnxq.passes.fuse_residual import FuseResidual
    from onnxq.passes.layout_nhwc import LayoutNhwc
    from onnxq.passes.lower_dyadic import LowerDyadic

    return (ConvertOpset(version=OPSET), LowerDyadic(rescale), FuseResidual(), LayoutNhwc())


__all__ = ["OPSET", "lower_pipeline", "prepare_pipeline", "quantize_pipeline", "require_convertible"]
