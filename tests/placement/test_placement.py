"""Where Q/DQ goes: the rules of placement/rules.py, without running anything."""

import numpy as np
import onnx
import pytest

from onnxq.errors import ConfigError
from onnxq.graph.element_types import fill_types
from onnxq.graph.match import is_float
from onnxq.graph.model import Model, from_proto
from onnxq.patterns.nonnegative import is_nonnegative
from onnxq.placement.plan import Placement
from onnxq.placement.planner import plan
from onnxq.placement.settings import Override, QuantSettings
from onnxq.profiles.schema import Profile, load_profile
from support.build import qdq
from support.insertion import context, insert, profile_of
from support.prove.nodes import node_of


def planned(model: Model, profile: str | Profile = "onnxruntime-cpu", **settings) -> Placement:
    fill_types(model.graph)
    return plan(model.graph, load_profile(profile), QuantSettings(**settings))


def points(placement: Placement) -> dict[str, list[tuple[str, int]]]:
    """Quantized tensors and who reads them so: names of nodes and input indices."""
    return {p.tensor.name: sorted((n.name, i) for n, i in p.edges) for p in placement.points}


def read_by(placement: Placement, node: str) -> set[str]:
    """Quantized tensors that a node reads."""
    return {name for name, readers in points(placement).items() if any(n == node for n, _ in readers)}


def why(placement: Placement) -> dict[str, str]:
    return {s.node: s.reason for s in placement.skipped}


def bits(placement: Placement) -> dict[str, int]:
    return {p.tensor.name: p.format.bits for p in placement.points}


CONV = "(float[1,4,6,6] x) => (float[1,4,6,6] y)"


# T1 and T5


def test_data_inputs_of_layers_are_quantized_once_for_all_readers() -> None:
    model = qdq.model(
        """g (float[1,4,6,6] x) => (float[1,4,6,6] y, float[1,4,6,6] z, float[1,4,6,6] r)
        <float[4,4,1,1] w, float[4,4,1,1] v>
        { [a] y = Conv(x, w) [b] z = Conv(x, v) [c] r = Relu(x) }"""
    )
    placement = planned(model, "tensorrt")
    assert points(placement) == {"x": [("a", 0), ("b", 0)]}
    assert [(layer.node.name, layer.weight.name) for layer in placement.layers] == [("a", "w"), ("b", "v")]
    assert placement.actions == {"a": "quantized", "b": "quantized", "c": "float"}
    assert why(placement) == {"c": "profile tensorrt runs Relu in float"}


def test_widest_reader_decides_and_that_is_told() -> None:
    model = qdq.model(
        """g (float[1,4,6,6] x) => (float[1,4,6,6] y, float[1,4,6,6] z) <float[4,4,1,1] w, float[4,4,1,1] v>
        { [a] y = Conv(x, w) [b] z = Conv(x, v) }"""
    )
    overrides = {"a": Override(activation_bits=4), "b": Override(activation_bits=6)}
    placement = planned(model, overrides=overrides)
    assert bits(placement)["x"] == 6
    assert placement.notes == ["tensor x is quantized once, to 6 bits: a asks for 4, b asks for 6"]


# T2

RESIDUAL = """g (float[1,4,6,6] x) => (float[1,4,6,6] y) <float[4,4,1,1] w1, float[4,4,1,1] w2, float[4,4,1,1] wd>
{{ {body} [add] a = Add({inputs}) [relu] y = Relu(a) }}"""
MAIN = "[c1] t = Conv(x, w1) [r1] u = Relu(t) [c2] v = Conv(u, w2)"


@pytest.mark.parametrize("inputs", ["v, x", "x, v"])
@pytest.mark.parametrize(("profile", "quantized"), [("acl", set()), ("tensorrt", {"x"}), ("fbgemm", {"x", "v"})])
def test_schemes_on_an_identity_shortcut(profile: str, quantized: set[str], inputs: str) -> None:
    placement = planned(qdq.model(RESIDUAL.format(body=MAIN, inputs=inputs)), profile)
    assert read_by(placement, "add") == quantized
    assert ("v" in points(placement)) == (profile == "fbgemm")


@pytest.mark.parametrize("downsample_first", [True, False])
@pytest.mark.parametrize("inputs", ["v, d", "d, v"])
def test_the_deeper_convolution_enters_directly_whatever_the_node_order(inputs: str, downsample_first: bool) -> None:
    down = "[down] d = Conv(x, wd)"
    body = f"{down} {MAIN}" if downsample_first else f"{MAIN} {down}"
    for profile in ("tensorrt", "onnxq"):
        placement = planned(qdq.model(RESIDUAL.format(body=body, inputs=inputs)), profile)
        assert "v" not in points(placement)
        assert [n for n, _ in points(placement)["d"]] == ["add"]


def test_between_equally_deep_convolutions_the_later_enters_directly() -> None:
    model = qdq.model(RESIDUAL.format(body="[c1] u = Conv(x, w1) [c2] v = Conv(x, w2)", inputs="v, u"))
    found = points(planned(model, "tensorrt"))
    assert "v" not in found and found["u"] == [("add", 1)]


def test_an_output_that_others_read_too_does_not_enter_directly() -> None:
    text = """g (float[1,4,6,6] x) => (float[1,4,6,6] y, float[1,4,6,6] z) <float[4,4,1,1] w, float[4,4,1,1] v>
    { [c1] t = Conv(x, w) [add] y = Add(t, x) [other] z = Conv(t, v) }"""
    integers = points(planned(qdq.model(text), "onnxq"))
    assert integers["t"] == [("add", 0), ("other", 0)]  # in integers only a layer's accumulators can be wide
    floats = points(planned(qdq.model(text), "tensorrt"))
    assert floats["t"] == [("other", 0)] and ("add", 1) in floats["x"]


def test_a_sum_of_activations_without_a_layer() -> None:
    text = """g (float[1,4,6,6] x) => (float[1,4,6,6] y) <float[4,4,1,1] w>
    { [c1] t = Conv(x, w) [relu] u = Relu(t) [add] y = Add(u, x) }"""
    assert read_by(planned(qdq.model(text), "tensorrt"), "add") == {"x"}
    assert read_by(planned(qdq.model(text), "onnxq"), "add") == {"u", "x"}


def test_x_plus_x() -> None:
    text = f"g {CONV} <float[4,4,1,1] w> {{ [c] t = Conv(x, w) [r] u = Relu(t) [add] y = Add(u, u) }}"
    assert points(planned(qdq.model(text), "tensorrt"))["u"] == [("add", 0), ("add", 1)]


@pytest.mark.parametrize("scheme", [1, 2, 3])
def test_sum_of_one_two_and_three(scheme: int) -> None:
    profile = profile_of(f"[graph]\nscheme = {scheme}\n[ops]\nConv = {{}}\nSum = {{}}\n")
    text = """g (float[1,4,6,6] x) => (float[1,4,6,6] p, float[1,4,6,6] q, float[1,4,6,6] r) <float[4,4,1,1] w>
    { [c] t = Conv(x, w) [one] p = Sum(t) [two] q = Sum(t, x) [three] r = Sum(t, x, x) }"""
    placement = planned(qdq.model(text), profile)
    assert placement.actions["three"] == "float" and why(placement)["three"] == ("it has 3 operands, two are supported")
    assert placement.actions["two"] == ("float" if scheme == 1 else "quantized")
    if scheme == 1:
        assert why(placement)["two"] == "graph scheme 1 keeps adds in float"


def test_a_constant_operand() -> None:
    text = "g (float[1,4,6,6] x) => (float[1,4,6,6] y) <float[4,1,1] k> { [add] y = Add(x, k) }"
    assert why(planned(qdq.model(text), "onnxruntime-cpu")) == {"add": "one operand is a constant"}
    placement = planned(qdq.model(text), "qnn")
    assert [(n.name, i) for n, i, _ in placement.constants] == [("add", 1)]
    for values in (np.full((4, 1, 1), np.nan, np.float32), np.full((4, 1, 1), np.inf, np.float32)):
        assert why(planned(qdq.model(text, k=values), "qnn")) == {"add": "its constant operand is empty or not finite"}


# An Add behind a MatMul

FC = """g (float[1,5,4] x) => (float[1,5,4] y)
<float[4,4] w, float[4] b, float[1,1,4] c, float[1] one, float[5,1] column>
{ [mm] m = MatMul(x, w) BODY }"""


@pytest.mark.parametrize(
    ("body", "fused"),
    [
        ("[add] y = Add(m, b)", True),
        ("[add] y = Add(c, m)", True),
        ("[add] n = Add(m, b) [r] y = Relu(n)", True),
        ("[add] y = Add(m, one)", False),  # not one a channel
        ("[add] y = Add(m, column)", False),
        ("[add] y = Sub(m, b)", False),
        ("[add] n = Add(m, b) [s] y = Mul(n, m)", False),  # the product is read elsewhere too
    ],
)
def test_an_added_constant_is_the_bias_of_a_matmul(body: str, fused: bool) -> None:
    model = qdq.model(FC.replace("BODY", body))
    placement = planned(model, "onnxq")
    assert (placement.actions["add"] == "fused") == fused
    (layer,) = placement.layers
    assert (layer.bias is not None) == fused and ("m" in points(placement)) == (not fused)
    if fused:
        assert layer.bias_reader == (node_of(model, "add"), 1 if "Add(m" in body else 0)
        assert "r" not in placement.actions or placement.actions["r"] == "fused"
    # Elsewhere the addition is an operator of its own.
    assert planned(qdq.model(FC.replace("BODY", body)), "qnn").actions["add"] == "quantized"


def test_a_matmul_with_bias_is_a_residual_layer() -> None:
    model = qdq.model(FC.replace("BODY", "[add] n = Add(m, b) [residual] y = Add(x, n)"))
    placement = planned(model, "onnxq")
    assert points(placement) == {"x": [("mm", 0), ("residual", 0)], "y": []}


def test_a_bias_that_the_user_excludes_stays_an_addition_in_float() -> None:
    model = qdq.model(FC.replace("BODY", "[add] y = Add(m, b)"))
    placement = planned(model, "onnxq", exclude=("add",))
    assert placement.actions["add"] == "float" and placement.layers[0].bias is None


# T3


def test_output_always_stands_behind_the_fused_activation() -> None:
    model = qdq.model(f"g {CONV} <float[4,4,1,1] w> {{ [c] t = Conv(x, w) [r] y = Relu(t) }}")
    placement = planned(model)
    assert points(placement) == {"x": [("c", 0)], "y": []}
    assert [p.whole for p in placement.points] == [False, True]
    assert placement.actions["r"] == "fused" and why(placement) == {}


@pytest.mark.parametrize(
    ("tail", "fused"),
    [
        ("[r] y = Relu(t)", True),
        ("[r] y = Clip(t, lo, hi)", True),
        ("[r] y = Clip(t, lo)", True),
        ("[r] y = Clip(t, m)", False),  # bounds computed at run time
        ("[r] y = Tanh(t)", False),
        ("[r] u = Relu(t) [s] y = Add(t, u)", False),  # the layer's output is read elsewhere too
    ],
)
def test_what_is_fused(tail: str, fused: bool) -> None:
    model = qdq.model(
        f"""g {CONV} <float[4,4,1,1] w, float lo = {{0.0}}, float hi = {{6.0}}>
        {{ m = ReduceMin<keepdims=0>(x) [c] t = Conv(x, w) {tail} }}"""
    )
    placement = planned(model)
    assert (placement.actions["r"] == "fused") == fused
    assert ("t" in points(placement)) != fused


def test_no_fusion_where_the_layer_is_a_graph_output() -> None:
    model = qdq.model(
        """g (float[1,4,6,6] x) => (float[1,4,6,6] t, float[1,4,6,6] y) <float[4,4,1,1] w>
        { [c] t = Conv(x, w) [r] y = Relu(t) }"""
    )
    placement = planned(model)
    assert placement.actions["r"] == "float" and "t" in points(placement) and "y" not in points(placement)


# T4


def test_passthrough_tied_or_not() -> None:
    text = f"""g {CONV} <float[4,4,1,1] w, float[4,4,1,1] v>
    {{ [c] t = Conv(x, w) [pool] u = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(t) [d] y = Conv(u, v) }}"""
    tied = planned(qdq.model(text), "onnxruntime-cpu")
    assert tied.actions["pool"] == "passthrough"
    groups = {p.tensor.name: (p.group, p.sources) for p in tied.points}
    assert groups["t"] == groups["u"] == ("u", ("t",)) and groups["x"] == ("", ("x",))
    loose = planned(qdq.model(text), "tensorrt")
    assert points(loose) == {"x": [("c", 0)], "u": [("d", 0)]}
    assert {p.group for p in loose.points} == {""}


def test_passthrough_that_nothing_asks_for() -> None:
    model = qdq.model(f"g {CONV} <float[4,4,1,1] w> {{ [c] t = Conv(x, w) [p] y = MaxPool<kernel_shape=[1,1]>(t) }}")
    placement = planned(model)
    assert placement.actions["p"] == "float" and why(placement) == {"p": "nothing downstream is quantized"}


FIRE = """g (float[1,4,6,6] x) => (float[1,4,6,6] y) <float[4,4,1,1] w1, float[4,4,1,1] w2, float[4,8,1,1] v>
{ [a] p = Conv(x, w1) [b] q = Conv(x, w2) [cat] c = Concat<axis=1>(p, q) [d] y = Conv(c, v) }"""


@pytest.mark.parametrize(
    ("concat", "expected"),
    [("float", {"x", "c"}), ("per-input", {"x", "p", "q", "c"}), ("shared", {"x", "p", "q", "c"})],
)
def test_concat(concat: str, expected: set[str]) -> None:
    profile = profile_of(f'[graph]\nscheme = 3\nconcat = "{concat}"\n[ops]\nConv = {{}}\nConcat = {{}}\n')
    placement = planned(qdq.model(FIRE), profile)
    assert set(points(placement)) == expected
    groups = {p.tensor.name: p.group for p in placement.points}
    if concat == "shared":
        assert groups["p"] == groups["q"] == groups["c"] != ""
        assert {p.sources for p in placement.points if p.group} == {("p", "q")}  # the concat holds their values
    else:
        assert set(groups.values()) == {""}


CAT_CONSTANT = """g (float[1,4,6,6] x) => (float[1,4,6,6] y) <float[4,4,1,1] w1, float[1,4,6,6] k, float[4,8,1,1] v>
{ [a] p = Conv(x, w1) [cat] c = Concat<axis=1>(p, k) [d] y = Conv(c, v) }"""


def test_concat_with_a_constant() -> None:
    graph = '[graph]\nscheme = 3\nconcat = "{}"\n[ops]\nConv = {{}}\nConcat = {{ constants = {} }}\n'
    per_input = planned(qdq.model(CAT_CONSTANT), profile_of(graph.format("per-input", "true")))
    assert [(n.name, i) for n, i, _ in per_input.constants] == [("cat", 1)] and "p" in points(per_input)
    for concat, constants, reason in (
        ("per-input", "false", "one operand is a constant"),
        ("shared", "true", "one operand is a constant, which cannot share the scale of the others"),
    ):
        placement = planned(qdq.model(CAT_CONSTANT), profile_of(graph.format(concat, constants)))
        assert why(placement) == {"cat": reason} and not placement.constants
        assert set(points(placement)) == {"x", "c"}


def test_passthrough_with_several_outputs() -> None:
    profile = profile_of(
        "[graph]\nscheme = 3\ntie_passthrough = true\n"
        '[ops]\nConv = { output = "always" }\nSplit = { action = "passthrough" }\n'
    )
    model = qdq.model(
        f"""g {CONV} <float[4,4,1,1] w, float[2,2,1,1] v, float[2,2,1,1] u>
        {{ [c] t = Conv(x, w) [split] p, q = Split<axis=1>(t)
           [d] r = Conv(p, v) [e] s = Conv(q, u) y = Concat<axis=1>(r, s) }}"""
    )
    placement = planned(model, profile)
    groups = {p.tensor.name: (p.group, p.sources) for p in placement.points}
    assert groups["t"] == groups["p"] == groups["q"] and groups["t"][1] == ("t",)
    assert points(placement)["t"] == [("split", 0)]


def test_untied_passthroughs_in_a_row_are_all_passthroughs() -> None:
    text = f"""g {CONV} <float[4,4,1,1] w, float[4,4,1,1] v, int64[5] s = {{1,2,2,6,6}}, int64[4] r = {{1,4,6,6}}>
    {{ [c] t = Conv(x, w) [a] i = Reshape(t, s) [b] j = Transpose<perm=[0,2,1,3,4]>(i) [d] k = Reshape(j, r)
       [e] y = Conv(k, v) }}"""
    placement = planned(qdq.model(text), "tensorrt")
    assert [placement.actions[n] for n in "abd"] == ["passthrough"] * 3 and why(placement) == {}
    assert points(placement) == {"x": [("c", 0)], "k": [("e", 0)]}


def test_only_some_outputs_of_a_passthrough_are_wanted() -> None:
    profile = profile_of(
        '[graph]\nscheme = 3\ntie_passthrough = true\n[ops]\nConv = {}\nSplit = { action = "passthrough" }\n'
    )
    model = qdq.model(
        """g (float[1,4,6,6] x) => (float[1,2,6,6] y, float[1,2,6,6] q) <float[2,2,1,1] v>
        { [split] p, q = Split<axis=1>(x) [d] y = Conv(p, v) }"""
    )
    assert points(planned(model, profile)) == {"x": [("split", 0)], "p": [("d", 0)]}


# T6 and bits

DEEP = """g (float[1,4,6,6] x) => (float[1,4] y) <float[4,4,1,1] w1, float[4,4,1,1] w2, float[4,4,1,1] w3>
{ [n] x2 = Mul(x, x) [a] p = Conv(x2, w1) [b] q = Conv(p, w2) [c] r = Conv(q, w3)
  [gap] s = GlobalAveragePool(r) [f] y = Flatten(s) }"""


def test_first_and_last_layers() -> None:
    placement = planned(qdq.model(DEEP), "onnxq", weight_bits=4, activation_bits=4)
    assert {layer.node.name: layer.weight_format.bits for layer in placement.layers} == {"a": 8, "b": 4, "c": 8}
    # What is before the first and behind the last layer has their width too: a 4-bit image or logit would ruin it.
    assert bits(placement) == {"x": 8, "x2": 8, "p": 4, "q": 8, "r": 8, "s": 8}
    plain = planned(qdq.model(DEEP), "onnxq", weight_bits=4, activation_bits=4, first_last_bits=None)
    assert {layer.weight_format.bits for layer in plain.layers} == {4} and set(bits(plain).values()) == {4}
    six = planned(qdq.model(DEEP), "onnxq", weight_bits=4, activation_bits=4, first_last_bits=6)
    assert {layer.node.name: layer.weight_format.bits for layer in six.layers} == {"a": 6, "b": 4, "c": 6}


def test_first_and_last_where_the_target_does_not_take_their_width() -> None:
    profile = profile_of("[graph]\nscheme = 3\n[weights]\nbits = [4]\n[activations]\nbits = [4]\n[ops]\nConv = {}\n")
    placement = planned(qdq.model(DEEP), profile)
    assert {layer.weight_format.bits for layer in placement.layers} == {4} and set(bits(placement).values()) == {4}


def test_a_tied_tensor_follows_the_reader_behind_the_passthrough() -> None:
    text = f"""g {CONV} <float[4,4,1,1] w, float[4,4,1,1] v, float[4,4,1,1] u>
    {{ [c] t = Conv(x, w) [pool] m = MaxPool<kernel_shape=[1,1]>(t) [d] n = Conv(m, v) [e] y = Conv(n, u) }}"""
    placement = planned(qdq.model(text), overrides={"d": Override(activation_bits=4)})
    assert bits(placement) == {"x": 8, "t": 4, "m": 4, "n": 8, "y": 8}


def test_bits_that_the_target_does_not_take() -> None:
    model = qdq.model(DEEP)
    with pytest.raises(ConfigError, match="node b: profile tensorrt takes weights of 8 bits, not 4"):
        planned(model, "tensorrt", weight_bits=4)
    with pytest.raises(ConfigError, match="tensor p: profile tensorrt takes activations of 8 bits, not 6"):
        planned(model, "tensorrt", activation_bits=6)


# The user's wishes


def test_exclude_overrides_and_op_types() -> None:
    model = qdq.model(DEEP)
    excluded = planned(model, exclude=("b",))
    assert why(excluded)["b"] == "left in float by the user" and [x.node.name for x in excluded.layers] == ["a", "c"]
    assert "p" in points(excluded)  # Conv a still has Q behind it
    by_regex = planned(model, overrides={"[ab]": Override(keep_float=True)})
    assert [x.node.name for x in by_regex.layers] == ["c"]
    only = planned(model, op_types=("Mul",))
    assert not only.layers and why(only)["a"] == "Conv is not among the requested op_types"


# What cannot be quantized, and why

REASONS = {
    "empty weight": (
        "g (float[1,4,6,6] x) => (float[1,0,6,6] y) <float[0,4,1,1] w> { [n] y = Conv(x, w) }",
        "its weight is empty",
    ),
    "constant data": (
        "g (float[1] x) => (float[1,4,6,6] y) <float[4,4,1,1] w, float[1,4,6,6] k> { [n] y = Conv(k, w) u = Relu(x) }",
        "its data input is a constant",
    ),
    "weight at run time": (
        "g (float[1,4,6,6] x, float[4,4,1,1] w) => (float[1,4,6,6] y) { [n] y = Conv(x, w) }",
        "its weight is computed at run time",
    ),
    "float16": (
        "g (float16[1,2] x) => (float16[1,2] y) <float16[2,2] w = {1,2,3,4}> { [n] y = MatMul(x, w) }",
        "its operands are not float32 (float16, float16)",
    ),
    "other domain": (
        "g (float[1,4] x) => (float[1,4] y) { [n] y = own.Conv(x, x) }",
        "profile onnxruntime-cpu runs Conv in float",
    ),
}


@pytest.mark.parametrize("case", REASONS)
def test_reasons(case: str) -> None:
    text, reason = REASONS[case]
    if case == "other domain":
        proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 13, "own": 1]>\n{text}')
        placement = planned(from_proto(proto))
    else:
        placement = planned(qdq.model(text))
    assert why(placement)["n"] == reason and not placement.layers


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weight_that_is_not_finite(value: float) -> None:
    w = np.ones((4, 4, 1, 1), np.float32)
    w[1, 2] = value
    placement = planned(qdq.model(f"g {CONV} <float[4,4,1,1] w> {{ [n] y = Conv(x, w) }}", w=w))
    assert why(placement) == {"n": "its weight holds NaN or infinity"} and not placement.points


def test_matmul_of_two_activations() -> None:
    text = "g (float[2,3] x, float[3,4] z) => (float[2,4] y) { [n] y = MatMul(x, z) }"
    assert points(planned(qdq.model(text), "onnxruntime-cpu")) == {"x": [("n", 0)], "z": [("n", 1)]}
    reason = "profile fbgemm does not quantize products of two activations"
    assert why(planned(qdq.model(text), "fbgemm")) == {"n": reason}


def test_matmul_with_the_constant_first_is_per_tensor() -> None:
    placement = planned(qdq.model("g (float[3,4] x) => (float[2,4] y) <float[2,3] w> { [n] y = MatMul(w, x) }"))
    (layer,) = placement.layers
    assert (layer.weight_index, layer.per_channel) == (0, False) and points(placement) == {"x": [("n", 1)]}


def test_bodies_of_control_flow_stay_float_with_a_reason() -> None:
    text = """g (float[1,4,6,6] x, bool b) => (float[1,4,6,6] y) <float[4,4,1,1] w, float[4,4,1,1] v>
    { [first] s = Conv(x, v)
      [branch] z = If(b) <
        then_branch = th () => (float[1,4,6,6] p) { [then_conv] t = Conv(x, w) [then_relu] p = Relu(t) },
        else_branch = el () => (float[1,4,6,6] q) { [else_conv] u = Conv(x, w) [else_relu] q = Relu(u) }>
      [sum] y = Add(z, s) }"""
    placement = planned(qdq.model(text))
    assert placement.actions["then_conv"] == placement.actions["else_conv"] == "float"
    assert why(placement)["then_conv"] == "inside the body of If branch, whose tensors cannot be observed"
    assert points(placement)["z"] == [("sum", 0)]  # the If's own output can be observed


def test_an_activation_inside_a_body_is_not_fused_with_a_layer_outside() -> None:
    text = """g (float[1,4,6,6] x, bool b) => (float[1,4,6,6] y) <float[4,4,1,1] w>
    { [conv] t = Conv(x, w) y = If(b) <then_branch = th () => (float[1,4,6,6] o) { [inner] o = Relu(t) },
      else_branch = el () => (float[1,4,6,6] p) { p = Identity(x) }> }"""
    placement = planned(qdq.model(text))
    assert set(points(placement)) == {"x", "t"} and placement.actions["inner"] == "float"


# Types that shape inference cannot tell

CUSTOM = """<ir_version: 8, opset_import: ["": 13, "own": 1]>
g (float[1,4,6,6] x) => (y) <float[4,4,1,1] w = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}, float[4] b = {1,1,1,1}>
{ [op] t = own.Something(x) [relu] u = Relu(t) [conv] v = Conv(u, w, b) [pool] y = MaxPool<kernel_shape=[2,2]>(v) }"""


def test_types_behind_an_unknown_operator_follow_from_the_weights() -> None:
    model = from_proto(onnx.parser.parse_model(CUSTOM))
    assert not is_float(node_of(model, "conv").inputs[0])
    placement = planned(model)
    assert placement.actions["conv"] == "quantized" and set(points(placement)) == {"u", "v"}
    assert all(is_float(t) for n in model.graph.nodes for t in n.outputs)
    assert fill_types(model.graph) == 0


def test_types_are_not_guessed_where_nothing_tells() -> None:
    text = CUSTOM.replace("Conv(u, w, b)", "Identity(u)")
    model = from_proto(onnx.parser.parse_model(text))
    assert fill_types(model.graph) == 0
    mixed = """<ir_version: 8, opset_import: ["": 13, "own": 1]> g (float[4] x) => (y, z, q)
    { t = own.Something(x) y = Cast<to=1>(t) z = Shape(t) s = own.Something(z) q = Gather(s, z) }"""
    model = from_proto(onnx.parser.parse_model(mixed))
    fill_types(model.graph)
    types = {t.name: t.dtype for n in model.graph.nodes for t in n.outputs}
    assert types["t"] is None and types["s"] is None and types["q"] is None and types["y"] == np.float32


# Signs


def test_nonnegative() -> None:
    text = """g (float[1,4,6,6] x) => (float[1,4,6,6] a, float[1,4,6,6] b, float[1,4,6,6] c, float[1,4,6,6] d,
        float[1,4,6,6] e, float[1,8,6,6] f, float[1,4,6,6] h, float[1,4,6,6] i, float[1,4,6,6] j)
    <float zero = {0.0}, float minus = {-1.0}, float[4,1,1] k = {0,1,2,3}>
    { a = Relu(x) b = Clip(x, zero) c = Clip(x, minus) d = Add(a, b) e = Add(a, c) f = Concat<axis=1>(a, d)
      h = MaxPool<kernel_shape=[1,1]>(a) i = Mul(a, k) j = Sub(a, b) }"""
    model = qdq.model(text)
    found = {t.name for n in model.graph.nodes for t in n.outputs if is_nonnegative(t)}
    assert found == {"a", "b", "d", "f", "h", "i"}


def test_signs_of_a_ladder_are_found_in_linear_time() -> None:
    rungs = " ".join(f"a{i + 1} = Add(a{i}, a{i})" for i in range(60))
    model = qdq.model(f"g (float[4] x) => (float[4] a60) {{ a0 = Relu(x) {rungs} }}")
    assert is_nonnegative(model.graph.outputs[0])


def test_formats_follow_the_sign() -> None:
    profile = profile_of('[graph]\nscheme = 3\n[activations]\nsign = "auto"\n[ops]\nConv = { output = "always" }\n')
    placement = planned(qdq.model(f"g {CONV} <float[4,4,1,1] w> {{ t = Conv(x, w) y = Relu(t) }}"), profile)
    assert {p.tensor.name: p.format.signed for p in placement.points} == {"x": True, "y": False}


def test_a_quantized_graph_has_nothing_left_to_do() -> None:
    model = qdq.model(DEEP)
    insert(model, context(model, "onnxq"))
    again = planned(model, "onnxq")
    assert not again.points and not again.layers and not again.constants


INSIDE = """g (float[2,8] x) => (float[2,4] y) <float[8,8] w1, float[8,4] w2, float[8] gain>
    { [norm] n = LayerNormalization(x, gain) [fc] a = MatMul(n, w1) [soft] p = Softmax(a) [fc2] b = MatMul(p, w2)
      [last] y = Softmax(b) }"""


def test_an_operator_inside_is_quantized_and_the_last_one_is_not() -> None:
    placement = planned(qdq.model(INSIDE, 17), "onnxq")
    assert {"x", "n", "a", "p"} <= set(points(placement)) and "y" not in points(placement)
    assert why(placement)["last"] == "no layer downstream; left in float"


def test_constants_that_stay_as_they_are() -> None:
    """A sum takes any float constant, a product one factor for each channel; others are quantized."""
    text = """g (float[1,4,6,6] x) => (float[1,4,6,6] y)
    <float[4,4,1,1] w, float[4,1,1] k, float[4,6,6] l, float[4,6,6] m>
    { [c] a = Conv(x, w) [one] b = Mul(a, k) [many] d = Mul(b, l) [sum] y = Add(d, m) }"""
    placement = planned(qdq.model(text), "onnxq")
    assert [(node.name, index) for node, index, _ in placement.constants] == [("many", 1)]
    assert {n for n, action in placement.actions.items() if action == "quantized"} == {"c", "one", "many", "sum"}


MORE_THAN_MOVING = {
    'Resize<mode="linear">(a, , f)': "it interpolates (linear)",
    "Pad(a, pads, one)": "it pads with something else than zeros",
    "Div(a, a)": "it divides by an activation",
}


@pytest.mark.parametrize("text", MORE_THAN_MOVING)
def test_what_only_looks_like_moving_values_stays_float(text: str) -> None:
    model = f"""g (float[1,4,6,6] x) => (float[1,4,H,W] z) <float[4,4,1,1] w, float[4] f = {{1, 1, 2, 2}},
    int64[8] pads = {{0, 0, 1, 1, 0, 0, 1, 1}}, float one = {{1}}>
    {{ [c] a = Conv(x, w) [op] y = {text} [d] z = Conv(y, w) }}"""
    placement = planned(qdq.model(model), "onnxq")
    assert placement.actions["op"] == "float" and why(placement)["op"] == MORE_THAN_MOVING[text]


def test_a_relu_behind_a_product_runs_inside_it() -> None:
    text = f"g {CONV} <float[4,4,1,1] w> {{ [c] t = Conv(x, w) [m] u = Mul(t, x) [r] y = Relu(u) }}"
    placement = planned(qdq.model(text), "onnxq")
    assert placement.actions["r"] == "fused" and "u" not in points(placement)
    assert next(p for p in placement.points if p.tensor.name == "y").nonnegative


# N8 and N9

SCORES = """g (float[2,4,8] q, float[2,8,4] k, float[2,4,8] v, int64[2,1,4] mask) => (float[2,4,8] y)
<float one = {1}, float deep = {-10000}, float root = {2}>
{ [qk] s0 = MatMul(q, k) [scale] s1 = Div(s0, root) [ones] o = Cast<to=1>(mask) [zeros] z = Sub(one, o)
  [deep] m = Mul(z, deep) [masked] s2 = Add(s1, m) [soft] p = Softmax(s2) [pv] y = MatMul(p, v) }"""


def test_scores_stay_float_where_the_target_computes_softmax_in_float() -> None:
    placement = planned(qdq.model(SCORES), "onnxruntime-cpu")
    assert set(points(placement)) == {"q", "k", "v", "p"}
    reasons = why(placement)
    assert reasons["masked"] == "it only feeds a Softmax, which profile onnxruntime-cpu runs in float"
    assert reasons["deep"] == "it computes a mask or positions from integers"
    assert {placement.actions[n] for n in ("scale", "zeros", "deep", "masked")} == {"float"}


def test_scores_are_quantized_where_softmax_is() -> None:
    placement = planned(qdq.model(SCORES), "onnxq")
    assert {"m", "s2", "p"} <= set(points(placement)) and "z" not in points(placement)
    assert placement.actions["masked"] == placement.actions["soft"] == "quantized"
    assert why(placement)["deep"] == "it computes a mask or positions from integers"


def test_a_guard_against_nan_is_part_of_the_softmax() -> None:
    text = SCORES.replace(
        "[pv] y = MatMul(p, v)", "[nan] n = IsNaN(p) [guard] g = Where(n, one, p) [pv] y = MatMul(g, v)"
    )
    placement = planned(qdq.model(text), "onnxq")
    assert "p" not in points(placement) and points(placement)["g"] == [("pv", 0)]
    assert placement.actions["nan"] == placement.actions["guard"] == "fused"
    assert not {"nan", "guard"} & set(why(placement))


# N1

NORM = """g (float[2,4,8] x) => (float[2,4,8] y) <float[8] gain, float[8] shift, float two = {2}, float eps = {0.00001},
    float[8,8] w, float[8,8] v>
{ [fc] a = MatMul(x, w) [m] m = ReduceMean<axes=[-1]>(a) [d] d = Sub(a, m) [sq] q = Pow(d, two)
  [v] var = ReduceMean<axes=[-1]>(q) [e] e = Add(var, eps) [s] s = Sqrt(e) [n] n = Div(d, s) [g] g = Mul(n, gain)
  [b] b = Add(g, shift) [out] y = MatMul(b, v) }"""
PARTS = ["m", "d", "sq", "v", "e", "s", "n", "g"]


def test_a_normalization_spelled_out_is_one_operator() -> None:
    placement = planned(qdq.model(NORM), "onnxq")
    assert points(placement) == {"x": [("fc", 0)], "a": [("d", 0), ("m", 0)], "b": [("out", 0)]}
    assert [placement.actions[n] for n in PARTS] == ["fused"] * 8 and placement.actions["b"] == "quantized"
    placement = planned(qdq.model(NORM), "onnxruntime-cpu")
    assert set(points(placement)) == {"x", "b"}
    told = "it is part of a LayerNormalization, which profile onnxruntime-cpu runs in float"
    assert {why(placement)[n] for n in [*PARTS, "b"]} == {told}


def test_one_node_of_it_left_float_leaves_all() -> None:
    placement = planned(qdq.model(NORM), "onnxq", exclude=("sq",))
    assert {why(placement)[n] for n in [*PARTS, "b"]} == {"left in float by the user"}
    assert set(points(placement)) == {"x", "b"}


def test_a_function_is_one_operator_where_codes_are_looked_up() -> None:
    text = """g (float[2,8] x) => (float[2,8] y) <float root = {1.414}, float one = {1}, float[8,8] w, float[8,8] v>
    { [fc] a = MatMul(x, w) [d] d = Div(a, root) [erf] e = Erf(d) [p] p = Add(e, one) [t] t = Mul(a, p)
      [out] y = MatMul(t, v) }"""
    placement = planned(qdq.model(text), "onnxq")
    assert points(placement) == {"x": [("fc", 0)], "a": [("d", 0), ("t", 0)], "t": [("out", 0)]}
    assert [placement.actions[n] for n in ("d", "erf", "p", "t")] == ["fused"] * 3 + ["quantized"]
    assert planned(qdq.model(text), "onnxruntime-cpu").actions["t"] == "quantized"  # QLinearMul


def test_what_stands_for_one_operator_is_asked_for_by_its_type() -> None:
    placement = planned(qdq.model(NORM), "onnxq", op_types=("MatMul",))
    told = "it is part of a LayerNormalization, which is not among the requested op_types"
    assert {why(placement)[n] for n in [*PARTS, "b"]} == {told}
    placement = planned(qdq.model(NORM), "onnxq", op_types=("MatMul", "LayerNormalization"))
    assert placement.actions["b"] == "quantized"
    parts = {n.op for n in qdq.model(NORM).graph.nodes}
    assert planned(qdq.model(NORM), "onnxq", op_types=tuple(parts)).actions["b"] == "quantized"
