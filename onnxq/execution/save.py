"""Writing models: validated first, then renamed into place, so that no partial file is ever left."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, external_data_helper

from onnxq.errors import ModelError, OutputError, first_line
from onnxq.execution import runtime
from onnxq.graph.external import resolve, take_in, take_in_all
from onnxq.graph.files import check_writable, default_mode, file_sha256, native_path
from onnxq.graph.model import INLINE_LIMIT, OPSET_MAX, Libraries, Model, to_proto
from onnxq.graph.protos import OWN_DOMAIN, tensor_bytes, tensor_protos
from onnxq.graph.randomness import fix_seeds
from onnxq.graph.staging import staging_folder

EXTERNAL_SUFFIX = ".data"
# Tensors smaller than this stay in the model file even if others are external (shapes, scales).
EXTERNAL_MIN = 1024
COPY_CHUNK = 1 << 24
UNREGISTERED = re.compile(r"No Op registered for (\w+) ")  # the ONNX checker of an operator of the standard domain
PAGE = 4096  # tensors start at multiples of this, so that runtimes can map them


def save(model: Model, path: str | Path, beside: Mapping[str, str] | None = None) -> None:
    """Validate a model (checker with full check, then an onnxruntime session) and write it.

    beside: texts of further files by name, written to the same folder together with the model or not at all.
    Weights go to `<path>.data` if the model had external data or does not fit in a 2 GiB protobuf message; to
    `<path>.<hash>.data` where an older model's weights must stay until the model itself is replaced.
    Raises ModelError if the model is invalid, OutputError if it cannot be written; nothing is replaced in that case.
    """
    target = check_writable(path)
    proto = to_proto(model)
    external = model.external or sum(map(tensor_bytes, tensor_protos(proto.graph))) > INLINE_LIMIT
    if external and native_path(target) is None:
        raise OutputError(f"{target}: the path is not UTF-8, which external data needs; choose another name or folder")
    if external:
        _check_source(proto, target, model_dir(model))
    try:
        # A folder, because the model contains the name of its external file: both get their final names right away.
        with staging_folder(target) as folder:
            staged = folder / target.name
            write_proto(proto, staged, base_dir=model_dir(model), external=external)
            data = _rename_data(proto, staged, target)
            validate(staged, model.custom_ops)
            for name, text in (beside or {}).items():
                staged.with_name(name).write_text(text, encoding="utf-8")
            for file in sorted(folder.iterdir(), key=lambda file: file == staged):  # the model last
                default_mode(file)
                os.replace(file, target.with_name(file.name))
            if data is not None:
                for old in _data_files(target):
                    if old.name != data:
                        old.unlink()
    except OSError as err:
        raise OutputError(f"{target}: cannot be written: {err.strerror or err}") from None


def _data_files(target: Path) -> list[Path]:
    """The external files that models saved at this path have or had."""
    name = re.compile(re.escape(target.name) + r"(\.[0-9a-f]{12})?" + re.escape(EXTERNAL_SUFFIX))
    return [file for file in target.parent.iterdir() if name.fullmatch(file.name)]


def _rename_data(proto: onnx.ModelProto, staged: Path, target: Path) -> str | None:
    """Give the staged weights a name that no other weights have; returns it, None without external weights.

    Two files cannot be replaced at once: a process killed in between would leave the old model with the new weights.
    """
    data = staged.with_name(staged.name + EXTERNAL_SUFFIX)
    if not data.exists():
        return None
    present = [file.name for file in _data_files(target)]
    if not present:
        return data.name
    digest = file_sha256(data)
    hashed = f"{target.name}.{digest[:12]}{EXTERNAL_SUFFIX}"
    if hashed not in present and file_sha256(target.with_name(data.name)) == digest:
        return data.name
    data.rename(data.with_name(hashed))
    for tensor in tensor_protos(proto.graph):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = hashed
    staged.write_bytes(proto.SerializeToString())
    return hashed


def _check_source(proto: onnx.ModelProto, target: Path, base_dir: Path) -> None:
    """Raise OutputError rather than replace the file from which weights are still read."""
    data = target.with_name(target.name + EXTERNAL_SUFFIX)
    for tensor in tensor_protos(proto.graph):
        if external_data_helper.uses_external_data(tensor):
            source = resolve(tensor, base_dir, "model").file
            if data.exists() and source.exists() and data.samefile(source):
                raise OutputError(
                    f"{target}: its weights would replace their own source, {source.name}; choose another name"
                )


def model_dir(model: Model) -> Path:
    """The folder to which the model's external tensors are relative."""
    return model.path.parent if model.path else Path()


def write_proto(proto: onnx.ModelProto, path: Path, base_dir: Path, external: bool) -> None:
    """Write a ModelProto without validation; large tensors go to `<path>.data` if `external`.

    base_dir: the folder to which tensors still in external files are relative; they are streamed, not kept in memory.
    The proto's tensors are changed to point to the new file.
    """
    if not external:
        take_in_all(proto, base_dir, "model")
        path.write_bytes(proto.SerializeToString())
        return
    location = path.name + EXTERNAL_SUFFIX
    with open(path.with_name(location), "wb") as out:
        for tensor in tensor_protos(proto.graph):
            if tensor.data_type == TensorProto.STRING or tensor_bytes(tensor) < EXTERNAL_MIN:
                if external_data_helper.uses_external_data(tensor):
                    take_in(tensor, base_dir, "model")
                continue
            out.write(b"\0" * (-out.tell() % PAGE))
            offset = out.tell()
            _write_values(tensor, base_dir, out)
            _refer(tensor, location, offset, out.tell() - offset)
        empty = out.tell() == 0
    if empty:
        path.with_name(location).unlink()
    path.write_bytes(proto.SerializeToString())


def _refer(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    """Keep name, type and shape, and a reference to the values."""
    name, dims, data_type, doc = tensor.name, list(tensor.dims), tensor.data_type, tensor.doc_string
    tensor.Clear()
    tensor.name, tensor.data_type, tensor.doc_string = name, data_type, doc
    tensor.dims.extend(dims)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def _write_values(tensor: TensorProto, base_dir: Path, out) -> None:  # type: ignore[no-untyped-def]
    if external_data_helper.uses_external_data(tensor):
        data = resolve(tensor, base_dir, "model")
        left = data.length
        with data.open("model") as source:
            while left:
                chunk = source.read(min(left, COPY_CHUNK))
                if not chunk:
                    raise ModelError(f"external data file {data.file.name} is truncated (tensor {tensor.name})")
                out.write(chunk)
                left -= len(chunk)
    elif tensor.HasField("raw_data"):
        out.write(tensor.raw_data)
    else:
        out.write(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor)).raw_data)


@contextlib.contextmanager
def openable(source: str | Path | bytes | onnx.ModelProto | Model) -> Iterator[str | Path | bytes | onnx.ModelProto]:
    """What a runtime can open: the source itself, or a loaded Model with its weights, which may be in files.

    Raises OutputError as `runnable` does.
    """
    if not isinstance(source, Model):
        yield source
        return
    with runnable(to_proto(source), model_dir(source)) as opened:
        yield opened


@contextlib.contextmanager
def runnable(proto: onnx.ModelProto, base_dir: Path) -> Iterator[bytes | str]:
    """What onnxruntime can open: the serialized bytes, or for a model over 2 GiB a path in a temporary folder.

    Random numbers are drawn with fixed seeds (graph.randomness); the proto is changed in place.
    Raises OutputError if the weights do not fit in the temporary folder.
    """
    fix_seeds(proto.graph)
    large = sum(map(tensor_bytes, tensor_protos(proto.graph))) > INLINE_LIMIT
    if not large:
        take_in_all(proto, base_dir, "model")
        yield proto.SerializeToString()
        return
    with contextlib.ExitStack() as stack:
        try:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxq-"))) / "model.onnx"
            write_proto(proto, path, base_dir, external=True)
        except OSError as err:
            where = tempfile.tempdir or "temporary folder"
            raise OutputError(
                f"{where}: cannot store a copy of the model's weights, which onnxruntime reads from a file: "
                f"{err.strerror or err}; set TMPDIR to a folder with more space"
            ) from None
        yield str(path)


def validate(path: Path, custom_ops: Libraries = ()) -> None:
    """Raise ModelError unless the file passes the ONNX checker (full) and onnxruntime opens it.

    custom_ops: libraries of operators. An operator of another domain that is in none of them is the target's business.
    """
    native = native_path(path)
    try:
        onnx.checker.check_model(path.read_bytes() if native is None else native, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError, ValueError) as err:
        unknown = UNREGISTERED.search(str(err))
        if unknown is None or ("", unknown.group(1)) not in runtime.declared():  # as TensorRT's plug-ins are
            raise ModelError(f"{path.name}: the generated model is invalid: {first_line(err)}") from err
    proto = onnx.load(str(path), load_external_data=False)
    opset = max((o.version for o in proto.opset_import if o.domain == ""), default=0)
    if opset > OPSET_MAX:
        raise ModelError(f"{path.name}: opset {opset} is newer than onnxruntime reads (at most {OPSET_MAX})")
    try:
        runtime.session(path, threads=1, custom_ops=custom_ops, name=path.name)
    except runtime.UnknownOperatorError as err:
        if err.domain == OWN_DOMAIN or (not err.domain and onnx.defs.has(err.op)):
            raise
