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
from onnxq.numeric.weights import BiasReader, fit_biases, weight_qparams
from onnxq.placement.plan import LayerPlan
from onnxq.placement.settings import QuantSettings


@dataclass(frozen=True)
class SharedWeight:
    """A weight of one or several layers with its parameters.

    values: float32, in the weight's shape. biases: of each layer, float32 (channels,), or why it stays float, or None
    without one to quantize. widened: layer → channels whose scale grew so that its bias fits int32.
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
    Float biases fit int32 too: onnxruntime quantizes them itself when it loads a model, and does not saturate.
    """
    # Layers with one weight tensor, but other axes or widths, hold it twice.
    groups: dict[tuple[int, int | None, object], list[LayerPlan]] = {}
    for layer in layers:
        axis = channel_axis(layer.node) if layer.per_channel else None
        groups.setdefault((id(layer.weight), axis, layer.weight_format), []).append(layer)
    for (_, axis, _), group in groups.items():
        yield from _fit(tuple(group), axis, inputs, has_int32_bias, settings)


def _fit(
    layers: tuple[LayerPlan, ...],
    axis: int | None,
    inputs: Mapping[gs.Node, QParams],
    has_int32_bias: bool,
    settings: QuantSettings,
) -> Iterator[SharedWeight]:
    """Weight scales with which the bias of every layer that has this weight fits; several where one set cannot."""
    constant, fmt = constant_values(layers[0].weight), layers[0].weight_format
    assert constant is not None
    values = constant.astype(np.float32)
    qparams = weight_qparams(values, fmt, axis, settings.weight_method(fmt.bits))
    biases = [_bias(layer, inputs) if has_int32_bias else None for layer in layers]
    for fit in fit_biases(qparams, [_reader(layer, values, axis, inputs) for layer in layers]):
        grown = zip(fit.readers, fit.widened, strict=True)
        yield SharedWeight(
            tuple(layers[i] for i in fit.readers),
            values,
            fit.weight,
            tuple(biases[i] for i in fit.readers),
            {layers[i].node.name: len(channels) for i, channels in grown if channels},
        )


def _reader(
    layer: LayerPlan, weight: NDArray[np.float32], axis: int | None, inputs: Mapping[gs.Node, QParams]
) -> BiasReader:
    """What the layer's bias asks of the scales of its weight; nothing, if it has none that could be int32."""
    bias, channel = _constant_bias(layer), channel_axis(layer.node)
    is_asking = isinstance(bias, np.ndarray) and channel is not None and layer.node in inputs
    along = channel if is_asking else axis
    largest = np.abs(weight).max(axis=None if along is None else _without(along, weight.ndim), initial=0.0).reshape(-1)
    if not is_asking or not isinstance(bias, np.ndarray):
        return BiasReader(np.zeros(largest.shape, np.float32), largest, 1.0, 1, weight.size // max(largest.size, 1))
    # Grouped ConvTranspose: channel m has the scale of m modulo M/group, so the largest bias of those decides.
    worst = np.abs(bias.reshape(-1, largest.size)).max(axis=0)
    x = inputs[layer.node]
    reach = max(x.format.qmax - int(x.zero_point), int(x.zero_point) - x.format.qmin)
    return BiasReader(worst, largest, float(x.scale), reach, weight.size // largest.size)


def _without(axis: int, rank: int) -> tuple[int, ...]:
    return tuple(i for i in range(rank) if i != axis % rank)


def _bias(layer: LayerPlan, inputs: Mapping[gs.Node, QParams]) -> NDArray[np.float32] | Refused | None:
    """The bias to quantize, (channels,), or why it stays float."""
    node, bias = layer.node, _constant_bias(layer)
    if bias is None or isinstance(bias, Refused):
        return bias
    if node.op == "Gemm" and (node.attrs.get("alpha", 1.0) != 1.0 or node.attrs.get("beta", 1.0) != 1.0):
        return Refused("alpha or beta is not 1; its bias is left in float")
    if node not in inputs:
        return Refused("its input is not quantized; its bias is left in float")
    return bias


def _constant_bias(layer: LayerPlan) -> NDArray[np.float32] | Refused | None:
    """The values of the bias, (channels,), or why it cannot be int32; None without a bias."""
    if layer.bias is None:
        return None
    values = constant_values(layer.bias)
    if values is None:
        return Refused("its bias is computed at run time; left in float")
    if values.size != out_channels(layer.node) or values.shape[-1:] != (values.size,):
        return Refused("its bias is not per-channel; left in float")
    if not np.isfinite(values).all():
        return Refused("its bias holds NaN or infinity; left in float")
    return values.reshape(-1).astype(np.float32)
