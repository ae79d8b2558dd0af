"""Mutations of tensors and of what is declared: dimensions, types, values, storage, inputs and outputs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fuzzing import draws
from fuzzing.draws import Rng

LOCATIONS = ["/etc/passwd", "../m.onnx", "m.onnx", "missing", ".", "", "\0", "a" * 5000, "*/_ORT_MEM_ADDR_/*", "x\ny"]
MOST_DIMS = 64  # of NumPy
MOST_VALUES = 1 << 16  # of tensors whose values are rewritten
SYMBOLS = ["N", "", "a b", "\x1b[1m", "-1", "N*2", draws.NOT_UTF8]


def dims(model: onnx.ModelProto, rng: Rng) -> None:
    """A tensor of other dimensions, most often with as many values as they need."""
    tensor = draws.tensor(model, rng)
    if tensor is None:
        return
    shape = _reshaped(list(tensor.dims), rng)
    array = _array(tensor)
    if (
        array is None
        or rng.random() < 0.25
        or not 0 <= np.prod(shape, dtype=np.float64) <= MOST_VALUES
        or min(shape, default=0) < 0
        or len(shape) > MOST_DIMS
    ):
        del tensor.dims[:]
        tensor.dims.extend(shape)
    else:
        _store(tensor, np.resize(array, shape) if array.size else np.zeros(shape, array.dtype))


def _reshaped(shape: list[int], rng: Rng) -> list[int]:
    what = rng.random()
    if what < 0.15:
        return []
    if what < 0.3:
        shape.insert(int(rng.integers(len(shape) + 1)), 1 if rng.random() < 0.7 else int(rng.integers(5)))
    elif what < 0.45 and shape:
        shape.pop(int(rng.integers(len(shape))))
    elif what < 0.5:
        return [1] * int(rng.integers(60, 70))
    elif shape:
        shape[int(rng.integers(len(shape)))] = draws.integer(rng)
    return shape


def numbers(model: onnx.ModelProto, rng: Rng) -> None:
    """Extreme values, at one place or everywhere."""
    tensor = draws.tensor(model, rng)
    array = None if tensor is None else _array(tensor)
    if tensor is None or array is None or not array.size:
        return
    changed = np.array(array)
    if array.dtype.kind in "iu":
        info = np.iinfo(array.dtype)
        value: float | int = min(max(draws.integer(rng), int(info.min)), int(info.max))
    elif array.dtype.kind == "f":
        value = draws.one(rng, draws.FLOATS)
    else:
        return
    with np.errstate(all="ignore"):
        if rng.random() < 0.4:
            changed[...] = value
        else:
            changed.reshape(-1)[int(rng.integers(array.size))] = value
    _store(tensor, changed)


def kind(model: onnx.ModelProto, rng: Rng) -> None:
    """A tensor of another type, most often with its values converted."""
    tensor = draws.tensor(model, rng)
    array = None if tensor is None else _array(tensor)
    if tensor is None:
        return
    wanted = draws.one(rng, draws.TYPES)
    if array is not None and rng.random() < 0.75:
        try:
            with np.errstate(all="ignore"):
                _store(tensor, np.asarray(array.astype(helper.tensor_dtype_to_np_dtype(wanted))))
            return
        except (KeyError, NotImplementedError, TypeError, ValueError):
            pass
    tensor.data_type = wanted


def storage(model: onnx.ModelProto, rng: Rng) -> None:
    """A tensor cut off, in another field, in an external file, renamed, sparse, or gone."""
    holder = draws.graph(model, rng)
    tensor = draws.tensor(model, rng)
    if tensor is None:
        return
    what = rng.random()
    array = _array(tensor)
    if what < 0.15 and tensor.HasField("raw_data"):
        tensor.raw_data = tensor.raw_data[: int(rng.integers(len(tensor.raw_data) + 1))]
    elif what < 0.3 and array is not None and array.dtype == np.float32:
        tensor.ClearField("raw_data")
        tensor.float_data.extend(array.reshape(-1).tolist())
    elif what < 0.5:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entries = [
            ("location", draws.one(rng, LOCATIONS)),
            ("offset", str(draws.integer(rng))),
            ("length", str(draws.integer(rng))),
        ]
        for key, value in entries[: int(rng.integers(4))]:
            tensor.external_data.add(key=key, value=value)
    elif what < 0.7:
        tensor.name = draws.name(rng, draws.names(holder))
    elif what < 0.8 and holder.initializer:
        del holder.initializer[int(rng.integers(len(holder.initializer)))]
    elif what < 0.9 and holder.initializer:
        holder.initializer.add().CopyFrom(tensor)
    elif array is not None and array.size <= MOST_VALUES:
        flat = array.reshape(-1)
        places = np.flatnonzero(flat)
        sparse = holder.sparse_initializer.add()
        sparse.values.CopyFrom(numpy_helper.from_array(flat[places], tensor.name))
        sparse.indices.CopyFrom(numpy_helper.from_array(places.astype(np.int64)))
        sparse.dims.extend(array.shape)


def declared(model: onnx.ModelProto, rng: Rng) -> None:
    """An input, an output or another value is declared with other dimensions, another type, or not at all."""
    holder = draws.graph(model, rng)
    group = draws.one(rng, [holder.input, holder.input, holder.output, holder.value_info])
    if not group:
        if rng.random() < 0.5 and (names := draws.names(holder)):
            shape = [draws.integer(rng) for _ in range(int(rng.integers(5)))]
            holder.value_info.append(helper.make_tensor_value_info(draws.one(rng, names), 1, shape))
        return
    value = draws.one(rng, group)
    shape, what = value.type.tensor_type.shape, rng.random()
    if what < 0.45 and shape.dim:
        dim = draws.one(rng, shape.dim)
        if rng.random() < 0.7:
            dim.dim_value = draws.integer(rng)
        else:
            dim.dim_param = draws.one(rng, SYMBOLS)
    elif what < 0.55:
        shape.dim.add(dim_value=draws.integer(rng))
    elif what < 0.62 and shape.dim:
        del shape.dim[int(rng.integers(len(shape.dim)))]
    elif what < 0.7:
        value.type.tensor_type.ClearField("shape")
    elif what < 0.85:
        value.type.tensor_type.elem_type = draws.one(rng, draws.TYPES)
    elif what < 0.9:
        value.type.Clear()
    elif what < 0.95:
        value.type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [1])))
    else:
        value.name = draws.name(rng, draws.names(holder))


def borders(model: onnx.ModelProto, rng: Rng) -> None:
    """An input or output more, twice or less; values that nothing describes any more."""
    holder = draws.graph(model, rng)
    group = draws.one(rng, [holder.input, holder.output])
    what = rng.random()
    if what < 0.2 and group:
        del group[int(rng.integers(len(group)))]
    elif what < 0.35 and group:
        group.add().CopyFrom(draws.one(rng, list(group)))
    elif what < 0.7:
        name = draws.name(rng, draws.names(holder))
        known = rng.random() < 0.5
        group.append(
            helper.make_tensor_value_info(name, 1, [1, 2]) if known else helper.make_empty_tensor_value_info(name)
        )
    else:
        del holder.value_info[:]


def _array(tensor: TensorProto) -> np.ndarray | None:
    try:
        return numpy_helper.to_array(tensor)
    except Exception:  # it was changed before
        return None


def _store(tensor: TensorProto, array: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), tensor.name))


MUTATIONS = [dims, dims, dims, numbers, numbers, numbers, kind, kind, storage, storage, declared, declared, borders]
