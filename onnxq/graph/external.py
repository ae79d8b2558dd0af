"""Weights in external files. A model from outside may name any file: only regular files of its own folder are read.

Everything that reads external data resolves it here first, and reads it here: neither onnx nor a runtime follows a
location that was not resolved.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, external_data_helper

from onnxq.errors import ModelError, printable
from onnxq.graph.protos import OWN_DOMAIN, tensor_bytes
from onnxq.graph.safe_open import open_inside

MOST_DIGITS = 19  # of a 64-bit number
MOST_BYTES = 2**63 - 1
MOST_CHARACTERS = 4096  # of a path, in Linux
SHOWN = 100  # characters of a location in a message
MEMORY_MARKER = "_ORT_MEM_ADDR_"  # onnxruntime takes the offset beside this location as an address in memory
KEY = b"location"  # is in every serialized model with external data, and seldom in others


@dataclass(frozen=True)
class ExternalData:
    """Where a tensor's values are. inside: the file, below the model's folder. offset, length: in bytes, in the file.

    tensor: its name for messages.
    """

    base_dir: Path
    inside: Path
    offset: int
    length: int
    tensor: str

    @property
    def file(self) -> Path:
        """The path of the file. To read it, `open` it: what was resolved may have been replaced since."""
        return self.base_dir / self.inside

    def open(self, where: str) -> BinaryIO:
        """The file at the first byte of the values, at least `length` of which are there. Raises ModelError."""
        name = f"{where}: external data file {printable(_short(str(self.inside)))}"
        try:
            source = open_inside(self.base_dir, self.inside)
        except OSError as err:
            raise ModelError(f"{name} cannot be read: {err.strerror} (tensor {self.tensor})") from None
        if os.fstat(source.fileno()).st_size < self.offset + self.length:
            source.close()
            raise ModelError(f"{name} is truncated (tensor {self.tensor})")
        source.seek(self.offset)
        return source


def check_external(model: onnx.ModelProto, base_dir: Path, where: str) -> bool:
    """Resolve every tensor in an external file; returns whether there are any. Raises ModelError."""
    found = [t for t in every_tensor(model) if external_data_helper.uses_external_data(t)]
    for tensor in found:
        resolve(tensor, base_dir, where)
    return bool(found)


def check_source(source: str | Path | bytes | onnx.ModelProto, where: str) -> None:
    """check_external for what a runtime is about to open, in any of the forms that it accepts.

    A runtime takes a model without a path to be in the current folder. What is not an ONNX model is left to the
    runtime to reject.
    """
    if isinstance(source, onnx.ModelProto):
        check_external(source, Path(), where)
        return
    raw = source if isinstance(source, bytes) else _if_external(Path(source))
    if KEY not in raw:
        return
    model = onnx.ModelProto()
    try:
        model.ParseFromString(raw)
    except DecodeError:
        return
    check_external(model, Path() if isinstance(source, bytes) else Path(source).parent, where)


def resolve(tensor: TensorProto, base_dir: Path, where: str) -> ExternalData:
    """The file and the range of a tensor's values.

    base_dir: the model's folder. Raises ModelError for an entry that is missing, double or no number, for a location
    that is not a plain path below the folder, for anything but a regular file with one name (no symbolic or hard links,
    which may lead elsewhere), and for a range that is not in the file or not the tensor's.
    """
    label = _name(tensor)
    name = f"{where}: tensor {label}"
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key in entries:
            raise ModelError(f"{name}: its external data has two entries {_short(entry.key)!r}")
        entries[entry.key] = entry.value
    location = entries.get("location", "")
    if not location:
        raise ModelError(f"{name}: its external data names no file (no location)")
    inside = _inside(location, name)
    shown = printable(_short(location))
    try:
        size = _regular(inside, base_dir, shown, name)
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{where}: external data file {shown} is missing (tensor {label})") from None
    except OSError as err:
        raise ModelError(f"{name}: external data file {shown} cannot be read: {err.strerror}") from None
    needed = check_size(tensor, where)
    offset = _number(entries.get("offset", "0"), "offset", name)
    length = _number(entries["length"], "length", name) if "length" in entries else needed
    if tensor.data_type == TensorProto.STRING:
        raise ModelError(f"{name}: texts cannot be in external data")
    if length != needed:
        raise ModelError(f"{name} is {needed} bytes, its external data has {length}")
    if offset + length > size:
        raise ModelError(
            f"{where}: external data file {shown} is truncated: tensor {label} needs {offset + length} bytes, "
            f"the file has {size}"
        )
    return ExternalData(base_dir, inside, offset, length, label)


def read(tensor: TensorProto, base_dir: Path, where: str) -> bytes:
    """The bytes of a tensor in an external file, little-endian as in raw_data. Raises ModelError."""
    data = resolve(tensor, base_dir, where)
    with data.open(where) as source:
        try:
            raw = source.read(data.length)
        except OSError as err:
            raise ModelError(f"{where}: external data file {data.file.name} cannot be read: {err.strerror}") from None
    if len(raw) < data.length:
        raise ModelError(f"{where}: external data file {data.file.name} is truncated (tensor {data.tensor})")
    return raw


def take_in(tensor: TensorProto, base_dir: Path, where: str) -> None:
    """Move the values of a tensor in an external file into the tensor itself. Raises ModelError."""
    raw = read(tensor, base_dir, where)
    kept = {key: getattr(tensor, key) for key in ("name", "data_type", "doc_string")}
    inline = TensorProto(dims=tensor.dims, raw_data=raw, **kept)
    inline.metadata_props.extend(tensor.metadata_props)
    tensor.CopyFrom(inline)


def take_in_all(model: onnx.ModelProto, base_dir: Path, where: str) -> None:
    """take_in for every tensor in an external file."""
    _take_in(every_tensor(model), base_dir, where)


def take_in_fixed(model: onnx.ModelProto, base_dir: Path, where: str) -> None:
    """take_in for the tensors that stay as they are when a model is edited: sparse ones, and those in our functions."""
    _take_in(_sparse_of(model.graph), base_dir, where)
    _take_in((t for f in model.functions if f.domain == OWN_DOMAIN for t in _of_function(f)), base_dir, where)


def _take_in(tensors: Iterable[TensorProto], base_dir: Path, where: str) -> None:
    for tensor in tensors:
        if external_data_helper.uses_external_data(tensor):
            take_in(tensor, base_dir, where)


def every_tensor(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model: of its graphs, functions and training graphs, sparse ones and those in lists too."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_function(function)
    for training in model.training_info:
        yield from _of_graph(training.initialization)
        yield from _of_graph(training.algorithm)


def _of_function(function: onnx.FunctionProto) -> Iterator[TensorProto]:
    yield from _of_attributes(function.attribute_proto)  # defaults
    yield from _of_nodes(function.node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        yield from _of_attributes(node.attribute)


def _of_attributes(attributes: Iterable[onnx.AttributeProto]) -> Iterator[TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        lone = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for sparse in (*lone, *attribute.sparse_tensors):
            yield sparse.values
            yield sparse.indices
        for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
            yield from _of_graph(graph)


def _sparse_of(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _sparse_of(attribute.g)


def check_size(tensor: TensorProto, where: str) -> int:
    """The bytes that a tensor's type and dimensions stand for. Raises ModelError for those that no tensor has."""
    name = f"{where}: tensor {_name(tensor)}"
    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"{name} has a negative dimension: {_short(str(list(tensor.dims)))}")
    try:
        size = tensor_bytes(tensor)
    except KeyError:
        raise ModelError(f"{name} has the element type {tensor.data_type}, which ONNX does not have") from None
    if size > MOST_BYTES:
        raise ModelError(f"{name} has too many elements: {_short(str(list(tensor.dims)))}")
    return size


def _if_external(path: Path) -> bytes:
    """The contents of a model file if it may have external data, else nothing: most models are not read twice."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents:
            return contents[:] if contents.find(KEY) >= 0 else b""
    except (OSError, ValueError):  # ValueError: an empty file
        return b""


def _name(tensor: TensorProto) -> str:
    return printable(_short(tensor.name)) or "without a name"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _inside(location: str, name: str) -> Path:
    """A location as a path below a folder."""
    if len(location) > MOST_CHARACTERS:
        raise ModelError(f"{name}: the location of its external data has {len(location)} characters")
    path = Path(location)
    drive = len(location) > 1 and location[1] == ":"
    if "\0" in location or "\\" in location or drive or path.is_absolute() or ".." in path.parts:
        raise ModelError(
            f"{name}: its external data is in {_short(location)!r}; only files in the model's folder are read, by a "
            "plain relative path"
        )
    if MEMORY_MARKER in location:
        raise ModelError(f"{name}: its external data is in {_short(location)!r}, which means memory, not a file")
    return path


def _regular(inside: Path, base_dir: Path, location: str, name: str) -> int:
    """The size of a file. Every part of the way to it is a folder and the last one a file, none of them a link."""
    way = base_dir
    for part in inside.parts or (".",):
        way = way / part
        status = way.lstat()
        if stat.S_ISLNK(status.st_mode):
            raise ModelError(
                f"{name}: external data file {location} is, or is in, a symbolic link, which may lead anywhere; copy it"
            )
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{name}: external data file {location} is not a regular file")
    if status.st_nlink > 1:
        raise ModelError(f"{name}: external data file {location} has another name (hard link) elsewhere; copy it")
    return status.st_size


def _number(text: str, key: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS):
        raise ModelError(f"{name}: the {key} of its external data is not a number of bytes: {text[:40]!r}")
    return int(text)
