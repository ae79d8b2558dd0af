"""What is in a card: method, operators, layers, widths, costs, data, and nothing of the machine."""

import dataclasses
import json

import numpy as np
import pytest

from onnxq.card import (
    Card,
    Provenance,
    describe_float,
)
from onnxq.card.assembly.paths import without_folders, without_paths
from onnxq.card.assembly.resources import data_uses
from onnxq.card.render.sections import sections
from onnxq.graph.model import to_proto
from onnxq.placement.settings import Override
from support.build import qdq
from support.cards import DATA, NET, quantized


def layer(card: Card, name: str):
    return next(r for r in card.layers if r.name == name)


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


SKIPS = """g (float[1,4,8,8] x) => (y)
<float[4,4,3,3] w1, float[4,4,3,3] w2, float[4,8,1,1] w3, float[4,4,1,1] w4, float[2,4,1,1] w5, float[2,4,1,1] w6> {
  [c1] a = Conv<pads=[1,1,1,1]>(x, w1)   [r1] b = Relu(a)
  [c2] c = Conv<pads=[1,1,1,1]>(b, w2)   [r2] d = Relu(c)
  [dense] e = Concat<axis=1>(d, b)
  [c3] f = Conv(e, w3)   [r3] g1 = Relu(f)
  [left] l = Conv(g1, w5)   [right] r = Conv(g1, w6)
  [fire] s = Concat<axis=1>(l, r)
  [res] t = Add(s, g1)
  [c4] y = Conv(t, w4)
}"""


@pytest.mark.parametrize("profile", ["onnxruntime-cpu", "tensorrt", "openvino", "qnn"])
def test_residual_connections_are_sums_and_skip_connections_concatenations_past_layers(profile):
    made = quantized(SKIPS, profile)[1].operations
    assert made.residual_adds == 1
    assert made.skip_concats == 1  # parallel branches (fire) join nothing with what it was computed from
    assert "of 1 concatenation(s)" in made.skip
    plain = quantized(profile=profile)[1].operations
    assert (plain.skip_concats, plain.skip) == (0, "none in the model")


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
    evaluation = {"top1": 0.5, "ms_per_sample": 1.0, "threads": 2, "against": {"top1": 0.6, "samples_per_second": 9.0}}
    evaluated = first.with_evaluation(evaluation).without_measurements()
    assert evaluated.evaluation == {"top1": 0.5, "against": {"top1": 0.6}}
    for text in (evaluated.to_markdown(), evaluated.to_html(), evaluated.summary()):
        assert "None" not in text
    assert "peak memory" in first.to_markdown()
    assert "peak memory of the process" not in evaluated.to_markdown()


def test_the_profile_s_folder_is_not_in_a_pipeline():
    text = "calibrate{profile=../a/mine.toml},insert-qdq{profile=/home/me/mine.toml,calibration=max},x{exclude=a/b}"
    wanted = "calibrate{profile=mine.toml},insert-qdq{profile=mine.toml,calibration=max},x{exclude=a/b}"
    assert without_folders(text) == wanted


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


def test_synthetic_data_and_the_share_of_an_epoch_are_recorded_where_known():
    plain = data_uses(Provenance({"samples": 200}, DATA))[0]
    assert (plain.synthetic, plain.random) == (False, False)
    made = data_uses(Provenance({"samples": 200}, DATA, synthetic=True))[0]
    assert (made.synthetic, made.random) == (True, False)
    drawn = data_uses(Provenance({"samples": 4}, {"kind": "random", "samples": 4}))[0]
    assert (drawn.synthetic, drawn.random) == (True, True)
    card = quantized()[1]
    assert card.resources.epoch_share is None
    rows = "\n".join(f"{k}: {v}" for s in sections(card) for k, v in s.rows)
    assert "epoch" not in rows
    known = dataclasses.replace(
        card, resources=dataclasses.replace(card.resources, training_samples=50_000, data=(plain, made))
    )
    assert known.resources.epoch_share == pytest.approx(400 / 50_000)
    rows = "\n".join(f"{k}: {v}" for s in sections(known) for k, v in s.rows)
    assert "share of the training: 0.8 % of one training epoch (50000 samples)" in rows
    assert "200 synthetic samples" in rows
    assert Card.from_json(known.to_json()) == known


def test_cards_of_before_are_still_read():
    table = json.loads(quantized()[1].to_json())
    del table["operations"]["skip_concats"], table["operations"]["skip"], table["resources"]["training_samples"]
    for use in table["resources"]["data"]:
        del use["synthetic"]
    old = Card.from_dict(table)
    assert old.operations.skip == ""
    assert "skip connections: not recorded" in "\n".join(f"{k}: {v}" for s in sections(old) for k, v in s.rows)
