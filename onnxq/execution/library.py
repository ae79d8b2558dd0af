"""The kernel library: where it is, which tiers of kernels it has, and which of them this CPU runs.

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
    """Kernels for one instruction set. needs: CPU features, as cpu_features() names them.

    inner_loop: what its inner loop is made of, in a few words.
    """

    name: str
    needs: tuple[str, ...]
    inner_loop: str


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
    """What this CPU and operating system offer to integer kernels, of the features that tiers need.

    Raises OnnxqError when there is no kernel library or it cannot be loaded.
    """
    return tuple(_function("onnxq_cpu_features", ctypes.c_char_p)().decode().split())


def kernel_tiers() -> tuple[str, ...]:
    """The names of the tiers of kernels that are compiled in, best first.

    Raises OnnxqError when there is no kernel library or it is of another version.
    """
    return tuple(_function("onnxq_kernel_tiers", ctypes.c_char_p)().decode().split())


def tier_table() -> tuple[Tier, ...]:
    """Every tier that the library knows, best first, also those that its compiler could not compile.

    Raises OnnxqError as kernel_tiers does.
    """
    lines = _function("onnxq_tier_table", ctypes.c_char_p)().decode().splitlines()
    return tuple(Tier(name, tuple(needs.split()), loop) for name, needs, loop in (line.split("\t") for line in lines))


def kernel_isa() -> str:
    """The tier that a session made now would use: what ONNXQ_ISA asks for, else the best that this CPU has.

    Raises OnnxqError when there is no kernel library, or when ONNXQ_ISA asks for a tier that is unavailable.
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


def load() -> ctypes.CDLL:
    """The plain C functions of the kernel library. Raises OnnxqError when there is none or it cannot be loaded."""
    path = library_path()
    try:
        return ctypes.CDLL(str(path))
    except OSError as err:
        reason = str(err).strip().splitlines()[0]
        raise OnnxqError(f"the kernel library cannot be loaded, reinstall onnxq: {reason}") from err


def _function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of the kernel library. Raises OnnxqError when it has none of that name."""
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
    # An editable install has two folders: the sources, and the one that the build installs into.
    candidates = (Path(folder, "_kernels", name) for folder in sys.modules["onnxq"].__path__ for name in LIBRARY_NAMES)
    return next((path for path in candidates if path.is_file()), None)
