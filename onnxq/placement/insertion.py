"""Writing a placement into a graph: Q/DQ of activations, integer weights and biases with their DequantizeLinear."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs
from ml_dtypes import int4, uint4
from numpy.typing import NDArray

from onnxq.graph import marks
from onnxq.graph.identity import IdentityMap
from onnxq.graph.match import MatchFailure, Names, constant_values, consumers, is_float, producer
from onnxq.graph.refusal import Refused
from onnxq.numeric.formats import STORED_BITS, QuantFormat
from onnxq.numeric.qparams import QParams, qparams_from_range
from onnxq.numeric.quantize import quantize
from onnxq.numeric.weights import quantize_bias
from onnxq.placement.layer_weights import shared_weights
from onnxq.placement.plan import ConstantPlan, LayerPlan, Placement, Point
from onnxq.placement.settings import QuantSettings

OPSET_OUTPUT_TYPE = 21  # QuantizeLinear has output_dtype from here on


def storage_type(fmt: QuantFormat, narrowest: int = 8) -> np.dtype:
    """The numpy type that holds the codes: 8 or 16 bits, or (with narrowest=4) 4 where the format fits in."""
    if fmt.bits == STORED_BITS:
        return np.dtype(np.int16)
    if fmt.bits <= narrowest == 4:
        return np.dtype(int4 if fmt.signed else uint4)
    return np.dtype(np.int8 if fmt.signed else np.uint8)


class Inserter:
    """Collects the new nodes next to where they belong and writes them into the graph at the end.

    changed: points, constants and layers that were quantized. activations, weights: the parameters used, by tensor and
    by node. widened: layer → channels whose weight scale grew so that the bias fits.
    """

    def __init__(self, graph: gs.Graph, placement: Placement, settings: QuantSettings) -> None:
        self.changed = 0
        self.notes: list[str] = []
        self.skipped: list[MatchFailure] = []
        self.activations: dict[str, QParams] = {}
        self.weights: dict[str, QParams] = {}
        self.widened: dict[str, int] = {}
        self._graph, self._placement, self._settings = graph, placement, settings
        self._names = Names(graph)
        self._before: IdentityMap[gs.Node, list[gs.Node]] = IdentityMap()
        self._after: IdentityMap[gs.Node, list[gs.Node]] = IdentityMap()
        self._front: list[gs.Node] = []
        self._inputs: IdentityMap[gs.Node, QParams] = IdentityMap()  # of a node's data input
        # Of stored tensors: what their points read, and the node that makes the tensor.
        self._stored: IdentityMap[gs.Tensor, tuple[gs.Tensor, gs.Node]] = IdentityMap()

    def insert_stored(self, point: Point, qparams: QParams) -> None:
        """Q/DQ of 16 bits after a tensor, for every reader and for the points of the tensor."""
        source, maker = point.tensor, producer(point.tensor)
        assert maker is not None
        base, readers = f"{source.name}_stored", consumers(source)
        edges = [(n, i) for n in readers for i, t in enumerate(n.inputs) if t is source]
        is_output = any(t is source for t in self._graph.outputs)
        if is_output:
            source = self._rename_output(source, maker)
        result = point.tensor if is_output else self._variable(f"{base}_dequantized", np.float32, source.shape)
        self._after.setdefault(maker, []).extend(self._quantize_dequantize(base, source, result, qparams))
        for node, index in edges:
            node.inputs[index] = result
        self._stored[point.tensor] = result, maker
        self.changed += 1

    def insert_point(self, point: Point, qparams: QParams) -> None:
        """Q/DQ after a tensor; the readers that the placement names read the dequantized one."""
        base = point.tensor.name
        source, maker = self._stored.get(point.tensor) or (point.tensor, producer(point.tensor))
        read = source
        readers = list(point.edges)
        if point.whole:
            readers = [(n, i) for n in consumers(source) for i, t in enumerate(n.inputs) if t is source]
        is_output = point.whole and any(t is source for t in self._graph.outputs)
        if is_output and maker is not None:
            source = self._rename_output(source, maker)
        result = point.tensor if is_output else self._variable(f"{base}_dequantized", np.float32, source.shape)
        chain = self._quantize_dequantize(base, source, result, qparams)
        for node, index in readers:
            if node.inputs[index] is read:
                node.inputs[index] = result
            if index == 0:
                self._inputs[node] = qparams
        if maker is None:
            self._front += chain
        else:
            self._after.setdefault(maker, []).extend(chain)
        self.activations[base] = qparams
        self.changed += 1

    def _quantize_dequantize(self, base: str, source: gs.Tensor, result: gs.Tensor, qparams: QParams) -> list[gs.Node]:
        """The nodes that make `result` of `source`: Q and DQ, with a Clip to the grid of fewer bits upstream."""
        storage = storage_type(qparams.format)
        scale = self._constant(f"{base}_scale", qparams.scale)
        zero_point = self._constant(f"{base}_zero_point", qparams.zero_point.astype(storage))
        chain: list[gs.Node] = []
        if qparams.format.bits < 8:
            low, high = qparams.real_range()
            bounds = [
                self._constant(f"{base}_clip_{k}", np.asarray(v, np.float32)) for k, v in (("min", low), ("max", high))
            ]
            clipped = self._variable(f"{base}_clipped", np.float32, source.shape)
            clip = self._node("Clip", f"{base}_Clip", [source, *bounds], clipped)
            marks.BITS.set(clip, qparams.format.bits)
            chain.append(clip)
            source = clipped
        quantized = self._variable(f"{base}_quantized", storage, source.shape)
        quantize_node = self._node("QuantizeLinear", f"{base}_QuantizeLinear", [source, scale, zero_point], quantized)
        marks.MADE_BY.set(quantize_node, "insert-qdq")
        chain.append(quantize_node)
        # From opset 21 on onnxruntime 1.31 moves a DequantizeLinear of int8 past what only moves values, and refuses
        # the QuantizeLinear that it then makes, unless a zero point of 0 is left out.
        is_plain = (
            storage in (np.int8, np.int16)
            and not qparams.zero_point.any()
            and int(self._graph.opset) >= OPSET_OUTPUT_TYPE
        )
        read = [quantized, scale] if is_plain else [quantized, scale, zero_point]
        chain.append(self._node("DequantizeLinear", f"{base}_DequantizeLinear", read, result))
        return chain

    def _rename_output(self, tensor: gs.Tensor, maker: gs.Node) -> gs.Tensor:
        """A graph output keeps its name: its producer writes a fresh tensor, and the Q/DQ writes the output."""
        inner = self._variable(f"{tensor.name}_float", np.float32, tensor.shape)
        slot = next(i for i, t in enumerate(maker.outputs) if t is tensor)
        maker.outputs[slot] = inner
        return inner

    def quantize_operand(self, constant: ConstantPlan) -> None:
        """A constant operand of an elementwise operator: integers and a per-tensor DequantizeLinear."""
        node, fmt = constant.node, constant.format
        tensor = node.inputs[constant.input_index]
        values = constant_values(tensor)
        assert values is not None
        qparams = qparams_from_range(values.min(), values.max(), fmt)
        node.inputs[constant.input_index] = self._dequantized(node, tensor.name, values, qparams, storage_type(fmt))
        self.changed += 1

    def quantize_tables(self) -> None:
        """Constants of which an operator picks the values of a quantized tensor (embeddings): its codes."""
        for point in self._placement.points:
            node = producer(point.tensor)
            values = None if node is None or not node.inputs else constant_values(node.inputs[0])
            if node is None or values is None or self._placement.decisions[node.name].action != "passthrough":
                continue
            qparams = self.activations[point.tensor.name]
            if qparams.format.bits == 8 and is_float(node.inputs[0]):
                name = node.inputs[0].name
                node.inputs[0] = self._dequantized(node, name, values, qparams, storage_type(qparams.format))
                self.weights[node.name] = qparams
                self.changed += 1

    def quantize_layers(self) -> None:
        """Integer weights and int32 biases of every layer; a weight shared by layers is stored once."""
        has_int32_bias = self._placement.profile.bias == "int32"
        for weight in shared_weights(self._placement.layers, self._inputs, has_int32_bias, self._settings):
            first, qparams = weight.layers[0], weight.qparams
            for layer, bias in zip(weight.layers, weight.biases, strict=True):
                if isinstance(bias, Refused):
                    self.skipped.append(MatchFailure(bias.reason, layer.node.name))
            self.widened |= weight.widened
            for name, channels in weight.widened.items():
                why = "the int32 bias fits" if has_int32_bias else "its bias fits int32, which onnxruntime makes of it"
                self.notes.append(f"{name}: weight scale widened in {channels} channel(s) so that {why}")
            storage = storage_type(first.weight_format, 4)
            dequantized = self._dequantized(first.node, first.weight.name, weight.values, qparams, storage)
            for layer, bias in zip(weight.layers, weight.biases, strict=True):
                layer.node.inputs[layer.weight_index] = dequantized
                if bias is not None and not isinstance(bias, Refused):
                    self._quantize_bias(layer, bias, qparams)
                self.weights[layer.node.name] = qparams
                self.changed += 1

    def _quantize_bias(self, layer: LayerPlan, bias: NDArray[np.float32], qparams: QParams) -> None:
        assert layer.bias is not None
        if qparams.axis is not None and qparams.scale.size != bias.size:
            repeats = bias.size // qparams.scale.size
            qparams = QParams(np.tile(qparams.scale, repeats), np.tile(qparams.zero_point, repeats), qparams.format, 0)
        codes, scale = quantize_bias(bias, float(self._inputs[layer.node].scale), qparams)
        name, shape = layer.bias.name, layer.bias.shape
        attrs = {"axis": len(shape) - 1} if scale.ndim else {}
        inputs = [self._constant(f"{name}_quantized", codes.reshape(shape)), self._constant(f"{name}_scale", scale)]
        result = self._variable(f"{name}_dequantized", np.float32, list(shape))
        node = self._node("DequantizeLinear", f"{name}_DequantizeLinear", inputs, result, attrs)
        reader, index = layer.bias_reader
        self._before.setdefault(reader, []).append(node)
        reader.inputs[index] = result

    def _dequantized(
        self, node: gs.Node, name: str, values: NDArray, qparams: QParams, storage: np.dtype
    ) -> gs.Variable:
        """The constant as codes and a DequantizeLinear upstream of the node."""
        codes = self._constant(f"{name}_quantized", quantize(values, qparams).astype(storage))
        scale = self._constant(f"{name}_scale", qparams.scale)
        zero_point = self._constant(f"{name}_zero_point", qparams.zero_point.astype(storage))
        result = self._variable(f"{name}_dequantized", np.float32, list(values.shape))
        attrs = {"axis": qparams.axis} if qparams.axis is not None else {}
        dq = self._node("DequantizeLinear", f"{name}_DequantizeLinear", [codes, scale, zero_point], result, attrs)
        if qparams.format.bits != (4 if storage.name.endswith("int4") else 8):
            marks.BITS.set(dq, qparams.format.bits)
        self._before.setdefault(node, []).append(dq)
        return result

    def finish(self) -> None:
        """Write the new nodes into the graph: beside what they belong to, the order of the others kept."""
        nodes = list(self._front)
        for node in self._graph.nodes:
            nodes += [*self._before.get(node, []), node, *self._after.get(node, [])]
        self._graph.nodes[:] = nodes

    def _constant(self, name: str, values: NDArray) -> gs.Constant:
        return gs.Constant(self._names.fresh(name), np.asarray(values))

    def _variable(self, name: str, dtype: object, shape: object) -> gs.Variable:
        return gs.Variable(self._names.fresh(name), dtype=np.dtype(dtype), shape=shape)  # type: ignore[call-overload]

    def _node(
        self, op: str, name: str, inputs: list[gs.Tensor], output: gs.Tensor, attrs: Mapping[str, object] | None = None
    ) -> gs.Node:
        return gs.Node(op, self._names.fresh(name), attrs=dict(attrs or {}), inputs=inputs, outputs=[output])
