"""Run a model and yield named tensors in groups, so that memory stays bounded however many there are."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.data.source import Batch
from onnxq.errors import CalibrationError, DataError, first_line
from onnxq.graph.model import Model, to_proto
from onnxq.graph.shapes import element_type

# Tensors fetched in one run; more are fetched in several runs of the same batch.
FETCH_BUDGET = 256 << 20
BFLOAT16 = "bfloat16"
PROBE = 16  # tensors fetched per run while sizes are unknown


def observed_model(model: Model, tensors: Sequence[str]) -> onnx.ModelProto:
    """The model with these tensors as additional outputs. Raises CalibrationError for a tensor that does not exist."""
    proto = to_proto(model)
    known = model.graph.tensors()
    present = {o.name for o in proto.graph.output}
    for name in tensors:
        if name not in known:
            raise CalibrationError(f"{model.name}: there is no tensor {name} to observe")
        if name not in present:
            proto.graph.output.append(output_info(known[name]))
            present.add(name)
    return proto


def output_info(tensor: gs.Tensor) -> onnx.ValueInfoProto:
    """The declaration of a tensor as a graph output: name and element type, no shape."""
    info = onnx.ValueInfoProto(name=tensor.name)
    if tensor.dtype is not None:
        info.type.tensor_type.elem_type = element_type(tensor)
    return info


def known_bytes(model: Model, names: Iterable[str]) -> dict[str, float]:
    """Bytes per sample of the tensors whose shape inference knows, but for a free first axis: that of the samples."""
    tensors, found = model.graph.tensors(), {}
    for name in names:
        shape, dtype = tensors[name].shape, tensors[name].dtype
        free = shape is not None and len(shape) > 0 and not isinstance(shape[0], int)
        sizes: list[Any] = list(shape[1:] if free else shape) if shape is not None else [None]
        if dtype is not None and not isinstance(dtype, int) and all(isinstance(size, int) for size in sizes):
            found[name] = float(math.prod(sizes)) * np.dtype(dtype).itemsize
    return found


class Fetcher:
    """Runs batches through a session and yields named tensors in groups that stay under the memory budget.

    threads: number of threads that call `run` concurrently and share the budget. known: bytes per sample of tensors
    (known_bytes); if they are not known of all, the first batch is fetched a few tensors at a time.
    """

    def __init__(
        self, session: Any, names: Sequence[str], threads: int = 1, known: Mapping[str, float] | None = None
    ) -> None:
        self.session = session
        self.names = list(names)
        self.threads = threads
        self.bytes: dict[str, float] = {n: (known or {})[n] for n in names if n in (known or {})}  # then measured

    def run(self, batch: Batch) -> Iterator[dict[str, NDArray]]:
        """All tensors of one batch, group by group."""
        for group in self.groups(batch.count):
            yield self.fetch(group, batch)

    def fetch(self, group: Sequence[str], batch: Batch) -> dict[str, NDArray]:
        """These tensors of one batch. Raises DataError, naming the samples, when onnxruntime cannot run them."""
        found = dict(zip(group, run_batch(self.session, group, batch), strict=True))
        for name, value in found.items():
            self.bytes[name] = value.nbytes / max(batch.count, 1)
        return found

    def groups(self, samples: int) -> list[list[str]]:
        """The names, in order, in groups to fetch together for a batch of this many samples."""
        if len(self.bytes) < len(self.names):
            return [self.names[i : i + PROBE] for i in range(0, len(self.names), PROBE)]
        groups: list[list[str]] = []
        room = 0.0
        for name in self.names:
            size = self.bytes[name] * samples
            if not groups or size > room:
                groups.append([])
                room = FETCH_BUDGET / self.threads
            groups[-1].append(name)
            room -= size
        return groups


def run_batch(session: Any, names: Sequence[str], batch: Batch) -> list[NDArray]:
    """Outputs of one batch in the order of `names`. Raises DataError, naming the samples, when it cannot be run."""
    try:
        return run_session(session, names, batch.feeds)
    except Exception as err:  # onnxruntime's own classes derive straight from Exception
        reason = first_line(err)[:300]
        raise DataError(f"sample {sample_names(batch.names)}: onnxruntime cannot run it: {reason}") from err


def run_session(session: Any, names: Sequence[str], feeds: Mapping[str, NDArray]) -> list[NDArray]:
    """session.run that supports bfloat16 arrays, which onnxruntime accepts and returns only as OrtValues."""
    narrow = any(array.dtype.name == BFLOAT16 for array in feeds.values())
    if not narrow and not any(o.type == f"tensor({BFLOAT16})" for o in session.get_outputs()):
        return list(session.run(list(names), dict(feeds)))
    values = {name: to_value(array) for name, array in feeds.items()}
    return [_from_value(value) for value in session.run_with_ort_values(list(names), values)]


def to_value(array: NDArray) -> Any:
    """An array as an OrtValue, which bfloat16 requires."""
    from onnxruntime import OrtValue

    if array.dtype.name != BFLOAT16:
        return OrtValue.ortvalue_from_numpy(array)
    return OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), onnx.TensorProto.BFLOAT16)


def _from_value(value: Any) -> NDArray:
    if value.data_type() != f"tensor({BFLOAT16})":
        return np.asarray(value.numpy())
    shape = value.shape()
    size = int(np.prod(shape))
    if not size:
        return np.empty(shape, ml_dtypes.bfloat16)
    bits = np.ctypeslib.as_array(ctypes.cast(value.data_ptr(), ctypes.POINTER(ctypes.c_uint16)), (size,))
    return bits.copy().view(ml_dtypes.bfloat16).reshape(shape)  # a copy: the memory is the value's


def dimensions(value: NDArray | Sequence[NDArray]) -> list[Any]:
    """The shape of a tensor as a list; of a sequence of tensors, the list of their shapes."""
    return list(value.shape) if isinstance(value, np.ndarray) else [list(np.shape(v)) for v in value]


def real_part(values: NDArray | Sequence[NDArray], batch: Batch) -> NDArray:
    """The values without the rows of samples that pad a fixed batch; of a sequence of tensors, all in one row."""
    if not isinstance(values, np.ndarray):
        return np.concatenate([np.zeros(0, np.float32), *(np.ravel(real_part(np.asarray(v), batch)) for v in values)])
    fed = max((len(v) for v in batch.feeds.values() if v.ndim), default=batch.count)
    if batch.count >= fed or values.ndim == 0 or values.shape[0] % fed:
        return values
    return values[: values.shape[0] // fed * batch.count]


def sample_names(names: Sequence[str]) -> str:
    """Samples for a message, three at most."""
    shown = ", ".join(names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
