"""Products that are wrong in every way a proof looks for, each built by hand, and products that are right."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxq import demo, quantize
from onnxq.data.source import DataSource, input_specs, open_data
from onnxq.errors import ConfigError, ProofError
from onnxq.graph.model import load
from onnxq.measure.proof import Proof, ProofOptions, Subject, prove, proven
from onnxq.reporting import Reporter

RNG = np.random.default_rng(7)


def parsed(text: str, opset: int = 17, **constants: np.ndarray) -> onnx.ModelProto:
    """A model from the text of its graph and its constants, valid."""
    domains = f'"": {opset}, "com.microsoft": 1'
    found = onnx.parser.parse_model(f"<ir_version: 8, opset_import: [{domains}]>\n{text}")
    found.graph.initializer.extend(onnx.numpy_helper.from_array(a, name) for name, a in constants.items())
    onnx.checker.check_model(found)
    return found


def samples(model: onnx.ModelProto, count: int = 3) -> DataSource:
    """Seeded random samples."""
    return open_data(None, input_specs(load(model).graph), random=count)


def proof_of(reference: onnx.ModelProto, product: onnx.ModelProto, level: str = "quick", **subject: Any) -> Proof:
    """The proof of a product."""
    found = Subject(load(reference), load(product), **subject)
    return prove(found, samples(reference), ProofOptions(level))  # type: ignore[arg-type]


def kinds(proof: Proof) -> list[str]:
    """The kinds of its findings."""
    return [finding.kind for finding in proof.findings]


CONV = """g (float[N,3,6,6] x) => (float[N,4,6,6] y)
    <float xs = {0.03}, uint8 xz = {128}, float ys = {3.0}, uint8 yz = {0}, int8[4] wz = {0, 0, 0, 0}>
    { xq = QuantizeLinear(x, xs, xz) xd = DequantizeLinear(xq, xs, xz) wd = DequantizeLinear<axis=0>(wq, ws, wz)
      c = Conv(xd, wd, BIAS) yq = QuantizeLinear(c, ys, yz) y = DequantizeLinear(yq, ys, yz) }"""


def convolution(weight_scale: np.ndarray, bias: np.ndarray, integer_bias: bool) -> tuple[onnx.ModelProto, ...]:
    """A float convolution, and its quantized form with these scales; codes are random."""
    codes = RNG.integers(-127, 128, (4, 3, 1, 1)).astype(np.int8)
    weight = codes * weight_scale.reshape(4, 1, 1, 1)
    floats = {"w": weight.astype(np.float32), "b": bias.astype(np.float32)}
    reference = parsed("g (float[N,3,6,6] x) => (float[N,4,6,6] y) { y = Conv(x, w, b) }", **floats)
    arrays = {"wq": codes, "ws": weight_scale.astype(np.float32)}
    if not integer_bias:
        return reference, parsed(CONV.replace("BIAS", "b"), b=floats["b"], **arrays)
    scale = (0.03 * weight_scale).astype(np.float32)
    text = CONV.replace("BIAS", "bd").replace("c = Conv", "bd = DequantizeLinear<axis=0>(bq, bs) c = Conv")
    product = parsed(
        text, bq=np.clip(np.rint(bias / scale), -(2.0**31), 2.0**31 - 129).astype(np.int32), bs=scale, **arrays
    )
    return reference, product


def test_a_product_that_is_right_has_no_finding() -> None:
    reference, product = convolution(np.full(4, 0.01), np.array([5.0, 4.0, 300.0, 2.0]), integer_bias=True)
    proof = proof_of(reference, product, level="full")
    assert proof.ok and [run.name for run in proof.runs][:2] == ["unoptimized", "onnxruntime"]
    assert all(output.sqnr_db is not None and output.sqnr_db > 30 for run in proof.runs for output in run.outputs)


@pytest.mark.parametrize(
    ("runtime", "run"), [("onnxruntime", "onnxruntime"), ("onnxruntime-qnn", "onnxruntime, basic")]
)
def test_an_optimizer_that_overflows_is_named(runtime: str, run: str) -> None:
    """onnxruntime quantizes a float bias to int32 with a scale so small that it overflows."""
    reference, product = convolution(np.array([1e-2, 1e-2, 1e-11, 1e-2]), np.array([5.0, 4.0, 300.0, 2.0]), False)
    proof = proof_of(reference, product, runtime=runtime)
    finding = next(f for f in proof.findings if f.kind == "differs")
    assert finding.cause == "WeightBiasQuantization" and finding.node and finding.run == run
    assert "WeightBiasQuantization" in finding.text


def test_a_channel_that_loses_its_constant_is_named() -> None:
    """The SQNR of the output hardly changes: only the channel shows it."""
    scales, bias = np.array([0.5, 0.5, 1e-6, 0.5]), np.array([0.0, 0.0, 300.0, 0.0])
    reference, product = convolution(scales, bias, integer_bias=True)
    lost = next(i for i in product.graph.initializer if i.name == "bq")
    lost.CopyFrom(onnx.numpy_helper.from_array(np.array([0, 0, 0, 0], np.int32), "bq"))
    proof = proof_of(reference, product, runtime="none")
    finding = next(f for f in proof.findings if f.kind == "lost")
    assert "channel 2 is 300" in finding.text and "the float model" in finding.text


@pytest.mark.parametrize(
    ("runtime", "run"),
    [
        ("onnxruntime", "onnxruntime"),
        ("onnxruntime-gpu", "onnxruntime"),
        ("onnxruntime-qnn", "onnxruntime, left to the CPU"),
        ("none", ""),
    ],
)
def test_a_product_that_onnxruntime_refuses_when_optimized(runtime: str, run: str) -> None:
    """Pooling with dilations between Q/DQ becomes QLinearAveragePool, which has none: not at basic optimization."""
    reference = parsed(
        "g (float[N,3,6,6] x) => (float[N,3,4,4] y) { y = AveragePool<kernel_shape=[2,2], dilations=[2,2]>(x) }", 19
    )
    product = parsed(
        """g (float[N,3,6,6] x) => (float[N,3,4,4] y) <float s = {0.03}, uint8 z = {128}>
        { xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z)
          [pool] p = AveragePool<kernel_shape=[2,2], dilations=[2,2]>(xd)
          yq = QuantizeLinear(p, s, z) y = DequantizeLinear(yq, s, z) }""",
        19,
    )
    proof = proof_of(reference, product, runtime=runtime)
    if runtime == "none":
        assert proof.ok and proof.notes
        return
    (finding,) = proof.findings
    assert finding.kind == "refused" and finding.cause == "QDQSelectorActionTransformer"
    assert finding.run == run and "[ONNXRuntimeError]" not in finding.text


def test_a_product_that_does_not_run_at_all() -> None:
    text = "g (float[N,3] x) => (float[N,4] y) <float zero = {0.0}> { a = Add(x, zero) y = Gather<axis=1>(a, i) }"
    reference, product = (parsed(text, i=np.array([0, 1, 2, last])) for last in (0, 3))
    proof = proof_of(reference, product)
    assert kinds(proof) == ["refused"] and proof.runs[0].failed and proof.findings[0].node


def test_noise_below_the_floor_is_located() -> None:
    reference = parsed("g (float[N,8] x) => (float[N,8] y) { [act] a = Relu(x) [out] y = Tanh(a) }")
    product = parsed(
        """g (float[N,8] x) => (float[N,8] y) <float s = {2.5}, uint8 z = {0}>
        { [act] a = Relu(x) aq = QuantizeLinear(a, s, z) ad = DequantizeLinear(aq, s, z) [out] y = Tanh(ad) }"""
    )
    (finding,) = proof_of(reference, product).findings
    assert finding.kind == "low" and finding.output == "y" and finding.node == "act" and "dB" in finding.text


def test_values_that_are_not_finite() -> None:
    reference = parsed("g (float[N,8] x) => (float[N,8] y) { y = Abs(x) }")
    product = parsed("g (float[N,8] x) => (float[N,8] y) { y = Log(x) }")
    assert "nonfinite" in kinds(proof_of(reference, product))


def test_outputs_of_other_types() -> None:
    text = """g (float[N,8] x) => (int64[N,1] i, bool[N,8] p, float s, seq(float[N,8]) q)
        <float zero = {0.0}> { i = ArgMax<axis=1>(x) p = Greater(x, zero) s = ReduceSum<keepdims=0>(x)
          q = SequenceConstruct(x) }"""
    same = proof_of(parsed(text), parsed(text))
    assert same.ok and {o.name: o.equal for o in same.runs[0].outputs} == dict.fromkeys(("i", "p", "s", "q"), 1.0)
    other = proof_of(parsed(text), parsed(text.replace("Greater", "Less")))
    assert next(o.equal for o in other.runs[0].outputs if o.name == "p") < 0.5


@pytest.mark.parametrize("shown", ["", "x"], ids=["texts alone", "beside floats"])
def test_texts_are_compared_as_texts(shown: str) -> None:
    outputs = "string[N,8] t" + (", float[N,8] y" if shown else "")
    text = f"""g (float[N,8] x) => ({outputs}) <float zero = {{0.0}}> {{ p = Greater(x, zero) t = Where(p, yes, no)
      {"y = Abs(x)" if shown else ""} }}"""
    words = {"yes": np.array(["yes"], object), "no": np.array(["no, ü"], object)}
    same = proof_of(parsed(text, **words), parsed(text, **words))
    assert same.ok and next(o.equal for o in same.runs[0].outputs if o.name == "t") == 1.0
    other = proof_of(parsed(text, **words), parsed(text.replace("Greater", "Less"), **words))
    (found,) = (o for o in other.runs[0].outputs if o.name == "t")
    assert found.compared and found.sqnr_db is None and found.equal < 0.5 and other.ok


MOVERS = {
    "MaxPool": "y = MaxPool<kernel_shape=[2,2]>(d)",
    "Reshape": "y = Reshape(d, shape)",
    "Transpose": "y = Transpose<perm=[2,0,1,3]>(d)",
    "Unsqueeze": "y = Unsqueeze(d, one)",
    "Slice": "y = Slice(d, one, two, one)",
}


@pytest.mark.parametrize("runtime", ["onnxruntime", "onnxruntime-gpu", "onnxruntime-qnn"])
@pytest.mark.parametrize("mover", list(MOVERS))
def test_a_dequantized_sum_that_onnxruntime_moves_and_then_refuses(mover: str, runtime: str) -> None:
    """The optimizer puts a QuantizeLinear of int32 upstream of the operator, for which there is no kernel."""
    head = f"g (float[1,3,6,6] x) => (float{'[a,b,c,d,e]' if mover == 'Unsqueeze' else '[a,b,c,d]'} y)"
    numbers = {"shape": [1, 3, 4, 9], "one": [1], "two": [3]}
    text, codes = MOVERS[mover], RNG.integers(-9, 10, (3, 3, 1, 1)).astype(np.int8)
    used = {name: np.array(value) for name, value in numbers.items() if name in text.split("(", 1)[1]}
    reference = parsed(f"{head} {{ d = Conv(x, w) {text} }}", 21, w=codes * np.float32(0.1), **used)
    product = parsed(
        f"""{head} <float s = {{0.03}}, uint8 z = {{128}}, float as = {{0.003}}, int8 wz = {{0}}>
        {{ q = QuantizeLinear(x, s, z) i = ConvInteger(q, w, z, wz) d = DequantizeLinear(i, as) [move] {text} }}""",
        21, w=codes, **used,
    )  # fmt: skip
    (finding,) = proof_of(reference, product, runtime=runtime).findings
    assert finding.kind == "refused" and finding.cause == "QDQPropagationTransformer" and finding.node == "move"
    assert proof_of(reference, product, runtime="none").ok  # the product itself is right


def test_random_numbers_are_not_judged() -> None:
    text = "g (float[2,8] x) => (float[2,8] y) { r = RandomNormalLike(x) y = Add(x, r) }"
    proof = proof_of(parsed(text), parsed(text.replace("Add", "Sub")))
    assert proof.ok and any("random" in note for note in proof.notes)


def test_a_reference_that_does_not_run_is_a_note() -> None:
    text = "g (float[N,8] x) => (float[N,8] y) <int64[1] i = {9}> { y = Gather<axis=1>(x, i) }"
    proof = proof_of(parsed(text), parsed(text))
    assert proof.ok and not proof.runs and "does not run" in proof.notes[0]


def test_without_samples_of_the_right_shape_it_says_why() -> None:
    text = "g (float[N,A,B] x) => (float[N,A,B] y) { y = Relu(x) }"
    model = load(parsed(text))
    proof = prove(Subject(model, model), None, ProofOptions())
    assert not proof.runs and "nothing was run" in proof.notes[0]


def test_findings_are_said_and_are_errors_if_strict() -> None:
    reference = parsed("g (float[N,8] x) => (float[N,8] y) { y = Relu(x) }")
    product = parsed("g (float[N,8] x) => (float[N,8] y) { y = Neg(x) }")
    subject, said = Subject(load(reference), load(product)), []
    proof = proven(subject, samples(reference), ProofOptions(), Reporter(said.append))
    assert len(said) == len(proof.findings) >= 1 and said[0].startswith("warning: ")
    with pytest.raises(ProofError, match="fails its proof"):
        proven(subject, samples(reference), ProofOptions(strict=True), Reporter())
    with pytest.raises(ProofError, match="dB"):
        proven(subject, samples(reference), ProofOptions(min_sqnr=20.0), Reporter())


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{ y = Gather<axis=1>(x, i) }", "refused"),
        ("{ n = Neg(x) y = Sqrt(n) }", "nonfinite"),
        ("{ y = Neg(x) }", "low"),
    ],
)
def test_an_output_without_the_required_sqnr_is_an_error(text: str, kind: str) -> None:
    head = "g (float[N,3] x) => (float[N,3] y) "
    reference = parsed(f"{head} {{ y = Relu(x) }}")
    product = parsed(f"{head} {text}", **({"i": np.array([0, 1, 3])} if kind == "refused" else {}))
    subject = Subject(load(reference), load(product))
    assert kind in kinds(proven(subject, samples(reference), ProofOptions(), Reporter()))
    with pytest.raises(ProofError):
        proven(subject, samples(reference), ProofOptions(min_sqnr=0.0), Reporter())


@pytest.mark.parametrize("options", [{"proof": "some"}, {"proof": "none", "strict": True}, {"min_sqnr": float("nan")}])
def test_options_that_do_not_exist(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ProofOptions(**options)


@pytest.mark.parametrize("profile", ["onnxruntime-cpu", "onnxq", "tensorrt", "snpe"])
def test_quantize_proves_its_product(profile: str) -> None:
    data = [{"image": image[None]} for image in demo.calibration_data()["image"][:16]]
    cards = [quantize(demo.model_path(), data, profile=profile, threads=threads).card for threads in (1, 2)]
    proof = cards[0].proof
    assert proof is not None and proof.ok and proof.samples == 4 and not proof.random
    assert cards[0].without_measurements() == cards[1].without_measurements()
    expected = {"onnxq": ["unoptimized", "kernels", "function bodies"], "snpe": ["unoptimized"]}
    assert [run.name for run in proof.runs] == expected.get(profile, ["unoptimized", "onnxruntime"])
    assert [run.samples for run in proof.runs] == [1 if r.name == "function bodies" else None for r in proof.runs]
    assert "Proof" in cards[0].to_markdown() and "proven on 4 sample(s)" in cards[0].summary()
    assert quantize(demo.model_path(), data, profile=profile, proof="none").card.proof is None
    with pytest.raises(ProofError):
        quantize(demo.model_path(), data, profile=profile, min_sqnr=90.0)
