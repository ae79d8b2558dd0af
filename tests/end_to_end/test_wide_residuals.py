"""Residual networks below 8 bits: the sum of wide integers loses less than that of codes, in the integer model too."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxq
from onnxq.check.target import check as check_target
from onnxq.numeric.metrics import sqnr_db
from support.build import qdq
from support.placements import kept
from support.prove.lowering import FUSE, check

CHANNELS = 8


def network(blocks: int) -> onnx.ModelProto:
    """A stem with max pooling, residual blocks, a concatenation past one of them, average pooling and a head."""
    c, rng = CHANNELS, np.random.default_rng(blocks)
    weights, lines = {"w0": rng.normal(0, 0.5, (c, 3, 3, 3))}, []
    for i in range(blocks):
        for name in (f"u{i}", f"v{i}"):
            weights[name] = rng.normal(0, 0.5 / np.sqrt(9 * c), (c, c, 3, 3))
        lines.append(
            f"[a{i}] p{i} = Conv<pads=[1,1,1,1]>(t{i}, u{i}) [ra{i}] q{i} = Relu(p{i})"
            f"[b{i}] r{i} = Conv<pads=[1,1,1,1]>(q{i}, v{i}) "
            f"[add{i}] s{i} = Add(r{i}, t{i}) [rb{i}] t{i + 1} = Relu(s{i})"
        )
    weights |= {"wc": rng.normal(0, 0.3, (c, 2 * c, 1, 1)), "wh": rng.normal(0, 0.5, (c, 10))}
    declared = ", ".join(f"float[{','.join(map(str, w.shape))}] {name}" for name, w in weights.items())
    body = " ".join(lines)
    text = f"""g (float[N,3,24,24] x) => (float[N,10] y) <{declared}>
    {{ [stem] s = Conv<pads=[1,1,1,1]>(x, w0) [relu] h = Relu(s)
      [pool] t0 = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(h) {body}
      [cat] k = Concat<axis=1>(t{blocks}, t1) [join] j = Conv(k, wc)
      [avg] m = AveragePool<kernel_shape=[2,2], strides=[2,2]>(j) [more] n = Add(m, m)
      [gap] g = GlobalAveragePool(n) [flat] f = Flatten(g) [head] y = Gemm(f, wh) }}"""
    return qdq.proto(text, **{name: w.astype(np.float32) for name, w in weights.items()})


def feeds(count: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(7)
    return [{"x": rng.normal(0, 1, (4, 3, 24, 24)).astype(np.float32)} for _ in range(count)]


def outputs(model: onnx.ModelProto, optimize: bool = False) -> np.ndarray:
    session = onnxq.session(model, threads=1, optimize=optimize)
    return np.concatenate([session.run(None, feed)[0] for feed in feeds(8)])


# At 8 bits of activations the weights' error hides the sums'.
@pytest.mark.parametrize(("widths", "gain"), [((4, 4), 0.5), ((8, 4), 1.0), ((4, 8), -0.3)])
def test_wide_sums_lose_less_and_the_integers_are_those_of_the_qdq_model(widths: tuple[int, int], gain: float) -> None:
    source = network(6)
    expected = outputs(source)
    found = {}
    for how in ("int8", "int16", "int32"):
        options = {"weight_bits": widths[0], "activation_bits": widths[1], "proof": "none"}
        made = onnxq.quantize(source, feeds(8), profile=kept(how), qdq=True, **options)
        lowered = check(made.model, FUSE)
        assert not lowered.reasons
        wide = [n for n in lowered.proto.graph.node if n.op_type in ("MaxPool", "Concat2", "AveragePool", "ConvAdd")]
        kinds = {a.i for n in wide for a in n.attribute if a.name == "y_type"}
        assert (onnx.TensorProto.INT32 in kinds) == (how == "int32")
        assert (onnx.TensorProto.INT16 in kinds) == (how == "int16")
        found[how] = sqnr_db(expected, outputs(lowered.proto))
    assert min(found["int16"], found["int32"]) > found["int8"] + gain, found


def test_kernels_and_function_bodies_agree_on_wide_streams() -> None:
    made = onnxq.quantize(network(2), feeds(4), profile="onnxq", weight_bits=4, activation_bits=4, proof="none")
    sessions = [onnxq.session(made.model, threads=1, kernels=kernels, optimize=kernels) for kernels in (True, False)]
    for feed in feeds(3):
        assert np.array_equal(*(session.run(None, feed)[0] for session in sessions))


def test_check_accepts_what_quantize_made() -> None:
    for widths in ((4, 4), (4, 8), (8, 8)):
        options = {"weight_bits": widths[0], "activation_bits": widths[1], "proof": "none", "qdq": True}
        made = onnxq.quantize(network(2), feeds(2), profile="onnxq", **options)
        assert check_target(made.model, "onnxq") == []
