"""Random integer graphs: operators of com.onnxq and standard ones, with Transposes wherever chance puts them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxq.graph.protos import OWN_DOMAIN

BYTES = {"qmin": 0, "qmax": 255, "y_type": 2}
WIDE = {"qmin": -(2**31), "qmax": 2**31 - 1, "y_type": 6}
LIMIT = 4000  # elements of a tensor


@dataclass(frozen=True)
class Value:
    """A uint8 tensor."""

    name: str
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass
class Builder:
    """Grows a graph node by node, each reading tensors that are there already."""

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    count: int = 0

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        name = self.name("k")
        self.constants.append(numpy_helper.from_array(np.asarray(values).astype(dtype), name))
        return name

    def bytes(self, *shape: int) -> str:
        return self.constant(self.rng.integers(0, 256, shape), np.uint8)

    def multiplier(self, count: int = 1) -> str:
        return self.constant(self.rng.integers(1 << 28, 1 << 30, count), np.int32)

    def shift(self, bits: int = 32) -> str:
        return self.constant([bits], np.int32)

    def node(self, op: str, inputs: list[str], outputs: int = 1, own: bool = False, **attributes: Any) -> list[str]:
        made = [self.name("t") for _ in range(outputs)]
        domain = OWN_DOMAIN if own else ""
        self.nodes.append(helper.make_node(op, inputs, made, self.name(f"{op}_"), domain=domain, **attributes))
        return made

    def put(self, op: str, inputs: list[str], shape: tuple[int, ...], own: bool = False, **attributes: Any) -> Value:
        (made,) = self.node(op, inputs, own=own, **attributes)
        self.values.append(Value(made, shape))
        return self.values[-1]

    def pick(self, rank: int | None = None) -> Value:
        """A tensor that is there, later ones more often."""
        found = [v for v in self.values if rank is None or v.rank == rank]
        return found[int(len(found) * self.rng.random() ** 0.5)] if found else self.values[0]

    def axis(self, value: Value) -> int:
        return int(self.rng.integers(value.rank))


def transpose(b: Builder, value: Value | None = None, perm: list[int] | None = None) -> Value:
    value = value or b.pick()
    if perm is None:
        usual = [[0, 2, 3, 1], [0, 3, 1, 2]] if value.rank == 4 else []
        perm = (
            usual[int(b.rng.integers(2))] if usual and b.rng.random() < 0.7 else b.rng.permutation(value.rank).tolist()
        )
    shape = tuple(value.shape[p] for p in perm)
    if perm == [0, *range(2, value.rank), 1] and value.rank > 2 and b.count % 3 == 0:
        return b.put("ChannelsLast", [value.name], shape, own=True)
    return b.put("Transpose", [value.name], shape, perm=perm)


def conv(b: Builder) -> None:
    """As lowering writes it: between two Transposes."""
    value = b.pick(4)
    if value.rank != 4:
        return
    source = transpose(b, value, [0, 2, 3, 1])
    n, h, w, c = source.shape
    m, k = int(b.rng.integers(1, 6)), int(b.rng.choice([1, 3]))
    weight = b.constant(b.rng.integers(-128, 128, (m, k, k, c)), np.int8)
    bias = b.constant(b.rng.integers(-999, 999, m), np.int32)
    inputs = [source.name, weight, bias, b.multiplier(m), b.shift(36), b.constant([0], np.int8)]
    pads = [k // 2] * 4
    wide = b.rng.random() < 0.3
    made = b.put("Conv", inputs, (n, h, w, m), own=True, pads=pads, **(WIDE if wide else BYTES))
    back = transpose(b, made, [0, 3, 1, 2])
    if wide:  # wide tensors are read by requantize alone here
        for value in (made, back):
            b.values.remove(value)
        name = back.name
        b.put("Requantize", [name, b.multiplier(m), b.shift(33)], back.shape, own=True, axis=1, **BYTES)


def max_pool(b: Builder) -> None:
    value = b.pick(4)
    if value.rank != 4 or min(value.shape[2:]) < 2:
        return
    source = transpose(b, value, [0, 2, 3, 1])
    n, h, w, c = source.shape
    made = b.put("MaxPool", [source.name], (n, h // 2, w // 2, c), own=True, kernel_shape=[2, 2], strides=[2, 2])
    transpose(b, made, [0, 3, 1, 2])


def requantize(b: Builder) -> None:
    value = b.pick()
    axis = b.axis(value)
    count = value.shape[axis] if b.rng.random() < 0.5 else 1
    b.put("Requantize", [value.name, b.multiplier(count), b.shift(30)], value.shape, own=True, axis=axis, **BYTES)


def table(b: Builder) -> None:
    value = b.pick()
    b.put("LookupTable", [value.name, b.bytes(256)], value.shape, own=True)


def pair(b: Builder) -> None:
    """Add, Sub or Mul of two tensors, or of a tensor and a constant that is broadcast."""
    first = b.pick()
    alike = [v for v in b.values if _broadcasts(v.shape, first.shape)]
    other = alike[int(b.rng.integers(len(alike)))].name
    if b.rng.random() < 0.4:
        shape = [d if b.rng.random() < 0.5 else 1 for d in first.shape][int(b.rng.integers(first.rank + 1)) :]
        other = b.bytes(*shape)
    op = str(b.rng.choice(["Add", "Sub", "Mul", "Max"]))
    if op == "Max":
        b.put("Max", [first.name, other], first.shape)
    elif op == "Mul":
        inputs = [first.name, other, b.multiplier(), b.shift(35)]
        b.put("Mul", inputs, first.shape, own=True, a_zero_point=9, **BYTES)
    else:
        axis = b.axis(first)
        count = first.shape[axis]
        inputs = [first.name, other, b.multiplier(count), b.multiplier(), b.shift(30)]
        b.put(op, inputs, first.shape, own=True, axis=axis, b_zero_point=100, **BYTES)


def _broadcasts(shape: tuple[int, ...], into: tuple[int, ...]) -> bool:
    return len(shape) <= len(into) and all(a in (1, d) for a, d in zip(shape[::-1], into[::-1], strict=False))


def concat(b: Builder) -> None:
    first = b.pick()
    axis = b.axis(first)
    alike = [
        v
        for v in b.values
        if v.rank == first.rank and all(i == axis or v.shape[i] == d for i, d in enumerate(first.shape))
    ]
    other = alike[int(b.rng.integers(len(alike)))]
    shape = tuple(d + other.shape[i] if i == axis else d for i, d in enumerate(first.shape))
    if np.prod(shape) > LIMIT:
        return
    if b.rng.random() < 0.5:
        b.put("Concat", [first.name, other.name], shape, axis=axis)
    else:
        inputs = [b.multiplier(2), b.constant([30, 30], np.int32), first.name, other.name]
        b.put("Concat2", inputs, shape, own=True, axis=axis, zero_points=[0, 0], **BYTES)


def mean(b: Builder) -> None:
    value = b.pick()
    first = b.axis(value)
    axes = list(range(first, int(b.rng.integers(first, value.rank)) + 1))
    keep = int(b.rng.random() < 0.7 or len(axes) == value.rank)
    shape = tuple(1 if i in axes else d for i, d in enumerate(value.shape) if keep or i not in axes)
    if b.rng.random() < 0.6:
        inputs = [value.name, b.multiplier(), b.shift(33)]
        b.put("ReduceMean", inputs, shape, own=True, axes=axes, keepdims=keep, **BYTES)
    else:
        b.put("ReduceMax", [value.name, b.constant(axes)], shape, keepdims=keep)


def cut(b: Builder) -> None:
    """Slice or Split."""
    value = b.pick()
    axis = b.axis(value)
    size = value.shape[axis]
    if size < 2:
        return
    at = int(b.rng.integers(1, size))
    rest = tuple(size - at if i == axis else d for i, d in enumerate(value.shape))
    if b.rng.random() < 0.5:
        b.put("Slice", [value.name, b.constant([at]), b.constant([size]), b.constant([axis])], rest)
    else:
        names = b.node("Split", [value.name, b.constant([at, size - at])], 2, axis=axis)
        b.values += [
            Value(n, tuple(s if i == axis else d for i, d in enumerate(value.shape)))
            for n, s in zip(names, (at, size - at), strict=True)
        ]


def pad(b: Builder) -> None:
    value = b.pick()
    pads = b.rng.integers(0, 2, 2 * value.rank)
    shape = tuple(int(d + p) for d, p in zip(value.shape, pads[: value.rank] + pads[value.rank :], strict=True))
    if np.prod(shape) <= LIMIT:
        b.put("Pad", [value.name, b.constant(pads), b.constant(7, np.uint8)], shape)


def reshape(b: Builder) -> None:
    """Join two dimensions, split one, or take one of size 1 away or in."""
    value = b.pick()
    shape, at = list(value.shape), b.axis(value)
    way = b.rng.random()
    if way < 0.3 and len(shape) > 1 and at:
        shape[at - 1 : at + 1] = [shape[at - 1] * shape[at]]
    elif way < 0.6 and shape[at] % 2 == 0 and len(shape) < 6:
        shape[at : at + 1] = [2, shape[at] // 2]
    elif way < 0.8 and len(shape) < 6:
        b.put("Unsqueeze", [value.name, b.constant([at])], (*shape[:at], 1, *shape[at:]))
        return
    elif shape[at] == 1 and len(shape) > 1:
        b.put("Squeeze", [value.name, b.constant([at])], (*shape[:at], *shape[at + 1 :]))
        return
    b.put("Reshape", [value.name, b.constant(shape)], tuple(shape))


def gather(b: Builder) -> None:
    value = b.pick()
    axis = b.axis(value)
    if b.rng.random() < 0.5 or value.rank == 1:
        indices = b.rng.integers(0, value.shape[axis], 3)
        shape = (*value.shape[:axis], 3, *value.shape[axis + 1 :])
    else:
        indices, shape = np.asarray(0), (*value.shape[:axis], *value.shape[axis + 1 :])
    if np.prod(shape) <= LIMIT:
        b.put("Gather", [value.name, b.constant(indices)], shape, axis=axis)


def product(b: Builder) -> None:
    """Flatten and Gemm."""
    value = b.pick(4)
    if value.rank != 4:
        return
    n, k = value.shape[0], int(np.prod(value.shape[1:]))
    (flat,) = b.node("Flatten", [value.name])
    if b.rng.random() < 0.5:
        (flat,) = b.node("LookupTable", [flat, b.bytes(256)], own=True)
    weight, bias = b.constant(b.rng.integers(-128, 128, (k, 3)), np.int8), b.constant([1, 2, 3], np.int32)
    inputs = [flat, weight, bias, b.multiplier(), b.shift(38), b.constant([0], np.int8)]
    b.put("Gemm", inputs, (n, 3), own=True, **BYTES)


STEPS: list[tuple[Callable[[Builder], Any], int]] = [
    (conv, 4), (transpose, 4), (max_pool, 2), (requantize, 3), (table, 2), (pair, 5), (concat, 2), (mean, 2), (cut, 2),
    (pad, 1), (reshape, 2), (gather, 1), (product, 1),
]  # fmt: skip


def network(seed: int, steps: int = 12, known: bool = True) -> onnx.ModelProto:
    """A graph of opset 21 with one or two inputs and every tensor that nothing reads, and some others, as outputs.

    known: the inputs' sizes are numbers; otherwise all but their channels have names.
    """
    b = Builder(np.random.default_rng(seed))
    inputs = []
    for _ in range(int(b.rng.integers(1, 3))):
        b.values.append(Value(b.name("x"), (2, int(b.rng.integers(1, 6)), 4, int(b.rng.choice([4, 6])))))
        inputs.append(b.values[-1])
    kinds = [step for step, weight in STEPS for _ in range(weight)]
    for _ in range(steps):
        kinds[int(b.rng.integers(len(kinds)))](b)
    read = {name for node in b.nodes for name in node.input}
    outputs = [v for v in b.values if v.name not in read or b.rng.random() < 0.1]
    dims = [list(v.shape) if known else [f"n{v.shape[0]}", v.shape[1], *(f"s{d}" for d in v.shape[2:])] for v in inputs]
    graph = helper.make_graph(
        b.nodes,
        "g",
        [helper.make_tensor_value_info(v.name, TensorProto.UINT8, d) for v, d in zip(inputs, dims, strict=True)],
        [helper.make_tensor_value_info(v.name, TensorProto.UINT8, [None] * v.rank) for v in outputs if v not in inputs],
        b.constants,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(OWN_DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def feed(proto: onnx.ModelProto, seed: int = 0) -> dict[str, NDArray[np.uint8]]:
    """Random bytes for the inputs of `network`."""
    rng = np.random.default_rng(seed)
    found = {}
    for value in proto.graph.input:
        shape = [d.dim_value or int(d.dim_param[1:]) for d in value.type.tensor_type.shape.dim]
        found[value.name] = rng.integers(0, 256, shape).astype(np.uint8)
    return found
