"""The library as other compilers and CPUs get it: builds of its own, each of a minute or so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onnxq.execution import library

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("ninja") is None, reason="no cmake or no ninja"),
]
CROSS = "aarch64-linux-gnu-g++"


def run(*command: str, **environment: str) -> str:
    """What the command prints; fails the test with it when the command fails."""
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


def build(root: Path, folder: Path, *options: str) -> str:
    """The library built in the folder with CMake options; a warning is an error."""
    run("cmake", "-S", str(root / "kernels"), "-B", str(folder), "-G", "Ninja", "-DONNXQ_WERROR=ON", *options)
    run("cmake", "--build", str(folder))
    return str(folder / "libonnxq_kernels.so")


def tiers(library: str) -> list[str]:
    """The tiers that were compiled."""
    code = "from onnxq.execution import library; print(*library.kernel_tiers())"
    return run(sys.executable, "-c", code, ONNXQ_LIBRARY=library).split()


def test_amx_in_software_equals_exact_integers(root: Path, tmp_path: Path) -> None:
    """Tier amx on tiles in software, which end the process where the CPU would fault."""
    if not library.has_library() or "avx512vnni" not in library.cpu_features():
        pytest.skip("the emulation needs AVX-512 VNNI, which this CPU lacks or nothing here can tell")
    made = build(root, tmp_path, "-DONNXQ_EMULATE_AMX=ON")
    assert tiers(made)[0] == "amx"
    tests = [str(root / "tests" / "kernels" / name) for name in ("test_tables.py", "test_conv.py")]
    layers = "amx and (conv or gemm or matmul or kernel_that_does_not_fit)"
    told = run(sys.executable, "-m", "pytest", "-q", "-rs", "-k", layers, *tests, ONNXQ_LIBRARY=made)
    assert " passed" in told
    assert "skipped" not in told, told


@pytest.mark.skipif(shutil.which(CROSS) is None, reason=f"no {CROSS}")
def test_compiles_for_aarch64(root: Path, tmp_path: Path) -> None:
    options = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={CROSS}"]
    made = build(root, tmp_path / "build", *options)
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("compiled, but no qemu-aarch64 to run it")
    main = tmp_path / "main.cpp"
    main.write_text(
        'extern "C" const char *onnxq_kernel_tiers(), *onnxq_kernel_isa(), *onnxq_cpu_features();\n'
        "#include <cstdio>\n"
        'int main() { std::printf("%s|%s|%s", onnxq_kernel_tiers(), onnxq_kernel_isa(), onnxq_cpu_features()); }\n'
    )
    run(CROSS, str(main), made, "-o", str(tmp_path / "main"))
    system = Path(run(CROSS, "-print-file-name=libc.so.6").strip()).resolve().parents[1]
    told = run("qemu-aarch64", "-L", str(system), "-E", f"LD_LIBRARY_PATH={tmp_path / 'build'}", str(tmp_path / "main"))
    assert told == "portable |portable|"


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_compiles_where_the_compiler_lacks_instruction_sets(root: Path, tmp_path: Path) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text(
        '#!/bin/sh\ncase " $* " in *" -mavx512"*|*" -mavxvnni "*|*" -mamx"*) exit 1;; esac\nexec c++ "$@"\n'
    )
    compiler.chmod(0o755)
    made = build(root, tmp_path / "build", f"-DCMAKE_CXX_COMPILER={compiler}", "-DCMAKE_BUILD_TYPE=Debug")
    assert set(tiers(made)) <= {"avx2", "portable"}
