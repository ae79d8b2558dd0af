"""Numbers of quantized layers: which biases become int32, and scales of the weights with which those fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.graph.axes import channel_axis, out_channels
from onnxq.graph.match import constant_values
from onnxq.graph.refusal import Refused
from onnxq.numeric.qparams import QParams
from onnxq.numeric.weights import fit_bias, weight_qparams
from onnxq.placement.plan import LayerPlan
from onnxq.placement.settings import QuantSettings


@dataclass(frozen=True)
class SharedWeight:
    """A weight of one or several layers with its parameters.

    values: float32, in the weight's shape. biases: of each layer, float32 (channels,), or why it stays float, or None
    without one to quantize. widened: layer → channels whose scale grew so that the bias fits.
    """

    layers: tuple[LayerPlan, ...]
    values: NDArray[np.float32]
    qparams: QParams
    biases: tuple[NDArray[np.float32] | Refused | None, ...]
    widened: dict[str, int] = field(default_factory=dict)


def shared_weights(
    layers: Sequence[LayerPlan], inputs: Mapping[gs.Node, QParams], has_int32_bias: bool, settings: QuantSettings
) -> Iterator[SharedWeight]:
    """The parameters of every weight, once for the layers that share it and take it alike; made one at a time.

    inputs: the parameters of each node's data input, where that is quantized. has_int32_bias: what the target wants.
    """
    # Layers with one weight tensor, but other axes or widths, hold it twice.
    groups: dict[tuple[int, int | None, object], list[LayerPlan]] = {}
    for layer in layers:
        axis = channel_axis(layer.node) if layer.per_channel else None
        groups.setdefault((id(layer.weight), axis, layer.weight_format), []).append(layer)
    for (_, axis, _), group in groups.items():
        yield _fit(tuple(group), axis, inputs, has_int32_bias, settings)


def _fit(
    layers: tuple[LayerPlan, ...],
    axis: int | None,
    inputs: Mapping[gs.Node, QParams],
    has_int32_bias: bool,
    settings: QuantSettings,
) -> SharedWeight:
    """Weight scales with which the int32 bias of every layer that has this weight fits."""
    constant, fmt = constant_values(layers[0].weight), layers[0].weight_format
    assert constant is not None
    values = constant.astype(np.float32)
    method = settings.weight_method(fmt.bits)
    qparams = weight_qparams(values, fmt, axis, method)
    biases = tuple(_bias(layer, inputs) if has_int32_bias else None for layer in layers)
    widened, is_settled = {}, False
    for layer, bias in zip(layers, biases, strict=True):
        if bias is None or isinstance(bias, Refused):
            continue
        channel = channel_axis(layer.node)
        assert channel is not None
        channels = values.shape[channel]
        # Grouped ConvTranspose: channel m has the scale of m modulo M/group, so the largest bias of those decides.
        worst = np.abs(bias.reshape(-1, channels)).max(axis=0)
        zero = np.full(channels, not values.any())
        if qparams.axis is not None:
            zero = ~np.any(values, axis=tuple(i for i in range(values.ndim) if i != channel))
        if is_settled:
            zero[:] = False  # the first bias chose these scales: the others may only widen them
        x = inputs[layer.node]
        reach = max(x.format.qmax - int(x.zero_point), int(x.zero_point) - x.format.qmin)
        fit = fit_bias(qparams, zero, worst, float(x.scale), reach, values.size // channels)
        qparams, is_settled = fit.weight, True
        if fit.widened:
            widened[layer.node.name] = len(fit.widened)
    return SharedWeight(layers, values, qparams, biases, widened)


def _bias(layer: LayerPlan, inputs: Mapping[gs.Node, QParams]) -> NDArray[np.float32] | Refused | None:
    """The bias to quantize, (channels,), or why it stays float."""
    if layer.bias is None:
        return None
    node, values = layer.node, constant_values(layer.bias)
    if values is None:
        return Refused("its bias is computed at run time; left in float")
    if node.op == "Gemm" and (node.attrs.get("alpha", 1.0) != 1.0 or node.attrs.get("beta", 1.0) != 1.0):
        return Refused("alpha or beta is not 1; its bias is left in float")
    if values.size != out_channels(node) or values.shape[-1:] != (values.size,):
        return Refused("its bias is not per-channel; left in float")
    if not np.isfinite(values).all():
        return Refused("its bias holds NaN or infinity; left in float")
    if node not in inputs:
        return Refused("its input is not quantized; its bias is left in float")
    return values.reshape(-1).astype(np.float32)
