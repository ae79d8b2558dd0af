"""The pairs of tensors of an integer model and its QDQ model to compare, with their dimension order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.errors import ConfigError
from onnxq.graph import marks
from onnxq.graph.match import is_constant
from onnxq.graph.model import Model
from onnxq.graph.protos import OWN_DOMAIN
from onnxq.graph.qdq import dequantizer, entry, is_quantize

CODES = ("uint8", "int8", "uint16", "int16")


@dataclass(frozen=True)
class ComparedTensor:
    """A tensor to compare. expected: its name in the QDQ model, found: in the integer model.

    order: converts the QDQ model's values to the integer model's dimension order; None for a float output, which is not
    fed.
    """

    expected: str
    found: str
    order: Callable[[NDArray], NDArray] | None


def compared_codes(reference: Model, tested: Model) -> tuple[list[ComparedTensor], tuple[str, ...]]:
    """Quantized activations of the QDQ model that the integer model has under the same name, and those missing in it.

    Raises ConfigError if the second model was not lowered from the first.
    """
    if any(n.domain == OWN_DOMAIN for n in reference.graph.nodes):
        raise ConfigError(
            f"{reference.name} is already an integer model; give the QDQ model first and the lowered model second"
        )
    makers = {t.name: n for n in tested.graph.nodes for t in n.outputs}
    points, missing = [], []
    for node in reference.graph.nodes:
        if not is_quantize(node) or is_constant(entry(node)):
            continue
        tensor = node.outputs[0]
        maker = makers.get(tensor.name)
        if maker is None or _type(tensor) not in CODES:
            missing.append(tensor.name)
            continue
        found = next(t for t in maker.outputs if t.name == tensor.name)
        if _type(found) != _type(tensor):
            raise ConfigError(
                f"tensor {tensor.name} is {_type(tensor)} in {reference.name} and {_type(found)} in {tested.name}: was "
                "one lowered from the other?"
            )
        points.append(ComparedTensor(tensor.name, tensor.name, _order(maker)))
    if not points:
        raise ConfigError(
            f"{tested.name} has no quantized tensor of {reference.name}: was it lowered from this file (onnxq lower)?"
        )
    return points, tuple(missing)


def _type(tensor: gs.Tensor) -> str:
    return "" if tensor.dtype is None or isinstance(tensor.dtype, int) else np.dtype(tensor.dtype).name


def _order(maker: gs.Node) -> Callable[[NDArray], NDArray]:
    """Converts values from the QDQ model's dimension order to the order in which the node produces them."""
    perm, flattened = marks.LAYOUT.get(maker), marks.FLATTENED.get(maker)
    if perm is not None:
        return lambda values: values.transpose(perm)
    if flattened is not None:
        return lambda values: _reordered(values, *flattened)
    return lambda values: values


def _reordered(values: NDArray, sizes: tuple[int, ...], order: tuple[int, ...]) -> NDArray:
    lead = values.shape[:-1]
    axes = (*range(len(lead)), *(len(lead) + axis for axis in order))
    return values.reshape(*lead, *sizes).transpose(axes).reshape(values.shape)


def is_dequantized(reference: Model, name: str, points: Sequence[ComparedTensor]) -> bool:
    """Whether an output is only the dequantized codes of a tensor that is already compared."""
    tensor = next((t for t in reference.graph.outputs if t.name == name), None)
    node = None if tensor is None else dequantizer(tensor)
    return node is not None and any(p.expected == node.inputs[0].name for p in points)


def is_float_output(tensor: gs.Tensor) -> bool:
    """Whether a graph output is of a known floating-point type, bfloat16 included."""
    return _type(tensor).startswith(("float", "bfloat"))
