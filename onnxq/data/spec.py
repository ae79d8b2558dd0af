"""Names, shapes and types of a model's inputs, and checks of a feed against them."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxq.errors import ConfigError, DataError
from onnxq.records import closest

Shape = tuple[int | str | None, ...]
INPUT_BYTES_MAX = 4 << 30  # of one input in one feed


@dataclass(frozen=True)
class InputSpec:
    """One model input. shape: int fixed, str or None free, () a scalar; None if even the rank is unknown."""

    name: str
    shape: Shape | None
    dtype: np.dtype

    def __str__(self) -> str:
        return f"{self.dtype.name} {format_shape(self.shape)}"


@dataclass(frozen=True)
class BatchPlan:
    """Which inputs have the samples on axis 0, and how many samples a feed must have (fixed; None: any number).

    Free first axes count samples. Without any, the inputs share one fixed length, which is the batch.
    The other inputs (scalars, tables of fixed length next to a free batch) belong to the feed as a whole.
    """

    inputs: tuple[InputSpec, ...]
    carriers: tuple[str, ...]
    fixed: int | None

    @classmethod
    def of(cls, inputs: Sequence[InputSpec]) -> BatchPlan:
        """The plan for a model's inputs."""
        first = {spec.name: spec.shape[0] for spec in inputs if spec.shape}
        free = tuple(name for name, dim in first.items() if not isinstance(dim, int))
        if free:
            return cls(tuple(inputs), free, None)
        lengths = {dim for dim in first.values() if isinstance(dim, int)}
        if len(lengths) == 1 and 0 not in lengths:
            return cls(tuple(inputs), tuple(first), lengths.pop())
        return cls(tuple(inputs), (), None)

    def rows(self, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
        """Samples in a feed of these shapes: the length of axis 0 shared by those inputs; None if there is none."""
        lengths = {shapes[name][0] for name in self.carriers}
        return lengths.pop() if len(lengths) == 1 else None


def input_specs(graph: Any) -> tuple[InputSpec, ...]:
    """Inputs of an onnx_graphsurgeon Graph.

    Raises DataError for a non-tensor input (a sequence, an optional) and for one too large to be fed.
    """
    import onnx

    specs = []
    for tensor in graph.inputs:
        if getattr(tensor, "type", "tensor_type") != "tensor_type" or tensor.dtype is None:
            raise DataError(f"input {tensor.name!r} is not a tensor; onnxq feeds tensors only")
        # graphsurgeon keeps types that NumPy lacks (bfloat16) as the number of the ONNX type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.dtype) if isinstance(tensor.dtype, int) else tensor.dtype
        shape = None if tensor.shape is None else tuple(_dimension(d) for d in tensor.shape)
        spec = InputSpec(tensor.name, shape, np.dtype(dtype))
        check_size([d for d in shape or () if isinstance(d, int)], spec)
        specs.append(spec)
    return tuple(specs)


def check_size(dims: Sequence[int], spec: InputSpec) -> None:
    """Raise DataError when a feed of these dimensions would not fit into memory by far."""
    size = math.prod(dims) * spec.dtype.itemsize
    if size > INPUT_BYTES_MAX:
        raise DataError(
            f"input {spec.name!r} ({spec.dtype.name} {format_shape(tuple(dims))}) takes {size / 2**30:.1f} GiB a feed;"
            f" the limit is {INPUT_BYTES_MAX // 2**30} GiB: give the model smaller inputs"
        )


def _dimension(dim: Any) -> int | str | None:
    if isinstance(dim, (int, np.integer)):
        return int(dim) if dim >= 0 else None
    return str(dim) if dim else None


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Parse "name:1x3x224x224" to (name, dims); the name may contain ':'. Raises ConfigError."""
    name, colon, dims = text.rpartition(":")
    if not colon or not name or not re.fullmatch(r"\d{1,18}([xX]\d{1,18})*", dims):
        raise ConfigError(f"{text!r} is not an input shape; write NAME:DIMS, for example input:1x3x224x224")
    return name, tuple(int(d) for d in re.split("[xX]", dims))


def apply_shapes(inputs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]]) -> tuple[InputSpec, ...]:
    """Inputs with free dimensions fixed by the user.

    Raises ConfigError for an unknown input or a contradiction, DataError for an input too large to be fed.
    """
    known = {spec.name: spec for spec in inputs}
    for name, dims in shapes.items():
        if name not in known:
            raise ConfigError(
                f"a shape is given for {name!r}, which is not an input of the model{closest(name, known)};"
                f" its inputs: {', '.join(known)}"
            )
        shape = known[name].shape
        if shape is not None and not fits(dims, shape):
            raise ConfigError(
                f"input {name!r} has shape {format_shape(shape)} in the model; {format_shape(dims)} does not fit"
            )
        check_size(dims, known[name])
        known[name] = replace(known[name], shape=tuple(int(d) for d in dims))
    return tuple(known.values())


def fits(dims: Sequence[int], shape: Shape) -> bool:
    """Whether a shape allows these concrete dimensions."""
    return len(dims) == len(shape) and all(not isinstance(s, int) or s == d for d, s in zip(dims, shape, strict=True))


def check_names(given: Collection[str], inputs: Sequence[InputSpec], where: str) -> None:
    """Raise DataError unless exactly the model's inputs are given; a close match is suggested."""
    names = [spec.name for spec in inputs]
    if set(given) == set(names):
        return
    missing = [n for n in names if n not in given]
    extra = [g for g in given if g not in names]
    pairs = [(e, difflib.get_close_matches(str(e), missing, 1)) for e in extra]
    hints = [f"; is {e!r} meant to be {close[0]!r}?" for e, close in pairs if close]
    raise DataError(
        f"{where}: expected the model's inputs {', '.join(map(repr, names)) or '(none)'},"
        f" got {', '.join(map(repr, given)) or 'nothing'}{hints[0] if hints else ''}"
    )


def check_shape(dims: Sequence[int], spec: InputSpec, where: str, free_rows: bool = False, hint: str = "") -> None:
    """Raise DataError unless the dimensions fit. free_rows: axis 0 counts samples, which are regrouped later."""
    shape = spec.shape
    if shape is None or fits(dims, (None, *shape[1:]) if free_rows and shape else shape):
        return
    if len(dims) != len(shape):
        why = f"rank {len(dims)} instead of {len(shape)}"
        if len(dims) + 1 == len(shape) and (not isinstance(shape[0], int) or shape[0] == 1):
            why += "; is the leading batch axis missing?"
    else:
        wrong = next(i for i, (d, s) in enumerate(zip(dims, shape, strict=True)) if isinstance(s, int) and s != d)
        why = f"axis {wrong} must be {shape[wrong]}"
    raise DataError(
        f"{where}: input {spec.name!r} has shape {format_shape(dims)}, expected {format_shape(shape)} ({why}){hint}"
    )


def check_dtype(dtype: np.dtype, spec: InputSpec, where: str) -> None:
    """Raise DataError unless `dtype` can be cast to spec.dtype within its kind (float, integer, bool…)."""
    if _family(dtype) != _family(spec.dtype):
        hint = ""
        if dtype == np.uint8 and _family(spec.dtype) == "float":
            hint = "; pixels need a preprocessing spec, under the key 'images' of an .npz"
        raise DataError(f"{where}: input {spec.name!r} is {dtype.name}, expected {spec.dtype.name}{hint}")


def cast(array: np.ndarray, spec: InputSpec, where: str) -> np.ndarray:
    """A C-contiguous copy in spec.dtype. Raises DataError for NaN and for a value out of the type's range."""
    check_dtype(array.dtype, spec, where)
    if _family(spec.dtype) == "integer" and array.size and not np.can_cast(array.dtype, spec.dtype, "safe"):
        info, low, high = np.iinfo(spec.dtype), array.min(), array.max()
        if low < info.min or high > info.max:
            value = low if low < info.min else high
            raise DataError(f"{where}: input {spec.name!r} contains {value}, too large for {spec.dtype.name}")
    if _family(spec.dtype) == "float" and np.isnan(array).any():
        raise DataError(f"{where}: input {spec.name!r} contains NaN")
    with np.errstate(over="ignore"):
        # a copy, so that a user's generator may reuse its buffer
        out = np.array(array, dtype=spec.dtype, order="C", copy=True)
    narrowed = _family(spec.dtype) == "float" and array.dtype.itemsize > spec.dtype.itemsize
    if narrowed and (np.isinf(out) & ~np.isinf(array)).any():
        raise DataError(f"{where}: input {spec.name!r} contains values too large for {spec.dtype.name}")
    return out


def conform(
    feeds: Mapping[str, Any],
    inputs: Sequence[InputSpec],
    where: str,
    free_rows: Collection[str] = (),
    hint: str = "",
) -> dict[str, np.ndarray]:
    """A feed in the model's format: names, ranks, dimensions and types checked, values copied and safely cast.

    Casts within integers and within floats are done if every value fits (float64 → float32, int32 → int64); everything
    else is rejected. free_rows: inputs whose axis 0 may have any length. Raises DataError.
    """
    check_names(feeds.keys(), inputs, where)
    arrays = {}
    for spec in inputs:
        array = as_array(feeds[spec.name], f"{where}: input {spec.name!r}")
        check_shape(array.shape, spec, where, spec.name in free_rows, hint)
        arrays[spec.name] = cast(array, spec, where)
    return arrays


def as_array(value: Any, what: str) -> np.ndarray:
    """np.asarray; any error (ragged list, tensor on a device) is raised as DataError."""
    try:
        return np.asarray(value)
    except Exception as err:
        raise DataError(f"{what} cannot be converted to an array: {first_line(err)}") from err


def as_labels(value: Any, where: str) -> np.ndarray:
    """Labels as int64 of shape (N,) from N integers, shape (N,), (N, 1) or (). Raises DataError."""
    labels = as_array(value, f"{where}: labels")
    if labels.dtype.kind not in "iu" or labels.ndim > 2 or (labels.ndim == 2 and labels.shape[1] != 1):
        raise DataError(
            f"{where}: labels must be one integer per sample, not {labels.dtype.name} {format_shape(labels.shape)}"
        )
    return labels.reshape(-1).astype(np.int64)


def format_shape(dims: Sequence[int | str | None] | None) -> str:
    """Dimensions for a message: 1x3x224x224, "scalar", "?" where unknown."""
    if dims is None:
        return "of any rank"
    return "x".join("?" if d is None else str(d) for d in dims) or "scalar"


def first_line(err: BaseException) -> str:
    """An exception's message on one line; its class if the message is empty."""
    lines = str(err).strip().splitlines()
    return lines[0] if lines else type(err).__name__


def _family(dtype: np.dtype) -> str:
    if dtype.kind == "f" or dtype.name == "bfloat16":
        return "float"
    if dtype.kind in "iu":
        return "integer"
    return {"O": "text", "U": "text", "S": "text"}.get(dtype.kind, dtype.name)
