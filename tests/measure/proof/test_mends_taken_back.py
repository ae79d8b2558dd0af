"""What the proof says if a repair of ours is missing: each is taken back, and the proof names the fault that it mends.

The repairs: operators that onnxruntime breaks between Q/DQ are written in another form; weight scales are such that
every bias fits int32; DequantizeLinears that onnxruntime would move and then refuse are written such that they stay.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

import onnxq
from onnxq.execution import library
from onnxq.lowering import graph as lowering
from onnxq.measure.proof import Proof
from onnxq.numeric import weights
from onnxq.numeric.qparams import QParams
from onnxq.passes.dilated_pool_to_conv import DilatedPoolToConv
from onnxq.passes.expand_axes import ExpandAxes
from onnxq.pipeline import PassResult
from onnxq.placement import classify, layer_weights
from onnxq.profiles.schema import load_profile

RNG = np.random.default_rng(11)
Patch = pytest.MonkeyPatch


def built(body: str, opset: int = 19, **constants: Any) -> onnx.ModelProto:
    """A model with input x of shape (1, 3, 9, 7) and output y."""
    made = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["": {opset}]> g (float[1,3,9,7] x) => (float[n,c,h,w] y) {{ {body} }}'
    )
    for name, value in constants.items():
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    onnx.checker.check_model(made)
    return made


def normal(*shape: int) -> np.ndarray:
    """Random float32 values."""
    return RNG.normal(size=shape).astype(np.float32)


def proof_of(model: onnx.ModelProto, profile: str, lower: bool = False) -> Proof:
    """The proof of the QDQ model of a profile, or of what `lower` makes of it."""
    data = [{"x": normal(1, 3, 9, 7)} for _ in range(8)]
    made = onnxq.quantize(model, data, profile=profile, qdq=True, proof="none" if lower else "quick")
    proof = onnxq.lower(made.model).proof if lower else made.card.proof
    assert proof is not None
    return proof


def of_kind(proof: Proof, kind: str) -> list[Any]:
    """Its findings of one kind."""
    return [finding for finding in proof.findings if finding.kind == kind]


def between(operator: str, **constants: Any) -> onnx.ModelProto:
    """An operator between two convolutions."""
    body = f"[one] a = Conv(x, w1) [between] b = {operator} [two] y = Conv(b, w2)"
    return built(body, w1=normal(5, 3, 1, 1), w2=normal(2, 5, 1, 1), **constants)


def keep_axes(patch: Patch) -> None:
    """Leave Pad, Resize and CenterCropPad as they are."""
    patch.setattr(ExpandAxes, "apply", lambda *_: PassResult())


def keep_pools(patch: Patch) -> None:
    """Leave dilated pools as they are, and put Q/DQ around them."""
    unfit = classify.unfit

    def undilated(node: Any, *args: Any, **options: Any) -> Any:
        dilations = node.attrs.pop("dilations", None) if node.op == "AveragePool" else None
        try:
            return unfit(node, *args, **options)
        finally:
            if dilations is not None:
                node.attrs["dilations"] = dilations

    patch.setattr(DilatedPoolToConv, "apply", lambda *_: PassResult())
    patch.setattr(classify, "unfit", undilated)


BETWEEN = {
    "Pad": (between("Pad(a, pads, , axes)", pads=np.array([1, 2, 0, 1]), axes=np.array([3, 2])), keep_axes),
    "Pad of one axis": (between('Pad<mode="edge">(a, pads, , axes)', pads=np.array([2, 1]), axes=[-2]), keep_axes),
    "Resize to sizes": (between("Resize<axes=[3,2]>(a, , , sizes)", sizes=np.array([11, 8])), keep_axes),
    "Resize by scales": (
        between('Resize<mode="linear", axes=[2]>(a, , scales)', scales=np.array([1.5], np.float32)),
        keep_axes,
    ),
    "CenterCropPad": (between("CenterCropPad<axes=[3,2]>(a, shape)", shape=np.array([5, 10])), keep_axes),
    "AveragePool": (between("AveragePool<kernel_shape=[2,3], dilations=[3,1]>(a)"), keep_pools),
}


@pytest.mark.parametrize("profile", ["onnxruntime-cpu", "qnn", "onnxq"])
@pytest.mark.parametrize("name", list(BETWEEN))
def test_operators_that_onnxruntime_breaks_between_q_and_dq(name: str, profile: str, monkeypatch: Patch) -> None:
    model, take_back = BETWEEN[name]
    assert proof_of(model, profile).ok
    take_back(monkeypatch)
    (finding,) = proof_of(model, profile).findings
    assert finding.kind == "refused" and finding.cause == "QDQSelectorActionTransformer" and finding.node
    assert finding.run == ("onnxruntime, left to the CPU" if profile == "qnn" else "onnxruntime")
    assert "does not run the product" in finding.text


@pytest.mark.parametrize("profile", ["acl", "snpe", "fbgemm"])
def test_for_targets_without_onnxruntime_only_a_full_proof_sees_that(profile: str, monkeypatch: Patch) -> None:
    model, take_back = BETWEEN["Pad"]
    take_back(monkeypatch)
    assert proof_of(model, profile).ok
    data = [{"x": normal(1, 3, 9, 7)} for _ in range(8)]
    full = onnxq.quantize(model, data, profile=profile, qdq=True, proof="full").card.proof
    assert full is not None and [f.cause for f in of_kind(full, "refused")] == ["QDQSelectorActionTransformer"]


def whatever_fits(weight: QParams, readers: Sequence[Any]) -> list[weights.BiasFit]:
    """Scales of the weights alone: a bias may be beyond int32."""
    return [weights.BiasFit(weight, tuple(range(len(readers))), tuple(() for _ in readers))]


def first_reader(weight: QParams, readers: Sequence[Any]) -> list[weights.BiasFit]:
    """Scales that fit the first layer's bias only."""
    first = weights.fit_biases(weight, readers[:1])[0].weight
    return [weights.BiasFit(first, tuple(range(len(readers))), tuple(() for _ in readers))]


def vanishing(factor: float) -> onnx.ModelProto:
    """A convolution with a channel of tiny weights beside a bias that is everything it has, and one behind it."""
    weight = normal(6, 3, 3, 3)
    weight[4] *= factor
    bias = np.array([1, -2, 0, 3, -250, 1], np.float32)
    return built("[one] a = Conv(x, w, b) [two] y = Conv(a, v)", 17, w=weight, b=bias, v=normal(2, 6, 1, 1))


@pytest.mark.parametrize("factor", [1e-8, 1e-9])
@pytest.mark.parametrize("profile", ["tensorrt", "onnxruntime-cuda", "openvino"])
def test_float_biases_that_onnxruntime_makes_int32(profile: str, factor: float, monkeypatch: Patch) -> None:
    model = vanishing(factor)
    assert not [f for f in proof_of(model, profile).findings if f.cause != "saturation"]
    monkeypatch.setattr(layer_weights, "fit_biases", whatever_fits)
    finding = of_kind(proof_of(model, profile), "differs")[0]
    assert finding.cause == "WeightBiasQuantization" and finding.node == "one" and finding.run == "onnxruntime"


@pytest.mark.parametrize("profile", ["onnxruntime-cpu", "qnn", "onnxq", "ascend"])
def test_int32_biases_that_overflow(profile: str, monkeypatch: Patch) -> None:
    model = vanishing(1e-8)
    assert proof_of(model, profile).ok
    monkeypatch.setattr(layer_weights, "fit_biases", whatever_fits)
    (lost,) = of_kind(proof_of(model, profile), "lost")
    assert lost.node == "one" and "channel 4 is -250" in lost.text


@pytest.mark.shared_weight  # the exact mode of the tests refuses such models
@pytest.mark.parametrize("profile", ["acl", "ascend", "fbgemm", "onnxq", "onnxruntime-cpu", "qnn"])
def test_a_shared_weight_with_a_pruned_channel(profile: str, monkeypatch: Patch) -> None:
    """The second layer's input is 500 times larger, so that the first one's scale has no code for the bias."""
    weight = normal(4, 3, 1, 1)
    weight[1] = 0
    model = built(
        "[one] a = Conv(x, w, b) z = Mul(x, k) [two] c = Conv(z, w, b) y = Concat<axis=1>(a, c)",
        17, w=weight, b=np.array([2, 120, -1, 0.5], np.float32), k=np.float32(500),
    )  # fmt: skip
    assert not of_kind(proof_of(model, profile), "lost")
    monkeypatch.setattr(layer_weights, "fit_biases", first_reader)
    lost = of_kind(proof_of(model, profile), "lost")[0]
    assert lost.node == "two" and "channel 1 is 120" in lost.text


@pytest.mark.parametrize("profile", ["tensorrt", "onnxruntime-cuda", "ascend", "openvino"])
@pytest.mark.parametrize(
    "pool",
    [
        "[move] y, indices = MaxPool<kernel_shape=[2,3]>(r)",
        "u = Unsqueeze(r, one) [move] p = MaxPool<kernel_shape=[1,3,2]>(u) y = Squeeze(p, one)",
    ],
    ids=["with indices", "in three dimensions"],
)
def test_dequantized_sums_that_onnxruntime_moves(pool: str, profile: str, monkeypatch: Patch) -> None:
    """A MaxPool that has no integer form reads the sums of a layer."""
    model = built(f"[one] a = Conv(x, w) r = Relu(a) {pool}", 17, w=normal(5, 3, 3, 3), one=np.array([1]))
    assert proof_of(model, profile, lower=True).ok
    monkeypatch.setattr(lowering, "anchor", lambda work: None)
    (finding,) = proof_of(model, profile, lower=True).findings
    assert finding.kind == "refused" and finding.cause == "QDQPropagationTransformer"
    assert finding.node == "move" and "QuantizeLinear(21)" in finding.text
    assert finding.run == ("kernels" if library.has_library() else "function bodies")


def test_tensors_that_openvino_reads_both_ways() -> None:
    """OpenVINO 2026.4 computes c + c · gate(c) wrongly where sizes are free and one reader of c gets no Q/DQ."""
    pytest.importorskip("openvino")
    made = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[b,3,h,w] x) => (float[b,4,i,j] y)
        { a = Conv(x, w0) r = Relu(a) c = Conv(r, w1) p = GlobalAveragePool(c) d = Conv(p, w2) e = Relu(d)
          f = Conv(e, w3) s = HardSigmoid(f) m = Mul(c, s) [sum] n = Add(c, m) y = Conv(n, w4) }"""
    )
    shapes = {"w0": (16, 3, 3, 3), "w1": (8, 16, 1, 1), "w2": (4, 8, 1, 1), "w3": (8, 4, 1, 1), "w4": (4, 8, 3, 3)}
    for name, shape in shapes.items():
        value = normal(*shape) / np.float32(np.sqrt(np.prod(shape[1:])))
        made.graph.initializer.append(numpy_helper.from_array(value, name))
    data = [{"x": normal(1, 3, 24, 20)} for _ in range(8)]

    def findings(all_readers: bool) -> list[Any]:
        target = load_profile("openvino")
        target = dataclasses.replace(target, graph=dataclasses.replace(target.graph, all_readers=all_readers))
        proof = onnxq.quantize(made, data, profile=target).card.proof
        assert proof is not None
        return [f for f in proof.findings if f.run == "OpenVINO" and f.cause != "saturation"]

    assert not findings(True)
    found = findings(False)
    if not found:
        pytest.skip("this OpenVINO computes it right")
    assert found[0].kind in ("differs", "low") and found[0].node and "VNNI" not in found[0].text
