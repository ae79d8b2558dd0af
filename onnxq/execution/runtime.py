"""onnxruntime sessions with the kernel library registered.

A model with operators of domain com.onnxq runs on the kernels if the library is registered and on its own function
bodies otherwise: the same integers, but slower.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from onnx import external_data_helper

from onnxq import operators
from onnxq.errors import ConfigError, MissingDependencyError, ModelError, OnnxqError
from onnxq.execution import library
from onnxq.graph.external import check_source
from onnxq.graph.files import native_path
from onnxq.graph.model import Libraries, Model
from onnxq.graph.protos import OWN_DOMAIN, parse, tensor_protos
from onnxq.graph.unknown_ops import HINT

if TYPE_CHECKING:
    import onnxruntime as ort

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "none": "ORT_DISABLE_ALL",
}
WEIGHTS_ENTRY = "session.optimized_model_external_initializers_file_name"
LOG_FATAL = 4  # errors are raised as exceptions; also printing them would take more than one line
# The prefix of onnxruntime's messages: an error code, and for some the location in its source.
ORIGIN = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : "
    r"(Exception during initialization: )?(Load model from .*? failed: ?)?(/\S+:\d+ .*?\) )?"
)
NOT_REGISTERED = re.compile(r"(\S*?):(\w+)\(-?\d+\) is not a registered function/op")
NO_KERNEL = re.compile(
    r"Could not find an implementation for (\w+)\(\d+\) node|No Op registered for (\w+) with domain_version"
)
PROTO_LIMIT = 1_800_000_000  # bytes; a protobuf message is limited to 2 GiB, stay clear of it
_for_every_session: list[str | Path] = []


class UnknownOperatorError(ModelError):
    """An operator that is in no registered library. domain, op: which; the domain is "" where it is not said."""

    def __init__(self, where: str, domain: str, op: str) -> None:
        name = f"{domain}.{op}" if domain else op
        hint = "" if domain in ("", OWN_DOMAIN) else f": {HINT}"
        super().__init__(f"{where}: onnxruntime rejects the model: it does not know operator {name}{hint}")
        self.domain, self.op = domain, op


def session(
    model: str | Path | bytes | onnx.ModelProto,
    *,
    threads: int = 0,
    provider: str = "cpu",
    optimize: bool | str = "all",
    profile: bool | str | Path = False,
    optimized: str | Path | None = None,
    kernels: bool = True,
    custom_ops: Libraries = (),
    disabled: Sequence[str] = (),
    entries: Mapping[str, str] | None = None,
    name: str | None = None,
) -> ort.InferenceSession:
    """An onnxruntime session, with the kernel library registered if there is one.

    model: a path (required for models over 2 GB or with external data), or a serialized or parsed model.
    threads: intra-op threads; 0 lets onnxruntime choose.
    provider: cpu, cuda, or any name that onnxruntime lists.
    optimize: all (or True), extended, basic, none (or False).
    profile: write onnxruntime's profile, under this prefix if a string; `session.end_profiling()` returns the file.
    optimized: write the executed graph to this path, its weights next to it (`.weights`), without its functions.
    kernels: False leaves the library out, so that operators of com.onnxq run on their function bodies.
    custom_ops: further libraries of operators to register. disabled: names of optimizers to switch off. entries:
    session entries of onnxruntime, {key: value}. name: of the model in messages, instead of its path.

    Raises ModelError for external data that graph.external refuses and if onnxruntime rejects the model
    (UnknownOperatorError for an operator that is not registered), OnnxqError for a library that cannot be loaded,
    ConfigError for an unknown provider or level, and MissingDependencyError without onnxruntime.
    """
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = LOG_FATAL
    options.intra_op_num_threads = _threads(threads)
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[_level(optimize)])
    if profile:
        options.enable_profiling = True
        if not isinstance(profile, bool):
            options.profile_file_prefix = str(profile)
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
        options.add_session_config_entry(WEIGHTS_ENTRY, f"{Path(optimized).name}.weights")  # 2 GiB limit
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    if kernels and library.has_library():
        _register(options, library.library_path(), "the kernel library, reinstall onnxq")
    for extra in libraries(custom_ops):
        if not Path(extra).is_file():
            raise ConfigError(f"{extra}: no such file (a library of operators)")
        _register(options, extra, f"{extra}, which must be a library of onnxruntime operators")
    how = {
        "providers": [_provider(provider, ort.get_available_providers())],
        "disabled_optimizers": list(disabled),
    }

    check_source(model, name or ("model" if isinstance(model, (bytes, onnx.ModelProto)) else str(model)))
    if isinstance(model, onnx.ModelProto):
        if model.ByteSize() > PROTO_LIMIT:
            return _large_session(model, options, how, name or "model")
        return _open(model.SerializeToString(), name or "model", options, how)
    if isinstance(model, bytes):
        return _open(model, name or "model", options, how)
    path = Path(model)
    if not path.is_file():
        raise ModelError(f"{path}: {'this is a folder, not a model' if path.is_dir() else 'no such file'}")
    native = native_path(path)
    return _open(_contents(path) if native is None else native, name or str(path), options, how)


def _contents(path: Path) -> bytes:
    """The model in a file with a name that onnxruntime does not accept."""
    raw = path.read_bytes()
    if any(map(external_data_helper.uses_external_data, tensor_protos(parse(raw, str(path)).graph))):
        raise ModelError(f"{path}: the path is not UTF-8, which a model with external data needs; rename it")
    return raw


def library_path() -> str:
    """The kernel library, as `SessionOptions.register_custom_ops_library` takes it: a str, not a Path.

    Raises OnnxqError if there is none (see onnxq.execution.library.library_path).
    """
    return str(library.library_path())


@cache
def declared() -> frozenset[tuple[str, str]]:
    """(domain, name) of every operator that onnxruntime declares, also of other providers; empty without it."""
    try:
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError:
        return frozenset()  # nothing can be run
    return frozenset((schema.domain, schema.name) for schema in state.get_all_operator_schema())


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as err:
        raise MissingDependencyError("onnxruntime is not installed: pip install 'onnxq[cpu]'") from err
    return onnxruntime


def _threads(threads: int) -> int:
    if threads < 0:
        raise ConfigError(f"{threads} threads: give a positive number, or 0 to let onnxruntime choose")
    return threads


def _level(optimize: bool | str) -> str:
    level = {True: "all", False: "none"}[optimize] if isinstance(optimize, bool) else optimize
    if level not in LEVELS:
        raise ConfigError(f"optimization level {level!r} does not exist: choose from {', '.join(LEVELS)}")
    return level


def _provider(name: str, available: list[str]) -> str:
    full = PROVIDERS.get(name, name)
    if full not in available:
        hint = ": pip install 'onnxq[gpu]'" if full == PROVIDERS["cuda"] else ""
        raise ConfigError(f"provider {name!r} is not in this onnxruntime, which has {', '.join(available)}{hint}")
    return full


def libraries(custom_ops: Libraries = ()) -> tuple[str, ...]:
    """The libraries of operators to register besides the kernels: those of the process, then these."""
    given = [custom_ops] if isinstance(custom_ops, (str, Path)) else custom_ops
    return tuple(dict.fromkeys(str(Path(p).resolve()) for p in (*_for_every_session, *given)))


def libraries_of(model: object, custom_ops: Libraries = ()) -> tuple[str, ...]:
    """`libraries`, with those of a loaded Model; of any other source only the given ones are known."""
    return libraries((*libraries(custom_ops), *(model.custom_ops if isinstance(model, Model) else ())))


def use_in_every_session(custom_ops: Libraries) -> None:
    """Libraries of operators for every session of this process from now on; replaces those of an earlier call."""
    _for_every_session[:] = [custom_ops] if isinstance(custom_ops, (str, Path)) else custom_ops


def _register(options: ort.SessionOptions, path: str | Path, what: str) -> None:
    try:
        options.register_custom_ops_library(str(path))
    except Exception as err:  # onnxruntime's own classes derive straight from Exception
        raise OnnxqError(f"onnxruntime cannot load {what}: {_first_line(err)}") from err


def _open(source: str | bytes, where: str, options: ort.SessionOptions, how: dict[str, Any]) -> ort.InferenceSession:
    import onnxruntime as ort

    try:
        return ort.InferenceSession(source, options, **how)
    except Exception as err:  # onnxruntime's own classes derive straight from Exception
        reason = _first_line(err).replace(str(source), where) if isinstance(source, str) else _first_line(err)
        unknown = NOT_REGISTERED.search(reason)
        if unknown:
            raise UnknownOperatorError(where, unknown.group(1), unknown.group(2)) from err
        unknown = NO_KERNEL.search(reason)
        op = (unknown.group(1) or unknown.group(2)) if unknown else ""
        if (
            op and not onnx.defs.has(op) and op not in operators.SCHEMAS
        ):  # a plug-in of another provider, as EfficientNMS_TRT is
            raise UnknownOperatorError(where, "", op) from err
        raise ModelError(f"{where}: onnxruntime rejects the model: {reason}") from err


def _large_session(
    model: onnx.ModelProto, options: ort.SessionOptions, how: dict[str, Any], where: str
) -> ort.InferenceSession:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # saving with external data strips the weights from the message
    with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
        path = Path(folder, "model.onnx")
        onnx.save_model(copy, str(path), save_as_external_data=True, location="weights.bin")
        del copy
        return _open(str(path), where, options, how)


def _first_line(err: BaseException) -> str:
    line = next((line.strip() for line in str(err).splitlines() if line.strip()), type(err).__name__)
    return ORIGIN.sub("", line)
