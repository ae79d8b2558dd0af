"""Find the kernel library, register it with onnxruntime, make sessions.

A model with operators of domain com.onnxq runs on the kernels when the library is registered and on its own function
bodies when it is not: the same integers, only slower.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from onnxq.errors import ConfigError, MissingDependencyError, ModelError, OnnxqError

if TYPE_CHECKING:
    import onnxruntime as ort

LIBRARY_NAMES = ("libonnxq_kernels.so", "libonnxq_kernels.dylib", "onnxq_kernels.dll")
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "none": "ORT_DISABLE_ALL",
}
ISA_VARIABLE = "ONNXQ_ISA"
WEIGHTS_ENTRY = "session.optimized_model_external_initializers_file_name"
LOG_FATAL = 4  # errors come as exceptions; printed too, they would not be one line
# What onnxruntime puts before its messages: an error code, and for some the place in its own source.
ORIGIN = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : "
    r"(Exception during initialization: )?(Load model from .*? failed: ?)?(/\S+:\d+ .*?\) )?"
)
PROTO_LIMIT = 1_800_000_000  # bytes; a protobuf message ends at 2 GiB, stay clear of it


def library_path() -> Path:
    """The kernel library, for `SessionOptions.register_custom_ops_library`.

    The environment variable ONNXQ_LIBRARY names another build of it (with sanitizers, say).
    Raises OnnxqError when there is none.
    """
    path = _find_library()
    if path is None:
        raise OnnxqError(
            "the kernel library is not installed: there was no working C++17 compiler when onnxq was. Integer-only "
            "models run on their function bodies, the same results only slower. For the kernels install g++ 11 or "
            "clang 14 (or later), then reinstall onnxq with `pip install -v --force-reinstall --no-deps`"
        )
    return path


def has_library() -> bool:
    """Whether there is a kernel library. Raises OnnxqError when ONNXQ_LIBRARY names no file."""
    return _find_library() is not None


def cpu_features() -> tuple[str, ...]:
    """What this CPU and operating system offer to integer kernels, of avx2, avxvnni, avx512vnni, amx_int8.

    Raises OnnxqError when there is no kernel library or it cannot be loaded.
    """
    return tuple(_function("onnxq_cpu_features", ctypes.c_char_p)().decode().split())


def kernel_tiers() -> tuple[str, ...]:
    """The tiers of kernels that were compiled, best first, of amx, avx512vnni, avxvnni, avx2, portable.

    Raises OnnxqError when there is no kernel library or it is of another version.
    """
    return tuple(_function("onnxq_kernel_tiers", ctypes.c_char_p)().decode().split())


def kernel_isa() -> str:
    """The tier that a session made now would use: what ONNXQ_ISA asks for, else the best that this CPU has.

    Raises OnnxqError when there is no kernel library, or when ONNXQ_ISA asks for a tier that is not there.
    """
    chosen = _function("onnxq_kernel_isa", ctypes.c_char_p)()
    if not chosen:
        asked = os.environ.get(ISA_VARIABLE, "")
        raise OnnxqError(
            f"{ISA_VARIABLE}={asked}: there is no such tier of kernels, or this CPU cannot run it; "
            f"built are {', '.join(kernel_tiers())}; unset it to take the best (see `onnxq kernels`)"
        )
    return str(chosen.decode())


def peak_macs(seconds: float = 0.05) -> float:
    """8-bit multiply-accumulates a second of the chosen tier's own inner loop on one thread, measured for `seconds`.

    Raises OnnxqError as kernel_isa does.
    """
    kernel_isa()
    return float(_function("onnxq_peak_macs", ctypes.c_double, ctypes.c_double)(seconds))


def library() -> ctypes.CDLL:
    """The plain C functions of the kernel library. Raises OnnxqError when there is none or it cannot be loaded."""
    path = library_path()
    try:
        return ctypes.CDLL(str(path))
    except OSError as err:
        raise OnnxqError(f"the kernel library cannot be loaded, reinstall onnxq: {_first_line(err)}") from err


def _function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of the kernel library. Raises OnnxqError when it has none of that name."""
    try:
        found = getattr(library(), name)
    except AttributeError:
        raise OnnxqError(
            f"the kernel library has no function {name}: it is older than this onnxq; reinstall onnxq, or unset "
            f"ONNXQ_LIBRARY ({library_path()})"
        ) from None
    found.restype, found.argtypes = result, arguments
    return found


def session(
    model: str | Path | bytes | onnx.ModelProto,
    *,
    threads: int = 0,
    provider: str = "cpu",
    optimize: bool | str = "all",
    profile: bool | str | Path = False,
    optimized: str | Path | None = None,
    kernels: bool = True,
) -> ort.InferenceSession:
    """An onnxruntime session with the kernel library registered when there is one.

    model: a path, which is how models over 2 GB or with external data are given, or a serialized or parsed model.
    threads: of one operator (intra-op); 0 lets onnxruntime choose.
    provider: cpu, cuda, or any name that onnxruntime lists.
    optimize: all (or True), extended, basic, none (or False).
    profile: write onnxruntime's profile, under this prefix if it is one; `session.end_profiling()` returns the file.
    optimized: write the graph that is executed here, its weights beside it (`.weights`), without its functions.
    kernels: False leaves the library out, so that operators of com.onnxq run on their function bodies.

    Raises ModelError when onnxruntime refuses the model, ConfigError for an unknown provider or level, and
    MissingDependencyError without onnxruntime.
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
        options.add_session_config_entry(WEIGHTS_ENTRY, f"{Path(optimized).name}.weights")  # a message holds 2 GiB
    if kernels and (library := _find_library()):
        _register(options, library)
    providers = [_provider(provider, ort.get_available_providers())]

    if isinstance(model, onnx.ModelProto):
        if model.ByteSize() > PROTO_LIMIT:
            return _large_session(model, options, providers)
        return _open(model.SerializeToString(), "model", options, providers)
    if isinstance(model, bytes):
        return _open(model, "model", options, providers)
    path = Path(model)
    if not path.is_file():
        raise ModelError(f"{path}: {'this is a folder, not a model' if path.is_dir() else 'no such file'}")
    return _open(str(path), str(path), options, providers)


def _find_library() -> Path | None:
    if chosen := os.environ.get("ONNXQ_LIBRARY"):
        path = Path(chosen).resolve()
        if not path.is_file():
            raise OnnxqError(f"ONNXQ_LIBRARY: there is no file {path}; unset it to use the installed kernel library")
        return path
    # An editable install has two folders: the sources, and the one that the build installs into.
    candidates = (Path(folder, "_kernels", name) for folder in sys.modules["onnxq"].__path__ for name in LIBRARY_NAMES)
    return next((path for path in candidates if path.is_file()), None)


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


def _register(options: ort.SessionOptions, path: Path) -> None:
    try:
        options.register_custom_ops_library(str(path))
    except Exception as err:  # onnxruntime's own classes derive straight from Exception
        raise OnnxqError(f"onnxruntime cannot load the kernel library, reinstall onnxq: {_first_line(err)}") from err


def _open(source: str | bytes, where: str, options: ort.SessionOptions, providers: list[str]) -> ort.InferenceSession:
    import onnxruntime as ort

    try:
        return ort.InferenceSession(source, options, providers=providers)
    except Exception as err:  # onnxruntime's own classes derive straight from Exception
        raise ModelError(f"{where}: onnxruntime refuses the model: {_first_line(err)}") from err


def _large_session(model: onnx.ModelProto, options: ort.SessionOptions, providers: list[str]) -> ort.InferenceSession:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # saving with external data strips the weights from the message
    with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
        path = Path(folder, "model.onnx")
        onnx.save_model(copy, str(path), save_as_external_data=True, location="weights.bin")
        del copy
        return _open(str(path), "model", options, providers)


def _first_line(err: BaseException) -> str:
    line = next((line.strip() for line in str(err).splitlines() if line.strip()), type(err).__name__)
    return ORIGIN.sub("", line)
