"""Run the tests of the kernels on a build with AddressSanitizer and UndefinedBehaviorSanitizer.

`python tools/checks/sanitize_kernels.py [pytest options]`, by hand after changes in kernels/: it takes minutes, needs
g++ and is no part of CI. The build lies in build/sanitize. Tier amx is emulated in it, so that its reads of memory are
watched too; the other tiers are those that this CPU has.
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
    """The path of one of the compiler's own libraries."""
    return subprocess.run(
        [COMPILER, f"-print-file-name={name}"], check=True, capture_output=True, text=True
    ).stdout.strip()


def main() -> int:
    library = build()
    environment = os.environ | {
        "ONNXQ_LIBRARY": str(library),
        # Python itself is not sanitized, so the sanitizer must come first; it wants to find C++'s exceptions.
        "LD_PRELOAD": f"{runtime_of('libasan.so')} {runtime_of('libstdc++.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1",  # Python leaks at its end
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    # Not captured: what a sanitizer says before it ends the process would end with it.
    pytest = [sys.executable, "-m", "pytest", "-q", "--capture=no", "tests/kernels", *sys.argv[1:]]
    return subprocess.run(pytest, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
