"""Layer and RMS normalization decomposed into elementary operators, as exporters write it before opset 17 and 23.

d = x − mean(x), or x itself (RMS); y = d / sqrt(mean(d²) + ε) · γ + β, means along the last axis. Keras has it as
x · a + (β − mean(x) · a) with a = γ / sqrt(mean(d²) + ε). Rounding every step to 8 bits would lose too much accuracy,
so it is treated as one operator, however it is written.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxq.graph.axes import listed_axes
from onnxq.graph.identity import IdentitySet
from onnxq.graph.match import (
    consumers,
    input_at,
    is_constant,
    is_op,
    output_ids,
    producer,
    rank,
    scalar_value,
    sole_consumer,
)

NORM_OPS = ("LayerNormalization", "RMSNormalization")


@dataclass(frozen=True)
class Norm:
    """One normalization. nodes: unordered; root produces the result. reads: (node, input index) where x is read.

    gamma, beta: constants, None where there is none. center: whether the mean is subtracted.
    """

    nodes: tuple[gs.Node, ...]
    root: gs.Node
    x: gs.Tensor
    reads: tuple[tuple[gs.Node, int], ...]
    gamma: gs.Tensor | None
    beta: gs.Tensor | None
    epsilon: float
    center: bool

    @property
    def rule_op(self) -> str:
        """The operator whose profile rule applies to the whole."""
        return NORM_OPS[0]


def of_node(node: gs.Node) -> Norm:
    """A normalization that is one node, of NORM_OPS."""
    epsilon = float(node.attrs.get("epsilon", 1e-5))
    gamma, beta = input_at(node, 1), input_at(node, 2)
    return Norm((node,), node, node.inputs[0], ((node, 0),), gamma, beta, epsilon, node.op == NORM_OPS[0])


def find_norms(graph: gs.Graph) -> list[Norm]:
    """Every normalization of the top-level graph whose inner tensors nothing else reads."""
    outputs = output_ids(graph)
    own = IdentitySet(graph.nodes)
    found = (_around(node) for node in graph.nodes if is_op(node, "Sqrt"))
    return [n for n in found if n is not None and all(m in own for m in n.nodes) and _closed(n, outputs)]


def _closed(norm: Norm, outputs: set[int]) -> bool:
    inside = IdentitySet(norm.nodes)
    inner = [t for n in norm.nodes if n is not norm.root for t in n.outputs]
    return all(id(t) not in outputs and all(c in inside for c in consumers(t)) for t in inner)


def _around(root: gs.Node) -> Norm | None:
    """The normalization whose square root this is."""
    shifted = producer(root.inputs[0])
    if shifted is None or not is_op(shifted, "Add"):
        return None
    epsilon, variance = _with_scalar(shifted)
    mean = None if variance is None else producer(variance)
    square = producer(mean.inputs[0]) if mean is not None and _is_last_mean(mean) else None
    squared = None if square is None else _squared(square)
    if epsilon is None or mean is None or square is None or squared is None:
        return None
    inner = [square, mean, shifted, root]
    quotient = _quotient(root)
    if quotient is None:
        return _by_terms(root, squared, inner, epsilon)
    last, dividend, between = quotient
    x, centering = _centered((squared, dividend))
    if x is None and squared is not dividend:
        return None
    gamma, beta, behind = _affine(last)
    result = behind[-1] if behind else last
    source = dividend if x is None else x
    nodes = [*centering, *inner, *between, last, *behind]
    return _norm(nodes, result, source, gamma, beta, epsilon, x is not None)


def _norm(
    nodes: list[gs.Node],
    root: gs.Node,
    x: gs.Tensor,
    gamma: gs.Tensor | None,
    beta: gs.Tensor | None,
    epsilon: float,
    center: bool,
) -> Norm:
    own = list(IdentitySet(nodes))
    reads = [(n, i) for n in own for i, t in enumerate(n.inputs) if t is x]
    return Norm(tuple(own), root, x, tuple(reads), gamma, beta, epsilon, center)


def _by_terms(root: gs.Node, squared: gs.Tensor, inner: list[gs.Node], epsilon: float) -> Norm | None:
    """The Keras form: x · a + (β − mean · a), or + (−mean · a)."""
    x, centering = _centered((squared, squared))
    inverse = _inverse(root)
    if x is None or inverse is None:
        return None
    factor, gamma = inverse.outputs[0], None
    nodes = [*centering, *inner, inverse]
    scale = sole_consumer(factor)
    if scale is not None and is_op(scale, "Mul") and any(_for_rows(t) for t in scale.inputs):
        gamma = next(t for t in scale.inputs if is_constant(t))
        factor = scale.outputs[0]
        nodes.append(scale)
    terms = consumers(factor)
    if len(terms) != 2 or not all(is_op(n, "Mul") for n in terms):
        return None
    straight = next((n for n in terms if any(t is x for t in n.inputs)), None)
    shift = next((n for n in terms if n is not straight), None)
    if straight is None or shift is None:
        return None
    taken = next((t for t in shift.inputs if t is not factor), None)
    source = None if taken is None else producer(taken)
    negative = source is not None and is_op(source, "Neg")
    if negative:
        assert source is not None
        nodes.append(source)
        source = producer(source.inputs[0])
    if source is not centering[0]:
        return None
    nodes += [straight, shift]
    end = _end_of_terms(straight, shift, negative)
    if end is None:
        return None
    beta, behind = end
    return _norm([*nodes, *behind], behind[-1], x, gamma, beta, epsilon, True)


def _end_of_terms(
    straight: gs.Node, shift: gs.Node, negative: bool
) -> tuple[gs.Tensor | None, tuple[gs.Node, ...]] | None:
    """(β, the nodes) that combine the products into x · a + β − mean · a. negative: whether `shift` is −mean · a."""
    last, end = sole_consumer(straight.outputs[0]), sole_consumer(shift.outputs[0])
    if last is None or end is None:
        return None
    if end is last:
        ordered = is_op(last, "Sub") and last.inputs[0] is straight.outputs[0]
        return (None, (last,)) if (is_op(last, "Add") if negative else ordered) else None
    beta = next((t for t in end.inputs if _for_rows(t)), None)
    ordered = is_op(end, "Sub") and end.inputs[0] is beta
    if beta is None or not (is_op(end, "Add") if negative else ordered):
        return None
    return (beta, (end, last)) if sole_consumer(end.outputs[0]) is last and is_op(last, "Add") else None


def _for_rows(tensor: gs.Tensor) -> bool:
    """Whether a constant is a scalar, or has one value per element of a row."""
    return is_constant(tensor) and all(d == 1 for d in tuple(tensor.shape)[:-1])


def _inverse(root: gs.Node) -> gs.Node | None:
    """The node that computes 1 / root, if nothing else reads the root."""
    node = sole_consumer(root.outputs[0])
    if node is None:
        return None
    one = is_op(node, "Div") and is_constant(node.inputs[0]) and scalar_value(node.inputs[0]) == 1
    return node if one or is_op(node, "Reciprocal") else None


def _centered(tensors: tuple[gs.Tensor, gs.Tensor]) -> tuple[gs.Tensor | None, list[gs.Node]]:
    """(x, the nodes) if each of the tensors is x − mean(x) of the same x; (None, []) otherwise."""
    nodes: list[gs.Node] = []
    sources: list[gs.Tensor] = []
    for tensor in tensors:
        node = producer(tensor)
        mean = producer(node.inputs[1]) if node is not None and is_op(node, "Sub") else None
        if node is None or mean is None or not _is_last_mean(mean) or mean.inputs[0] is not node.inputs[0]:
            return None, []
        nodes += [mean, node]
        sources.append(node.inputs[0])
    return (sources[0], nodes) if sources[0] is sources[1] else (None, [])


def _affine(node: gs.Node) -> tuple[gs.Tensor | None, gs.Tensor | None, list[gs.Node]]:
    """(gamma, beta, the nodes) of a product and a sum after the node, each with one constant per element of a row."""
    gamma = beta = None
    found: list[gs.Node] = []
    while beta is None:
        reader = sole_consumer(node.outputs[0])
        if reader is None or not is_op(reader, "Mul", "Add") or (reader.op == "Mul" and found):
            break
        constants = [t for t in reader.inputs if is_constant(t)]
        if len(constants) != 1 or not _for_rows(constants[0]):
            break
        found.append(reader)
        if reader.op == "Mul":
            (gamma,) = constants
        else:
            (beta,) = constants
        node = reader
    return gamma, beta, found


def _with_scalar(node: gs.Node) -> tuple[float | None, gs.Tensor | None]:
    """(constant, other operand) of a sum with a scalar."""
    for i in (0, 1):
        value = scalar_value(node.inputs[i]) if is_constant(node.inputs[i]) else None
        if value is not None:
            return float(value), node.inputs[1 - i]
    return None, None


def _is_last_mean(node: gs.Node) -> bool:
    """Whether the node is the mean along the last axis, with the axis kept."""
    if is_op(node, "GlobalAveragePool"):  # TensorFlow's converter emits it for a mean of [N, T, C] along C
        return rank(node.inputs[0]) == 3
    if not is_op(node, "ReduceMean") or not node.attrs.get("keepdims", 1):
        return False
    axes, length = listed_axes(node), rank(node.inputs[0])
    return axes == [-1] or (length is not None and axes == [length - 1])


def _squared(node: gs.Node) -> gs.Tensor | None:
    """What the node squares."""
    if is_op(node, "Pow") and is_constant(node.inputs[1]) and scalar_value(node.inputs[1]) == 2:
        return node.inputs[0]
    return node.inputs[0] if is_op(node, "Mul") and node.inputs[0] is node.inputs[1] else None


def _quotient(root: gs.Node) -> tuple[gs.Node, gs.Tensor, list[gs.Node]] | None:
    """(node, dividend, nodes between) of the division by the root: d / r, d · (1 / r)."""
    node = sole_consumer(root.outputs[0])
    if node is not None and is_op(node, "Div") and not is_constant(node.inputs[0]):
        return (node, node.inputs[0], []) if node.inputs[1] is root.outputs[0] else None
    inverse = _inverse(root)
    product = None if inverse is None else sole_consumer(inverse.outputs[0])
    if inverse is None or product is None or not is_op(product, "Mul") or any(is_constant(t) for t in product.inputs):
        return None
    other = product.inputs[1] if product.inputs[0] is inverse.outputs[0] else product.inputs[0]
    return product, other, [inverse]
