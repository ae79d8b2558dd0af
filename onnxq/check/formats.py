"""Whether the numbers in a QDQ model are such that the target computes with them: every Q/DQ, every weight and bias.

Rules, cited by number in the code:
 F1. Scales are constant, finite and > 0; a DequantizeLinear maps back as its QuantizeLinear mapped; activations have
     one scale per tensor; scales are powers of two where the target shifts.
 F2. Types, signs and zero points are the profile's. A wrong sign or zero point is a rejection where the profile says
     that the target takes no other zero point than 0, and a remark elsewhere.
 F3. Weights are integers with a DequantizeLinear, per channel where the profile says so, along the output channels.
 F4. Biases are int32 with scale_x · scale_w, or float where the target rejects a DequantizeLinear on them.
 F5. No scale of scores covers an attention mask.
 F6. Float biases survive what onnxruntime makes of them when it loads the model: int32 codes, where the layer's data,
     weight and result are quantized. It does not saturate them.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.check.findings import Finding, Severity
from onnxq.graph.axes import channel_axis
from onnxq.graph.match import constant_values, input_at, is_constant, is_op, producer
from onnxq.graph.qdq import (
    QdqInfo,
    dequantizer,
    describe,
    grid_bits,
    is_dequantize,
    is_quantize,
    is_quantized_constant,
    pair,
)
from onnxq.profiles.schema import ActivationRule, Profile, WeightRule

# Relative difference that float32 rounding of scale_x · scale_w can explain.
BIAS_TOLERANCE = 1e-4
INT32_MAX = (1 << 31) - 1
# Steps of scores that leave a Softmax nothing but its largest: the next one has exp(-8) of its weight.
LARGEST_SCORE_STEP = 8.0


@dataclass(frozen=True)
class Formats:
    """The rules for one graph. scores: attention.feeds_softmax of it."""

    target: Profile
    scores: Set[int]

    def _finding(self, severity: Severity, node: gs.Node, problem: str, fix: str = "") -> Finding:
        return Finding(severity, node.name, problem, fix or self._again())

    def qdq(self, node: gs.Node) -> Iterator[Finding]:
        """F1, F2 and F5 for a QuantizeLinear or DequantizeLinear."""
        info = describe(node)
        upstream = pair(node) if is_dequantize(node) else None
        if upstream is not None and info.same_scale(describe(upstream)):
            return  # reported with its QuantizeLinear already
        if info.scale is None or info.zero_point is None:
            problem = "its scale or zero point is computed at run time"
            yield self._finding("reject", node, problem, "quantize with fixed scales")
            return
        if not (np.isfinite(info.scale).all() and (info.scale > 0).all()):
            problem = "a scale is not a finite number above 0"
            yield self._finding("reject", node, problem, "calibrate again: a range is broken")
            return
        if upstream is not None:
            yield self._finding("reject", node, f"its scale or zero point is not that of {upstream.name}")
            return
        if is_constant(node.inputs[0]):
            return  # weights and biases are judged with their layer
        if info.per_channel:
            problem = "an activation has a scale for each channel; one for the tensor is possible"
            yield self._finding("reject", node, problem)
        bits = grid_bits(producer(node.inputs[0]))
        if bits not in (0, *self.target.activations.bits):
            yield self._finding("reject", node, f"{self.target.name} takes no {bits}-bit activations")
        yield from self._number(node, info, self.target.activations, "activation")
        if id(node) in self.scores and float(info.scale.max()) > LARGEST_SCORE_STEP:
            problem = f"its scale {float(info.scale.max()):.2g} covers an attention mask: nothing is left of the scores"
            yield self._finding("remark", node, problem)

    def layer(self, node: gs.Node) -> Iterator[Finding]:
        """F2 to F4 for the weight and the bias of a layer, where they are quantized."""
        is_known = [is_constant(t) or is_quantized_constant(t) for t in node.inputs[:2]]
        if not any(is_known):
            return
        index = 1 if is_known[1] else 0
        has_weight = is_quantized_constant(node.inputs[index])
        if has_weight:
            yield from self._weight(node, index)
        bias = input_at(node, 2)
        if bias is not None and node.op != "MatMul":
            is_whole = has_weight and dequantizer(node.inputs[1 - index]) is not None
            yield from self._bias(node, bias, is_whole)

    def _number(self, node: gs.Node, info: QdqInfo, rule: WeightRule | ActivationRule, what: str) -> Iterator[Finding]:
        """F2, and powers of two of F1. node: whom to name."""
        target = self.target.name
        if "int" not in info.type:
            yield self._finding("reject", node, f"its {what} is {info.type}; {target} takes integers")
            return
        if what == "activation" and info.bits < 8:
            problem = f"its activation is stored as {info.type}: onnxruntime fails to load it or drops a Relu before it"
            fix = "keep it in 8 bits with a Clip to the grid upstream, as onnxq does"
            yield self._finding("reject", node, problem, fix)
            return
        if what == "activation" and info.type == "int16" and self.target.graph.residual_kept == "int16":
            return  # a stored sum
        if info.bits not in rule.bits and not (what == "activation" and info.bits == 8):
            yield self._finding("reject", node, f"{target} takes no {info.bits}-bit {what}s ({info.type})")
            return
        strict: Severity = "remark" if self.target.limits.nonzero_zero_points else "reject"
        sign = rule.sign if isinstance(rule, ActivationRule) else "signed" if rule.signed else "unsigned"
        if sign != "auto" and info.signed != (sign == "signed"):
            yield self._finding(strict, node, f"its {what} is {info.type}; {target} wants {sign} integers")
        if rule.symmetric and info.zero_point is not None and np.any(info.zero_point != 0):
            only = "takes no other" if strict == "reject" else "is symmetric: this costs it speed or exactness"
            yield self._finding(strict, node, f"the zero point of its {what} is not 0; {target} {only}")
        if rule.power_of_two and info.scale is not None and np.any(np.frexp(info.scale)[0] != 0.5):
            yield self._finding("reject", node, f"a scale of its {what} is not a power of two, and {target} shifts")

    def _weight(self, node: gs.Node, index: int) -> Iterator[Finding]:
        """F3."""
        tensor = node.inputs[index]
        dequantize = dequantizer(tensor)
        assert dequantize is not None
        stored_float = pair(dequantize)
        source = stored_float or dequantize
        info, rule, target = describe(source), self.target.weights, self.target.name
        granularity = self.target.granularity(node.op)
        if info.scale is None or info.zero_point is None:
            return  # reported with the Q/DQ itself
        if stored_float is not None:
            problem = "its weight is stored in float32 and quantized at run time: four times the size of integers"
            yield self._finding("remark", node, problem)
        yield from self._number(node, info, rule, "weight")
        if info.block:
            problem = f"its weight has a scale for every {info.block} elements; {target} takes none of those"
            yield self._finding("reject", node, problem)
            return
        shape = tensor.shape or source.inputs[0].shape
        axis = channel_axis(node) if index == 1 else None
        if not info.per_channel:
            is_wide = axis is not None and shape is not None and shape[axis] != 1
            if is_wide and granularity == "per-channel":
                problem = f"one scale for its whole weight; {target} takes one per channel, which is more exact"
                yield self._finding("remark", node, problem)
        elif granularity == "per-tensor":
            problem = f"its weight has a scale for each channel; {target} takes one for the tensor"
            yield self._finding("reject", node, problem)
        elif shape is None or axis is None or (info.axis or 0) % len(shape) != axis:
            lies = "there is no such axis" if axis is None else f"the output channels of {node.op} lie on axis {axis}"
            yield self._finding("reject", node, f"the scales of its weight run along axis {info.axis}, but {lies}")

    def _bias(self, node: gs.Node, bias: gs.Tensor, is_whole: bool) -> Iterator[Finding]:
        """F4. is_whole: the layer's weight and its data input are quantized."""
        target, dequantize = self.target, dequantizer(bias)
        if dequantize is None:
            if is_whole and target.bias == "int32":
                yield self._finding("remark", node, f"its bias is float32; {target.name} fuses int32 biases only")
            if is_whole:
                yield from self._float_bias(node, bias)
            return
        if not target.limits.bias_dequantize:
            problem = f"DequantizeLinear on its bias: {target.name} takes a float bias only"
            yield self._finding("reject", node, problem)
            return
        info = describe(pair(dequantize) or dequantize)
        if info.type != "int32":
            problem = f"its bias is {info.type}, not int32: it is no longer added to the sums exactly"
            yield self._finding("remark", node, problem)
            return
        if info.zero_point is not None and np.any(info.zero_point != 0):
            yield self._finding("reject", node, "its int32 bias has a zero point that is not 0")
        expected = _bias_scale(node) if is_whole else None
        if expected is None or info.scale is None:
            return
        if expected.size not in (1, info.scale.size) and info.scale.size % expected.size == 0:
            expected = np.tile(expected, info.scale.size // expected.size)  # a grouped ConvTranspose
        is_close = info.scale.size in (1, expected.size) and np.allclose(
            info.scale, expected, rtol=BIAS_TOLERANCE, atol=0
        )
        if not is_close:
            problem = "the scale of its int32 bias is not scale_x · scale_w: integer targets add it incorrectly"
            yield self._finding("reject", node, problem)

    def _float_bias(self, node: gs.Node, bias: gs.Tensor) -> Iterator[Finding]:
        """F6."""
        values, scale, output = constant_values(bias), _bias_scale(node), _quantized_result(node)
        if values is None or scale is None or output is None or values.ndim != 1 or not values.size:
            return
        if not np.isfinite(values).all() or (scale.size not in (1, values.size)):
            return  # onnxruntime leaves those float
        step = np.broadcast_to(scale, values.shape).astype(np.float64)
        codes = np.rint(values.astype(np.float64) / step)
        runs_it: Severity = "reject" if self.target.limits.contrib_ops else "remark"
        over = np.flatnonzero(np.abs(codes) > INT32_MAX)
        if over.size:
            worst = int(over[np.abs(codes[over]).argmax()])
            problem = (
                f"the bias {values[worst]:.4g} of channel {worst}{_others(over)} is {abs(codes[worst]):.2g} steps of "
                "scale_x · scale_w: onnxruntime makes it int32 when it loads the model, and it overflows"
            )
            yield self._finding(runs_it, node, problem, f"{self._again()}, which widens the weight scale there")
        lost = np.flatnonzero(np.abs(codes * step - values) > max(output, 0.0))
        lost = lost[np.abs(codes[lost]) <= INT32_MAX]
        if lost.size:
            worst = int(lost[np.abs(codes[lost] * step[lost] - values[lost]).argmax()])
            problem = (
                f"the bias {values[worst]:.4g} of channel {worst}{_others(lost)} is no multiple of scale_x · scale_w = "
                f"{step[worst]:.2g}: onnxruntime makes it int32 when it loads the model, "
                f"{codes[worst] * step[worst]:.4g}"
            )
            yield self._finding(runs_it, node, problem, f"{self._again()}, which fits the weight scale to the bias")

    def _again(self) -> str:
        return f"onnxq quantize --requantize --profile {self.target.name}"


def _others(channels: NDArray[np.intp]) -> str:
    return f" (and of {channels.size - 1} more)" if channels.size > 1 else ""


def _quantized_result(node: gs.Node) -> float | None:
    """The scale of the QuantizeLinear that alone reads the layer's result, through Relu and Clip; None without one."""
    while len(node.outputs) == 1 and len(readers := node.outputs[0].outputs) == 1:
        (node,) = readers
        if is_quantize(node):
            scale = describe(node).scale
            return None if scale is None or scale.size != 1 else float(scale.reshape(()))
        if not is_op(node, "Relu", "Clip"):
            return None
    return None


def _bias_scale(node: gs.Node) -> NDArray[np.float64] | None:
    """scale_x · scale_w, (1,) or (channels,), as a runtime in float32 has it; None where it is not constant."""
    found = []
    for tensor in node.inputs[:2]:
        dequantize = dequantizer(tensor)
        assert dequantize is not None
        found.append(describe(dequantize).scale)
    x, w = found
    # A runtime multiplies in float32 and keeps what it would flush to zero at the smallest normal number.
    return None if x is None or w is None else np.maximum(np.asarray(x * w), np.finfo(np.float32).tiny).reshape(-1)
