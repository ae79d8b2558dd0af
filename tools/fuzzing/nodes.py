"""Mutations of nodes: which there are, what they read and make, operators, attributes, subgraphs, functions."""

from __future__ import annotations

import onnx
from onnx import AttributeProto, helper

from fuzzing import draws
from fuzzing.draws import Rng

OPERATORS = [
    "Abs",
    "Add",
    "ArgMax",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "CumSum",
    "DepthToSpace",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "Einsum",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "GRU",
    "Gather",
    "GatherElements",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GroupNormalization",
    "HardSwish",
    "Hardmax",
    "Identity",
    "If",
    "InstanceNormalization",
    "LRN",
    "LSTM",
    "LayerNormalization",
    "LeakyRelu",
    "LogSoftmax",
    "Loop",
    "LpPool",
    "MatMul",
    "MatMulInteger",
    "Max",
    "MaxPool",
    "Mean",
    "Min",
    "Mul",
    "NonZero",
    "OneHot",
    "PRelu",
    "Pad",
    "Pow",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
    "RandomNormal",
    "Range",
    "ReduceMax",
    "ReduceMean",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Resize",
    "RoiAlign",
    "Scan",
    "ScatterND",
    "SequenceConstruct",
    "Shape",
    "Sigmoid",
    "Size",
    "Slice",
    "Softmax",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Tanh",
    "Tile",
    "TopK",
    "Transpose",
    "Unsqueeze",
    "Upsample",
    "Where",
    "Xor",
    "Requantize",
    "AveragePoolChannelsLast",
    "LayerNorm",
    "LookupTable",
]
DOMAINS = ["", "ai.onnx", "com.onnxq", "com.microsoft", "ai.onnx.ml", "nowhere"]
ATTRIBUTES = {
    "axis": 1, "axes": [1], "pads": [1, 1, 1, 1], "strides": [1, 1], "dilations": [1, 1], "kernel_shape": [3, 3],
    "group": 1, "perm": [0, 1], "keepdims": 1, "to": 1, "block_size": 2, "ceil_mode": 1, "alpha": 1.0, "epsilon": 1e-5,
    "auto_pad": "SAME_UPPER", "mode": "linear", "output_dtype": 3, "saturate": 0, "transA": 1, "transB": 1, "shift": 3,
    "qmin": 0, "qmax": 255, "allowzero": 1, "output_shape": [3, 3], "blocksize": 2, "num_outputs": 2, "equation": "i->",
}  # fmt: skip
TEXTS = [b"", b"VALID", b"SAME_LOWER", b"nothing", b"linear", b"cubic", b"\xff\xfe", b"ij,jk->ik", b"...", b"x" * 3000]
MOST_BYTES = 1 << 16  # of a node with its subgraphs
DEEP = 40  # subgraphs in subgraphs; protobuf reads about 30


def drop(model: onnx.ModelProto, rng: Rng) -> None:
    """A node less."""
    nodes = draws.graph(model, rng).node
    if nodes:
        del nodes[int(rng.integers(len(nodes)))]


def duplicate(model: onnx.ModelProto, rng: Rng) -> None:
    """A node twice, sometimes with other outputs."""
    nodes = draws.graph(model, rng).node
    if nodes:
        copy = nodes.add()
        copy.CopyFrom(draws.one(rng, nodes[:-1] or nodes))
        if rng.random() < 0.7:
            for i, name in enumerate(copy.output):
                copy.output[i] = f"{name}_again"


def swap(model: onnx.ModelProto, rng: Rng) -> None:
    """Two nodes change places."""
    nodes = draws.graph(model, rng).node
    if len(nodes) > 1:
        a, b = (int(i) for i in rng.integers(len(nodes), size=2))
        held = onnx.NodeProto()
        held.CopyFrom(nodes[a])
        nodes[a].CopyFrom(nodes[b])
        nodes[b].CopyFrom(held)


def rewire(model: onnx.ModelProto, rng: Rng) -> None:
    """An input reads another tensor: any of the graph, which makes cycles, or a name that nothing makes."""
    holder = draws.graph(model, rng)
    reading = [n for n in holder.node if n.input]
    if reading:
        node = draws.one(rng, reading)
        node.input[int(rng.integers(len(node.input)))] = draws.name(rng, draws.names(holder))


def inputs(model: onnx.ModelProto, rng: Rng) -> None:
    """One input more, less, left out, or two swapped."""
    node = draws.node(model, rng)
    if node is None:
        return
    what = rng.random()
    if what < 0.25 or not node.input:
        node.input.append(draws.name(rng, draws.names(model.graph)))
    elif what < 0.5:
        del node.input[int(rng.integers(len(node.input)))]
    elif what < 0.75:
        node.input[int(rng.integers(len(node.input)))] = ""
    else:
        a, b = (int(i) for i in rng.integers(len(node.input), size=2))
        node.input[a], node.input[b] = node.input[b], node.input[a]


def outputs(model: onnx.ModelProto, rng: Rng) -> None:
    """One output more, less, left out, or with another name."""
    node = draws.node(model, rng)
    if node is None:
        return
    what = rng.random()
    if what < 0.3 or not node.output:
        node.output.append(draws.name(rng, [f"new_{len(node.output)}"]))
    elif what < 0.5:
        del node.output[int(rng.integers(len(node.output)))]
    else:
        node.output[int(rng.integers(len(node.output)))] = draws.name(rng, ["", *draws.names(model.graph)])


def operator(model: onnx.ModelProto, rng: Rng) -> None:
    """Another operator, or another domain."""
    node = draws.node(model, rng)
    if node is None:
        return
    if rng.random() < 0.75:
        others = [n.op_type for n in model.graph.node]
        node.op_type = draws.one(rng, OPERATORS if rng.random() < 0.7 else others)
    else:
        node.domain = draws.one(rng, DOMAINS)


def attribute(model: onnx.ModelProto, rng: Rng) -> None:
    """An attribute more, less, of another type, or with another value."""
    node = draws.node(model, rng)
    if node is None:
        return
    what = rng.random()
    if what < 0.25 or not node.attribute:
        key = draws.one(rng, list(ATTRIBUTES))
        node.attribute.append(helper.make_attribute(key, ATTRIBUTES[key]))
        changed = node.attribute[-1]
    else:
        changed = draws.one(rng, node.attribute)
    if what < 0.35 and node.attribute:
        node.attribute.remove(changed)
    elif what < 0.45:
        changed.type = draws.one(rng, [*AttributeProto.AttributeType.values()])
    elif what < 0.5:
        changed.name = draws.name(rng, list(ATTRIBUTES))
    else:
        _value(changed, rng)


def _value(changed: AttributeProto, rng: Rng) -> None:
    if changed.type == AttributeProto.INT:
        changed.i = draws.integer(rng)
    elif changed.type == AttributeProto.FLOAT:
        changed.f = draws.one(rng, draws.FLOATS)
    elif changed.type == AttributeProto.STRING:
        changed.s = draws.one(rng, TEXTS)
    elif changed.type == AttributeProto.INTS:
        kept = list(changed.ints)
        what = rng.random()
        if what < 0.2 and kept:
            kept.pop()
        elif what < 0.4:
            kept.append(draws.integer(rng))
        elif what < 0.45:
            kept = kept * 200
        elif kept:
            kept[int(rng.integers(len(kept)))] = draws.integer(rng)
        del changed.ints[:]
        changed.ints.extend(kept)
    elif changed.type == AttributeProto.FLOATS:
        changed.floats.append(draws.one(rng, draws.FLOATS))


def subgraph(model: onnx.ModelProto, rng: Rng) -> None:
    """A node moves into the branches of an If, at any depth, or into the body of a Loop."""
    holder = model.graph
    if not holder.node:
        return
    at = int(rng.integers(len(holder.node)))
    inner = onnx.NodeProto()
    inner.CopyFrom(holder.node[at])
    results = [helper.make_empty_tensor_value_info(o) for o in inner.output]
    condition = helper.make_tensor("fuzz_condition", onnx.TensorProto.BOOL, [], [True])
    if not any(t.name == condition.name for t in holder.initializer):
        holder.initializer.append(condition)
    for _ in range(1 if rng.random() < 0.8 else int(rng.integers(2, DEEP))):
        branch = helper.make_graph([inner], "branch", [], results)
        other = helper.make_graph([inner], "other", [], results if rng.random() < 0.9 else [])
        names = list(inner.output)
        inner = helper.make_node("If", [condition.name], names, then_branch=branch, else_branch=other)
        if inner.ByteSize() > MOST_BYTES:
            break
    holder.node[at].CopyFrom(inner)


def function(model: onnx.ModelProto, rng: Rng) -> None:
    """A node becomes the call of a function, which may call itself, or others that do so many times."""
    if not model.graph.node:
        return
    at = int(rng.integers(len(model.graph.node)))
    node = onnx.NodeProto()
    node.CopyFrom(model.graph.node[at])
    domain = "fuzz" if rng.random() < 0.8 else "com.onnxq"
    names = [f"f{i}" for i in range(1 if rng.random() < 0.7 else int(rng.integers(2, 130)))]
    arguments, results = [n for n in node.input if n], [n for n in node.output if n]
    opsets = list(model.opset_import)
    for i, name in enumerate(names):
        following = names[i + 1] if i + 1 < len(names) else draws.one(rng, names) if rng.random() < 0.3 else None
        body = [node]
        if following is not None:
            calls = range(1 if rng.random() < 0.8 else 8)
            body = [
                helper.make_node(following, arguments, [f"{r}{c or ''}" for r in results], domain=domain) for c in calls
            ]
        imports = [*opsets, helper.make_opsetid(domain, 1)]
        model.functions.append(helper.make_function(domain, name, arguments, results, body, imports))
    model.graph.node[at].CopyFrom(helper.make_node(names[0], arguments, results, domain=domain))
    if not any(o.domain == domain for o in opsets) and rng.random() < 0.9:
        model.opset_import.append(helper.make_opsetid(domain, 1))


MUTATIONS = [drop, duplicate, swap, rewire, rewire, inputs, inputs, outputs, operator, operator,
             attribute, attribute, attribute, attribute, subgraph, function]  # fmt: skip
