"""What a target would reject or leave unfused in a QDQ model: every Q/DQ and every layer, held against the profile.

Rules, cited by number in the code:
 1. Scales are constant, finite and > 0; a DequantizeLinear maps back as its QuantizeLinear mapped; activations have one
    scale a tensor; scales are powers of two where the target shifts.
 2. Types, signs and zero points are the profile's. A wrong sign or zero point is a rejection where the profile says
    that the target takes no other zero point than 0, and a remark elsewhere.
 3. Weights are integers behind a DequantizeLinear, per channel where the profile says so, along the output channels.
 4. Biases are int32 with scale_x · scale_w, or float where the target rejects a DequantizeLinear on them.
 5. Elementwise sums have Q/DQ on no input (graph scheme 1), on exactly one (2) or on all (3).
 6. Concatenations, and operators that only move values, keep one scale on both sides where the profile ties them.
 7. No Q/DQ stands between a layer and the activation that would run inside it.
 8. What the profile quantizes has quantized inputs, and Q behind it where the target needs that to compute in integers.
 9. What only feeds a Softmax has no Q/DQ where the target computes that in float, and no scale that covers a mask.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.check.findings import Finding, Severity
from onnxq.check.float_model import matters
from onnxq.graph.axes import LINEAR_OPS, channel_axis
from onnxq.graph.element_types import fill_types
from onnxq.graph.match import (
    STANDARD_DOMAINS,
    consumers,
    input_at,
    is_constant,
    is_float,
    output_ids,
    producer,
    sole_consumer,
)
from onnxq.graph.qdq import (
    QdqInfo,
    dequantizer,
    describe,
    grid_bits,
    is_dequantize,
    is_quantize,
    is_quantized_constant,
    pair,
    quantizers,
)
from onnxq.patterns.attention import feeds_softmax, float_softmax, from_integers
from onnxq.patterns.composites import Unit, find_units
from onnxq.placement.fitness import BINARY, SUMS, may_stay_float
from onnxq.profiles.schema import ActivationRule, Profile, WeightRule

# Relative difference that float32 rounding of scale_x · scale_w can explain.
BIAS_TOLERANCE = 1e-4
# Steps of scores that leave a Softmax nothing but its largest: the next one has exp(-8) of its weight.
LARGEST_SCORE_STEP = 8.0


def check_qdq(graph: gs.Graph, target: Profile) -> list[Finding]:
    """Findings about one graph, in its order."""
    return _Checker(graph, target).run()


class _Checker:
    def __init__(self, graph: gs.Graph, target: Profile) -> None:
        self.graph, self.target = graph, target
        fill_types(graph)
        self.outputs = output_ids(graph)
        self.scores = feeds_softmax(graph)
        self.counted = from_integers(graph)
        self.units = find_units(graph, target, self.counted)
        self.again = f"onnxq quantize --requantize --profile {target.name}"
        self.findings: list[Finding] = []

    def run(self) -> list[Finding]:
        for node in self.graph.nodes:
            if is_quantize(node) or is_dequantize(node):
                self._pair(node)
            elif node.domain not in STANDARD_DOMAINS or self._is_said(node):
                continue
            elif node.op in LINEAR_OPS:
                self._layer(node)
                self._behind(node)
            else:
                self._operator(node)
        return self.findings

    def _is_said(self, node: gs.Node) -> bool:
        """What is part of something larger is said once; of scores and masks what rule 9 says, or nothing."""
        unit = self.units.get(id(node))
        if unit is not None:
            if node is unit.root:
                self._unit(unit)
            return True
        quantized = any(dequantizer(t) is not None for t in node.inputs)
        if id(node) in self.scores and float_softmax(self.target):
            if quantized:
                where = f"it only feeds a Softmax, which {self.target.name} runs in float"
                self._say("remark", node, f"{where}: Q/DQ only costs accuracy here")
            return True
        return id(node) in self.counted and not quantized

    def _unit(self, unit: Unit) -> None:
        what = f"{unit.rule_op} in {len(unit.nodes)} nodes"
        if self.target.rule(unit.rule_op).action == "float":
            self._say("remark", unit.root, f"{what} runs in float on {self.target.name}", "none with this profile")
        elif dequantizer(unit.x) is None:
            self._say("remark", unit.root, f"{what} runs in float: its input is not quantized")

    def _say(self, severity: Severity, node: gs.Node, problem: str, fix: str = "") -> None:
        self.findings.append(Finding(severity, node.name, problem, fix or self.again))

    # Q/DQ nodes: rules 1 and 2

    def _pair(self, node: gs.Node) -> None:
        info = describe(node)
        constant = isinstance(node.inputs[0], gs.Constant)
        before = pair(node) if is_dequantize(node) else None
        if before is not None and info.same_scale(describe(before)):
            return  # said about its QuantizeLinear already
        if info.scale is None or info.zero_point is None:
            self._say("reject", node, "its scale or zero point is computed at run time", "quantize with fixed scales")
            return
        if not (np.isfinite(info.scale).all() and (info.scale > 0).all()):
            self._say("reject", node, "a scale is not a finite number above 0", "calibrate again: a range is broken")
            return
        if before is not None:
            self._say("reject", node, f"its scale or zero point is not that of {before.name} before it")
            return
        if constant:
            return  # weights and biases are judged with their layer
        if info.per_channel:
            self._say("reject", node, "an activation has a scale for each channel; one for the tensor is possible")
        if grid_bits(producer(node.inputs[0])) not in (0, *self.target.activations.bits):
            bits = grid_bits(producer(node.inputs[0]))
            self._say("reject", node, f"{self.target.name} takes no {bits}-bit activations")
        self._number(node, info, self.target.activations, "activation")
        if id(node) in self.scores and float(info.scale.max()) > LARGEST_SCORE_STEP:  # rule 9
            problem = f"its scale {float(info.scale.max()):.2g} covers an attention mask: nothing is left of the scores"
            self._say("remark", node, problem)

    def _number(self, node: gs.Node, info: QdqInfo, rule: WeightRule | ActivationRule, what: str) -> None:
        """Rule 2, and powers of two of rule 1. node: whom to name."""
        target = self.target.name
        if "int" not in info.type:
            self._say("reject", node, f"its {what} is {info.type}; {target} takes integers")
            return
        if what == "activation" and info.bits < 8:
            self._say(
                "reject",
                node,
                f"its activation is stored as {info.type}: onnxruntime fails to load it or drops a Relu before it",
                "keep it in 8 bits with a Clip to the grid before, as onnxq does",
            )
            return
        if info.bits not in rule.bits and not (what == "activation" and info.bits == 8):
            self._say("reject", node, f"{target} takes no {info.bits}-bit {what}s ({info.type})")
            return
        strict: Severity = "remark" if self.target.limits.nonzero_zero_points else "reject"
        sign = rule.sign if isinstance(rule, ActivationRule) else "signed" if rule.signed else "unsigned"
        if sign != "auto" and info.signed != (sign == "signed"):
            self._say(strict, node, f"its {what} is {info.type}; {target} wants {sign} integers")
        if rule.symmetric and info.zero_point is not None and np.any(info.zero_point != 0):
            only = "takes no other" if strict == "reject" else "is symmetric: this costs it speed or exactness"
            self._say(strict, node, f"the zero point of its {what} is not 0; {target} {only}")
        if rule.power_of_two and info.scale is not None and np.any(np.frexp(info.scale)[0] != 0.5):
            self._say("reject", node, f"a scale of its {what} is not a power of two, and {target} shifts")

    # Layers: rules 3, 4 and 8

    def _layer(self, node: gs.Node) -> None:
        rule, target = self.target.rule(node.op), self.target.name
        known = [is_constant(t) or is_quantized_constant(t) for t in node.inputs[:2]]
        if not any(known):
            self._product(node)
            return
        index = 1 if known[1] else 0
        weight = is_quantized_constant(node.inputs[index])
        data = dequantizer(node.inputs[1 - index]) is not None
        if rule.action != "quantized":
            if weight or data:
                self._say("remark", node, f"{target} runs {node.op} in float: quantizing it only costs accuracy")
            return
        if not weight and not data:
            self._say("remark", node, f"{node.op} runs in float: neither its input nor its weight is quantized")
        elif not data:
            self._say("remark", node, f"{node.op} runs in float: its weight is quantized, its input is not")
        elif not weight:
            self._say("remark", node, f"{node.op} runs in float: its input is quantized, its weight is not")
        if weight:
            self._weight(node, index)
        bias = input_at(node, 2)
        if bias is not None and node.op != "MatMul":
            self._bias(node, bias, index if weight and data else None)

    def _product(self, node: gs.Node) -> None:
        """Two activations multiplied."""
        count = sum(dequantizer(t) is not None for t in node.inputs[:2])
        if self.target.rule(node.op).dynamic and node.op == "MatMul":
            if count < 2:
                self._say("remark", node, f"{node.op} runs in float: {2 - count} of its inputs are not quantized")
        else:
            self._say(
                "remark",
                node,
                f"{node.op} of two activations runs in float on {self.target.name}",
                "none with this profile",
            )

    def _weight(self, node: gs.Node, index: int) -> None:
        tensor = node.inputs[index]
        dequantize = dequantizer(tensor)
        assert dequantize is not None
        stored_float = pair(dequantize)
        info = describe(stored_float or dequantize)
        rule, target = self.target.weights, self.target.name
        if info.scale is None or info.zero_point is None:
            return  # said about the Q/DQ itself
        if stored_float is not None:
            self._say("remark", node, "its weight is stored in float32 behind Q/DQ: four times the size of integers")
        self._number(node, info, rule, "weight")
        if info.block:
            self._say(
                "reject", node, f"its weight has a scale for every {info.block} elements; {target} takes none of those"
            )
            return
        shape = tensor.shape or (stored_float or dequantize).inputs[0].shape
        axis = channel_axis(node) if index == 1 else None
        if not info.per_channel:
            wide = axis is not None and shape is not None and shape[axis] != 1
            if wide and rule.granularity == "per-channel":
                self._say(
                    "remark", node, f"one scale for its whole weight; {target} takes one a channel, which is more exact"
                )
            return
        if rule.granularity == "per-tensor":
            self._say("reject", node, f"its weight has a scale for each channel; {target} takes one for the tensor")
        elif shape is None or axis is None or (info.axis or 0) % len(shape) != axis:
            lies = (
                f"the output channels of {node.op} lie on axis {axis}" if axis is not None else "there is no such axis"
            )
            self._say("reject", node, f"the scales of its weight run along axis {info.axis}, but {lies}")

    def _bias(self, node: gs.Node, bias: gs.Tensor, index: int | None) -> None:
        """index: of the quantized weight in a layer whose input is quantized too, else None."""
        target = self.target
        dequantize = dequantizer(bias)
        if dequantize is None:
            if index is not None and target.bias == "int32":
                self._say("remark", node, f"its bias is float32; {target.name} fuses int32 biases only")
            return
        if not target.limits.bias_dequantize:
            self._say("reject", node, f"DequantizeLinear on its bias: {target.name} takes a float bias only")
            return
        info = describe(pair(dequantize) or dequantize)
        if info.type != "int32":
            self._say("remark", node, f"its bias is {info.type}, not int32: it is no longer added to the sums exactly")
            return
        if info.zero_point is not None and np.any(info.zero_point != 0):
            self._say("reject", node, "its int32 bias has a zero point that is not 0")
        expected = self._bias_scale(node, index)
        if expected is None or info.scale is None:
            return
        if expected.size not in (1, info.scale.size) and info.scale.size % expected.size == 0:
            expected = np.tile(expected, info.scale.size // expected.size)  # a grouped ConvTranspose
        if info.scale.size not in (1, expected.size) or not np.allclose(
            info.scale, expected, rtol=BIAS_TOLERANCE, atol=0
        ):
            self._say(
                "reject", node, "the scale of its int32 bias is not scale_x · scale_w: integer targets add it wrong"
            )

    def _bias_scale(self, node: gs.Node, index: int | None) -> np.ndarray | None:
        if index is None:
            return None
        found = []
        for tensor in node.inputs[:2]:
            dequantize = dequantizer(tensor)
            assert dequantize is not None
            found.append(describe(dequantize).scale)
        x, w = found
        # A runtime multiplies in float32 and keeps what it would flush to zero at the smallest normal number.
        return None if x is None or w is None else np.maximum(np.asarray(x * w), np.finfo(np.float32).tiny).reshape(-1)

    # Other operators: rules 5, 6 and 8

    def _operator(self, node: gs.Node) -> None:
        if grid_bits(node) or self._fused(node):
            return
        rule = self.target.rule(node.op)
        if rule.action == "passthrough":
            self._passthrough(node)
            return
        floats = [t for t in node.inputs if not t.is_empty() and is_float(t)]
        if node.op in SUMS and len([t for t in floats if not _constant(t)]) == 2:
            self._sum(node, [t for t in floats if not _constant(t)])
        elif node.op == "Concat":
            self._concat(node, floats)
        elif rule.action == "float":
            if matters(node) and floats:
                self._say("remark", node, f"{node.op} runs in float on {self.target.name}", "none with this profile")
        elif node.op in BINARY and any(is_constant(t) for t in floats) and not rule.constants:
            self._say("remark", node, f"{node.op} runs in float: one operand is a constant", "none with this profile")
        else:
            if rule.float_constants:
                floats = [t for i, t in enumerate(floats) if not (is_constant(t) and may_stay_float(node, i))]
            self._inputs(node, floats if node.op in BINARY else floats[:1])
        if rule.action == "quantized":
            self._behind(node)

    def _inputs(self, node: gs.Node, needed: list[gs.Tensor]) -> None:
        if any(dequantizer(t) is None for t in needed):
            self._say("remark", node, f"{node.op} runs in float: its input is not quantized")

    def _sum(self, node: gs.Node, inputs: list[gs.Tensor]) -> None:
        scheme, target = self.target.graph.scheme, self.target.name
        count = sum(dequantizer(t) is not None for t in inputs)
        if scheme == 1 or self.target.rule(node.op).action != "quantized":
            lost = f", but {count} of its inputs went through Q/DQ" if count else ""
            self._say("remark", node, f"{target} adds in float{lost}", "" if count else "none with this profile")
        elif scheme == 3:
            if count < 2:
                self._say("remark", node, f"{node.op} runs in float: {2 - count} of its inputs are not quantized")
        elif count == 0:
            self._say(
                "remark", node, f"{node.op} is not fused: neither input is quantized, {target} wants the shortcut's"
            )
        elif count == 2 and inputs[0] is not inputs[1] and self._could_be_wide(inputs):
            self._say(
                "remark",
                node,
                f"{node.op} is not fused: both inputs are quantized, {target} takes the residual's layer wide",
            )

    def _could_be_wide(self, inputs: list[gs.Tensor]) -> bool:
        """Whether one input comes from a layer through a Q/DQ that serves this sum alone."""
        for tensor in inputs:
            dequantize = dequantizer(tensor)
            quantize = pair(dequantize) if dequantize is not None else None
            if quantize is None or sole_consumer(tensor, self.outputs) is None:
                continue
            if len(consumers(quantize.outputs[0])) > 1:
                continue
            made_by = producer(quantize.inputs[0])
            if self.target.graph.residual_kept == "float":
                return True
            if made_by is not None and made_by.op in LINEAR_OPS:
                return sole_consumer(quantize.inputs[0], self.outputs) is not None
        return False

    def _concat(self, node: gs.Node, inputs: list[gs.Tensor]) -> None:
        mode, target = self.target.graph.concat, self.target.name
        sides = [dequantizer(t) for t in inputs]
        behind = quantizers(node.outputs[0])
        if self.target.rule(node.op).action != "quantized" or mode == "float":
            if any(s is not None for s in sides) and behind:
                self._say(
                    "remark", node, f"Concat has Q/DQ on both sides; {target} places its own, and rounds twice now"
                )
            return
        if behind and any(s is None for s in sides):
            self._say("remark", node, "Concat runs in float: not all of its inputs are quantized")
        elif behind and mode == "shared":
            infos = [describe(n) for n in (*(s for s in sides if s is not None), *behind)]
            if not all(infos[0].same_scale(i) for i in infos[1:]):
                self._say(
                    "remark", node, f"the inputs and the output of Concat differ in scale; {target} wants one for all"
                )

    def _passthrough(self, node: gs.Node) -> None:
        before, behind = dequantizer(node.inputs[0]) if node.inputs else None, quantizers(node.outputs[0])
        if not self.target.graph.tie_passthrough or before is None or not behind:
            return
        if not all(describe(before).same_scale(describe(q)) for q in behind):
            self._say("remark", node, f"{node.op} only moves values, but its output has another scale than its input")

    # Behind a layer: rules 7 and 8

    def _fused(self, node: gs.Node) -> bool:
        """Whether the node is an activation that runs inside the layer before it."""
        rule = self.target.graph
        before = producer(node.inputs[0]) if node.inputs else None
        if before is None or node.op not in rule.fused_activations or before.op not in rule.fused_after:
            return False
        return sole_consumer(node.inputs[0], self.outputs) is node

    def _behind(self, node: gs.Node) -> None:
        """What follows a quantized operator."""
        rule, tensor = self.target.graph, node.outputs[0]
        reader = sole_consumer(tensor, self.outputs)
        if node.op in rule.fused_after and reader is not None and is_quantize(reader):
            apart = self._activation_behind(reader)
            if apart is not None:
                self._say(
                    "remark", node, f"Q/DQ stands between it and {apart.op} {apart.name}, which would run inside it"
                )
        if self.target.rule(node.op).output != "always" or not self._is_quantized(node):
            return
        if reader is not None and self._fused(reader):
            tensor = reader.outputs[0]
            reader = sole_consumer(tensor, self.outputs)
        if quantizers(tensor) or (rule.scheme == 2 and reader is not None and reader.op in SUMS):
            return
        self._say("remark", node, f"no QuantizeLinear behind it: {self.target.name} computes {node.op} in float then")

    def _activation_behind(self, quantize: gs.Node) -> gs.Node | None:
        readers = consumers(quantize.outputs[0])
        if len(readers) != 1 or not is_dequantize(readers[0]):
            return None
        node = sole_consumer(readers[0].outputs[0], self.outputs)
        return node if node is not None and node.op in self.target.graph.fused_activations else None

    def _is_quantized(self, node: gs.Node) -> bool:
        needed = 2 if node.op in (*LINEAR_OPS, *SUMS) and self.target.graph.scheme == 3 else 1
        return sum(dequantizer(t) is not None for t in node.inputs) >= needed


def _constant(tensor: gs.Tensor) -> bool:
    return is_constant(tensor) or is_quantized_constant(tensor)
