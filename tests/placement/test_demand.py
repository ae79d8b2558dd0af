"""Which tensors get Q/DQ: data inputs of layers, sums by graph scheme, outputs, concats and passthroughs."""

import numpy as np
import pytest

from support.build import qdq
from support.insertion import profile_of
from support.placements import CONV, planned, points, read_by, why

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


# T2

RESIDUAL = """g (float[1,4,6,6] x) => (float[1,4,6,6] y) <float[4,4,1,1] w1, float[4,4,1,1] w2, float[4,4,1,1] wd>
{{ {body} [add] a = Add({inputs}) [relu] y = Relu(a) }}"""
MAIN = "[c1] t = Conv(x, w1) [r1] u = Relu(t) [c2] v = Conv(u, w2)"


@pytest.mark.parametrize("inputs", ["v, x", "x, v"])
@pytest.mark.parametrize(("profile", "quantized"), [("ascend", set()), ("tensorrt", {"x"}), ("fbgemm", {"x", "v"})])
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


# T3


def test_output_always_stands_behind_the_fused_activation() -> None:
    model = qdq.model(f"g {CONV} <float[4,4,1,1] w> {{ [c] t = Conv(x, w) [r] y = Relu(t) }}")
    placement = planned(model)
    assert points(placement) == {"x": [("c", 0)], "y": []}
    assert [p.whole for p in placement.points] == [False, True]
    assert placement.actions["r"] == "fused" and why(placement) == {}


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
