"""onnxq.lower and check --integer-only from Python: what goes in, what comes out, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxq
from onnxq import demo
from onnxq.card import read_card
from onnxq.check.integer_only import check_integer
from onnxq.errors import ConfigError, ModelError
from onnxq.graph.match import MatchFailure
from onnxq.graph.model import load
from onnxq.numeric.metrics import sqnr_db
from onnxq.operators import SCHEMAS
from support.build import Qdq, floating, uniform
from support.cases.zoo import KINDS
from support.prove.lowering import FUSE, assert_same, lower
from support.runs import run

RNG = np.random.default_rng(17)
IMAGES = {"image": demo.calibration_data()["image"][:64]}


def digits(**settings: object) -> onnxq.Quantized:
    return onnxq.quantize(demo.model_path(), IMAGES, profile="onnxq", **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def qdq_model() -> onnx.ModelProto:
    return digits(qdq=True).model


def test_profile_onnxq_goes_straight_to_an_integer_only_model(qdq_model: onnx.ModelProto) -> None:
    made = digits().model
    assert check_integer(made) == []
    assert not any(n.domain for n in qdq_model.graph.node)
    assert any(n.domain == "com.onnxq" for n in made.graph.node)
    again = onnxq.lower(qdq_model).model
    assert again.graph.SerializeToString(deterministic=True) == made.graph.SerializeToString(deterministic=True)


def test_the_model_carries_bodies_and_runs_anywhere(qdq_model: onnx.ModelProto) -> None:
    lowered = onnxq.lower(qdq_model)
    assert {f.name for f in lowered.model.functions} == set(lowered.operators) <= set(SCHEMAS)
    onnx.checker.check_model(lowered.model, full_check=True)
    feed = {"image": IMAGES["image"][:8]}
    (want,), (got,) = run(qdq_model, feed).values(), run(lowered.model, feed).values()
    assert np.abs(want - got).max() < 0.05 * np.abs(want).max()
    (kernels,) = onnxq.session(lowered.model, threads=1).run(None, feed)
    assert np.array_equal(kernels, got)


def test_the_card_tells_of_it(qdq_model: onnx.ModelProto, tmp_path: Path) -> None:
    before = read_card(qdq_model)
    lowered = onnxq.lower(qdq_model)
    lowered.save(tmp_path / "m.int.onnx")
    card = read_card(tmp_path / "m.int.onnx")
    assert card == lowered.card == read_card(tmp_path / "m.int.card.json")
    assert before.lowering is None and card.lowering is not None
    assert card.lowering.operators == lowered.operators and card.lowering.rescales == lowered.rescales
    assert card.lowering.islands == ()
    assert card.pipeline.startswith(before.pipeline) and card.pipeline.endswith("layout-nhwc")
    assert "no float operator between them" in card.summary()
    assert "Integer-only form" in card.to_markdown() and "Integer-only form" in card.to_html()
    size = (tmp_path / "m.int.onnx").stat().st_size
    assert 0 < size - card.cost.file_bytes.after < 60_000  # the card itself


def test_a_model_without_a_card_gets_none(qdq_model: onnx.ModelProto, tmp_path: Path) -> None:
    bare = onnx.ModelProto()
    bare.CopyFrom(qdq_model)
    del bare.metadata_props[:]
    lowered = onnxq.lower(bare)
    lowered.save(tmp_path / "m.onnx")
    assert lowered.card is None and [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_forms(qdq_model: onnx.ModelProto) -> None:
    assert set(onnxq.lower(qdq_model, rescale="general").rescales) <= {"general", "identity"}
    fixed = onnxq.lower(qdq_model, rescale="fixed").rescales
    assert fixed["fixed"] >= onnxq.lower(qdq_model).rescales["fixed"] > 0
    with pytest.raises(ConfigError, match="is not one of auto, fixed, general"):
        onnxq.lower(qdq_model, rescale="halved")  # type: ignore[arg-type]


def test_lowering_what_is_lowered_changes_nothing(qdq_model: onnx.ModelProto) -> None:
    once = onnxq.lower(qdq_model)
    twice = onnxq.lower(once.model)
    assert sum(r.changed for r in twice.reports) == 0
    assert twice.model.graph.SerializeToString(deterministic=True) == once.model.graph.SerializeToString(
        deterministic=True
    )


def test_models_that_are_not_qdq_are_refused() -> None:
    with pytest.raises(ModelError, match=r"is a float model, nothing to lower: quantize it first"):
        onnxq.lower(demo.model_path())
    text = """<ir_version: 10, opset_import: ["": 21]>
    g (uint8[1,4] x, int8[4,3] w) => (int32[1,3] y) { [mm] y = MatMulInteger(x, w) }"""
    with pytest.raises(ModelError, match="already contains integer operators"):
        onnxq.lower(onnx.parser.parse_model(text))


def test_verify_proves_the_passes_behind_it(qdq_model: onnx.ModelProto) -> None:
    reports = onnxq.lower(qdq_model, verify=True).reports
    assert {r.text for r in reports if r.differences} >= {"fuse-residual", "layout-nhwc"}
    for report in reports:
        assert set(report.differences.values()) <= {0.0} or report.text.startswith("convert-opset")


def test_shapes_that_are_given_fix_what_was_not_known() -> None:
    kind = KINDS["embedding"]
    made = onnxq.quantize(kind.model(), kind.feeds(), profile="qnn", calibration="max").model
    assert any("number of elements" in f.reason for f in onnxq.lower(made).islands)
    fixed = onnxq.lower(made, shapes={"ids": (3, 5)})
    assert fixed.inside() == []
    assert [d.dim_value for d in fixed.model.graph.input[0].type.tensor_type.shape.dim] == [3, 5]
    (want,), (got,) = run(made, kind.feed()).values(), run(fixed.model, kind.feed()).values()
    assert np.abs(want - got).max() < 0.1 * np.abs(want).max()
    with pytest.raises(ConfigError, match="does not fit"):
        onnxq.lower(made, shapes={"ids": (3, 5, 1)})


ATTENTION = ["attention", "attention with padding", "causal attention with rotary positions"]


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_of_any_length_is_integer_only(name: str) -> None:
    kind = KINDS[name]
    feeds = kind.feeds()
    made = onnxq.quantize(kind.model(), feeds, profile="onnxq", calibration="max", qdq=True).model
    lowered = onnxq.lower(made)
    assert lowered.inside() == []
    assert all(row.within for row in onnxq.verify(made, lowered.model, feeds).layers)
    for feed in (feeds[0], replace(kind, dims=(3, 9, 3, 9)).feed(7)):
        (want,), (got,) = run(kind.model(), feed).values(), run(lowered.model, feed).values()
        assert sqnr_db(want, got) > 20


@pytest.mark.parametrize("padded", [True, False], ids=["seen", "not seen"])
@pytest.mark.parametrize("profile", ["onnxq", "onnxruntime-cpu", "qnn"])
def test_what_is_masked_counts_for_nothing(profile: str, padded: bool) -> None:
    """Also where calibration saw no padding."""
    kind = KINDS["attention with padding"]
    feeds = [f | {"mask": f["mask"] * padded + (1 - padded)} for f in kind.feeds()]
    made = onnxq.quantize(kind.model(), feeds, profile=profile, calibration="max").model
    feed = kind.feed(5) | {"mask": np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])}
    other = feed | {"x": np.where(feed["mask"][..., None] == 0, -feed["x"], feed["x"])}
    (one,), (two,) = run(made, feed).values(), run(made, other).values()
    np.testing.assert_array_equal(one[feed["mask"] == 1], two[feed["mask"] == 1])
    assert np.abs(one - two).max() > 0
    (want,) = run(kind.model(), feed).values()
    assert sqnr_db(want[feed["mask"] == 1], one[feed["mask"] == 1]) > 20


def islands() -> onnx.ModelProto:
    made = Qdq("float[2,4] x", "float[2,4] r").q("x", 0.0117).node("[cum] y = CumSum(x_d, k)").const("k", 1, np.int64)
    return made.q("y", 0.0333).node("[re] z = Identity(y_d)").q("z", 0.05).node("r = Identity(z_d)").proto()


def test_islands_are_listed_with_their_reasons() -> None:
    lowered = onnxq.lower(islands())
    assert lowered.islands == (MatchFailure("CumSum has no integer operator", "cum"),)
    (found,) = lowered.inside()
    assert (found.node, found.op, found.reason) == ("cum", "CumSum", "CumSum has no integer operator")
    assert check_integer(lowered.model) == [found]


def test_of_a_qdq_model_everything_that_is_float_is_told(qdq_model: onnx.ModelProto) -> None:
    found = check_integer(qdq_model)
    inner = [n.name for n in qdq_model.graph.node if n.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    assert [f.node for f in found] == inner  # the last Gemm too, although nothing is quantized behind it
    assert {f.reason for f in found} == {"it is not lowered; onnxq lower turns it into an integer operator"}
    told = {f.node: f.reason for f in check_integer(islands())}
    assert told["cum"] == "CumSum has no integer operator"
    assert told["z_QuantizeLinear" if "z_QuantizeLinear" in told else "re"].startswith("it is not lowered")


def test_codes_between_codes_count_too() -> None:
    """A DequantizeLinear right before a QuantizeLinear computes in float."""
    made = Qdq("float[2,4] x", "float[2,4] r").q("x", 0.0117).q("x_d", 0.05, label="y").node("r = Identity(y_d)")
    (found,) = check_integer(made.proto())
    assert found.op == "QuantizeLinear"
    assert check_integer(onnxq.lower(made.proto()).model) == []


def test_subgraphs_stay_and_count() -> None:
    kind = KINDS["condition"]
    made = onnxq.quantize(kind.model(), kind.feeds(), profile="onnxq", calibration="max")
    (found,) = check_integer(made.model)
    assert (found.op, found.reason) == ("If", "it has a subgraph, which is not lowered")
    assert made.card.lowering is not None and [n.name for n in made.card.lowering.islands] == [found.node]


def test_large_weights_stay_in_their_file(tmp_path: Path) -> None:
    """External data goes in and comes out external."""
    made = Qdq("float[2,64] x", "float[2,64] r").q("x", 0.0117).weight("w", RNG.integers(-127, 128, (64, 64)), 0.0131)
    proto = made.node("y = MatMul(x_d, w_d)").q("y", 0.0933).node("r = Identity(y_d)").proto()
    onnx.save_model(
        onnx.ModelProto.FromString(proto.SerializeToString()),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="m.data",
        size_threshold=64,
    )
    onnxq.lower(tmp_path / "m.onnx").save(tmp_path / "m.int.onnx")
    assert (tmp_path / "m.int.onnx.data").is_file()
    assert check_integer(tmp_path / "m.int.onnx") == []
    feed = uniform(proto)[0]
    session = onnxq.session(tmp_path / "m.int.onnx", threads=1)
    assert np.abs(session.run(None, feed)[0] - run(proto, feed)["r"]).max() <= 0.0933 * 1.01


# What onnxruntime's own quantizer makes.


def ort_qdq(path: Path, proto: onnx.ModelProto, feeds: list[dict], **options: object) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantFormat, quantize_static

    from bench_support.feed_reader import FeedReader

    onnx.save(proto, path / "f.onnx")
    quantize_static(path / "f.onnx", path / "q.onnx", FeedReader(feeds), quant_format=QuantFormat.QDQ, **options)  # type: ignore[arg-type]
    return onnx.load(path / "q.onnx")


@pytest.mark.parametrize("form", ["u8 s8 per channel", "s8 s8", "u8 u8", "dedicated pairs"])
@pytest.mark.parametrize("name", ["residual", "concat", "head"])
def test_what_onnxruntime_quantizes(name: str, form: str, tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType

    kind = KINDS[name]
    u8, s8 = QuantType.QUInt8, QuantType.QInt8
    options = {
        "u8 s8 per channel": {"activation_type": u8, "weight_type": s8, "per_channel": True},
        "s8 s8": {"activation_type": s8, "weight_type": s8, "extra_options": {"ActivationSymmetric": True}},
        "u8 u8": {"activation_type": u8, "weight_type": u8},
        "dedicated pairs": {"activation_type": u8, "weight_type": s8, "extra_options": {"DedicatedQDQPair": True}},
    }[form]
    made = ort_qdq(tmp_path, kind.model(), kind.feeds(), **options)
    lowered = lower(made, FUSE)
    assert_same(lowered, kind.feeds()[:2], 0.002)
    assert check_integer(lowered.proto) == []


# Real models.


@pytest.fixture(scope="module")
def resnet(shared: Path) -> tuple[onnx.ModelProto, list[dict]]:
    from onnxq.data.source import batches, input_specs, open_data

    path = shared / "models" / "resnet20_cifar10.onnx"
    made = onnxq.quantize(
        path,
        shared / "data" / "cifar10_calib.npz",
        preprocess="cifar10",
        limit=32,
        profile="onnxq",
        batch_size=32,
        qdq=True,
    )
    specs = input_specs(load(path).graph)
    source = open_data(shared / "data" / "cifar10_val.npz", specs, preprocess="cifar10", limit=4)
    return made.model, [dict(b.feeds) for b in batches(source, specs, 2)]


def test_resnet20(resnet: tuple[onnx.ModelProto, list[dict]]) -> None:
    proto, feeds = resnet
    lowered = lower(proto, FUSE)
    points = assert_same(lowered, feeds, 1e-4)
    assert len(points) == 25  # 24 quantized tensors and the logits
    assert check_integer(lowered.proto) == []
    assert {k: v for k, v in lowered.ops.items() if k.startswith("onnxq")} == {
        "onnxq.Conv": 12, "onnxq.ConvAdd": 9, "onnxq.ReduceMean": 1, "onnxq.Gemm": 1,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["onnxq", "onnxruntime-cpu", "qnn", "fbgemm", "tensorrt", "openvino"])
@pytest.mark.parametrize(("model", "preprocess"), [("mobilenetv2", "imagenet-tf"), ("squeezenet", "caffe")])
def test_imagenet_models(shared: Path, model: str, preprocess: str, profile: str) -> None:
    from onnxq.data.source import batches, input_specs, open_data

    path = shared / "models" / f"{model}_imagenet.onnx"
    data = shared / "data" / "imagenet_calib"
    made = onnxq.quantize(path, data, preprocess=preprocess, limit=8, profile=profile, qdq=True, threads=2).model
    specs = input_specs(load(path).graph)
    source = open_data(shared / "data" / "imagenet_val", specs, preprocess=preprocess, limit=1)
    lowered = lower(made, FUSE)
    # Float biases (tensorrt, openvino) are quantized here, which costs depthwise layers a few codes more.
    assert_same(
        lowered,
        [dict(b.feeds) for b in batches(source, specs, 1)],
        0.01 if profile in ("tensorrt", "openvino") else 0.001,
    )
    inside = check_integer(lowered.proto)
    assert [f.op for f in inside] in ([], ["Softmax"])


EMBEDDING = """g (int64[N,T] ids) => (float[N,T,4] y) <float[50,8] table, float[9,8] places, float[8,4] w,
    int64[1] front = {0}, int64[1] second = {1}, int64[1] two = {2}>
{ [word] a = Gather(table, ids) [shape] s = Shape(ids) [many] t = Slice(s, second, two)
  [place] b = Slice(places, front, t) [add] c = Add(a, b) [fc] y = MatMul(c, w) }"""


def test_tables_are_stored_as_the_codes_that_are_picked() -> None:
    """Quantizing commutes with picking: the same integers, a quarter of the table."""
    proto = floating.proto(EMBEDDING, 13)
    feeds = [{"ids": np.random.default_rng(i).integers(0, 50, (3, 6))} for i in range(4)]
    qdq = onnxq.quantize(proto, feeds, profile="onnxq", calibration="max", qdq=True).model
    made = onnxq.lower(qdq).model
    kinds = {t.name: t.data_type for t in made.graph.initializer if list(t.dims) in ([50, 8], [9, 8])}
    assert sorted(kinds.values()) == [onnx.TensorProto.UINT8] * 2
    assert not any(n.op_type == "QuantizeLinear" for n in made.graph.node)
    plain = onnxq.quantize(proto, feeds, profile="onnxruntime-cpu", calibration="max").model
    assert any(t.name == "table" and t.data_type == onnx.TensorProto.FLOAT for t in plain.graph.initializer)
    for feed in feeds:
        (want,), (got,), (float_,) = run(qdq, feed).values(), run(made, feed).values(), run(proto, feed).values()
        assert sqnr_db(want, got) > 40 and sqnr_db(float_, got) > 25
