"""Weights in external files. A model from outside may name any file: only regular files of its own folder are read.

Everything that reads external data resolves it here first.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, external_data_helper

from onnxq.errors import ModelError
from onnxq.graph.protos import tensor_bytes

MOST_DIGITS = 19  # of a 64-bit number


@dataclass(frozen=True)
class ExternalData:
    """Where a tensor's values are. file: inside the model's folder. offset, length: in bytes, inside the file."""

    file: Path
    offset: int
    length: int


def check_external(model: onnx.ModelProto, base_dir: Path, where: str) -> list[TensorProto]:
    """The tensors of a model that are in external files, wherever they are in it, each resolved. Raises ModelError."""
    found = [t for t in every_tensor(model) if external_data_helper.uses_external_data(t)]
    for tensor in found:
        resolve(tensor, base_dir, where)
    return found


def resolve(tensor: TensorProto, base_dir: Path, where: str) -> ExternalData:
    """The file and the range of a tensor's values.

    base_dir: the model's folder. Raises ModelError for an entry that is missing, double or no number, for a location
    that is not a plain path below the folder, for anything but a regular file with one name (no symbolic or hard links,
    which may lead elsewhere), and for a range that is not in the file or not the tensor's.
    """
    name = f"{where}: tensor {tensor.name}"
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key in entries:
            raise ModelError(f"{name}: its external data has two entries {entry.key!r}")
        entries[entry.key] = entry.value
    location = entries.get("location", "")
    file = base_dir / _inside(location, name)
    if not file.exists():
        raise ModelError(f"{where}: external data file {location} is missing (tensor {tensor.name})")
    _regular(file, base_dir, location, name)
    size = file.stat().st_size
    offset = _number(entries.get("offset", "0"), "offset", name)
    needed = tensor_bytes(tensor) if tensor.data_type != TensorProto.STRING else 0
    length = _number(entries["length"], "length", name) if entries.get("length") else needed
    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"{name} has a negative dimension: {list(tensor.dims)}")
    if tensor.data_type == TensorProto.STRING or length != needed:
        raise ModelError(f"{name} is {needed} bytes, its external data has {length}")
    if offset + length > size:
        raise ModelError(
            f"{where}: external data file {location} is truncated: tensor {tensor.name} needs {offset + length} bytes, "
            f"the file has {size}"
        )
    return ExternalData(file, offset, length)


def every_tensor(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model: of its graphs, functions and training graphs, sparse ones and those in lists too."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)
    for training in model.training_info:
        yield from _of_graph(training.initialization)
        yield from _of_graph(training.algorithm)


def _of_graph(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            lone = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for sparse in (*lone, *attribute.sparse_tensors):
                yield sparse.values
                yield sparse.indices
            for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _of_graph(graph)


def _inside(location: str, name: str) -> Path:
    """A location as a path below a folder."""
    path = Path(location)
    drive = len(location) > 1 and location[1] == ":"
    if not location or "\0" in location or "\\" in location or drive or path.is_absolute() or ".." in path.parts:
        raise ModelError(
            f"{name}: its external data is in {location!r}; only files in the model's folder are read, by a plain "
            "relative path"
        )
    return path


def _regular(file: Path, base_dir: Path, location: str, name: str) -> None:
    """Every part of the way is a folder and the last one a file, none of them a link."""
    way = [file, *(p for p in file.parents if base_dir in p.parents)]
    if any(part.is_symlink() for part in way):
        raise ModelError(
            f"{name}: external data file {location} is, or is in, a symbolic link, which may lead anywhere; copy it"
        )
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{name}: external data file {location} is not a regular file")
    if status.st_nlink > 1:
        raise ModelError(f"{name}: external data file {location} has another name (hard link) elsewhere; copy it")


def _number(text: str, key: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS):
        raise ModelError(f"{name}: the {key} of its external data is not a number of bytes: {text[:40]!r}")
    return int(text)
