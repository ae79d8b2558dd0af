"""The library around the kernels: what it shows, what it detects, how it registers."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from pathlib import Path

import onnx.parser
import pytest

from onnxq.execution import library, runtime

pytestmark = pytest.mark.skipif(not library.has_library(), reason="onnxq was built without the kernel library")

MODEL = """
<ir_version: 10, opset_import: ["": 21, "com.onnxq": 1]>
g (int32[n, 2] x) => (uint8[n, 2] y)
<int32[1] multiplier = {1073741824}, int32[1] shift = {31}>
{ y = com.onnxq.Requantize <y_zero_point = 128, qmin = 0, qmax = 255, y_type = 2> (x, multiplier, shift) }
"""


def test_features_are_those_the_kernel_reports() -> None:
    features = library.cpu_features()
    needs = {need for tier in library.tier_table() for need in tier.needs}
    assert set(features) <= needs | {"amx_int8"}  # which a build with AMX in software does not need
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not cpuinfo.is_file():
        pytest.skip("no /proc/cpuinfo of an x86-64 CPU to compare with")
    flags = set(next(line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")).split())
    assert ("avx2" in features) == ("avx2" in flags)
    assert ("avxvnni" in features) == ("avx_vnni" in flags)
    assert ("avx512vnni" in features) == ({"avx512_vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags)
    if "amx_int8" in features:  # flagged but refused by the kernel is legitimate, the other way round is not
        assert {"amx_tile", "amx_int8"} <= flags


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
def test_shows_nothing_but_its_entry_points() -> None:
    lines = subprocess.run(
        ["nm", "-D", "--defined-only", "--format=posix", str(library.library_path())],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    functions = {name for name, kind, *_ in map(str.split, lines) if kind == "T"}
    assert {"RegisterCustomOps", "onnxq_cpu_features"} <= functions
    assert not {name for name in functions - {"RegisterCustomOps"} if not name.startswith("onnxq_")}


def test_links_to_nothing_of_onnxruntime_or_python() -> None:
    content = library.library_path().read_bytes()
    assert b"libonnxruntime" not in content
    assert b"libpython" not in content


def test_registers_into_several_sessions_in_one_process() -> None:
    import numpy as np

    model = onnx.parser.parse_model(MODEL)
    sessions = [runtime.session(model, threads=threads) for threads in (1, 2, 1)]
    x = np.array([[-3, 4], [1000, -1000]], np.int32)
    first = sessions.pop(0)
    del first  # what it registered stays for the others
    for session in sessions:
        assert session.run(None, {"x": x})[0].tolist() == [[127, 130], [255, 0]]


def test_an_onnxruntime_that_is_too_old_is_told_so() -> None:
    """A table of functions that serves version 1 only, as onnxruntime before 1.18 would for version 18."""
    functions = library.load()
    messages: list[bytes] = []

    @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
    def create_status(_code: int, message: bytes) -> int:
        messages.append(message)
        return 1

    table = (ctypes.c_void_p * 1)(ctypes.cast(create_status, ctypes.c_void_p))

    @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)
    def get_api(version: int) -> int | None:
        return ctypes.addressof(table) if version == 1 else None

    base = (ctypes.c_void_p * 2)(ctypes.cast(get_api, ctypes.c_void_p), None)
    functions.RegisterCustomOps.restype = ctypes.c_void_p
    assert functions.RegisterCustomOps(None, ctypes.byref(base)) == 1
    assert messages == [b"the onnxq kernels need onnxruntime 1.18 or later"]
