"""Models from ONNX text, and random feeds for them.

A kit is what a group of tests takes for granted: the opset, which values constants get that the text declares without
any, what feeds look like. `floating` is for passes over float models, `qdq` for models to be quantized, `integers` for
graphs of com.onnxq. `Qdq` writes quantized models by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxq.graph.model import Model, from_proto, load, to_proto
from onnxq.graph.protos import OWN_DOMAIN

Feed = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Kit:
    """How a group of tests makes its models.

    domains: opsets besides the standard one. constant: values of (rng, name, dtype, shape). value: of (rng, dtype,
    shape) and what `feeds` is given besides, fed to an input. count: how many feeds, unless asked for another number.
    """

    opset: int
    ir: int
    constant: Callable[[np.random.Generator, str, np.dtype, list[int]], NDArray[Any]]
    value: Callable[..., NDArray[Any]]
    domains: Mapping[str, int]
    count: int = 2

    def proto(
        self, text: str, opset: int | None = None, ir: int | None = None, seed: int = 0, **values: Any
    ) -> onnx.ModelProto:
        """A ModelProto from the text of its graph.

        A constant declared after the signature without a value, `<float[8,3] w, float six = {6}>`, gets that of the
        keyword argument of the same name, broadcast, else a random one.
        """
        opsets = {"": opset or self.opset, **self.domains}
        imports = ", ".join(f'"{domain}": {version}' for domain, version in opsets.items())
        parsed = onnx.parser.parse_model(f"<ir_version: {ir or self.ir}, opset_import: [{imports}]>\n{text}")
        rng = np.random.default_rng(seed)
        for info in parsed.graph.value_info:
            dtype, shape = _declared(info, 0)
            given = values.pop(info.name, None)
            array = (
                self.constant(rng, info.name, dtype, shape)
                if given is None
                else np.broadcast_to(np.asarray(given), shape)
            )
            parsed.graph.initializer.append(numpy_helper.from_array(np.array(array).astype(dtype), info.name))
        assert not values, f"no constant is called {list(values)}"
        del parsed.graph.value_info[:]
        return parsed

    def model(self, text: str, opset: int | None = None, ir: int | None = None, seed: int = 0, **values: Any) -> Model:
        """`proto` as a Model."""
        return load(self.proto(text, opset, ir, seed, **values))

    def feeds(
        self, source: Model | onnx.ModelProto, count: int | None = None, seed: int = 1, free: int = 2, **how: Any
    ) -> list[Feed]:
        """Random feeds; unknown dimensions are `free`. how: of the kit's values, `low` and `high` of `qdq`."""
        rng = np.random.default_rng(seed)
        return [
            {name: self.value(rng, dtype, shape, **how).astype(dtype) for name, dtype, shape in _inputs(source, free)}
            for _ in range(count or self.count)
        ]


class IntegerKit(Kit):
    """In the text, `own.` stands for `com.onnxq.`."""

    def proto(
        self, text: str, opset: int | None = None, ir: int | None = None, seed: int = 0, **values: Any
    ) -> onnx.ModelProto:
        return super().proto(text.replace("own.", f"{OWN_DOMAIN}."), opset, ir, seed, **values)

    def model(self, text: str, opset: int | None = None, ir: int | None = None, seed: int = 0, **values: Any) -> Model:
        """`proto` as a Model. Operators that make t_nhwc stand for t of the QDQ model, as after lowering."""
        made = super().model(text, opset, ir, seed, **values)
        for node in made.graph.nodes:
            stem, found, _ = node.outputs[0].name.rpartition("_nhwc")
            if found and node.domain == OWN_DOMAIN:
                node.metadata = {"onnxq.tensor": stem}
        return made


def _declared(info: onnx.ValueInfoProto, free: int) -> tuple[np.dtype, list[int]]:
    kind = info.type.tensor_type
    return onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type), [d.dim_value or free for d in kind.shape.dim]


def _inputs(source: Model | onnx.ModelProto, free: int) -> Iterator[tuple[str, np.dtype, list[int]]]:
    if isinstance(source, onnx.ModelProto):
        for info in source.graph.input:
            yield (info.name, *_declared(info, free))
    else:
        for tensor in source.graph.inputs:
            yield tensor.name, np.dtype(tensor.dtype), [d if isinstance(d, int) else free for d in tensor.shape]


def _normal(scale: float) -> Callable[[np.random.Generator, str, np.dtype, list[int]], NDArray[Any]]:
    return lambda rng, name, dtype, shape: np.asarray(rng.normal(0, scale, shape))


def _integer_constant(rng: np.random.Generator, name: str, dtype: np.dtype, shape: list[int]) -> NDArray[Any]:
    """int32 names that begin with `mul` and `sh` are multipliers and shifts of about 1/8, `exp` a Softmax table."""
    if dtype.kind == "f":
        return rng.uniform(0.01, 0.1, shape)
    if dtype == np.int32 and name.startswith("mul"):
        return rng.integers(1 << 28, 1 << 30, shape)
    if dtype == np.int32 and name.startswith("sh"):
        return np.full(shape, 32)
    if dtype == np.int32 and name.startswith("exp"):
        return np.rint(np.exp(-np.arange(shape[0]) / 16) * 2**20)
    if dtype == np.int32:
        return rng.integers(-1000, 1000, shape)
    if dtype.name == "int4":
        return rng.integers(-8, 8, shape)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return rng.integers(low, high + 1, shape)


def _normal_or_bit(rng: np.random.Generator, dtype: np.dtype, shape: list[int]) -> NDArray[Any]:
    """Floats normal, integers 0 or 1."""
    return np.asarray(rng.normal(size=shape) if dtype.kind == "f" else rng.integers(0, 2, shape))


def _uniform(
    rng: np.random.Generator, dtype: np.dtype, shape: list[int], low: float = -1.0, high: float = 1.0
) -> NDArray[Any]:
    return np.asarray(rng.uniform(low, high, shape))


def _whole_range(rng: np.random.Generator, dtype: np.dtype, shape: list[int]) -> NDArray[Any]:
    """Floats normal, bytes over their whole range, wider integers up to 1000."""
    if dtype.kind == "f":
        return np.asarray(rng.normal(0, 2, shape))
    reach = (-1000, 1000) if dtype.itemsize > 1 else (np.iinfo(dtype).min, np.iinfo(dtype).max + 1)
    return np.asarray(rng.integers(*reach, shape))


floating = Kit(opset=17, ir=8, constant=_normal(0.5), value=_normal_or_bit, domains={"custom": 1})
qdq = Kit(opset=13, ir=10, constant=_normal(0.3), value=_uniform, domains={}, count=3)
integers = IntegerKit(opset=21, ir=10, constant=_integer_constant, value=_whole_range, domains={OWN_DOMAIN: 1})


def copy_of(source: Model) -> Model:
    """The model written and read again."""
    return from_proto(onnx.ModelProto.FromString(to_proto(source).SerializeToString()))


class Qdq:
    """A small QDQ model: nodes as ONNX text, quantized tensors and constants by name.

    `q` quantizes a float tensor t: nodes behind it read `t_d`, its codes are `t_q`. `weight` stores integers behind a
    DequantizeLinear: nodes read `w_d`.
    """

    def __init__(self, inputs: str, outputs: str, opset: int = 21) -> None:
        self.inputs, self.outputs, self.opset = inputs, outputs, opset
        self.nodes: list[str] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, name: str, values: Any, dtype: Any = np.float32) -> Qdq:
        """A constant."""
        self.constants.append(numpy_helper.from_array(np.asarray(values).astype(dtype), name))
        return self

    def q(self, name: str, scale: float, zero_point: int = 128, dtype: Any = np.uint8, label: str = "") -> Qdq:
        """Q/DQ behind the float tensor `name`; label: for another pair behind the same tensor."""
        label = label or name
        self.const(f"{label}_s", scale).const(f"{label}_z", zero_point, dtype)
        return self.node(
            f"{label}_q = QuantizeLinear({name}, {label}_s, {label}_z) "
            f"{label}_d = DequantizeLinear({label}_q, {label}_s, {label}_z)"
        )

    def weight(
        self, name: str, codes: Any, scale: Any, zero_point: Any = 0, axis: int | None = None, dtype: Any = np.int8
    ) -> Qdq:
        """Integers behind a DequantizeLinear."""
        scales = np.asarray(scale, np.float32)
        self.const(f"{name}_i", codes, dtype).const(f"{name}_s", scales)
        self.const(f"{name}_z", np.broadcast_to(np.asarray(zero_point), scales.shape), dtype)
        attribute = "" if axis is None else f"<axis={axis}>"
        return self.node(f"{name}_d = DequantizeLinear{attribute}({name}_i, {name}_s, {name}_z)")

    def bias(self, name: str, codes: Any, scale: Any) -> Qdq:
        """int32 behind a DequantizeLinear without zero point."""
        scales = np.asarray(scale, np.float32)
        self.const(f"{name}_i", codes, np.int32).const(f"{name}_s", scales)
        attribute = "<axis=0>" if scales.ndim else ""
        return self.node(f"{name}_d = DequantizeLinear{attribute}({name}_i, {name}_s)")

    def node(self, text: str) -> Qdq:
        """Nodes as ONNX text."""
        self.nodes.append(text)
        return self

    def proto(self) -> onnx.ModelProto:
        """The model, checked."""
        body = "\n".join(self.nodes)
        text = f'<ir_version: 10, opset_import: ["": {self.opset}]>\ng ({self.inputs}) => ({self.outputs}) {{ {body} }}'
        parsed = onnx.parser.parse_model(text)
        parsed.graph.initializer.extend(self.constants)
        onnx.checker.check_model(parsed, full_check=True)
        return parsed


def uniform(proto: onnx.ModelProto, count: int = 2, low: float = -1.0, high: float = 1.0, seed: int = 0) -> list[Feed]:
    """Random float feeds for a `Qdq`; unknown dimensions are 2."""
    return qdq.feeds(proto, count, seed, low=low, high=high)
