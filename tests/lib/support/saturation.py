"""CPUs on which a runtime's own int8 kernels are not exact.

x86 without VNNI multiplies uint8 by int8 with vpmaddubsw, which adds two products in 16 bits and saturates. onnxruntime
and OpenVINO use it there, so that layers with large codes differ from what their model says, whoever made it.
onnxruntime has an exact mode for such CPUs, which the tests choose (see conftest.py). OpenVINO has none: tests that
hold it to the model's integers skip. The runtime is probed, not the CPU's name.
"""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnx.parser
import pytest

K = 64  # terms of a sum
LAYER = f"""<ir_version: 8, opset_import: ["": 17]> g (float[1,{K}] x) => (float[1,{K}] y)
    <float one = {{1}}, uint8 zero = {{0}}, int8 weight_zero = {{0}}, float y_scale = {{{K * 255}}}>
    {{ q = QuantizeLinear(x, one, zero) d = DequantizeLinear(q, one, zero) v = DequantizeLinear(w, one, weight_zero)
      p = MatMul(d, v) r = QuantizeLinear(p, y_scale, zero) y = DequantizeLinear(r, y_scale, zero) }}"""


def _layer() -> onnx.ModelProto:
    """A layer whose every code is the largest: each of its results is the code 127."""
    model = onnx.parser.parse_model(LAYER)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.full((K, K), 127, np.int8), "w"))
    return model


EXACT = ("session.x64quantprecision", "1")  # onnxruntime's exact mode; without effect on other CPUs


@functools.cache
def openvino_saturates() -> bool:
    """Whether OpenVINO adds products of uint8 and int8 in 16 bits on this CPU. Skips without OpenVINO."""
    openvino = pytest.importorskip("openvino", reason="needs the dev extra: OpenVINO")
    core = openvino.Core()
    config = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(_layer().SerializeToString()), "CPU", config)
    (y,) = compiled({"x": np.full((1, K), 255, np.float32)}).values()
    return not np.array_equal(y, np.full((1, K), 127 * K * 255, np.float32))


def require_exact_openvino() -> None:
    """Skip the test where OpenVINO does not compute int8 layers exactly on this CPU."""
    if openvino_saturates():
        pytest.skip("OpenVINO adds products of uint8 and int8 in 16 saturating bits on this CPU, which has no VNNI")
