"""Nodes of com.onnxq with drawn values: the inputs by name, in order, and the attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from support.cases.exact import compute

Shape = tuple[int, ...]
RANGES = {"uint8": (0, 255), "int8": (-128, 127), "int4": (-8, 7), "int32": (-(2**31), 2**31 - 1)}


@dataclass(frozen=True)
class Case:
    """One node: operator, inputs by name in order, attributes."""

    op: str
    arrays: dict[str, np.ndarray]
    attributes: dict[str, Any]

    def expected(self) -> np.ndarray:
        """The output, exact."""
        return compute(self.op, self.arrays, self.attributes)


class Draw:
    """Values from a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def tensor(self, kind: str, shape: Shape, limit: int = 2**31) -> np.ndarray:
        """Any values of a type, of a size below limit."""
        low, high = RANGES[kind]
        values = self.rng.integers(max(low, -limit), min(high, limit - 1), shape, endpoint=True)
        return values.astype(np.int8).astype(ml_dtypes.int4) if kind == "int4" else values.astype(kind)

    def multiplier(self, shape: int | Shape, bits: int = 31) -> np.ndarray:
        return self.rng.integers(2 ** (bits - 8), 2**bits, shape).astype(np.int32)

    def shift(self, shape: int | Shape, low: int = 36, high: int = 42) -> np.ndarray:
        return self.rng.integers(low, high, shape, endpoint=True).astype(np.int32)

    def zero_point(self, kind: str) -> int:
        low, high = RANGES[kind] if kind != "int32" else (-1000, 1000)
        return int(self.rng.integers(low, high, endpoint=True))

    def result(self, kind: str) -> dict[str, Any]:
        """The attributes of y. Sometimes less than the type's range, as for a ReLU or for fewer bits."""
        low, high = RANGES[kind]
        zero_point = self.zero_point(kind)
        if kind != "int32" and self.rng.random() < 0.5:
            low, high = zero_point, max(zero_point, high - 7)
        return {
            "y_zero_point": zero_point,
            "qmin": low,
            "qmax": high,
            "y_type": {"uint8": 2, "int8": 3, "int32": 6}[kind],
        }

    def weights(self, kind: str, shape: Shape, channels: int, zero_points: str, vectors: bool) -> dict[str, np.ndarray]:
        """What a layer has after x. zero_points: none, one, many. vectors: multiplier and shift for every channel."""
        w_zero_point = {
            "none": np.zeros(1, np.int8),
            "one": self.tensor("int8", (1,)),
            "many": self.tensor("int8", (channels,)),
        }
        count = channels if vectors else 1
        return {
            "w": self.tensor(kind, shape),
            "bias": self.tensor("int32", (channels,), 10_000),
            "multiplier": self.multiplier(count),
            "shift": self.shift(count),
            "w_zero_point": w_zero_point[zero_points],
        }

    def residual(self, kind: str, shape: Shape, channels: int) -> dict[str, np.ndarray]:
        wide = kind == "int32"
        return {
            "residual": self.tensor(kind, shape, 2**20),
            "residual_multiplier": self.multiplier(channels, 24 if wide else 30),
        }

    def conv(
        self,
        x_shape: Shape,
        w_shape: Shape,
        *,
        x: str = "uint8",
        w: str = "int8",
        y: str = "uint8",
        zero_points: str = "none",
        vectors: bool = True,
        residual: str = "",
        **attributes: Any,
    ) -> Case:
        """w_shape: [M, kH, kW, C/group]. residual: its type, of a ConvAdd."""
        arrays = {"x": self.tensor(x, x_shape), **self.weights(w, w_shape, w_shape[0], zero_points, vectors)}
        group = x_shape[3] // w_shape[3]
        given = attributes | ({"group": group} if group > 1 else {}) | {"x_zero_point": self.zero_point(x)}
        if residual:
            shape = Case("Conv", arrays, given | self.result(y)).expected().shape
            given["residual_zero_point"] = self.zero_point(residual)
            arrays |= self.residual(residual, shape, w_shape[0] if vectors else 1)
        return Case("ConvAdd" if residual else "Conv", arrays, given | self.result(y))

    def gemm(
        self,
        x_shape: Shape,
        columns: int,
        *,
        x: str = "uint8",
        w: str = "int8",
        y: str = "uint8",
        zero_points: str = "none",
        vectors: bool = True,
        residual: str = "",
    ) -> Case:
        """residual: its type, of a GemmAdd."""
        arrays = {
            "x": self.tensor(x, x_shape),
            **self.weights(w, (x_shape[-1], columns), columns, zero_points, vectors),
        }
        given = {"x_zero_point": self.zero_point(x)}
        if residual:
            given["residual_zero_point"] = self.zero_point(residual)
            arrays |= self.residual(residual, (*x_shape[:-1], columns), columns if vectors else 1)
        return Case("GemmAdd" if residual else "Gemm", arrays, given | self.result(y))

    def matmul(self, a_shape: Shape, b_shape: Shape, *, a: str = "uint8", b: str = "uint8", y: str = "uint8") -> Case:
        arrays = {"a": self.tensor(a, a_shape), "b": self.tensor(b, b_shape)}
        zero_points = {"a_zero_point": self.zero_point(a), "b_zero_point": self.zero_point(b)}
        return Case("MatMul", arrays | self.scalars(), zero_points | self.result(y))

    def scalars(self, bits: int = 31, low: int = 36, high: int = 42) -> dict[str, np.ndarray]:
        return {"multiplier": self.multiplier(1, bits), "shift": self.shift(1, low, high)}

    def mul(self, a_shape: Shape, b_shape: Shape, *, a: str = "uint8", b: str = "uint8", y: str = "uint8") -> Case:
        case = self.matmul(a_shape, b_shape, a=a, b=b, y=y)
        return Case("Mul", case.arrays, case.attributes)

    def add(
        self,
        a_shape: Shape,
        b_shape: Shape,
        *,
        op: str = "Add",
        a: str = "uint8",
        b: str = "uint8",
        y: str = "uint8",
        axis: int = -1,
        lengths: Shape = (1, 1, 1),
    ) -> Case:
        """op: Add or Sub. lengths: of a_multiplier, b_multiplier and shift."""
        bits = {"int32": 22, "uint8": 30, "int8": 30}
        arrays = {
            "a": self.tensor(a, a_shape, 2**20),
            "b": self.tensor(b, b_shape, 2**20),
            "a_multiplier": self.multiplier(lengths[0], bits[a]),
            "b_multiplier": self.multiplier(lengths[1], bits[b]),
            "shift": self.shift(lengths[2], 30, 34),
        }
        given = {"a_zero_point": self.zero_point(a), "b_zero_point": self.zero_point(b), "axis": axis}
        return Case(op, arrays, given | self.result(y))

    def requantize(
        self, shape: Shape, *, x: str = "int32", y: str = "uint8", axis: int = -1, lengths: Shape = (1, 1)
    ) -> Case:
        """lengths: of multiplier and shift."""
        wide = x == "int32"
        arrays = {
            "x": self.tensor(x, shape, 2**24),
            "multiplier": self.multiplier(lengths[0]),
            "shift": self.shift(lengths[1], 44 if wide else 28, 50 if wide else 32),
        }
        return Case("Requantize", arrays, {"x_zero_point": self.zero_point(x), "axis": axis} | self.result(y))

    def concat(self, shapes: tuple[Shape, ...], kinds: tuple[str, ...], *, axis: int, y: str = "uint8") -> Case:
        parts = {f"x_{i}": self.tensor(k, s, 2**10) for i, (k, s) in enumerate(zip(kinds, shapes, strict=True))}
        arrays = {"multiplier": self.multiplier(len(kinds)), "shift": self.shift(len(kinds), 28, 34), **parts}
        given = {"axis": axis, "zero_points": [self.zero_point(k) for k in kinds]}
        return Case(f"Concat{len(kinds)}", arrays, given | self.result(y))

    def average_pool(
        self, shape: Shape, *, x: str = "uint8", y: str = "uint8", lengths: Shape = (1,), **attributes: Any
    ) -> Case:
        """lengths: the shape of multiplier and shift, [1] or [OH, OW, 1]."""
        arrays = {
            "x": self.tensor(x, shape, 2**12),
            "multiplier": self.multiplier(lengths),
            "shift": self.shift(lengths, 34, 38),
        }
        return Case("AveragePool", arrays, attributes | {"x_zero_point": self.zero_point(x)} | self.result(y))

    def reduce_mean(self, shape: Shape, *, x: str = "uint8", y: str = "uint8", **attributes: Any) -> Case:
        arrays = {"x": self.tensor(x, shape, 2**12), **self.scalars(31, 34, 38)}
        return Case("ReduceMean", arrays, attributes | {"x_zero_point": self.zero_point(x)} | self.result(y))

    def max_pool(self, shape: Shape, *, x: str = "uint8", **attributes: Any) -> Case:
        return Case("MaxPool", {"x": self.tensor(x, shape)}, attributes)

    def lookup_table(self, shape: Shape, *, x: str = "uint8", y: str = "uint8") -> Case:
        return Case("LookupTable", {"x": self.tensor(x, shape), "table": self.tensor(y, (256,))}, {})

    def channels_last(self, shape: Shape, *, x: str = "uint8") -> Case:
        return Case("ChannelsLast", {"x": self.tensor(x, shape)}, {})

    def softmax(self, shape: Shape, *, x: str = "uint8", y: str = "uint8", axis: int = -1, scale: float = 0.05) -> Case:
        """scale: of x; y has about 1/256."""
        table = np.round(np.exp(-scale * np.arange(256)) * 2**20).astype(np.int32)
        arrays = {
            "x": self.tensor(x, shape),
            "table": table,
            "multiplier": self.multiplier(1, 16),
            "shift": self.shift(1, 6, 8),
        }
        return Case("Softmax", arrays, {"axis": axis} | self.result(y))

    def layer_norm(
        self,
        shape: Shape,
        *,
        x: str = "uint8",
        y: str = "uint8",
        limit: int = 2**31,
        vectors: bool = True,
        epsilon: int = 0,
        **attributes: Any,
    ) -> Case:
        """limit: of the values of x. vectors: gamma and beta for every place."""
        count = shape[-1] if vectors else 1
        arrays = {
            "x": self.tensor(x, shape, limit),
            "gamma": self.tensor("int32", (count,)),
            "beta": self.rng.integers(-(2**50), 2**50, count),
            "shift": self.shift(1, 44, 46),
        }
        given = {"epsilon": epsilon, "x_zero_point": self.zero_point(x)} | attributes
        return Case("LayerNorm", arrays, given | self.result(y))
