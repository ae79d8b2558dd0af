"""Nodes of com.onnxq with drawn values, and for each operator a module with those that it is tested on.

A module has CASES, an OperatorCases, and is found by its file name; those that begin with _ are what others share.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis.strategies import SearchStrategy

from onnxq.operators import compute

Shape = tuple[int, ...]
# Of `OperatorCases.moves`: the tensor f, and the attributes of a uint8 result.
U = "uint8[2,4,6,5]"
BYTES = "y_zero_point=3, qmin=0, qmax=255, y_type=2"
EIGHT = ("uint8", "int8")
ALL = ("uint8", "int8", "int16", "int32")
RANGES = {
    "uint8": (0, 255),
    "int8": (-128, 127),
    "int4": (-8, 7),
    "int16": (-(2**15), 2**15 - 1),
    "int32": (-(2**31), 2**31 - 1),
}


@dataclass(frozen=True)
class Case:
    """One node: operator, inputs by name in order, attributes."""

    op: str
    arrays: dict[str, np.ndarray]
    attributes: dict[str, Any]

    def __str__(self) -> str:
        shapes = {name: (str(values.dtype), values.shape) for name, values in self.arrays.items()}
        return f"{self.op} {shapes} {self.attributes}"

    def expected(self) -> np.ndarray:
        """The output, exact: of the operator's reference, which takes INT4 weights as int8."""
        values = [v.astype(np.int8) if v.dtype == ml_dtypes.int4 else v for v in self.arrays.values()]
        return compute(self.op, values, self.attributes)


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
            "y_type": {"uint8": 2, "int8": 3, "int16": 5, "int32": 6}[kind],
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

    def scalars(self, bits: int = 31, low: int = 36, high: int = 42) -> dict[str, np.ndarray]:
        return {"multiplier": self.multiplier(1, bits), "shift": self.shift(1, low, high)}


def with_(case: Case, arrays: dict[str, np.ndarray] | None = None, **attributes: Any) -> Case:
    """The case with other arrays or attributes."""
    return replace(case, arrays=case.arrays | (arrays or {}), attributes=case.attributes | attributes)


def ints(*values: int) -> np.ndarray:
    """An int32 vector."""
    return np.array(values, np.int32)


Table = Callable[[], Iterable[Case]]


@dataclass(frozen=True)
class OperatorCases:
    """What one operator is tested on, or a family of them.

    nodes: at least one node of each operator, for models that have them all. small: a node of each that is quick to
    evaluate, the first of each in `nodes` if empty. bodies: tables whose function bodies are held against the
    reference. kernels: tables that run on every tier. drawn, drawn_bodies: nodes of any shapes, likewise. refused:
    nodes for which no session can be made; refused_inputs: nodes whose inputs a kernel refuses when it runs; each with
    a part of the message. moves: (operator that reads f, uint8[2,4,6,5], what it makes, constants, attributes when f is
    channels-last), as ONNX text, see tests/layout/test_rules.py.
    """

    nodes: Callable[[Draw], list[Case]]
    small: Callable[[Draw], list[Case]] | None = None
    bodies: Mapping[str, Table] = field(default_factory=dict)
    kernels: Mapping[str, Table] = field(default_factory=dict)
    drawn: SearchStrategy[Case] | None = None
    drawn_bodies: SearchStrategy[Case] | None = None
    refused: Sequence[tuple[Case, str]] = ()
    refused_inputs: Sequence[tuple[Case, str]] = ()
    moves: Sequence[tuple[str, str, str, dict[str, Any]]] = ()


@functools.cache
def operator_cases() -> Mapping[str, OperatorCases]:
    """The cases of every operator or family, by the name of the module."""
    names = [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]
    return {name: importlib.import_module(f"{__name__}.{name}").CASES for name in names}


def nodes() -> list[Case]:
    """At least one node of each operator."""
    return [case for found in operator_cases().values() for case in found.nodes(Draw(1))]


def small_nodes() -> list[Case]:
    """A small node of each operator, or of one of a family that share a page."""
    made = []
    for found in operator_cases().values():
        if found.small is not None:
            made += found.small(Draw(20))
        else:
            made += {case.op: case for case in reversed(found.nodes(Draw(20)))}.values()
    return made


def tables(which: str) -> dict[str, Table]:
    """Every table of one kind, "bodies" or "kernels", as module-table."""
    return {
        f"{name}-{table}": make
        for name, found in operator_cases().items()
        for table, make in getattr(found, which).items()
    }
