"""Run the tests of the kernels on a build with AddressSanitizer and UndefinedBehaviorSanitizer.

    python tools/checks/sanitize_kernels.py [options of pytest]

To be run by hand after changes in kernels/: it takes minutes, needs g++ and is not part of CI. The build is kept in
build/sanitize. It emulates tier amx, so that its memory accesses are checked too; the other tiers are those of this
CPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "sanitize"
COMPILER = os.environ.get("CXX", "g++")
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1 -O1"


def build() -> Path:
    """Compile the library; returns its path. Raises CalledProcessError when cmake or the compiler fails."""
    subprocess.run(
        [
            *("cmake", "-S", str(ROOT / "kernels"), "-B", str(BUILD), "-G", "Ninja"),
            *(f"-DCMAKE_CXX_COMPILER={COMPILER}", f"-DCMAKE_CXX_FLAGS={FLAGS}", "-DCMAKE_BUILD_TYPE=None"),
            "-DONNXQ_EMULATE_AMX=ON",
        ],
        check=True,
    )
    subprocess.run(["cmake", "--build", str(BUILD)], check=True)
    return BUILD / "libonnxq_kernels.so"


def runtime_of(name: str) -> str:
    """The path of one of the compiler's runtime libraries."""
    return subprocess.run(
        [COMPILER, f"-print-file-name={name}"], check=True, capture_output=True, text=True
    ).stdout.strip()


def main() -> int:
    """Build, then run pytest; returns its exit code."""
    library = build()
    environment = os.environ | {
        "ONNXQ_LIBRARY": str(library),
        # Python is not built with the sanitizer, whose runtime must therefore be loaded first, and libstdc++ with it.
        "LD_PRELOAD": f"{runtime_of('libasan.so')} {runtime_of('libstdc++.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1",  # Python leaks at exit
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    # Not captured: the sanitizer's report would be lost when it aborts the process.
    pytest = [sys.executable, "-m", "pytest", "-q", "--capture=no", "tests/kernels", *sys.argv[1:]]
    return subprocess.run(pytest, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
