"""What sessions take of memory is given back with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.kernel_runs import needs_library

pytestmark = needs_library
STATM = Path("/proc/self/statm")
SCRIPT = """
import gc, sys
import numpy as np
import onnx.parser
import onnxq

model = onnx.parser.parse_model('''
<ir_version: 10, opset_import: ["": 21, "com.onnxq": 1]> g (uint8[1,2048] x) => (uint8[1,2048] y)
<int8[2048,2048] w, int32[2048] b, int32[1] m = {1000}, int32[1] s = {32}, int8[1] z = {0}>
{ y = com.onnxq.Gemm <qmin = 0, qmax = 255, y_type = 2> (x, w, b, m, s, z) }''')
for name, values in (("w", np.ones((2048, 2048), np.int8)), ("b", np.zeros(2048, np.int32))):
    model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def rounds(count):
    for _ in range(count):
        sessions = [onnxq.session(model, threads=1) for _ in range(3)]
        del sessions[1]
        for session in sessions:
            session.run(None, {"x": np.ones((1, 2048), np.uint8)})
    gc.collect()

rounds(3)
before = resident()
rounds(15)
print((resident() - before) / 2**20)
"""


@pytest.mark.skipif(not STATM.exists(), reason="reads /proc")
def test_packed_weights_are_given_back(tmp_path):
    """45 sessions of 4 MB of packed weights each: kept, they would be 180 MB."""
    command = [sys.executable, "-c", SCRIPT]
    # Elsewhere than in the checkout, whose folder ./onnxq would be imported.
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 60
