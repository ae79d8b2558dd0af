"""onnxruntime with and without its optimizations, layer by layer on the same integers."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.data.options import RunOptions
from onnxq.data.source import input_specs, open_data
from onnxq.errors import ConfigError
from onnxq.execution.cuts import cut_model
from onnxq.graph.model import Model, load, to_proto
from onnxq.measure import consistency
from onnxq.measure.consistency import optimization_consistency
from onnxq.numeric.formats import QuantFormat
from onnxq.numeric.qparams import QParams
from onnxq.numeric.quantize import fake_quantize
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import builtin_names, load_profile
from support.build import copy_of, qdq
from support.insertion import context, insert

BLOCKS = """g (float[N,3,8,8] x) => (float[N,6] y)
    <float[8,3,3,3] w1, float[8] b1, float[8,1,3,3] w2, float[8] b2, float[8,8,1,1] w3, float[8] b3, float[6,16] w4,
     float[6] b4>
    { [c1] a = Conv<pads=[1,1,1,1]>(x, w1, b1) [r1] r = Relu(a)
      [c2] c = Conv<group=8, pads=[1,1,1,1]>(r, w2, b2) [r2] d = Relu(c)
      [c3] e = Conv(d, w3, b3) [add] s = Add(e, r) [r3] t = Relu(s)
      [cat] u = Concat<axis=1>(t, d) [mp] m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(u)
      [gap] p = GlobalAveragePool(m) [flat] q = Flatten(p) [fc] y = Gemm<transB=1>(q, w4, b4) }"""


def feed(count: int = 6) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(4).normal(size=(count, 3, 8, 8)).astype(np.float32)}


def quantized(profile: str, **settings) -> Model:
    target = qdq.model(BLOCKS, 21)
    insert(target, context(target, profile, feeds=[feed()], **settings), fuse=True)
    return copy_of(target)


def fused(proto: onnx.ModelProto, folder: Path) -> Counter[str]:
    """Integer kernels that onnxruntime forms."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ops = Counter(n.op_type for n in onnx.load(folder / "optimized.onnx").graph.node)
    return Counter({op: n for op, n in ops.items() if op.startswith(("QLinear", "QGemm", "Fused", "MatMulInteger"))})


@pytest.mark.parametrize("profile", builtin_names())
def test_every_profile_gives_the_same_codes_up_to_one_step(profile, tmp_path):
    model = quantized(profile)
    found = optimization_consistency(model, feed(), threads=1)
    assert len(found) >= 4
    assert max(r.max_lsb for r in found) <= 1
    assert all(r.share <= 0.02 for r in found)
    # The cut model must be optimized as the whole one is, or this would compare nothing. onnxruntime makes int8 pairs
    # uint8 only where one node reads them, as it is everywhere in the cut model: more is fused there.
    cut, whole = fused(cut_model(model)[0], tmp_path), fused(to_proto(model), tmp_path)
    rule = load_profile(profile).activations
    assert cut >= whole if rule.sign == "signed" and not rule.symmetric else cut == whole


@pytest.mark.parametrize("profile", ["onnxruntime-cpu", "tensorrt", "onnxq"])
def test_the_cut_model_is_the_whole_one(profile):
    """Without optimizations the layers fed with the model's integers make the model's integers, all of them."""
    found = optimization_consistency(quantized(profile), feed(), threads=1, level="none")
    assert {(r.max_lsb, r.share) for r in found} == {(0.0, 0.0)}


def test_fewer_bits_too():
    found = optimization_consistency(quantized("onnxruntime-cpu", activation_bits=4, weight_bits=4), feed(), threads=1)
    assert max(r.max_lsb for r in found) <= 1


def test_what_differs_is_reported_at_its_layer_alone(monkeypatch):
    """Break one bias in the cut model: c2 is far off, and what is behind it, fed the right integers, is not."""

    def broken(model: Model):
        proto, cuts = cut_model(model)
        bias = next(i for i in proto.graph.initializer if i.name == "b2_quantized")
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 20000, bias.name))
        return proto, cuts

    monkeypatch.setattr(consistency, "cut_model", broken)
    found = optimization_consistency(quantized("onnxruntime-cpu"), feed(), threads=1)
    assert (found[0].layer, found[0].quantized) == ("c2", True)
    assert found[0].max_lsb > 1
    assert found[0].share > 0.5
    assert max(r.max_lsb for r in found[1:]) <= 1


def test_layers_are_named_and_counted():
    found = {r.layer: r for r in optimization_consistency(quantized("onnxruntime-cpu"), feed(6), samples=4, threads=1)}
    assert found["c1"].elements == 4 * 8 * 8 * 8
    assert found["c1"].op == "Conv"  # its Relu went into the QuantizeLinear
    assert found["add"].quantized
    assert not found["fc"].quantized
    tensorrt = optimization_consistency(quantized("tensorrt"), feed(6), samples=1, threads=1)
    assert "Conv+Relu" in {r.op for r in tensorrt}


def test_dequantized_values_quantize_back_to_their_codes():
    """What the cut model is fed with: a code times its scale, divided by it again, rounds to the code."""
    rng = np.random.default_rng(0)
    for scale in rng.uniform(1e-6, 10, 200).astype(np.float32):
        params = QParams(scale, np.asarray(117), QuantFormat(8, False, False))
        reals = (np.arange(256) - 117).astype(np.float32) * scale
        assert np.array_equal(fake_quantize(reals, params), reals)


def test_a_float_model_is_refused():
    with pytest.raises(ConfigError, match="no QuantizeLinear"):
        optimization_consistency(qdq.model(BLOCKS), feed())


@pytest.mark.parametrize("profile", ["onnxruntime-cpu", "tensorrt"])
def test_resnet20(shared, profile):
    model = load(shared / "models" / "resnet20_cifar10.onnx")
    data = shared / "data" / "cifar10_calib.npz"
    samples = open_data(data, input_specs(model.graph), preprocess="cifar10", limit=8)
    passes = "fold-constants,eliminate-identity,fold-batchnorm,calibrate,insert-qdq,fuse-activation-clips"
    ctx = PassContext(model, load_profile(profile), QuantSettings(), samples, run=RunOptions(2))
    pipeline.run(model, pipeline.parse(passes), ctx)
    found = optimization_consistency(model, data, 3, preprocess="cifar10", threads=2)
    assert len(found) > 20
    assert max(r.max_lsb for r in found) <= 1
    assert max(r.share for r in found) <= 0.005
