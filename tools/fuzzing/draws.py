"""Random choices of mutations: hostile numbers and names, and the parts of a model to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import TensorProto

T = TypeVar("T")
Rng = np.random.Generator
INTEGERS = [0, 1, 2, 3, 7, 63, 64, 127, 128, 255, 256, 1000, 65535, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1]
HOSTILE = [*INTEGERS, -1, -2, -3, -128, -(2**31), -(2**63)]
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-38, 1e-20, 1e20, 3e38, -3e38, float("nan"), float("inf"), float("-inf")]
NOT_UTF8 = "ÿÿÿ"  # replaced by bytes that are no text once the model is serialized (envelope.py)
NAMES = ["", " ", "a\nb", "\x1b[31mred\x1b[0m", "\x07\x08\r", "x" * 5000, "../../etc/passwd", "\u202egnp",
         "日本", "a\tb", "_", "0", "onnxq", "None",
         "a/b\\c", "{x}", "%s", "\u0000", "x.y.z", ".*", "[", "x=1", NOT_UTF8]  # fmt: skip
TYPES = [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.INT8,
         TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16, TensorProto.INT32, TensorProto.INT64,
         TensorProto.UINT64, TensorProto.BOOL, TensorProto.STRING, TensorProto.INT4, TensorProto.UINT4,
         TensorProto.FLOAT8E4M3FN, TensorProto.COMPLEX64, 0, 77]  # fmt: skip
QDQ = ("QuantizeLinear", "DequantizeLinear")


def one(rng: Rng, choices: Sequence[T]) -> T:
    """One of them; for lists of what numpy would convert."""
    return choices[int(rng.integers(len(choices)))]


def integer(rng: Rng) -> int:
    """A small or a hostile number of 64 bits."""
    return int(rng.integers(-3, 9)) if rng.random() < 0.5 else one(rng, HOSTILE)


def name(rng: Rng, known: Sequence[str]) -> str:
    """A name of the model, or a hostile one."""
    return one(rng, known) if known and rng.random() < 0.6 else one(rng, NAMES)


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and its subgraphs."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from graphs(inner)


def graph(model: onnx.ModelProto, rng: Rng) -> onnx.GraphProto:
    """The main graph, or a subgraph."""
    found = list(graphs(model.graph))
    return found[0] if rng.random() < 0.5 else one(rng, found)


def node(model: onnx.ModelProto, rng: Rng) -> onnx.NodeProto | None:
    """A node of any graph; of those of functions, some."""
    holders: list[Any] = [graph(model, rng)]
    if model.functions and rng.random() < 0.1:
        holders = [one(rng, model.functions)]
    nodes = holders[0].node
    if rng.random() < 0.25:
        quantizing = [n for n in nodes if n.op_type in QDQ]
        nodes = quantizing or nodes
    return one(rng, nodes) if nodes else None


def tensor(model: onnx.ModelProto, rng: Rng) -> TensorProto | None:
    """An initializer or the tensor of an attribute; often one that a Q/DQ node reads, or a small one."""
    holder = graph(model, rng)
    found = list(holder.initializer)
    found += [a.t for n in holder.node for a in n.attribute if a.HasField("t")]
    what = rng.random()
    if what < 0.3:
        read = {i for n in holder.node if n.op_type in QDQ for i in n.input}
        found = [t for t in found if t.name in read] or found
    elif what < 0.6:
        found = [t for t in found if np.prod(t.dims, dtype=np.float64) <= 64] or found
    return one(rng, found) if found else None


def names(holder: onnx.GraphProto) -> list[str]:
    """The tensors of a graph."""
    made = [o for n in holder.node for o in n.output]
    return [n for n in (*made, *(v.name for v in holder.input), *(t.name for t in holder.initializer)) if n]
