"""The correspondence of tensors of a quantized model to those of the float model.

Matched by name, in this order:
1. A QuantizeLinear whose output is named X_quantized quantizes the float model's X, wherever it was inserted; in models
   of other tools it quantizes the tensor it reads. The counterpart of X is the output of its DequantizeLinear.
2. If only a Relu or Clip reads X and the quantized model no longer has that node, the QuantizeLinear saturates
   instead: it quantizes the activation's output, and X itself is matched by its name (case 3).
3. A tensor of the same name in both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.graph.match import consumers, is_op, is_tensor, output_ids, sole_consumer
from onnxq.graph.qdq import entry, is_dequantize, is_quantize

_STEM = re.compile(r"(.+)_quantized(_\d+)?")


@dataclass(frozen=True)
class Counterpart:
    """The quantized model's tensor for the float model's `name`. quantize: its QuantizeLinear, None without Q/DQ."""

    name: str
    tensor: str
    quantize: gs.Node | None


def counterparts(reference: gs.Graph, quantized: gs.Graph) -> dict[str, Counterpart]:
    """{name: counterpart} of the float model's activations (inputs, node outputs of the top level), in graph order."""
    outputs = output_ids(reference)
    floats = {t.name: t for t in (*reference.inputs, *(t for n in reference.nodes for t in n.outputs)) if is_float(t)}
    present = {t.name: t for t in quantized.tensors().values() if isinstance(t, gs.Variable) and is_float(t)}
    quantized_at: dict[str, Counterpart] = {}
    for node in quantized.nodes:
        result = _dequantized(node)
        if result is None or isinstance(entry(node), gs.Constant):
            continue
        stem = _STEM.fullmatch(node.outputs[0].name)
        name = stem.group(1) if stem and stem.group(1) in floats else entry(node).name
        while name in floats and (absorbed := _vanished(floats[name], outputs, present, quantized_at)):
            name = absorbed
        if name in floats:
            quantized_at.setdefault(name, Counterpart(name, result.name, node))
    found = {}
    for name in floats:
        if name in quantized_at:
            found[name] = quantized_at[name]
        elif name in present:
            found[name] = Counterpart(name, name, None)
    return found


def counterpart_of(graph: gs.Graph, name: str) -> str | None:
    """The tensor of a model, float or quantized, that corresponds to the float model's `name`; None without one."""
    tensors = graph.tensors()
    for node in graph.nodes:
        result = _dequantized(node)
        if result is None:
            continue
        stem = _STEM.fullmatch(node.outputs[0].name)
        if (stem and stem.group(1) == name) or entry(node).name == name:
            return result.name
    found = tensors.get(name)
    return name if isinstance(found, gs.Variable) else None


def _dequantized(node: gs.Node) -> gs.Tensor | None:
    """The output of the DequantizeLinear that reads a QuantizeLinear; None for other nodes."""
    if not is_quantize(node):
        return None
    reader = next((n for n in consumers(node.outputs[0]) if is_dequantize(n)), None)
    return reader.outputs[0] if reader is not None else None


def _vanished(
    tensor: gs.Tensor, outputs: set[int], present: dict[str, gs.Tensor], quantized_at: dict[str, Counterpart]
) -> str | None:
    """Output of the Relu or Clip that is the tensor's only reader, if the quantized model has no such node."""
    node = sole_consumer(tensor, outputs)
    if node is None or not is_op(node, "Relu", "Clip"):
        return None
    name = node.outputs[0].name
    return name if name not in present and name not in quantized_at else None


def is_float(tensor: gs.Tensor) -> bool:
    """Whether a tensor has a floating-point type that numpy supports; an unknown type counts as one."""
    if tensor.is_empty() or not is_tensor(tensor):
        return False
    if tensor.dtype is None:
        return True
    return not isinstance(tensor.dtype, int) and np.dtype(tensor.dtype).kind == "f"
