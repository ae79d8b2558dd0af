"""Costs of each layer: multiply-accumulates, parameters, bytes and bit operations, in float and in QDQ models.

Only matrix products are counted (convolutions, Gemm, MatMul, Einsum, recurrent layers); elementwise operators, pooling
and normalizations have 0 multiply-accumulates, as is customary in the literature. BOPS = b_w · b_a · MACs (HAWQ-V3,
section 3.4); a product with one float operand is computed in float, so both operands count at the float width. Weights
are found through DequantizeLinear and any other computation on constants alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_graphsurgeon as gs
from onnx import TensorProto

from onnxq.cost.concrete_shapes import Shapes, concrete_shapes
from onnxq.cost.macs import INTEGER_PRODUCTS, OPERANDS, multiply_accumulates, own_operator, packed_weight
from onnxq.graph import marks
from onnxq.graph.match import STANDARD_DOMAINS, input_at, is_channels_last, producer
from onnxq.graph.protos import ELEMENT_BITS, FLOAT_TYPES, OWN_DOMAIN
from onnxq.graph.qdq import QDQ
from onnxq.graph.shapes import element_type

FLOAT_BITS = 32
PACKED_BIAS = 5  # input of MatMulNBits
FLOAT_MIN = 16  # widths from this up are floating point

# Operators whose constants configure them and are not part of their arithmetic.
NO_PARAMETERS = ("Clip", "Resize", "Upsample", "Pad", "Range", "NonMaxSuppression", "OneHot", "QuantizeLinear")
RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")
# Operators that forward values unchanged: their output has the width of their input.
MOVERS = (
    "Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "MaxPool", "GlobalMaxPool", "Slice",
    "Split", "DepthToSpace", "SpaceToDepth", "Expand", "Tile", "Dropout",
)  # fmt: skip


@dataclass(frozen=True)
class LayerCost:
    """Costs of one node, for the shapes it was counted with.

    body: location, "" for the top level, else "node name.attribute" of the subgraph. weight_shape: of its weight, None
    without one. macs: multiply-accumulates per execution; None if shapes or the operator are unknown. parameters:
    number of constant elements it computes with (weights, biases, statistics). weight_bits, activation_bits: widths of
    the weight and of the data input, 32 in float; weight_bits is None without a weight. size: bytes of those constants
    in the file, with their scales and zero points. bops: bit_operations of these, None if macs is.
    """

    name: str
    op: str
    body: str
    weight_shape: tuple[int, ...] | None
    macs: int | None
    parameters: int
    weight_bits: int | None
    activation_bits: int | None
    size: int
    bops: int | None


@dataclass(frozen=True)
class Totals:
    """Sums over layers. macs and bops exclude the `unknown` layers. size, parameters: shared constants count once."""

    macs: int
    bops: int
    parameters: int
    size: int
    unknown: tuple[str, ...]


def layer_costs(graph: gs.Graph, input_shapes: Mapping[str, Sequence[int]] | Shapes | None = None) -> list[LayerCost]:
    """Costs of the layers of a graph and its subgraphs, in order: every matrix product and every node with parameters.

    graph: float or QDQ; not modified. input_shapes: {input name: dims} where the model leaves dimensions open, or
    already inferred shapes; an open batch is assumed to be 1. A subgraph counts as executed once.
    Raises ConfigError for shapes that do not fit the model's inputs.
    """
    shapes = input_shapes if isinstance(input_shapes, Shapes) else concrete_shapes(graph, input_shapes)
    known = known_tensors(graph)
    lowered = is_lowered(graph)
    costs = []
    for body, node in walk(graph):
        if id(node) in known or node.op in QDQ:
            continue
        cost = _cost(node, body, shapes, known)
        if lowered and is_dequantized_layer(node, known):
            cost = in_float(cost)
        if cost.macs != 0 or cost.parameters:
            costs.append(cost)
    return costs


def is_lowered(graph: gs.Graph) -> bool:
    """Whether the model has operators of com.onnxq: what is left of standard layers then computes in float."""
    return any(node.domain == OWN_DOMAIN for _, node in walk(graph))


def in_float(cost: LayerCost) -> LayerCost:
    """The cost of a layer whose weights are stored in integers but that computes in float."""
    bops = bit_operations(cost.macs, cost.weight_bits, FLOAT_BITS)
    return replace(cost, activation_bits=FLOAT_BITS, bops=bops)


def totals(graph: gs.Graph, costs: Iterable[LayerCost]) -> Totals:
    """Sums over the layers of a graph; constants that several layers share are counted once."""
    costs = list(costs)
    known = known_tensors(graph)
    shapes = Shapes(graph)
    weights: dict[int, int] = {}
    stored: dict[int, gs.Constant] = {}
    for _, node in walk(graph):
        if id(node) not in known:
            weights.update((id(t), _elements(node, t, shapes)) for t in _parameter_tensors(node, known))
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant):
                stored[id(tensor)] = tensor
    return Totals(
        sum(c.macs or 0 for c in costs),
        sum(c.bops or 0 for c in costs),
        sum(weights.values()),
        sum(stored_bytes(t) for t in stored.values()),
        tuple(c.name for c in costs if c.macs is None),
    )


def walk(graph: gs.Graph, body: str = "") -> Iterator[tuple[str, gs.Node]]:
    """Every node with its subgraph ("" for the top level); nodes of a subgraph follow the node that contains it."""
    for node in graph.nodes:
        yield body, node
        for name, attr in node.attrs.items():
            if isinstance(attr, gs.Graph):
                yield from walk(attr, f"{node.name}.{name}")


def known_tensors(graph: gs.Graph) -> set[int]:
    """ids of the tensors that depend on constants alone, and of the nodes that produce them."""
    known: set[int] = set()
    for _, node in walk(graph):
        present = [t for t in node.inputs if not t.is_empty()]
        if not present or node.op in RANDOM or any(isinstance(a, gs.Graph) for a in node.attrs.values()):
            continue
        if all(isinstance(t, gs.Constant) or id(t) in known for t in present):
            known.add(id(node))
            known.update(id(t) for t in node.outputs)
    return known


def bit_operations(macs: int | None, weight_bits: int | None, activation_bits: int | None) -> int | None:
    """b_w · b_a · macs; with an operand in float (16 bits or more, or None: 32) the wider width squared · macs."""
    if macs is None:
        return None
    w, a = weight_bits or FLOAT_BITS, activation_bits or FLOAT_BITS
    return macs * (w * a if max(w, a) < FLOAT_MIN else max(w, a) ** 2)


def tensor_bits(tensor: gs.Tensor) -> int:
    """Width of a tensor's values in bits: of the integers it was dequantized from, else its type; 32 if unknown."""
    origin, node = tensor, producer(tensor)
    while node is not None and _moves(node):
        origin = node.inputs[0]
        node = producer(origin)
    if node is None or node.op not in ("DequantizeLinear", "QuantizeLinear"):
        return type_bits(origin)
    if node.op == "DequantizeLinear":
        if marked := _marked_bits(node):
            return marked
        codes, made_by = node.inputs[0], producer(node.inputs[0])
        if made_by is None or made_by.op != "QuantizeLinear":
            return tensor_bits(codes)
        node = made_by
    clip = producer(node.inputs[0])
    return _marked_bits(node) or (_marked_bits(clip) if clip is not None else None) or type_bits(node.outputs[0])


def _moves(node: gs.Node) -> bool:
    return (node.op in MOVERS and node.domain in STANDARD_DOMAINS) or is_channels_last(node)


def type_bits(tensor: gs.Tensor) -> int:
    """Width of a tensor's element type in bits, 32 if unknown."""
    return ELEMENT_BITS.get(element_type(tensor), FLOAT_BITS)


def stored_bytes(constant: gs.Constant) -> int:
    """Bytes of a constant's values in the file, without loading them; 4-bit values two to a byte."""
    count = _count(tuple(constant.shape)) or 0
    return 0 if element_type(constant) == TensorProto.STRING else (count * type_bits(constant) + 7) // 8


def operands(node: gs.Node, known: set[int]) -> tuple[gs.Tensor | None, gs.Tensor | None]:
    """(data, weight) of a node; weight is None if there is none that depends on constants alone (known_tensors)."""

    def fixed(tensor: gs.Tensor | None) -> bool:
        return tensor is not None and (isinstance(tensor, gs.Constant) or id(tensor) in known)

    if node.op in OPERANDS and node.domain in STANDARD_DOMAINS:
        data, weight = (input_at(node, i) for i in OPERANDS[node.op])
        if node.op in ("MatMul", "Einsum") and fixed(data) and not fixed(weight):
            data, weight = weight, data
        return data, weight if fixed(weight) else None
    if (own := own_operator(node)) is not None:
        constants = [t for i in own.parameter_indices if fixed(t := input_at(node, i))]
        data = next((t for t in node.inputs if not t.is_empty() and not fixed(t)), None)
        return data, constants[0] if constants else None
    if packed_weight(node) is not None:
        packed = input_at(node, 1)
        return node.inputs[0], packed if fixed(packed) else None
    found = _parameter_tensors(node, known)
    data = next((t for t in node.inputs if not t.is_empty() and not fixed(t)), None)
    return data, max(found, key=lambda t: _count(_shape(t)) or 0, default=None)


def is_dequantized_layer(node: gs.Node, known: set[int]) -> bool:
    """Whether a standard layer's weight is dequantized, or all of its operands are. known: known_tensors.

    In a QDQ model the target computes it in integers; in an integer-only model it runs in float.
    """
    if node.domain not in STANDARD_DOMAINS or node.op not in OPERANDS or node.op in (*INTEGER_PRODUCTS, "Gather"):
        return False
    data, weight = operands(node, known)
    if weight is not None:
        return _is_dequantized(weight)
    other = input_at(node, OPERANDS[node.op][1])
    return data is not None and other is not None and _is_dequantized(data) and _is_dequantized(other)


def _is_dequantized(tensor: gs.Tensor) -> bool:
    """Whether a DequantizeLinear computes the tensor, possibly followed by operators that move values."""
    node = producer(tensor)
    while node is not None and (_moves(node) or node.op == "Cast"):
        node = producer(node.inputs[0])
    return node is not None and node.op == "DequantizeLinear"


def _marked_bits(node: gs.Node) -> int | None:
    return marks.BITS.get(node) or None


def _cost(node: gs.Node, body: str, shapes: Shapes, known: set[int]) -> LayerCost:
    data, weight = operands(node, known)
    macs = multiply_accumulates(node, shapes)
    other = input_at(node, OPERANDS[node.op][1]) if macs and node.op in OPERANDS else None
    activation_bits = tensor_bits(data) if data is not None else None
    packed = packed_weight(node) if weight is not None else None
    weight_bits = None if weight is None else packed.bits if packed is not None else tensor_bits(weight)
    other_bits = weight_bits or (tensor_bits(other) if other is not None else None)
    stored: dict[int, gs.Constant] = {}
    parameters = 0
    for tensor in _parameter_tensors(node, known):
        parameters += _elements(node, tensor, shapes)
        stored.update((id(c), c) for c in _constants_behind(tensor))
    if parameters and (packed is not None or own_operator(node) is not None):
        # Scales, multipliers and shifts are inputs of the node itself.
        stored.update((id(t), t) for t in node.inputs if isinstance(t, gs.Constant))
    return LayerCost(
        node.name,
        node.op,
        body,
        None if weight is None else packed.shape if packed is not None else shapes.of(weight),
        macs,
        parameters,
        weight_bits,
        activation_bits,
        sum(stored_bytes(c) for c in stored.values()),
        bit_operations(macs, other_bits, activation_bits),
    )


def _parameter_tensors(node: gs.Node, known: set[int]) -> list[gs.Tensor]:
    """Constants that the node computes with: floating point (dequantized or not), or integers of integer products.

    Of our own operators the weights and biases, not the multipliers, shifts and tables of the rescale.
    """
    if node.op in NO_PARAMETERS or node.op == "DequantizeLinear" or id(node) in known:
        return []
    indices: Iterable[int] = range(len(node.inputs))
    own = own_operator(node)
    if own is not None:
        indices = own.parameter_indices
    elif packed_weight(node) is not None:
        indices = (1, PACKED_BIAS)
    elif node.op in INTEGER_PRODUCTS and node.domain in STANDARD_DOMAINS:
        indices = (OPERANDS[node.op][1], 8) if node.op == "QLinearConv" else (OPERANDS[node.op][1],)
    found: dict[int, gs.Tensor] = {}
    for index in indices:
        tensor = input_at(node, index)
        if tensor is None or not (isinstance(tensor, gs.Constant) or id(tensor) in known):
            continue
        if element_type(tensor) in FLOAT_TYPES or node.op in INTEGER_PRODUCTS or own is not None or packed_weight(node):
            found[id(tensor)] = tensor
    return list(found.values())


def _elements(node: gs.Node, tensor: gs.Tensor, shapes: Shapes) -> int:
    """Number of values in a parameter tensor of a node."""
    packed = packed_weight(node)
    if packed is not None and tensor is input_at(node, 1):
        return math.prod(packed.shape)
    return _count(shapes.of(tensor)) or 0


def _constants_behind(tensor: gs.Tensor) -> list[gs.Constant]:
    """The constants from which a known tensor is computed."""
    found, seen, pending = [], set(), [tensor]
    while pending:
        t = pending.pop()
        if id(t) in seen:
            continue
        seen.add(id(t))
        if isinstance(t, gs.Constant):
            found.append(t)
        else:
            pending += [i for n in t.inputs for i in n.inputs if not i.is_empty()]
    return found


def _shape(tensor: gs.Tensor) -> tuple[int, ...] | None:
    if tensor.shape is None or not all(isinstance(d, int) for d in tensor.shape):
        return None
    return tuple(int(d) for d in tensor.shape)


def _count(shape: Sequence[int] | None) -> int | None:
    return None if shape is None else math.prod(shape)
