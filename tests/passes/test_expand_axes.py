"""expand-axes: Pad, Resize and CenterCropPad of some axes get an entry for each dimension."""

import numpy as np
import pytest

from onnxq.passes.expand_axes import ExpandAxes
from support.prove.passes import prove

PASS = ExpandAxes()

CASES = {
    "Pad": ('Pad(x, p, "", a)', "int64[4] p = {1, 0, 2, 3}, int64[2] a = {3, 1}", {"Pad": 1}),
    "Pad with a value": ("Pad(x, p, v, a)", "int64[2] p = {1, 2}, float v = {5}, int64[1] a = {-1}", {"Pad": 1}),
    "Pad by the edge": ('Pad<mode="edge">(x, p, "", a)', "int64[2] p = {1, 2}, int64[1] a = {-2}", {"Pad": 1}),
    "Pad crops": ('Pad(x, p, "", a)', "int64[2] p = {-1, 2}, int64[1] a = {2}", {"Pad": 1}),
    "Resize by scales": (
        'Resize<axes=[3, 2], mode="linear">(x, "", s)', "float[2] s = {2, 1.5}", {"Resize": 1},
    ),
    "Resize to sizes": ('Resize<axes=[-2]>(x, "", "", n)', "int64[1] n = {7}", {"Resize": 1}),
    "Resize of a region": (
        'Resize<axes=[2, 3], mode="linear", coordinate_transformation_mode="tf_crop_and_resize">(x, r, "", n)',
        "float[4] r = {0.1, 0.2, 0.8, 0.7}, int64[2] n = {7, 5}", {"Resize": 1},
    ),
    "Resize in proportion": (
        'Resize<axes=[2, 3], keep_aspect_ratio_policy="not_larger">(x, "", "", n)', "int64[2] n = {12, 99}",
        {"Resize": 1},
    ),
    "Resize in proportion, the larger": (
        'Resize<axes=[2, 3], keep_aspect_ratio_policy="not_smaller">(x, "", "", n)', "int64[2] n = {12, 6}",
        {"Resize": 1},
    ),
    "pads": ("CenterCropPad<axes=[2, 3]>(x, n)", "int64[2] n = {9, 11}", {"Pad": 1}),
    "crops": ("CenterCropPad<axes=[3, -2]>(x, n)", "int64[2] n = {5, 3}", {"Slice": 1}),
    "pads and crops": ("CenterCropPad<axes=[1, 3]>(x, n)", "int64[2] n = {6, 5}", {"Pad": 1, "Slice": 1}),
    "all axes": ("CenterCropPad(x, n)", "int64[4] n = {1, 3, 7, 4}", {"Pad": 1, "Slice": 1}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("opset", [18, 19])
def test_in_full(case, opset):
    call, constants, ops = CASES[case]
    proof = prove(f"g (float[2,3,6,8] x) => (float[A,B,C,D] y) <{constants}> {{ [n] y = {call} }}", PASS, opset=opset)
    assert (proof.changed, proof.ops) == (1, ops)
    for node in proof.model.graph.nodes:
        assert "axes" not in node.attrs and (node.op == "Slice" or len(node.inputs) <= 4)


UNKNOWN = {
    "sizes of the others": ('Resize<axes=[2, 3]>(x, "", "", n)', "", "int64[2] n = {7, 5}"),
    "pads": ('Pad(x, n, "", a)', ", int64[2] n", "int64[1] a = {2}"),
    "scales": ('Resize<axes=[2, 3]>(x, "", n)', ", float[2] n", ""),
    "sizes": ('Resize<axes=[2, 3]>(x, "", "", n)', ", int64[2] n", ""),
    "center": ("CenterCropPad<axes=[2, 3]>(x, n)", "", "int64[2] n = {5, 9}"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_known_at_run_time(case):
    call, inputs, constants = UNKNOWN[case]
    declared = f"<{constants}>" if constants else ""
    feed = {"x": np.random.default_rng(0).normal(size=(2, 3, 6, 8)).astype(np.float32)}
    if case in ("pads", "scales", "sizes"):
        feed["n"] = {
            "pads": np.array([1, 2]),
            "scales": np.array([2, 1.5], np.float32),
            "sizes": np.array([7, 5]),
        }[case]
    text = f"g (float[N,3,H,W] x{inputs}) => (float[A,B,C,D] y) {declared} {{ [n] y = {call} }}"
    proof = prove(text, PASS, [feed], opset=18)
    assert proof.changed == 1 and proof.ops["ScatterElements"] == 1


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(
    ("data", "axes", "size", "ops"),
    [
        ("1,3,6,8", "2, 3", "{98, 9}", {"Reshape": 2, "Resize": 1}),  # rounded: no sizes say this scale
        ("2,3,6,8", "3, 2", "{5, 7}", {"Reshape": 2, "Resize": 1}),
        ("2,3,6,8", "3", "{5}", {"Resize": 1}),
        ("2,3,6,8", "2, 3", "{9, 12}", {"Resize": 1}),
        ("N,3,H,W", "2, 3", "{9, 12}", {"Reshape": 2, "Resize": 1}),
        ("N,3,H,8", "3", "{13}", {"Shape": 1, "ScatterElements": 1, "Resize": 1}),
    ],
)
def test_proportions(data, axes, size, ops, mode, policy):
    text = f"""g (float[{data}] x) => (float[A,B,C,D] y) <int64[{axes.count(",") + 1}] n = {size}>
        {{ [n] y = Resize<mode="{mode}", axes=[{axes}], keep_aspect_ratio_policy="{policy}">(x, "", "", n) }}"""
    feed = {"x": np.random.default_rng(0).normal(size=(1 if "98" in size else 2, 3, 6, 8)).astype(np.float32)}
    proof = prove(text, PASS, [feed], opset=18)
    if mode == "cubic" and "Reshape" not in ops and "N" not in data and proof.ops.get("Reshape"):
        ops = {**ops, "Reshape": 2}  # cubic that shrinks
    assert (proof.changed, proof.ops) == (1, ops)


@pytest.mark.parametrize(
    ("data", "axes"), [("N,C,H,W", "2, 3"), ("N,3,H,W", "0, 1"), ("N,3,H", "1, 2"), ("N,3,H,W,D", "3, 4")]
)
def test_a_proportion_that_stays(data, axes):
    feed = {"x": np.random.default_rng(0).normal(size=(2, 3, 6, 8, 4)[: data.count(",") + 1]).astype(np.float32)}
    out = ",".join("PQRST"[: data.count(",") + 1])
    text = f"""g (float[{data}] x) => (float[{out}] y) <int64[2] n = {{4, 7}}>
        {{ [n] y = Resize<axes=[{axes}], keep_aspect_ratio_policy="not_larger">(x, "", "", n) }}"""
    proof = prove(text, PASS, [feed], opset=18)
    assert proof.changed == 0 and "that takes images with a known number of channels" in proof.reasons["n"]


def test_axes_that_are_computed():
    text = """g (float[1,3,6,8] x, int64[1] a) => (float[A,B,C,D] y) <int64[2] p = {1, 1}>
        { [n] y = Pad(x, p, "", a) }"""
    feed = {"x": np.ones((1, 3, 6, 8), np.float32), "a": np.array([2])}
    proof = prove(text, PASS, [feed], opset=18)
    assert (proof.changed, proof.reasons) == (0, {"n": "its axes are computed at run time"})


def test_what_is_in_full_stays():
    text = """g (float[1,3,6,8] x) => (float[A,B,C,D] y) <int64[8] p = {0,0,1,1,0,0,1,1}, float[4] s = {1,1,2,2}>
        { a = Pad(x, p) y = Resize(a, "", s) }"""
    assert prove(text, PASS, opset=18).changed == 0


@pytest.mark.parametrize("size", ["9, 5", "5, 7", "3, 13"])
@pytest.mark.parametrize("how", ["half_pixel", "align_corners", "asymmetric"])
def test_cubic_that_shrinks(size, how):
    text = f"""g (float[2,3,6,8] x) => (float[A,B,C,D] y) <int64[4] n = {{2, 3, {size}}}>
        {{ [n] y = Resize<mode="cubic", coordinate_transformation_mode="{how}">(x, "", "", n) }}"""
    proof = prove(text, PASS, opset=13)
    assert (proof.changed, proof.ops) == (1, {"Reshape": 2, "Resize": 1})


def test_cubic_that_shrinks_free_sizes():
    text = """g (float[N,3,H,W] x) => (float[A,B,C,D] y) <float[2] s = {0.5, 1.5}>
        { [n] y = Resize<mode="cubic", axes=[2, 3]>(x, "", s) }"""
    feed = {"x": np.random.default_rng(0).normal(size=(2, 3, 6, 8)).astype(np.float32)}
    proof = prove(text, PASS, [feed], opset=18)
    assert (proof.changed, proof.ops) == (1, {"Reshape": 2, "Resize": 1})
    assert proof.values("n", 2) == [1, 1, 0.5, 1.5]


@pytest.mark.parametrize("call", ['mode="cubic"', 'mode="linear"'])
def test_what_enlarges_stays(call):
    text = f"""g (float[2,3,6,8] x) => (float[A,B,C,D] y) <float[4] s = {{1, 1, 2, 1.5}}>
        {{ [n] y = Resize<{call}>(x, "", s) }}"""
    assert prove(text, PASS, opset=13).changed == 0
