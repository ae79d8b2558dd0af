"""A text encoder of BERT's shape with generated weights, spelled as PyTorch's exporter does up to opset 16.

Layer normalization and GELU are spelled out in elementary operators, and padding is masked by adding the least float32
to the scores. Weights are drawn with BERT's deviation, but those of queries and keys are larger, so that attention
attends to some words and not to others, as in a trained network: flat scores would hide quantization errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 14, 8
VOCABULARY, POSITIONS, HEAD = 30522, 512, 64
EPSILON = 1e-12


def encoder(layers: int = 4, width: int = 768, vocabulary: int = VOCABULARY, seed: int = 0) -> onnx.ModelProto:
    """Inputs ids and mask, int64 [N, T]; output `hidden`, float32 [N, T, width]."""
    made = _Encoder(width, np.random.default_rng([seed, width]))
    x = made.embed(vocabulary)
    mask = made.mask()
    for i in range(layers):
        x = made.layer(f"layer.{i}", x, mask, last=i + 1 == layers)
    shape = ["N", "T"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("ids", "mask")]
    outputs = [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, [*shape, width])]
    graph = helper.make_graph(made.nodes, "encoder", inputs, outputs, made.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model


def sentences(
    count: int, length: int = 128, vocabulary: int = VOCABULARY, seed: int = 0
) -> Iterator[dict[str, NDArray[np.int64]]]:
    """One random sentence at a time; half of them end in padding."""
    rng = np.random.default_rng([seed, length])
    for i in range(count):
        mask = np.ones((1, length), np.int64)
        mask[0, rng.integers(length // 3, length) if i % 2 else length :] = 0
        yield {"ids": rng.integers(0, vocabulary, (1, length)), "mask": mask}


class _Encoder:
    """The graph under construction."""

    def __init__(self, width: int, rng: np.random.Generator) -> None:
        self.width, self.rng = width, rng
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        numbers = {"one": 1.0, "two": 2.0, "half": 0.5, "root2": np.sqrt(2.0), "epsilon": EPSILON}
        numbers |= {"root": np.sqrt(HEAD), "least": np.finfo(np.float32).min}
        for name, value in numbers.items():
            self.constant(name, value)
        self.constant("heads", [0, -1, width // HEAD, HEAD], np.int64)
        self.constant("joined", [0, -1, width], np.int64)

    def constant(self, name: str, values: object, dtype: type = np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values).astype(dtype), name))
        return name

    def node(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    def weight(self, name: str, *shape: int, spread: float = 0.02) -> str:
        return self.constant(name, self.rng.normal(0.0, spread, shape))

    def dense(self, name: str, x: str, given: int, made: int, spread: float = 0.02) -> str:
        """MatMul with a constant, and the Add of a bias."""
        product = self.node("MatMul", f"{name}.product", x, self.weight(f"{name}.weight", given, made, spread=spread))
        return self.node("Add", name, product, self.weight(f"{name}.bias", made))

    def normalize(self, name: str, x: str, result: str = "") -> str:
        """Layer normalization in elementary operators."""
        centred = self.node("Sub", f"{name}.d", x, self.node("ReduceMean", f"{name}.mean", x, axes=[-1]))
        square = self.node("Pow", f"{name}.square", centred, "two")
        variance = self.node("ReduceMean", f"{name}.variance", square, axes=[-1])
        root = self.node("Sqrt", f"{name}.root", self.node("Add", f"{name}.shifted", variance, "epsilon"))
        quotient = self.node("Div", f"{name}.quotient", centred, root)
        gamma = self.constant(f"{name}.gamma", 1.0 + self.rng.normal(0.0, 0.1, self.width))
        scaled = self.node("Mul", f"{name}.scaled", quotient, gamma)
        return self.node("Add", result or name, scaled, self.weight(f"{name}.beta", self.width))

    def embed(self, vocabulary: int) -> str:
        """Embeddings of words and positions; positions follow from the shape of the input."""
        words = self.node("Gather", "words", self.weight("words.table", vocabulary, self.width), "ids")
        self.constant("from", [0], np.int64), self.constant("axis", [0], np.int64), self.constant("second", 1, np.int64)
        length = self.node("Gather", "length", self.node("Shape", "shape", "ids"), "second")
        many = self.node("Unsqueeze", "lengths", length, "axis")
        table = self.weight("positions.table", POSITIONS, self.width)
        positions = self.node("Slice", "positions", table, "from", many, "axis")
        return self.normalize("embeddings", self.node("Add", "embedded", words, positions))

    def mask(self) -> str:
        """[N, 1, 1, T]: 0 for a word, the least float for padding."""
        self.constant("middle", [1, 2], np.int64)
        known = self.node("Cast", "known", self.node("Unsqueeze", "mask4", "mask", "middle"), to=TensorProto.FLOAT)
        return self.node("Mul", "depth", self.node("Sub", "padding", "one", known), "least")

    def layer(self, name: str, x: str, mask: str, last: bool) -> str:
        """Self-attention and two dense layers, each with its residual."""
        width = self.width
        turned = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}
        parts = {}
        for part, perm in turned.items():
            made = self.dense(f"{name}.{part}", x, width, width, spread=0.02 if part == "v" else 0.05)
            split = self.node("Reshape", f"{name}.{part}.heads", made, "heads")
            parts[part] = self.node("Transpose", f"{name}.{part}.turned", split, perm=perm)
        scores = self.node("MatMul", f"{name}.scores", parts["q"], parts["k"])
        masked = self.node("Add", f"{name}.masked", self.node("Div", f"{name}.scaled", scores, "root"), mask)
        mixed = self.node("MatMul", f"{name}.mixed", self.node("Softmax", f"{name}.soft", masked, axis=-1), parts["v"])
        turned_back = self.node("Transpose", f"{name}.back", mixed, perm=[0, 2, 1, 3])
        joined = self.node("Reshape", f"{name}.joined", turned_back, "joined")
        out = self.dense(f"{name}.out", joined, width, width)
        x = self.normalize(f"{name}.norm1", self.node("Add", f"{name}.add1", out, x))
        up = self.dense(f"{name}.up", x, width, 4 * width)
        erf = self.node("Erf", f"{name}.erf", self.node("Div", f"{name}.small", up, "root2"))
        gelu = self.node("Mul", f"{name}.gelu2", up, self.node("Add", f"{name}.erf1", erf, "one"))
        down = self.dense(f"{name}.down", self.node("Mul", f"{name}.gelu", gelu, "half"), 4 * width, width)
        return self.normalize(f"{name}.norm2", self.node("Add", f"{name}.add2", down, x), "hidden" if last else "")
