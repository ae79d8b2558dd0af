"""The kernel library: its location, its kernel tiers, and those that this CPU supports.

The list of tiers is the library's own (kernels/CMakeLists.txt); nothing here repeats it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxq.errors import OnnxqError

LIBRARY_NAMES = ("libonnxq_kernels.so", "libonnxq_kernels.dylib", "onnxq_kernels.dll")
LIBRARY_VARIABLE = "ONNXQ_LIBRARY"
ISA_VARIABLE = "ONNXQ_ISA"


@dataclass(frozen=True)
class Tier:
    """Kernels for one instruction set. needs: CPU features, named as in cpu_features().

    inner_loop: short description of its inner loop.
    """

    name: str
    needs: tuple[str, ...]
    inner_loop: str


def library_path() -> Path:
    """The kernel library, for `SessionOptions.register_custom_ops_library`.

    The environment variable ONNXQ_LIBRARY selects another build (for example with sanitizers).
    Raises OnnxqError if there is none.
    """
    path = _find_library()
    if path is None:
        raise OnnxqError(
            "the kernel library is not installed: onnxq was installed without a working C++17 compiler. Integer-only "
            "models run on their function bodies, with the same results but slower. For the kernels, install g++ 11 or "
            "clang 14 (or later), then reinstall onnxq with `pip install -v --force-reinstall --no-deps`"
        )
    return path


def has_library() -> bool:
    """Whether there is a kernel library. Raises OnnxqError if ONNXQ_LIBRARY names a missing file."""
    return _find_library() is not None


def cpu_features() -> tuple[str, ...]:
    """The features that kernel tiers need and that this CPU and operating system support.

    Raises OnnxqError if there is no kernel library or it cannot be loaded.
    """
    return tuple(_function("onnxq_cpu_features", ctypes.c_char_p)().decode().split())


def kernel_tiers() -> tuple[str, ...]:
    """The names of the tiers of kernels that are compiled in, best first.

    Raises OnnxqError if there is no kernel library or its version does not match.
    """
    return tuple(_function("onnxq_kernel_tiers", ctypes.c_char_p)().decode().split())


def tier_table() -> tuple[Tier, ...]:
    """Every tier that the library knows, best first, including those that its compiler could not compile.

    Raises OnnxqError as kernel_tiers does.
    """
    lines = _function("onnxq_tier_table", ctypes.c_char_p)().decode().splitlines()
    return tuple(Tier(name, tuple(needs.split()), loop) for name, needs, loop in (line.split("\t") for line in lines))


def kernel_isa() -> str:
    """The tier that a new session would use: the one that ONNXQ_ISA requests, else the best that this CPU supports.

    Raises OnnxqError if there is no kernel library, or if ONNXQ_ISA requests an unavailable tier.
    """
    chosen = _function("onnxq_kernel_isa", ctypes.c_char_p)()
    if not chosen:
        asked = os.environ.get(ISA_VARIABLE, "")
        raise OnnxqError(
            f"{ISA_VARIABLE}={asked}: there is no such kernel tier, or this CPU does not support it; "
            f"available in this build: {', '.join(kernel_tiers())}; unset it to use the best (see `onnxq kernels`)"
        )
    return str(chosen.decode())


def peak_macs(seconds: float = 0.05) -> float:
    """8-bit multiply-accumulates per second of the selected tier's inner loop on one thread, measured for `seconds`.

    Raises OnnxqError as kernel_isa does.
    """
    kernel_isa()
    return float(_function("onnxq_peak_macs", ctypes.c_double, ctypes.c_double)(seconds))


def load() -> ctypes.CDLL:
    """The plain C functions of the kernel library. Raises OnnxqError if there is none or it cannot be loaded."""
    path = library_path()
    try:
        return ctypes.CDLL(str(path))
    except OSError as err:
        reason = str(err).strip().splitlines()[0]
        raise OnnxqError(f"the kernel library cannot be loaded, reinstall onnxq: {reason}") from err


def _function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of the kernel library. Raises OnnxqError if it does not have it."""
    try:
        found = getattr(load(), name)
    except AttributeError:
        raise OnnxqError(
            f"the kernel library has no function {name}: it is older than this onnxq; reinstall onnxq, or unset "
            f"{LIBRARY_VARIABLE} ({library_path()})"
        ) from None
    found.restype, found.argtypes = result, arguments
    return found


def _find_library() -> Path | None:
    if chosen := os.environ.get(LIBRARY_VARIABLE):
        path = Path(chosen).resolve()
        if not path.is_file():
            raise OnnxqError(
                f"{LIBRARY_VARIABLE}: there is no file {path}; unset it to use the installed kernel library"
            )
        return path
    # An editable install has two folders: the sources, and the one into which the build installs.
    candidates = (Path(folder, "_kernels", name) for folder in sys.modules["onnxq"].__path__ for name in LIBRARY_NAMES)
    return next((path for path in candidates if path.is_file()), None)
