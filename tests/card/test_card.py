"""The quantization card: what is in it, that it survives writing and reading, and that its renderings show it."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import onnx
import pytest

import onnxq
from onnxq import pipeline
from onnxq.card import (
    CARD_KEY,
    Card,
    Effort,
    Made,
    Provenance,
    build_card,
    card_path,
    describe_float,
    embed,
    read_card,
    units,
)
from onnxq.card.assembly.float_model import quantized_file_bytes
from onnxq.card.assembly.paths import without_paths
from onnxq.card.assembly.resources import data_uses
from onnxq.cost.layer_costs import layer_costs, totals
from onnxq.errors import ModelError
from onnxq.graph.files import write_text
from onnxq.graph.model import Model, load, to_proto
from onnxq.placement.settings import Override
from support.build import qdq
from support.cases.zoo import KINDS
from support.insertion import context

NET = """g (float[1,3,8,8] x) => (float[1,10] y)
<float[4,3,3,3] w1, float[4] b1, float[4,4,3,3] w2, float[10,4] w3, float[4] k> {
  [stem] a = Conv<pads=[1,1,1,1]>(x, w1, b1)
  [relu1] b = Relu(a)
  [block] c = Conv<pads=[1,1,1,1]>(b, w2)
  [skip] s = Add(c, b)
  [relu2] d = Relu(s)
  [pool] e = GlobalAveragePool(d)
  [flat] f = Flatten(e)
  [scale] h = Mul(f, k)
  [soft] p = Softmax(h)
  [head] y = Gemm<transB=1>(p, w3)
}"""
DATA = {"kind": "image folder", "name": "calib", "samples": 200, "labelled": True, "sha256": "ab" * 32}
DATA["preprocess"] = {"scale": 1 / 127.5, "mean": [1.0], "layout": "nchw"}
EVALUATION = {
    "samples": 300,
    "labelled": 300,
    "top1": 0.8833,
    "top1_error": 0.0185,
    "top5": None,
    "data": {"kind": "image folder", "name": "val"},
    "against": {"top1": 0.8867, "agreement": 0.973, "kl": 0.0123, "outputs": {"logits": {"sqnr_db": 22.75}}},
}


def quantized(
    text: str = NET, profile: str = "onnxruntime-cpu", data=None, values=None, seconds: float = 1.5, **settings
) -> tuple[Model, Card]:
    """A small model after the passes, with the card of the run."""
    source = qdq.model(text, opset=21, **(values or {}))
    ctx = context(source, profile, **settings)
    before = describe_float(source)
    passes = pipeline.parse("insert-qdq{calibration=percentile:99.9},fuse-activation-clips")
    reports = pipeline.run(source, passes, ctx)
    assert ctx.placement is not None and ctx.profile is not None and ctx.settings is not None
    card = build_card(
        source,
        before,
        Made(ctx.profile, ctx.settings, ctx.placement, pipeline.print_pipeline(passes), reports),
        Provenance({"samples": 3}, DATA if data is None else data),
        Effort(seconds, 123_000_000, threads=2),
    )
    return source, card


@pytest.fixture(scope="module")
def card() -> Card:
    return quantized()[1]


def layer(card: Card, name: str):
    return next(r for r in card.layers if r.name == name)


# What is in it


def test_method_says_what_the_profile_and_settings_say(card):
    method = card.method
    assert (method.uniform, method.static, method.bias) == (True, True, "int32")
    assert (method.weights.form, method.weights.granularity, method.weights.sign) == (
        "symmetric",
        "per-channel",
        "signed",
    )
    assert method.activations.granularity == "per-tensor"
    assert method.activations.clipping == "percentile:99.9", "the pass's own option beats the settings"
    other = quantized(profile="tvm")[1].method
    assert (other.weights.granularity, other.weights.scale) == ("per-tensor", "power of two")


def test_operators_are_counted_by_what_became_of_them(card):
    counts = {c.op: c for c in card.operations.by_op}
    assert (counts["Conv"].total, counts["Conv"].quantized) == (2, 2)
    assert (counts["Softmax"].total, counts["Softmax"].left_float) == (1, 1)
    assert counts["Relu"].fused == counts["Relu"].total == 2
    assert card.operations.absorbed_activations == 2
    assert card.operations.residual_adds == 1
    assert "every input" in card.operations.residual
    assert [(e.name, e.weight_bits) for e in card.operations.first_last] == [("stem", 8), ("head", 8)]
    for c in counts.values():
        assert c.total == c.quantized + c.passthrough + c.fused + c.left_float


def test_every_node_left_in_float_has_a_reason(card):
    reasons = {n.name: n.reason for n in card.float_nodes}
    assert "soft" in reasons
    assert all(reasons.values())
    excluded = quantized(exclude=("block",))[1]
    assert {n.name: n.reason for n in excluded.float_nodes}["block"] == "left in float by the user"
    assert layer(excluded, "block").action == "float"
    assert layer(excluded, "block").reason == "left in float by the user"


def test_layers_have_bits_scales_and_sizes(card):
    stem = layer(card, "stem")
    assert (stem.weight_bits, stem.activation_bits, stem.per_channel) == (8, 8, True)
    assert stem.weight_shape == (4, 3, 3, 3)
    assert stem.macs == 4 * 8 * 8 * 27
    assert stem.bops == 64 * stem.macs
    assert stem.size.before == (108 + 4) * 4
    assert stem.size.after == 108 + 4 * 4 + 4 + 4 * 4 + 4 * 4  # codes, scales, zero points, bias, its scales
    assert stem.weight_scale is not None and 0 < stem.weight_scale[0] <= stem.weight_scale[1]
    assert stem.weight_format == "int8 symmetric"
    per_tensor = layer(quantized(profile="tvm")[1], "stem")
    assert not per_tensor.per_channel
    assert per_tensor.weight_scale[0] == per_tensor.weight_scale[1]


def test_a_float_layer_counts_in_float(card):
    excluded = quantized(exclude=("block",))[1]
    block = layer(excluded, "block")
    assert (block.weight_bits, block.activation_bits) == (32, 32)
    assert block.bops == block.macs * 1024
    assert block.size.before == block.size.after
    assert excluded.cost.bops.after > card.cost.bops.after
    assert excluded.cost.bops.before == card.cost.bops.before == card.pretrained.macs * 1024


def test_mixed_precision_is_counted_by_width():
    overrides = {"block": Override(weight_bits=4), "head": Override(activation_bits=6)}
    card = quantized(profile="onnxq", overrides=overrides)[1]
    assert {c.bits: (c.count, c.parameters) for c in card.precision.weights} == {
        4: (1, 144), 8: (2, 108 + 4 + 40), 32: (1, 4),  # the constant of a sum stays as it is
    }  # fmt: skip
    assert {c.bits for c in card.precision.activations} == {6, 8}
    assert card.precision.overrides == 2
    assert layer(card, "block").bops == layer(card, "block").macs * 32
    assert layer(card, "head").bops == layer(card, "head").macs * 48
    assert (layer(card, "head").activation_bits, layer(card, "head").activation_format) == (6, "uint6 affine")
    assert set(card.method.weights.bits) == {2, 3, 4, 5, 6, 7, 8}


def test_feature_maps_shrink(card):
    maps = card.precision.feature_maps
    assert maps is not None
    assert maps.largest.before == 4 * 8 * 8 * 4
    assert maps.largest.after == 4 * 8 * 8
    assert 0 < maps.peak.after < maps.peak.before


def test_data_and_resources(card):
    use = card.resources.data[0]
    assert (use.kind, use.samples, use.labelled, use.random) == ("image folder", 3, True, False)
    assert use.sha256 == "ab" * 32
    assert [p.text for p in card.resources.passes] == [
        "insert-qdq{calibration=percentile:99.9}",
        "fuse-activation-clips",
    ]
    assert (card.resources.seconds, card.resources.peak_rss_bytes, card.resources.threads) == (1.5, 123_000_000, 2)


def test_statistics_alone_tell_their_data():
    assert quantized(data={})[1].resources.data == ()
    uses = data_uses(Provenance({"samples": 12, "data": [DATA, {**DATA, "name": "second", "samples": 5}]}))
    assert [(u.name, u.samples) for u in uses] == [("calib", 200), ("second", 5)]
    assert [(u.name, u.samples) for u in data_uses(Provenance({"samples": 12, "data": DATA}))] == [("calib", 12)]


def test_the_float_model_is_identified():
    source = qdq.model(NET, opset=21)
    info = describe_float(source)
    assert (info.opset, info.sha256, info.inputs) == (21, source.sha256, {"x": "1×3×8×8"})
    assert info.totals.parameters == 108 + 4 + 144 + 40 + 4
    assert info.file_bytes == to_proto(source).ByteSize()


def test_widened_biases_are_counted():
    bias = np.array([1e9, 0, 0, 0], np.float32)
    card = quantized(values={"b1": bias})[1]
    assert card.widened_biases == {"stem": 1}
    assert "stem (1)" in card.to_markdown()
    assert quantized()[1].widened_biases == {}


def test_a_card_is_reproducible_apart_from_what_is_measured():
    first, second = quantized(seconds=1.5)[1], quantized(seconds=9.0)[1]
    assert first != second
    assert first.without_measurements() == second.without_measurements()
    assert first.without_measurements().to_json() == second.without_measurements().to_json()


def test_no_folder_of_the_machine_gets_into_a_card(tmp_path):
    data = {**DATA, "name": str(tmp_path / "set"), "preprocess": {"file": str(tmp_path / "p.toml")}}
    card = quantized(data=data)[1]
    assert str(tmp_path) not in card.to_json()
    assert card.resources.data[0].name == "set"
    assert card.resources.data[0].preprocess == {"file": "p.toml"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("insert-qdq{profile=/home/me/p.toml calibration=mse}", "insert-qdq{profile=p.toml calibration=mse}"),
        ('assign-bits{config="/a/b/c.toml"}', 'assign-bits{config="c.toml"}'),
        ("fold-batchnorm,insert-qdq{profile=sub/p.toml}", "fold-batchnorm,insert-qdq{profile=sub/p.toml}"),
        ("1/127.5 and https://example.org/a/b", "1/127.5 and https://example.org/a/b"),
        ("C:\\data\\x.toml", "x.toml"),
        ("a / b", "a / b"),
    ],
)
def test_absolute_paths_are_cut(text, expected):
    assert without_paths(text) == expected
    assert without_paths({"k": [text, 3]}) == {"k": [expected, 3]}


# Writing and reading


def test_json_round_trip(card):
    assert Card.from_json(card.to_json()) == card
    assert Card.from_json(card.to_json(compact=True)) == card
    assert Card.from_dict(card.to_dict()) == card
    evaluated = card.with_evaluation(EVALUATION)
    assert Card.from_json(evaluated.to_json()).evaluation == EVALUATION


def test_the_card_travels_in_the_model_and_beside_it(tmp_path, card):
    source, _ = quantized()
    embed(source, card)
    path = tmp_path / "m.int8.onnx"
    path.write_bytes(to_proto(source).SerializeToString())
    assert read_card(path) == card
    assert read_card(onnx.load(path)) == card
    assert read_card(load(path)) == card
    assert card_path(path) == tmp_path / "m.int8.card.json"

    bare = tmp_path / "bare.onnx"
    source.set_metadata(CARD_KEY, None)
    bare.write_bytes(to_proto(source).SerializeToString())
    with pytest.raises(ModelError, match=r"no quantization card in it and there is no bare\.card\.json next to it"):
        read_card(bare)
    write_text(card_path(bare), card.to_json())
    assert read_card(bare) == card
    assert read_card(load(bare)) == card
    assert read_card(card_path(bare)) == card


def test_a_card_of_another_run_replaces_the_former(card):
    source, _ = quantized()
    source.set_metadata("mine", "kept")
    embed(source, card)
    embed(source, card.with_evaluation(EVALUATION))
    proto = to_proto(source)
    assert [p.key for p in proto.metadata_props].count(CARD_KEY) == 1
    assert read_card(proto).evaluation == EVALUATION
    assert source.metadata["mine"] == "kept"


def test_a_former_card_does_not_count_into_the_file_size():
    source, card = quantized()
    embed(source, card)
    whole = totals(source.graph, layer_costs(source.graph))
    assert quantized_file_bytes(source, whole) == card.cost.file_bytes.after < to_proto(source).ByteSize()


def broken(card: Card, edit) -> str:
    table = card.to_dict()
    edit(table)
    return json.dumps(table)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("layers"), "key 'layers' is missing"),
        (lambda t: t.update(layers="many"), "layers: must be a list"),
        (lambda t: t["layers"][0].update(macs="12"), r"layers\[0\].macs: must be of type int"),
        (lambda t: t["layers"][0].update(macs=True), r"layers\[0\].macs: must be of type int"),
        (lambda t: t["layers"][0].update(weight_shape=[1, None]), r"weight_shape\[1\]"),
        (lambda t: t["layers"][0]["size"].pop("after"), r"layers\[0\].size: key 'after' is missing"),
        (lambda t: t.update(colour="red"), "unknown key 'colour'"),
        (lambda t: t["method"].update(uniform=1), "method.uniform: must be of type bool"),
        (lambda t: t.update(schema=99), "newer than this onnxq reads"),
        (lambda t: t.update(schema="1"), "not a quantization card"),
        (lambda t: t.pop("schema"), "not a quantization card"),
    ],
)
def test_malformed_cards_are_refused_with_the_place(card, edit, message):
    with pytest.raises(ModelError, match=message):
        Card.from_json(broken(card, edit), "x.card.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, b"\xff\xfe\x00"])
def test_what_is_no_json_is_refused(text, tmp_path):
    path = tmp_path / "x.card.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelError, match="not a quantization card"):
        read_card(path)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        read_card(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="no such file"):
        read_card(tmp_path / "none.card.json")
    (tmp_path / "x.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="not an ONNX model"):
        read_card(tmp_path / "x.onnx")


# Renderings


class Page(HTMLParser):
    """Collects text and attributes, and fails on tags that do not match."""

    VOID = ("meta", "rect", "line", "br", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_markdown_shows_every_section_and_layer(card):
    text = card.to_markdown()
    for title in (
        "Pretrained model",
        "Quantization method",
        "Quantized operations",
        "Mixed precision",
        "Resource complexity",
    ):
        assert f"## {title}" in text
    for name in ("stem", "block", "head"):
        assert re.search(rf"^\| {name} \| (Conv|Gemm) \|", text, re.M)
    assert "| soft | Softmax |" in text
    assert "not evaluated" in text
    assert "RANDOM" not in text
    assert "| pipeline | insert-qdq{calibration=percentile:99.9}, fuse-activation-clips |" in text
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith(("| stem", "| layer"))}
    assert len(widths) == 1, "every row has as many cells as its heading"


def test_names_cannot_break_the_tables(card):
    odd = dataclasses.replace(card.layers[0], name="a|b\n<script>alert(1)</script>")
    changed = dataclasses.replace(card, layers=(odd, *card.layers[1:]))
    line = next(line for line in changed.to_markdown().splitlines() if "a\\|b" in line)
    assert line.count(" | ") == 8
    assert "<script" not in changed.to_html()
    assert Page(changed.to_html())


def test_html_is_whole_and_needs_nothing_from_outside(card):
    html = card.to_html()
    page = Page(html)
    assert not re.search(r"(?:src|href)\s*=|url\((?!#)|@import|<script", html)
    assert "http" not in html
    for word in ("stem", "block", "head", "soft", "Quantization card", "onnxruntime-cpu", "not evaluated"):
        assert word in page.text
    bars = [a for tag, a in page.seen if tag == "rect" and a.get("class")]
    products = [r.name for r in card.layers if r.macs]
    assert products == ["stem", "block", "head"]
    assert len(bars) == len(products) * (1 + 1 + 1 + 2), "weight bits, activation bits, MACs, bytes before and after"
    assert all(float(b["x"]) >= 0 and float(b["x"]) + float(b["width"]) <= 1000 for b in bars)
    assert all(float(b["height"]) >= 0 for b in bars)


def test_bars_are_as_high_as_the_bits():
    card = quantized(profile="onnxq", overrides={"block": Override(weight_bits=4)}, exclude=("head",))[1]
    bars = [a for tag, a in Page(card.to_html()).seen if tag == "rect" and a.get("class") in ("b4", "b8", "float")]
    heights = {kind: {float(b["height"]) for b in bars if b["class"] == kind} for kind in ("b4", "b8", "float")}
    assert heights == {"b4": {32.0}, "b8": {64.0}, "float": {64.0}}


def test_random_data_is_loud_everywhere():
    card = quantized(data={"kind": "random", "name": None, "samples": 8, "labelled": False, "sha256": None})[1]
    assert card.random_data
    assert "RANDOM DATA" in card.to_markdown().splitlines()[2]
    assert "RANDOM NUMBERS" in Page(card.to_html()).text
    assert "WARNING" in card.summary() and "RANDOM" in card.summary()
    assert card.to_dict()["resources"]["data"][0]["random"] is True
    assert "RANDOM" not in quantized()[1].summary()


def test_an_evaluation_is_shown(card):
    evaluated = card.with_evaluation(EVALUATION)
    for text in (evaluated.to_markdown(), Page(evaluated.to_html()).text):
        assert "88.67 % float → 88.33 % quantized (± 1.85 points)" in text
        assert "97.30 %" in text
        assert "22.8 dB" in text
        assert "300 samples of val (image folder)" in text
    assert "88.33 %" in evaluated.summary()
    assert "not evaluated" not in evaluated.to_markdown()
    other = card.with_evaluation({"mIoU": 0.7})
    assert "mIoU" in other.to_markdown() and "0.7" in Page(other.to_html()).text


def test_summary_names_model_profile_bits_and_data(card):
    lines = card.summary().splitlines()
    assert "onnxruntime-cpu: 3 of 3 layers in integers, weights 8 bits, activations 8 bits" in lines[0]
    assert "3 samples of calib (image folder)" in lines[2]
    assert "percentile:99.9" in lines[2]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1536, "1.54 kB"),
        (13_951_272, "13.95 MB"),
        (999_999, "1 MB"),
        (123_456_789, "123.5 MB"),
        (2_500_000_000, "2.5 GB"),
    ],
)
def test_sizes(value, expected):
    assert units.size(value) == expected


def test_other_units():
    assert [units.seconds(v) for v in (0.123, 12.34, 59.96, 83.4, 7800)] == [
        "0.12 s", "12.3 s", "60.0 s", "1 min 23 s", "2 h 10 min",
    ]  # fmt: skip
    assert (units.number(None), units.number(1.5), units.number(12)) == ("?", "1.5", "12")
    assert (units.share(1, 4), units.share(1, 0), units.percent(0.5), units.percent(None)) == (
        "25.0 %",
        "–",
        "50.00 %",
        "–",
    )
    assert (units.bits(4), units.bits(32), units.bits(16), units.bits(None)) == ("4", "float32", "float16", "–")


def test_a_model_without_layers_to_chart_still_renders(card):
    empty = dataclasses.replace(card, layers=(), float_nodes=())
    assert Page(empty.to_html())
    assert "Nothing." in empty.to_markdown()
    assert empty.summary()


def test_of_sizes_that_are_not_known_no_bit_operations_are_told() -> None:
    kind = KINDS["attention with padding"]
    card = onnxq.quantize(kind.model(), kind.feeds(), profile="onnxq", calibration="max").card
    assert "bit operations unknown" in card.summary() and "weights 8 bits" in card.summary()
    assert "bit operations unknown" in card.to_markdown() and "the model leaves sizes open" in card.to_html()
    sizes = {"x": (2, 5, 16), "mask": (2, 5)}
    card = onnxq.quantize(kind.model(), kind.feeds(), profile="onnxq", calibration="max", shapes=sizes).card
    assert "unknown" not in card.summary()
