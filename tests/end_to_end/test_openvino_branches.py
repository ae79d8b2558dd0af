"""Blocks whose branches meet again, in OpenVINO with free and fixed sizes: what onnxruntime computes of the product.

Weights have 7 bits, with which no CPU saturates sums of products (support.saturation), so that the runtimes agree.
"""

from __future__ import annotations

import importlib.resources
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

import onnxq
from support.runs import run

openvino = pytest.importorskip("openvino", reason="needs the dev extra: OpenVINO")

# From t to u: c is read by the gate and by the sum.
GATE = "g = GlobalAveragePool(c) d = Conv(g, w2) e = Relu(d) f = Conv(e, w3) s = HardSigmoid(f)"
BLOCKS = {
    "gate and shortcut": f"c = Conv(t, w1) {GATE} m = Mul(c, s) n = Add(c, m) u = Conv(n, w1)",
    "reversed": f"c = Conv(t, w1) {GATE} m = Mul(s, c) n = Add(m, c) u = Conv(n, w1)",
    "difference": f"c = Conv(t, w1) {GATE} m = Mul(c, s) n = Sub(c, m) u = Conv(n, w1)",
    "Sigmoid": f"c = Conv(t, w1) {GATE.replace('HardSigmoid', 'Sigmoid')} m = Mul(c, s) n = Add(c, m) u = Conv(n, w1)",
    "without pooling": "c = Conv(t, w1) d = Conv(c, w2) f = Conv(d, w3) s = Sigmoid(f) m = Mul(c, s) n = Add(c, m) "
    "u = Conv(n, w1)",
    "residual": f"c = Conv(t, w1) {GATE} m = Mul(c, s) n = Add(c, m) q = Conv(n, w1) u = Add(q, t)",
    "no layer on the way": "c = Conv(t, w1) s = Sigmoid(c) m = Mul(c, s) n = Add(c, m) u = Conv(n, w1)",
}


def profile(folder: Path) -> Path:
    text = importlib.resources.files("onnxq.profiles").joinpath("openvino.toml").read_text(encoding="utf-8")
    file = folder / "openvino7.toml"
    file.write_text(
        text.replace("bits = [8, 4]", "bits = [7]").replace('name = "openvino"', 'name = "openvino7"'), encoding="utf-8"
    )
    return file


def model(block: str, inner: bool) -> onnx.ModelProto:
    outputs = "float[N,8,H,W] u, float[N,8,H,W] c" if inner else "float[N,8,H,W] u"
    made = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]> g (float[N,3,H,W] x) => ({outputs})
        {{ a = Conv<pads=[1,1,1,1]>(x, w0) t = Relu(a) {BLOCKS[block]} }}"""
    )
    rng = np.random.default_rng(0)
    for name, shape in {"w0": (8, 3, 3, 3), "w1": (8, 8, 1, 1), "w2": (4, 8, 1, 1), "w3": (8, 4, 1, 1)}.items():
        values = rng.normal(size=shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))
        made.graph.initializer.append(numpy_helper.from_array(values, name))
    used = {name for node in made.graph.node for name in node.input}
    for tensor in [t for t in made.graph.initializer if t.name not in used]:
        made.graph.initializer.remove(tensor)
    return made


@pytest.mark.shared_weight
@pytest.mark.parametrize("inner", [False, True], ids=["", "inner output"])
@pytest.mark.parametrize("block", BLOCKS)
def test_branches(block: str, inner: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.normal(size=(1, 3, 16, 16)).astype(np.float32)} for _ in range(6)]
    made = model(block, inner)
    settings = {"weight_bits": 7, "first_last_bits": 7}
    product = onnxq.quantize(made, feeds, profile=profile(tmp_path), threads=1, **settings).model
    expected = run(product, feeds[0])
    real = run(made, feeds[0])
    core = openvino.Core()
    for shape in (None, [1, 3, 16, 16]):
        read = core.read_model(product.SerializeToString())
        if shape is not None:
            read.reshape({"x": shape})
        compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
        for (name, want), got in zip(expected.items(), compiled(feeds[0]).values(), strict=True):
            assert sqnr(real[name], want) > 24
            assert sqnr(want, np.array(got)) > 35, f"{name}, {'free' if shape is None else 'fixed'} sizes"


def sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    assert reference.shape == other.shape
    return float(10 * np.log10((reference**2).sum() / max(((reference - other) ** 2).sum(), 1e-30)))
