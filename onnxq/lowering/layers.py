"""Shared by convolutions and products with a constant weight: biases, accumulator bounds, stored weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from ml_dtypes import int4
from numpy.typing import NDArray

from onnxq.graph.match import constant_values
from onnxq.graph.qdq import constant_reals
from onnxq.graph.refusal import RefusedError
from onnxq.lowering.integers import RANGES, Integers, Weight
from onnxq.lowering.ledger import Work
from onnxq.lowering.output import Plan
from onnxq.lowering.rescale import IDENTITY, Rescale, rescale

ACC_MAX = RANGES["int32"][1]


@dataclass(frozen=True)
class Bias:
    """What a layer adds to each output channel: reals, float64 (channels,). stored: as "int" or "float"."""

    values: NDArray[np.float64]
    stored: str

    def times(self, factor: float) -> Bias:
        """The bias times a factor (Gemm's beta)."""
        return Bias(self.values * factor, self.stored)

    def repeated(self, times: int) -> Bias:
        """Each channel repeated this many times."""
        return Bias(np.repeat(self.values, times), self.stored)


@dataclass(frozen=True)
class Accumulator:
    """Σ (x − zp)(w − zp_w) + bias per output channel.

    bias: int64 (channels,). scale: of the accumulator, () or (channels,).
    low, high: the smallest and largest possible values, int64 (channels,).
    """

    bias: NDArray[np.int64]
    scale: NDArray[np.float64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]

    @property
    def bounds(self) -> NDArray[np.int64]:
        """The largest |accumulator| per channel, or overall if they share a scale."""
        found = np.maximum(np.abs(self.low), np.abs(self.high))
        return found if self.scale.ndim else np.asarray(found.max(initial=0))


def accumulate(x: Integers, centred: NDArray[np.int64], scale: NDArray[np.float64], bias: Bias | None) -> Accumulator:
    """The accumulator of a layer, proven to fit in int32 in any summation order. Raises RefusedError.

    centred: w − zp_w, the channels on axis 0. scale: scale_x · scale_w (and Gemm's alpha), () or (channels,).
    bias: quantized here with that scale.
    """
    channels = centred.shape[0]
    rows = centred.reshape(channels, -1)
    codes = np.zeros(channels) if bias is None else np.rint(bias.values / scale)
    least, most = int(x.low) - x.zero_point, int(x.high) - x.zero_point
    up, down = np.maximum(rows, 0).sum(axis=1), np.minimum(rows, 0).sum(axis=1)
    partial = (up - down) * max(abs(least), abs(most)) + np.abs(codes)  # float64: exact where it matters
    worst = int(np.argmax(partial)) if channels else 0
    if channels and not partial[worst] <= ACC_MAX:
        raise RefusedError(
            f"its accumulator could reach {partial[worst]:.0f} in channel {worst}, beyond int32 ({ACC_MAX})"
        )
    fitted = codes.astype(np.int64)
    low, high = fitted + up * least + down * most, fitted + up * most + down * least
    return Accumulator(fitted, scale, low, high)


def bias_of(tensor: gs.Tensor | None, channels: int) -> Bias | None:
    """The constant bias of a layer, one real number per channel; None if it has none. Raises RefusedError."""
    if tensor is None:
        return None
    values = constant_reals(tensor)
    if values is None:
        raise RefusedError(f"its bias {tensor.name} is computed at run time")
    if not np.isfinite(values).all():
        raise RefusedError("its bias contains NaN or infinity")
    if values.size not in (1, channels) or (values.size > 1 and values.shape[-1] != values.size):
        raise RefusedError("its bias is not one value per channel")
    spread = np.broadcast_to(values.reshape(-1).astype(np.float64), (channels,))
    return Bias(spread, "int" if constant_values(tensor) is None else "float")


def rescale_layer(work: Work, acc: Accumulator, made: Plan, bias: Bias | None) -> Rescale:
    """The rescale of an accumulator to the planned output. Raises RefusedError.

    Records the largest error of a bias that was stored as floats, in steps of the result.
    """
    if made.raw:
        return IDENTITY
    how = rescale(work.form, [acc.scale / made.unit], [acc.bounds])
    if bias is not None and bias.stored == "float" and made.type != "int32":
        work.float_biases.append(0.5 * float(np.max(acc.scale / made.unit)))
    return how


def per_channel(weight: Weight, axis: int, channels: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scale and zero point of a weight along its output channels: () or (channels,). Raises RefusedError."""
    scale, zero = weight.scale, weight.zero_point
    if weight.axis is None:
        return scale, zero
    if weight.codes.shape[weight.axis] == 1:
        return scale.reshape(()), zero.reshape(())
    if weight.axis != axis:
        raise RefusedError(f"the scales of its weight run along axis {weight.axis}, not along the output channels")
    if scale.size != channels:
        raise RefusedError(f"its weight has {scale.size} scales for {channels} channels")
    return scale, zero


def stored(work: Work, weight: Weight, codes: NDArray[np.int64], kind: str, layout: str) -> gs.Constant:
    """The constant with these codes (of `weight`, in another layout), stored once for all layers that share it.

    kind: int8 or int4.
    """
    key = (id(weight.source), f"{kind} {layout}")
    if key not in work.weights:
        values = np.ascontiguousarray(codes).astype(int4 if kind == "int4" else np.int8)
        base = weight.source.name if values.dtype == weight.source.dtype else f"{weight.source.name}_{kind}"
        work.weights[key] = work.constant(f"{base}_{layout}", values)
    return work.weights[key]
