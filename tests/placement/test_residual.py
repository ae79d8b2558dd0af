"""Residual streams beside layers below 8 bits are read wide by sums, pools and Concats; only others read codes (T8)."""

import pytest

from onnxq.placement.plan import Placement
from onnxq.profiles.schema import Profile
from support.build import qdq
from support.placements import bits, kept, planned, points

# Two blocks with an identity shortcut, one that changes the channels, and a head.
NETWORK = """g (float[1,4,8,8] x) => (float[1,5] y)
<float[4,4,1,1] w0, float[4,4,3,3] w1, float[4,4,3,3] w2, float[4,4,3,3] w3, float[4,4,3,3] w4,
 float[6,4,3,3] w5, float[6,6,3,3] w6, float[6,4,1,1] wd, float[6,5] wh>
{ [stem] s = Conv(x, w0) [relu0] t0 = Relu(s)
  [a1] p1 = Conv<pads=[1,1,1,1]>(t0, w1) [relu1] q1 = Relu(p1) [b1] r1 = Conv<pads=[1,1,1,1]>(q1, w2)
  [add1] s1 = Add(r1, t0) [relu2] t1 = Relu(s1)
  [a2] p2 = Conv<pads=[1,1,1,1]>(t1, w3) [relu3] q2 = Relu(p2) [b2] r2 = Conv<pads=[1,1,1,1]>(q2, w4)
  [add2] s2 = Add(r2, t1) [relu4] t2 = Relu(s2)
  [a3] p3 = Conv<pads=[1,1,1,1]>(t2, w5) [relu5] q3 = Relu(p3) [b3] r3 = Conv<pads=[1,1,1,1]>(q3, w6)
  [down] d3 = Conv(t2, wd) [add3] s3 = Add(r3, d3) [relu6] t3 = Relu(s3)
  [gap] g = GlobalAveragePool(t3) [flat] f = Flatten(g) [head] y = Gemm(f, wh) }"""
SHORTCUTS = {"add1": "t0", "add2": "t1", "add3": "d3"}


def read_in_codes(placement: Placement, node: str) -> set[str]:
    return {tensor for tensor, readers in points(placement).items() if any(n == node for n, _ in readers)}


@pytest.mark.parametrize("widths", [(4, 4), (4, 8), (8, 4), (7, 8), (2, 3)])
def test_sums_and_pools_read_what_layers_and_sums_make(widths: tuple[int, int]) -> None:
    placement = planned(qdq.model(NETWORK), "onnxq", weight_bits=widths[0], activation_bits=widths[1])
    assert all(not read_in_codes(placement, node) for node in ("add1", "add2", "add3", "gap"))
    assert {node: tuple(indices) for node, indices in placement.wide.items()} == {
        "add1": (0, 1), "add2": (0, 1), "add3": (0, 1), "gap": (0,),
    }  # fmt: skip
    found = points(placement)
    assert found["t0"] == [("a1", 0)] and found["t1"] == [("a2", 0)]
    assert found["t2"] == [("a3", 0), ("down", 0)]
    assert "t3" not in found and "r1" not in found and "d3" not in found
    assert bits(placement)["t1"] == widths[1]
    whole = {p.tensor.name for p in placement.points if p.whole}
    assert whole.isdisjoint(("t0", "t1", "d3", "t3"))


@pytest.mark.parametrize(("how", "stored"), [("int32", set()), ("int16", {"t0", "t1", "d3", "t3"})])
def test_sums_and_shortcuts_are_stored_in_16_bits_but_for_what_enters_a_sum_directly(
    how: str, stored: set[str]
) -> None:
    placement = planned(qdq.model(NETWORK), kept(how), weight_bits=4, activation_bits=4)
    assert {p.tensor.name for p in placement.stored} == stored
    assert all(p.whole and p.format.bits == 16 and p.sources == (p.tensor.name,) for p in placement.stored)
    assert stored <= set(placement.observed())


@pytest.mark.parametrize(
    ("profile", "widths"),
    [("onnxq", (8, 8)), ("onnxq", (None, None)), (kept("int8"), (4, 4)), (kept("float"), (4, 4))],
)
def test_elsewhere_the_shortcut_is_read_in_codes(profile: str | Profile, widths: tuple[int | None, int | None]) -> None:
    placement = planned(qdq.model(NETWORK), profile, weight_bits=widths[0], activation_bits=widths[1])
    assert not placement.wide
    for node, shortcut in SHORTCUTS.items():
        assert read_in_codes(placement, node) == {shortcut}
    assert read_in_codes(placement, "gap") == {"t3"}


def test_each_stream_has_the_width_of_its_own_layers() -> None:
    """The second Conv of the last block reads and makes what the first two blocks' sums do not touch."""
    last = planned(qdq.model(NETWORK), "onnxq", overrides={"b3": {"weight_bits": 4}})
    assert set(last.wide) == {"add3", "gap"}
    first = planned(qdq.model(NETWORK), "onnxq", overrides={"b1": {"weight_bits": 4}})
    assert set(first.wide) == {"add1", "add2"}  # one stream: the second sum reads the first
    reader = planned(qdq.model(NETWORK), "onnxq", overrides={"down": {"activation_bits": 4}})
    assert set(reader.wide) == {"add1", "add2", "add3", "gap"}  # it reads one stream and makes the other
    inside = planned(qdq.model(NETWORK), "onnxq", overrides={"a1": {"weight_bits": 4}})
    assert set(inside.wide) == {"add1", "add2"}


def test_movers_and_max_pooling_move_wide_values() -> None:
    text = """g (float[1,4,9,9] x) => (float[1,8,4,4] y) <float[4,4,1,1] w, float[4,4,1,1] v, float[8,8,1,1] u>
    { [stem] s = Conv(x, w) [relu] t = Relu(s) [pool] m = MaxPool<kernel_shape=[3,3], strides=[2,2]>(t)
      [c] a = Conv(m, v) [add] b = Add(a, m) [cat] k = Concat<axis=1>(b, m) [last] y = Conv(k, u) }"""
    found = planned(qdq.model(text), "onnxq", weight_bits=4, activation_bits=4)
    assert {node: tuple(i) for node, i in found.wide.items()} == {"pool": (0,), "add": (0, 1), "cat": (0, 1)}
    assert points(found)["m"] == [("c", 0)] and points(found)["k"] == [("last", 0)]
    assert found.actions["pool"] == "passthrough" and found.actions["cat"] == "quantized"
    assert "t" not in points(found) and "b" not in points(found)


def test_where_no_sum_reads_a_pool_it_still_moves_codes() -> None:
    text = """g (float[1,4,9,9] x) => (float[1,4,4,4] y) <float[4,4,1,1] w, float[4,4,1,1] v>
    { [stem] s = Conv(x, w) [pool] m = MaxPool<kernel_shape=[3,3], strides=[2,2]>(s) [c] y = Conv(m, v) }"""
    found = planned(qdq.model(text), "onnxq", weight_bits=4, activation_bits=4)
    assert not found.wide and points(found)["s"] == [("pool", 0)]


@pytest.mark.parametrize(
    ("node", "codes"),
    [("[f] u = Sigmoid(t)", {"u"}), ("[f] u = Mul(t, t)", {"u"}), ("[f] u = Softmax<axis=1>(t)", {"u"})],
)
def test_what_only_exists_in_codes_is_read_in_codes(node: str, codes: set[str]) -> None:
    text = f"""g (float[1,4,6,6] x) => (float[1,4,6,6] y)
    <float[4,4,1,1] w, float[4,4,1,1] v, float[4,4,1,1] u0>
    {{ [a] t = Conv(x, w) {node} [b] c = Conv(u, v) [add] s = Add(c, u) [last] y = Conv(s, u0) }}"""
    found = planned(qdq.model(text), "onnxq", weight_bits=4, activation_bits=4)
    assert tuple(found.wide["add"]) == (0,) and read_in_codes(found, "add") == codes


def test_float_readers_and_outputs_do_not_make_codes() -> None:
    text = """g (float[1,4,6,6] x) => (float[1,4,6,6] y, float[1,4,6,6] s, float[1,4,6,6] e)
    <float[4,4,1,1] w, float[4,4,1,1] v>
    { [a] t = Conv(x, w) [b] c = Conv(t, v) [add] s = Add(c, t) [erf] e = Erf(s) [more] y = Add(s, t) }"""
    found = planned(qdq.model(text), "onnxq", weight_bits=4, activation_bits=4, first_last_bits=None)
    assert set(points(found)) == {"x", "t", "y"}


def test_a_constant_is_added_to_wide_values() -> None:
    text = """g (float[1,4,6,6] x) => (float[1,4,6,6] y) <float[4,4,1,1] w, float[4,4,1,1] v, float[4,1,1] k>
    { [a] t = Conv(x, w) [add] s = Add(t, k) [b] y = Conv(s, v) }"""
    found = planned(qdq.model(text), "onnxq", weight_bits=4, first_last_bits=None)
    assert tuple(found.wide["add"]) == (0,) and "t" not in points(found)
