"""fuse-activation-clips: dropped exactly where the integers do not change, for every float around the bounds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.graph import marks
from onnxq.graph.match import constant_values
from onnxq.graph.model import Model
from onnxq.passes.fuse_activation_clips import FuseActivationClips
from onnxq.pipeline import PassReport
from onnxq.profiles.schema import builtin_names, load_profile
from support.build import copy_of, qdq
from support.insertion import context, insert
from support.prove.nodes import node_of, nodes_of, reasons
from support.runs import run

TEXT = """g (float[N] x) => ({kind}[N] q)
<float s, {kind} z, float lo, float hi, float grid_lo, float grid_hi>
{{ {body} }}"""


def fuse(model: Model, profile: str | None = None) -> PassReport:
    ctx = PassContext(model, load_profile(profile) if profile else None)
    return pipeline.run(model, (FuseActivationClips(),), ctx)[0]


def chain(
    activation: str, scale: float, zero_point: int, kind: str = "uint8", grid: tuple[float, float] | None = None,
    lo: float = 0.0, hi: float = 6.0,
) -> Model:  # fmt: skip
    """x → activation → (grid Clip) → QuantizeLinear."""
    middle = "" if grid is None else "[grid] c = Clip(a, grid_lo, grid_hi)"
    last = "[quantize] q = QuantizeLinear({}, s, z)".format("a" if grid is None else "c")
    f32 = np.float32
    model = qdq.model(
        TEXT.format(kind=kind, body=f"[act] a = {activation} {middle} {last}"),
        s=np.array(scale, f32),
        z=np.array(zero_point, kind),
        lo=np.array(lo, f32),
        hi=np.array(hi, f32),
        grid_lo=np.array(grid[0] if grid else 0, f32),
        grid_hi=np.array(grid[1] if grid else 0, f32),
    )
    if grid is not None:
        node_of(model, "grid").metadata = {marks.BITS.key: "4"}
    return model


def every_float_near(*points: float) -> NDArray:
    """All float32 within 2000 ulps of each point, and a wide sweep."""
    found = [np.linspace(-20, 20, 4001, dtype=np.float32), np.array([-np.inf, np.inf, -0.0, 1e-45, -1e-45], np.float32)]
    for point in points:
        bits = np.array([point], np.float32).view(np.int32) + np.arange(-2000, 2001, dtype=np.int32)
        found.append(bits.view(np.float32))
    x = np.concatenate(found)
    return x[~np.isnan(x)]


def near_steps(scale: float, zero_point: int, ends: tuple[int, int]) -> NDArray:
    """All floats around the ties beside the two ends of the codes, and around their real values."""
    middles = [(q + d - zero_point) * scale for q in ends for d in (-0.5, 0.0, 0.5)]
    return every_float_near(*middles, 6.0, 1e-30)


# Scales from ranges around 6: a calibrated maximum slightly below, at and above it.
MAXIMA = [
    5.0,
    5.9,
    5.98,
    5.99,
    5.9999,
    float(np.nextafter(np.float32(6), np.float32(0))),
    6.0,
    6.0001,
    6.005,
    6.011,
    6.02,
    6.5,
]


@pytest.mark.parametrize("maximum", MAXIMA)
@pytest.mark.parametrize(("kind", "zero_point"), [("uint8", 0), ("int8", -128)])
def test_relu6_before_8_bits(maximum: float, kind: str, zero_point: int) -> None:
    scale = float(np.float32(maximum / 255))
    model = chain("Clip(x, lo, hi)", scale, zero_point, kind)
    before = copy_of(model)
    report = fuse(model)
    # Bit-exact means: Q(6) is already the last code. Half a step above the maximum it is not any more.
    exact = np.rint(np.float32(6) / np.float32(scale)) >= 255
    assert report.changed == exact == (len(nodes_of(model, "Clip")) == 0)
    if not exact:
        assert reasons(report) == {"act": "QuantizeLinear does not saturate at its bounds"}
    x = near_steps(scale, zero_point, (zero_point, zero_point + 255))
    np.testing.assert_array_equal(run(before, {"x": x})["q"], run(model, {"x": x})["q"])


@pytest.mark.parametrize("maximum", MAXIMA)
@pytest.mark.parametrize("bits", [2, 3, 4, 7])
def test_relu6_before_a_grid_of_fewer_bits(maximum: float, bits: int) -> None:
    top = 2**bits - 1
    scale = float(np.float32(maximum / top))
    model = chain("Clip(x, lo, hi)", scale, 0, grid=(0.0, scale * top))
    before = copy_of(model)
    report = fuse(model)
    exact = np.rint(np.float32(6) / np.float32(scale)) >= top
    assert report.changed == exact
    assert [n.name for n in nodes_of(model, "Clip")] == (["grid"] if exact else ["act", "grid"])
    x = near_steps(scale, 0, (0, top))
    np.testing.assert_array_equal(run(before, {"x": x})["q"], run(model, {"x": x})["q"])


def test_the_condition_is_sharp() -> None:
    # Where the pass refuses, dropping the activation really would change integers.
    for maximum, activation in ((6.5, "Clip(x, lo, hi)"), (6.02, "Clip(x, lo, hi)")):
        scale = float(np.float32(maximum / 255))
        x = near_steps(scale, 0, (0, 255))
        with_it = run(chain(activation, scale, 0), {"x": x})["q"]
        assert (with_it != run(chain("Identity(x)", scale, 0), {"x": x})["q"]).any()


@pytest.mark.parametrize(
    ("kind", "zero_point", "fused"),
    [("uint8", 0, True), ("uint8", 1, False), ("uint8", 128, False), ("int8", -128, True), ("int8", 0, False)],
)
def test_relu(kind: str, zero_point: int, fused: bool) -> None:
    model = chain("Relu(x)", 0.02, zero_point, kind)
    before = copy_of(model)
    assert fuse(model).changed == fused
    x = near_steps(0.02, zero_point, (zero_point, zero_point + 1))
    np.testing.assert_array_equal(run(before, {"x": x})["q"], run(model, {"x": x})["q"])


def test_clip_from_minus_one() -> None:
    for scale, zero_point, fused in ((2 / 255, 127, False), (2 / 255, 128, False), (1.9 / 255, 128, True)):
        model = chain("Clip(x, lo, hi)", scale, zero_point, lo=-1.0, hi=1.0)
        before = copy_of(model)
        assert fuse(model).changed == fused, (scale, zero_point)
        x = near_steps(scale, zero_point, (0, 255))
        np.testing.assert_array_equal(run(before, {"x": x})["q"], run(model, {"x": x})["q"])


@pytest.mark.parametrize("activation", ["Clip(x)", "Clip(x, , hi)", "Clip(x, lo)"])
def test_clip_with_one_bound_or_none(activation: str) -> None:
    model = chain(activation, 6 / 255, 0)
    before = copy_of(model)
    assert fuse(model).changed == 1
    x = every_float_near(0.0, 6.0)
    np.testing.assert_array_equal(run(before, {"x": x})["q"], run(model, {"x": x})["q"])


# What it leaves alone


def test_reasons() -> None:
    def reason(text: str) -> str:
        report = fuse(qdq.model(text, s=np.array(0.02, np.float32)))
        assert report.changed == 0
        return reasons(report)["act"]

    head = "g (float[4] x) => (uint8[4] q{more}) <float s, uint8 z = {{0}}, float lo = {{0.0}}{constants}> {{ {body} }}"
    elsewhere = "its output is read elsewhere too"
    body = "[act] a = Relu(x) q = QuantizeLinear(a, s, z)"
    assert reason(head.format(more=", float[4] e", constants="", body=f"{body} e = Exp(a)")) == elsewhere
    assert reason(head.format(more=", float[4] a", constants="", body=body)) == elsewhere
    run_time = "m = ReduceMin<keepdims=0>(x) [act] a = Clip(x, m) q = QuantizeLinear(a, s, z)"
    assert reason(head.format(more="", constants="", body=run_time)) == "its bounds are computed at run time or NaN"
    wide = "[act] a = Clip(x, lo) b = Clip(a, below) q = QuantizeLinear(b, s, z)"
    text = head.format(more="", constants=", float below = {-1.0}", body=wide)
    report = fuse(qdq.model(text.replace("z = {0}", "z = {128}"), s=np.array(0.02, np.float32)))
    assert reasons(report)["act"] == "the Clip after it is wider" and report.changed == 0
    # But where the QuantizeLinear takes the Clip, it takes what is before it too.
    report = fuse(qdq.model(text, s=np.array(0.02, np.float32)))
    assert reasons(report) == {} and report.changed == 2


def test_parameters_that_it_does_not_understand() -> None:
    for kind, scale, zero in (("uint8", "float[4] s", "uint8[4] z"), ("int16", "float s", "int16 z")):
        model = qdq.model(
            f"""g (float[2,4] x) => ({kind}[2,4] q) <{scale}, {zero}>
            {{ [act] a = Relu(x) q = QuantizeLinear<axis=1>(a, s, z) }}""",
            opset=21,
            s=np.ones(4 if "[4]" in scale else (), np.float32),
            z=np.zeros(4 if "[4]" in scale else (), kind),
        )
        assert reasons(fuse(model)) == {
            "act": "the QuantizeLinear after it is not per-tensor with constant 8-bit parameters"
        }


def test_relu_and_relu6_together() -> None:
    model = qdq.model(
        """g (float[N] x) => (uint8[N] q) <float s, uint8 z = {0}, float lo = {-1.0}, float hi = {6.0}>
        { [relu] a = Relu(x) [clip] b = Clip(a, lo, hi) [quantize] q = QuantizeLinear(b, s, z) }""",
        s=np.array(6 / 255, np.float32),
    )
    before = copy_of(model)
    assert fuse(model).changed == 2 and [n.op for n in model.graph.nodes] == ["QuantizeLinear"]
    assert node_of(model, "quantize").metadata == {marks.ABSORBED.key: "Clip 0.0 6.0"}  # both in one
    x = every_float_near(0.0, 6.0, -1.0)
    np.testing.assert_array_equal(run(before, {"x": x})["q"], run(model, {"x": x})["q"])


def test_relu_before_clip_without_quantization() -> None:
    model = qdq.model(
        "g (float[N] x) => (float[N] y) <float lo = {0.0}, float hi = {6.0}> { a = Relu(x) [clip] y = Clip(a, lo, hi) }"
    )
    before = copy_of(model)
    assert fuse(model).changed == 1 and [n.op for n in model.graph.nodes] == ["Clip"]
    assert not getattr(node_of(model, "clip"), "metadata", {})
    x = every_float_near(0.0, 6.0)
    np.testing.assert_array_equal(run(before, {"x": x})["y"], run(model, {"x": x})["y"])


NET = """g (float[1,3,8,8] x) => (float[1,4,8,8] y)
<float[4,3,3,3] w1, float[4] b1, float[4,4,1,1] w2, float lo = {0.0}, float hi = {6.0}>
{ c = Conv<pads=[1,1,1,1]>(x, w1, b1) [relu6] r = Clip(c, lo, hi) d = Conv(r, w2) [relu] y = Relu(d) }"""


@pytest.mark.parametrize("profile", builtin_names())
def test_profiles(profile: str) -> None:
    model = qdq.model(NET)
    feeds = qdq.feeds(model)
    ctx = context(model, profile, feeds)
    insert(model, ctx)
    plain = copy_of(model)
    report = fuse(model, profile)
    wanted = load_profile(profile).graph.absorb_activations
    assert report.changed == (2 if wanted else 0)
    assert (len(nodes_of(model, "Clip")) + len(nodes_of(model, "Relu")) == 0) == wanted
    if not wanted:
        assert report.notes == (f"profile {profile} keeps activations as operators",)
    for feed in feeds:
        np.testing.assert_array_equal(run(plain, feed)["y"], run(model, feed)["y"])
    assert fuse(model, profile).changed == 0


@pytest.mark.parametrize("bits", [8, 4])
def test_what_was_absorbed_is_remembered_across_a_file(bits: int) -> None:
    model = qdq.model(NET)
    insert(model, context(model, activation_bits=bits, first_last_bits=None), fuse=True)
    model = copy_of(model)
    told = {n.name: n.metadata.get(marks.ABSORBED.key) for n in nodes_of(model, "QuantizeLinear")}
    assert told == {
        "x_QuantizeLinear": None,
        "r_QuantizeLinear": "Clip 0.0 6.0",
        "y_QuantizeLinear": "Relu",
    }
    assert len(nodes_of(model, "Clip")) == (0 if bits == 8 else 3)


def test_option_names_the_profile() -> None:
    model = chain("Relu(x)", 0.02, 0)
    (report,) = pipeline.run(model, pipeline.parse("fuse-activation-clips{profile=tensorrt}"), PassContext(model))
    assert report.changed == 0
    assert constant_values(node_of(model, "quantize").inputs[1]) == np.float32(0.02)
