"""Models that are mutated: float ones, what quantize makes of some for each profile, and integer-only ones."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx

from onnxq import demo
from onnxq.api import quantize
from onnxq.profiles.schema import builtin_names
from support.cases.every_operator import every_operator  # type: ignore[import-not-found]
from support.cases.random_graphs import network  # type: ignore[import-not-found]
from support.cases.zoo import KINDS  # type: ignore[import-not-found]

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = 12  # random convolutional networks
SHARED = "resnet20_cifar10.onnx"  # the only small one
# Of the zoo, those of which integer-only models are made as well.
LOWERED = ("residual", "inverted residual", "concat", "head", "squeeze and excite", "attention",
           "embedding", "split and slice", "pools, padding and activations", "condition",
           "decomposed layer normalization")  # fmt: skip


@dataclass(frozen=True)
class Base:
    """A model to mutate. make: its bytes, made when they are first needed. form: "float", "QDQ" or "integer"."""

    name: str
    make: Callable[[], bytes]
    form: str = "float"

    def proto(self) -> onnx.ModelProto:
        """The model, a copy of its own each time."""
        return onnx.ModelProto.FromString(_kept(self))


@functools.cache
def _kept(base: Base) -> bytes:
    return base.make()


@functools.cache
def bases() -> tuple[Base, ...]:
    """All of them, in an order that stays."""
    return (*_float(), *_quantized(), *_integer())


def warm() -> None:
    """Make all of them: processes that are forked afterwards have them already."""
    for base in bases():
        _kept(base)


def _float() -> Iterator[Base]:
    yield Base("demo", lambda: demo.model_path().read_bytes())
    for name in KINDS:
        yield Base(name, partial(_of_zoo, name))
    for seed in range(NETWORKS):
        yield Base(f"network {seed}", partial(_network, seed))
    shared = Path(os.environ.get("ONNXQ_SHARED") or ROOT.parent / "shared") / "models" / SHARED
    if shared.is_file():
        yield Base(SHARED, shared.read_bytes)


def _quantized() -> Iterator[Base]:
    names = [name for name in builtin_names() if name != "onnxq"]
    for i, profile in enumerate(names):
        for kind in ("residual", LOWERED[i % len(LOWERED)]):
            yield _product(kind, profile, "QDQ")
    yield _product("demo", "tensorrt", "QDQ")
    yield _product("head", "onnxq", "QDQ", bits=4)


def _integer() -> Iterator[Base]:
    for kind in ("demo", *LOWERED):
        yield _product(kind, "onnxq", "integer")
    yield _product("residual", "onnxq", "integer", bits=4)
    yield Base("every operator", lambda: bytes(every_operator().proto.SerializeToString()), "integer")


def _product(name: str, profile: str, form: str, bits: int | None = None) -> Base:
    """What quantize makes of one of the float models."""

    def make() -> bytes:
        source = next(b for b in _float() if b.name == name)
        qdq = form == "QDQ" and profile == "onnxq"
        options = {"weight_bits": bits, "activation_bits": bits} if bits else {}
        made = quantize(source.make(), random_data=2, profile=profile, proof="none", threads=1, qdq=qdq, **options)  # type: ignore[arg-type]
        return bytes(made.model.SerializeToString())

    return Base(f"{name}, {profile}{f', {bits} bits' if bits else ''}, {form}", make, form)


def _of_zoo(name: str) -> bytes:
    return settled(KINDS[name].model(), KINDS[name].dims)


def _network(seed: int) -> bytes:
    return bytes(network(seed).SerializeToString())


def settled(model: onnx.ModelProto, lengths: tuple[int, ...]) -> bytes:
    """The model with these lengths instead of free dimensions of its inputs, but the first: random data needs them."""
    for value in model.graph.input:
        free = iter(lengths)
        for i, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                length = next(free, 2)
                if i:
                    dim.dim_value = length
    return bytes(model.SerializeToString())
