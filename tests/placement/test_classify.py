"""Which nodes run in integers: the user's wishes, ends of the graph, attention, and what is one operator."""

from onnxq.placement.settings import Override
from support.build import qdq
from support.insertion import context, insert
from support.placements import DEEP, planned, points, why

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


# Already quantized, and the ends of the graph


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
