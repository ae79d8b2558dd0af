"""Spaces, costs and searches: predictions against quantized models, ties, limits, mistakes."""

from __future__ import annotations

import csv
import dataclasses
import io
import tomllib

import numpy as np
import onnx
import pytest

import onnxq
from onnxq.cost.activation_groups import activation_groups, weight_ties
from onnxq.cost.concrete_shapes import concrete_shapes
from onnxq.cost.feature_maps import feature_maps
from onnxq.cost.layer_costs import layer_costs, totals
from onnxq.cost.prepared import prepare
from onnxq.errors import ConfigError
from onnxq.graph.model import load
from onnxq.placement.settings import load_config, load_search_record, parse_overrides
from onnxq.profiles.schema import Profile, load_profile
from onnxq.search.choose import search_bits
from onnxq.search.error_table import error_table
from onnxq.search.least_sensitivity import pareto, search_ilp
from onnxq.search.methods.mixquant import search_mixquant
from onnxq.search.report import front_csv, plot_front, plot_layers, rows
from onnxq.search.sensitivity import LayerSensitivity, Sensitivity
from onnxq.search.space import Space, make_space
from support.build import floating

# A block with a downsample, one without, a concatenation, a head.
RESIDUAL = """g (float[N,3,8,8] x) => (y)
<float[8,3,3,3] w0, float[8] b0, float[16,8,3,3] w1, float[16,16,3,3] w2, float[16,8,1,1] wd, float[16] bd,
 float[16,16,3,3] w3, float[4,16,1,1] w4, float[20,5] w5, float[5] b5> {
[stem] a0 = Conv<pads=[1,1,1,1]>(x, w0, b0)
[relu0] a = Relu(a0)
[conv1] b0_ = Conv<pads=[1,1,1,1], strides=[2,2]>(a, w1)
[relu1] b = Relu(b0_)
[conv2] c = Conv<pads=[1,1,1,1]>(b, w2)
[down] d = Conv<strides=[2,2]>(a, wd, bd)
[sum1] e0 = Add(c, d)
[relu2] e = Relu(e0)
[conv3] f = Conv<pads=[1,1,1,1]>(e, w3)
[sum2] g0 = Add(e, f)
[relu3] h = Relu(g0)
[conv4] i = Conv(h, w4)
[cat] j = Concat<axis=1>(i, h)
[pool] k = GlobalAveragePool(j)
[flat] l = Flatten(k)
[head] y = Gemm(l, w5, b5)
}"""
LAYERS = ["stem", "conv1", "conv2", "down", "conv3", "conv4", "head"]
pytestmark = pytest.mark.filterwarnings("ignore:.*PuLP 4.0:DeprecationWarning")
PROFILES = ("onnxruntime-cpu", "onnxq", "tensorrt", "fbgemm", "tvm")


def model() -> onnx.ModelProto:
    return floating.proto(RESIDUAL, 17, 8)


def sensitivities(space: Space, activations: bool = False, seed: int = 0) -> Sensitivity:
    rng = np.random.default_rng(seed)
    widths = (2, 3, 4, 5, 6, 7, 8)
    found = [
        LayerSensitivity(n, "weights", {b: float(s) * 4.0**-b for b in widths})
        for n, s in zip(space.prepared.layer_names(), rng.lognormal(sigma=2, size=99), strict=False)
    ]
    if activations:
        found += [
            LayerSensitivity(g.nodes[0], "activations", {b: float(s) * 4.0**-b for b in widths}, tensors=g.tensors)
            for g, s in zip(space.costs.groups, rng.lognormal(sigma=2, size=99), strict=False)
        ]
    return Sensitivity(space.prepared.model.sha256, "m", "test", tuple(found))


def quantized(profile: str, overrides: object) -> onnxq.Quantized:
    return onnxq.quantize(model(), random_data=1, profile=profile, overrides=overrides, qdq=True)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("activations", [False, True])
def test_what_is_predicted_is_what_the_quantized_model_has(profile, activations):
    target = load_profile(profile)
    widths = [b for b in (4, 6, 8) if b in target.weights.bits]
    space = make_space(
        model(),
        profile=profile,
        bits=widths,
        activation_bits=[b for b in (5, 8) if b in target.activations.bits] if activations else (8,),
    )
    limits = {"size": "80%"} if len(widths) > 1 else {}
    result = search_ilp(space, sensitivities(space, activations), limits)
    made = quantized(profile, result.assignment)
    graph = made.graph_model.graph
    costs = {c.name: c for c in layer_costs(graph)}
    for choice in result.layers:
        real = costs[choice.node]
        assert (real.weight_bits, real.activation_bits) == (choice.weight_bits, choice.activation_bits), choice.node
    assert sum(c.bops or 0 for c in costs.values()) == result.predicted["bops"]
    maps = feature_maps(graph, concrete_shapes(graph))
    assert maps is not None
    assert (maps.peak[1], maps.average[1]) == (result.predicted["peak"], pytest.approx(result.predicted["average"]))
    assert maps.largest[1] == result.predicted["largest"]
    stored = sum(costs[n].size for n in LAYERS)
    assert sum(c.stored_bytes(result.assignment[c.node].weight_bits or 8) for c in space.costs.layers) == stored


def test_size_counts_scales_zero_points_and_biases():
    costs = {c.node: c for c in make_space(model(), profile="fbgemm", bits=(8,)).costs.layers}  # affine, per channel
    stem = costs["stem"]
    assert stem.weight_bytes(8) == 8 * 27 + 4 * 8 + 8 + 4 * 8
    assert make_space(model(), bits=(8,)).costs.layers[0].weight_bytes(3) == 81 + 4 * 8 + 4 * 8  # symmetric
    space = make_space(model(), bits=(4, 8))
    assert space.costs.baseline()["size"] == sum(c.weight_bytes(8) for c in space.costs.layers)
    assert space.costs.other_bytes == 0


def test_layers_that_read_one_tensor_share_its_width_as_does_the_sum_that_reads_it():
    placement = prepare(model(), "onnxq").placement
    groups = {g.name: set(g.nodes) for g in activation_groups(placement)}
    assert groups["conv1"] == {"conv1", "down"}
    assert groups["conv3"] == {"conv3", "sum2"}  # the shortcut is quantized, once for both
    placement = prepare(model(), "onnxruntime-cpu").placement  # both branches into an add
    groups = {g.name: set(g.nodes) for g in activation_groups(placement)}
    assert "sum1" in groups
    assert groups["conv3"] == {"conv3", "sum2"}


def test_ties_of_weights():
    placement = prepare(model(), "onnxq").placement
    groups = activation_groups(placement)
    alone = weight_ties(placement, groups)
    assert set(alone.values()) == set(LAYERS)
    blocks = weight_ties(placement, groups, blocks=True)
    assert blocks["conv1"] == blocks["down"] == blocks["conv2"] == "conv1"
    assert weight_ties(placement, groups, same=True)["down"] == "conv1"
    assert weight_ties(placement, groups, ties=[("stem", "head")])["head"] == "stem"
    with pytest.raises(ConfigError, match="'neck' is not a layer"):
        weight_ties(placement, groups, ties=[("stem", "neck")])


def test_layers_with_one_weight_share_its_width():
    text = """g (float[1,4] x) => (y) <float[4,4] w> {
    [a] h = MatMul(x, w)
    [r] k = Relu(h)
    [b] y = MatMul(k, w)
    }"""
    space = make_space(floating.proto(text, 17, 8), profile="onnxq")
    assert space.ties == {"a": "a", "b": "a"}
    assert [c.weight_bytes(4) for c in space.costs.layers] == [8 + 16, 0]


def test_tied_layers_get_one_width():
    space = make_space(model(), profile="onnxq", activation_bits="same", tie_blocks=True)
    result = search_ilp(space, sensitivities(space), {"bops": "50%"})
    bits = {c.node: c.weight_bits for c in result.layers}
    assert bits["conv1"] == bits["conv2"] == bits["down"]
    assert all(c.weight_bits == c.activation_bits for c in result.layers)
    assert any("follow" in note for note in result.notes)


def narrow_residuals() -> Profile:
    """onnxq, but for residuals, which take the width of what reads them."""
    found = load_profile("onnxq")
    return dataclasses.replace(found, graph=dataclasses.replace(found.graph, residual_kept="int8"))


def test_residuals_in_16_bits_count_in_limits_on_feature_maps():
    space = make_space(model(), profile="onnxq", bits=(4, 8), activation_bits=(4, 8))
    known = sensitivities(space, activations=True)
    with pytest.raises(
        ConfigError, match=r"--max-largest 60%.* cannot be met: beside layers below 8 bits, profile onnxq"
    ):
        search_ilp(space, known, {"largest": "60%"})
    found = search_ilp(space, known, {"bops": "60%", "peak": "200%"})
    maps = space.costs.maps
    widths = {g.name: found.assignment[g.nodes[0]].activation_bits for g in space.costs.groups}
    assert found.predicted["peak"] <= 2 * found.baseline["peak"]
    assert found.predicted["largest"] > maps.largest(widths)


def test_limits_hold_together_and_each_narrows_the_result():
    space = make_space(model(), profile=narrow_residuals(), bits=(2, 4, 8), activation_bits=(4, 8))
    known = sensitivities(space, activations=True)
    free = search_ilp(space, known)
    assert free.predicted == pytest.approx(free.baseline)
    limits = {"size": "70%", "bops": "40%", "peak": "80%", "largest": "60%", "average": "80%"}
    found = search_ilp(space, known, limits)
    for cost, text in limits.items():
        assert found.predicted[cost] <= float(text[:-1]) / 100 * found.baseline[cost] * (1 + 1e-9)
        alone = search_ilp(space, known, {cost: text})
        assert alone.value <= found.value * (1 + 1e-6) + 1e-9
    assert found.value > free.value


def test_the_largest_map_is_limited_by_its_own_width():
    space = make_space(model(), profile=narrow_residuals(), bits=(8,), activation_bits=(4, 8))
    known = sensitivities(space, activations=True)
    found = search_ilp(space, known, {"largest": "60%"})
    maps = space.costs.maps
    widths = {g.name: found.assignment[g.nodes[0]].activation_bits for g in space.costs.groups}
    sizes, wide = maps.sizes(widths), maps.sizes({})
    most = 0.6 * max(wide)
    assert max(sizes) <= most
    # Of least sensitivity: only maps that would be too large are narrowed.
    too_large = {maps.group_of(i) for i, size in enumerate(wide) if size > most}
    assert {g for g, bits in widths.items() if bits == 4} == too_large


def test_absolute_limits_and_several_on_one_cost():
    space = make_space(model())
    known = sensitivities(space)
    size = space.costs.baseline()["size"]
    by_text = [
        search_ilp(space, known, {"size": t}).assignment for t in (f"{0.7 * size}", f"{0.7 * size / 1e3}kB", "70%")
    ]
    assert by_text[0] == by_text[1] == by_text[2]
    both = search_ilp(space, known, {"size": ["90%", "70%"]})
    assert both.assignment == by_text[2]
    assert len(both.limits) == 2


def test_fixed_layers_and_ends_keep_their_width():
    space = make_space(model(), profile="onnxq", fixed={"conv[12]": 4}, first_last_bits=8)
    result = search_ilp(space, sensitivities(space), {"size": "85%"})
    bits = {c.node: c.weight_bits for c in result.layers}
    assert (bits["conv1"], bits["conv2"], bits["stem"], bits["head"]) == (4, 4, 8, 8)


def test_the_file_gives_back_the_result_and_the_card_tells_it(tmp_path):
    result = search_bits(model(), "mixquant", limits={"size": "60%"}, profile="onnxq")
    path = tmp_path / "bits.toml"
    result.save(path)
    assert load_config(path) == parse_overrides(dict(result.assignment))
    assert tomllib.loads(path.read_text())["search"] == load_search_record(path) == result.record()
    made = onnxq.quantize(model(), random_data=1, profile="onnxq", overrides=path, qdq=True)
    record = made.card.search
    assert record is not None
    assert (record.method, record.limits) == ("mixquant", result.limits)
    assert record.predicted == pytest.approx(dict(result.predicted))
    assert type(made.card).from_json(made.card.to_json()) == made.card
    assert "mixquant" in made.card.to_markdown()
    assert "size " in made.card.to_html()
    other = floating.proto(RESIDUAL.replace("float[8] b0", "float[8] b0, float[1] unused"), 17, 8)
    with pytest.raises(ConfigError, match="another model"):
        onnxq.quantize(other, random_data=1, profile="onnxq", overrides=path)


def test_mixquant_with_a_limit_takes_the_least_qem():
    space = make_space(model(), bits=(2, 3, 4, 5, 6, 7, 8))
    table = error_table(space.prepared)
    found = search_mixquant(space, table, limits={"size": "60%"})
    assert found.predicted["size"] <= 0.6 * found.baseline["size"]
    assert {c.node: c.sensitivity for c in found.layers} == table.errors
    qem = found.parameters["qem"]
    below = search_mixquant(space, table, qem * (1 - 1e-6))
    assert below.predicted["size"] > 0.6 * found.baseline["size"]
    with pytest.raises(ConfigError, match="any QEM the least is"):
        search_mixquant(space, table, limits={"size": "10%"})
    with pytest.raises(ConfigError, match="not met with QEM 1"):
        search_mixquant(space, table, 1, limits={"size": "60%"})


def test_the_front_runs_from_the_least_to_the_most(tmp_path):
    space = make_space(model(), profile=narrow_residuals(), bits=(2, 3, 4, 5, 6, 7, 8))
    known = sensitivities(space)
    front = pareto(space, known, points=22)
    sizes = [r.predicted["size"] for r in front.results]
    values = [r.value for r in front.results]
    assert len(sizes) >= 20
    assert sizes == sorted(sizes)
    assert values == sorted(values, reverse=True)
    assert sizes[0] == min(sum(c.weight_bytes(2) for c in space.costs.layers), sizes[0])
    assert front.results[-1].counts() == {8: 7}
    table = list(csv.DictReader(io.StringIO(front_csv(front))))
    assert [float(row["size"]) for row in table] == sizes
    assert [row["stem"] for row in table] == [str(r.layers[0].weight_bits) for r in front.results]
    pytest.importorskip("matplotlib")
    plot_front(front, tmp_path / "p.png")
    plot_layers(front.results[3], tmp_path / "l.svg")
    assert (tmp_path / "p.png").stat().st_size > 5000
    heads, lines = rows(front.results[3])
    assert "Δ sensitivity" in heads
    assert [line[0] for line in lines] == LAYERS
    for cost in ("bops", "peak", "largest", "average"):
        found = pareto(
            make_space(model(), profile=narrow_residuals(), activation_bits=(4, 8)), sensitivities(space, True), cost, 5
        )
        assert len(found.results) > 1


def test_mistakes():
    space = make_space(model(), profile="onnxq")
    known = sensitivities(space)
    with pytest.raises(ConfigError, match=r"--max-size 10% .* cannot be met: .* % of int8\)"):
        search_ilp(space, known, {"size": "10%"})
    with pytest.raises(ConfigError, match=r"--max-latency 5ms: the latency .* --latency"):
        search_ilp(space, known, {"latency": "5ms"})
    for text in ("60 percent", "0%", "-3MB", "1.2.3", "5ms"):
        with pytest.raises(ConfigError, match="expected a positive number with one of"):
            search_ilp(space, known, {"size": text})
    with pytest.raises(ConfigError, match="limit on 'speed'"):
        space.limits({"speed": "1"})
    with pytest.raises(ConfigError, match="no activations of stem"):
        wide = make_space(model(), profile="onnxq", activation_bits=(4, 8))
        search_ilp(wide, known)
    with pytest.raises(ConfigError, match="another model"):
        search_bits(model(), "ilp", sensitivity=Sensitivity("0" * 64, "other", "test", known.layers))
    with pytest.raises(ConfigError, match="needs sensitivities"):
        search_bits(model(), "ilp")
    with pytest.raises(ConfigError, match="method 'dice'"):
        search_bits(model(), "dice")
    with pytest.raises(ConfigError, match="matches no node of the model; did you mean 'conv1'"):
        make_space(model(), fixed={"conv11": 8})
    with pytest.raises(ConfigError, match="fixed to 4 bits and to 8"):
        make_space(model(), fixed={"conv1": 4, "conv.*": 8})
    with pytest.raises(ConfigError, match="stem is fixed to 4 bits and head to 8, but the two must share"):
        make_space(model(), fixed={"stem": 4, "head": 8}, ties=[("stem", "head")])
    with pytest.raises(ConfigError, match="supports weights of 8 bits, not 4"):
        make_space(model(), profile="fbgemm", bits=(4, 8))
    with pytest.raises(ConfigError, match="chooses only weight widths"):
        search_bits(model(), "mixquant", activation_bits=(4, 8))


def test_ilp_ignores_what_only_mixquant_looks_at():
    known = sensitivities(make_space(model(), profile="onnxq"))
    plain = search_bits(model(), "ilp", sensitivity=known, profile="onnxq")
    found = search_bits(
        model(), "ilp", sensitivity=known, profile="onnxq", qem=3.0, quantizer="symmetric", reading="least-error"
    )
    assert found.method == "ilp"
    assert found.assignment == plain.assignment


def test_a_sensitivity_file_that_lacks_a_layer_or_a_width():
    space = make_space(model(), profile="onnxq", bits=(2, 8))
    known = sensitivities(space)
    few = Sensitivity(known.model_sha256, "m", "test", known.layers[1:])
    with pytest.raises(ConfigError, match="have no layer stem"):
        search_ilp(space, few)
    narrow = [LayerSensitivity(e.node, "weights", {4: 1.0, 8: 0.0}) for e in known.layers]
    with pytest.raises(ConfigError, match="layer stem at 4, 8 bits, not at 2"):
        search_ilp(space, Sensitivity(known.model_sha256, "m", "test", tuple(narrow)))


def test_dynamic_shapes_are_assumed_and_said():
    result = search_bits(model(), "mixquant")
    assert any("batch of x" in note for note in result.notes)
    graph = load(model()).graph
    assert totals(graph, layer_costs(graph)).macs * 64 == result.baseline["bops"]
