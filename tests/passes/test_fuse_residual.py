"""Pass fuse-residual: Conv, Add → ConvAdd and Gemm, Add → GemmAdd, with exactly the same integers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxq import operators
from onnxq.graph.model import to_proto
from support.build import Qdq, uniform
from support.prove.lowering import FUSE, LOWER, Lowered, check, lower
from support.runs import run

RNG = np.random.default_rng(13)


def conv(made: Qdq, name: str, reads: str, shape: tuple[int, ...], result: str, attrs: str = "pads=[1,1,1,1]") -> Qdq:
    made.weight(name, RNG.integers(-127, 128, shape), RNG.uniform(0.0103, 0.0197, shape[0]), axis=0)
    return made.node(f"[{name}] {result} = Conv<{attrs}>({reads}, {name}_d)")


def net(text: str, shape: str = "float[1,4,6,5]", wide: bool = False) -> Qdq:
    """x and a convolution c of it; `text` makes y of c, x_d and z_d."""
    made = Qdq(f"{shape} x, {shape} z", f"{shape} r").q("x", 0.0117, 120).q("z", 0.0091)
    conv(made, "w", "x_d", (4, 4, 3, 3), "c")
    if wide:
        conv(made, "v", "z_d", (4, 4, 3, 3), "e")
    return made.node(text).q("y", 0.0913, 100).node("r = Identity(y_d)")


def attributes(node: onnx.NodeProto) -> dict:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def same_integers(made: Qdq) -> Lowered:
    """Fused and not fused, the model gives the same bits."""
    proto = made.proto()
    plain, fused = lower(proto, LOWER), check(made)
    for feed in uniform(proto, 3, low=-2.0, high=2.0):
        want, got = run(plain.proto, feed), run(fused.proto, feed)
        assert all(np.array_equal(want[name], got[name]) for name in want)
    return fused


FUSED = {
    "first input": "y = Add(c, z_d)",
    "second input": "y = Add(z_d, c)",
    "with relu": "s = Add(c, z_d) y = Relu(s)",
    "the layer's own input": "y = Add(c, x_d)",
}


@pytest.mark.parametrize("name", FUSED)
def test_codes_are_added_to_the_accumulator(name: str) -> None:
    lowered = same_integers(net(FUSED[name]))
    assert lowered.ops["onnxq.ConvAdd"] == 1
    assert "onnxq.Conv" not in lowered.ops and "onnxq.Add" not in lowered.ops
    node = lowered.node("onnxq.ConvAdd")
    attrs = attributes(node)
    assert attrs["residual_zero_point"] == (120 if "own" in name else 128)
    assert (attrs["y_zero_point"], attrs["qmin"]) == (100, 100 if "relu" in name else 0)
    told = {p.key: p.value for p in node.metadata_props}
    assert node.name == "w" and told["onnxq.tensor"] == "y_q" and "w" in told["onnxq.source"].split("\n")


def test_of_two_accumulators_the_later_layer_takes_the_other() -> None:
    lowered = same_integers(net("s = Add(c, e) y = Relu(s)", wide=True))
    assert (lowered.ops["onnxq.Conv"], lowered.ops["onnxq.ConvAdd"]) == (1, 1)
    assert lowered.node("onnxq.ConvAdd").name == "v"


def test_one_dimension() -> None:
    made = Qdq("float[1,4,9] x", "float[1,4,9] r").q("x", 0.0117, 120)
    conv(made, "w", "x_d", (4, 4, 3), "c", "pads=[1,1]")
    lowered = same_integers(made.node("y = Add(x_d, c)").q("y", 0.0913).node("r = Identity(y_d)"))
    assert lowered.ops["onnxq.ConvAdd"] == 1


@pytest.mark.parametrize("shape", ["float[3,8]", "float[2,3,8]"])
def test_gemm(shape: str) -> None:
    made = Qdq(f"{shape} x", f"{shape} r").q("x", 0.0117, 120)
    made.weight("w", RNG.integers(-127, 128, (8, 8)), RNG.uniform(0.0103, 0.0197, 8), axis=1)
    made.node("[fc] c = MatMul(x_d, w_d) y = Add(x_d, c)").q("y", 0.0913)
    lowered = same_integers(made.node("r = Identity(y_d)"))
    assert lowered.ops["onnxq.GemmAdd"] == 1 and "onnxq.Add" not in lowered.ops


def test_a_chain_of_wide_sums() -> None:
    """No quantizer on the shortcut: its sum is int32, and the next layer takes it as it is."""
    made = Qdq("float[1,4,6,5] x", "float[1,4,6,5] r").q("x", 0.0117, 120)
    conv(made, "u", "x_d", (4, 4, 3, 3), "a")
    made.node("s = Add(a, x_d) t = Relu(s)").q("t", 0.0913, 0)
    conv(made, "w", "t_d", (4, 4, 3, 3), "b")
    made.node("y = Add(b, t)").q("y", 0.5113, 110)
    lowered = same_integers(made.node("r = Identity(y_d)"))
    assert lowered.ops["onnxq.ConvAdd"] == 2 and lowered.ops["onnxq.Requantize"] == 1


NOT_FUSED = {
    "read elsewhere": ("s = Add(c, z_d) y = Add(s, c)", {}),
    "a difference": ("y = Sub(c, z_d)", {}),
    "a relu in between": ("d = Relu(c) y = Add(d, z_d)", {}),
    "itself": ("y = Add(c, c)", {}),
}


@pytest.mark.parametrize("name", NOT_FUSED)
def test_what_is_not_fused(name: str) -> None:
    lowered = same_integers(net(NOT_FUSED[name][0]))
    assert "onnxq.ConvAdd" not in lowered.ops or name == "read elsewhere"
    assert lowered.ops["onnxq.Conv"] == 1


def reasons(lowered: Lowered) -> list[str]:
    return [f.reason for f in next(r for r in lowered.reports if r.text == "fuse-residual").skipped]


def test_a_residual_that_is_broadcast() -> None:
    made = Qdq("float[1,4,6,5] x, float[1,4,1,1] z", "float[1,4,6,5] r").q("x", 0.0117, 120).q("z", 0.0091)
    conv(made, "w", "x_d", (4, 4, 3, 3), "c")
    lowered = same_integers(made.node("y = Add(c, z_d)").q("y", 0.0913).node("r = Identity(y_d)"))
    assert reasons(lowered) == ["z_q is broadcast"] and lowered.ops["onnxq.Add"] == 1


def test_a_shape_that_may_be_broadcast() -> None:
    made = Qdq("float[1,4,6,5] x, float[N,4,H,W] z", "float[1,4,6,5] r").q("x", 0.0117, 120).q("z", 0.0091)
    conv(made, "w", "x_d", (4, 4, 3, 3), "c")
    lowered = lower(made.node("y = Add(c, z_d)").q("y", 0.0913).node("r = Identity(y_d)").proto(), FUSE)
    assert reasons(lowered) == ["z_q is broadcast"]


def test_an_accumulator_that_is_an_output() -> None:
    made = Qdq("float[1,4,6,5] x", "float[1,4,6,5] r, float[1,4,6,5] c").q("x", 0.0117, 120)
    conv(made, "w", "x_d", (4, 4, 3, 3), "c")
    lowered = same_integers(made.node("y = Add(c, x_d)").q("y", 0.0913).node("r = Identity(y_d)"))
    assert lowered.ops["onnxq.Conv"] == 1 and lowered.ops["onnxq.Add"] == 1


def test_the_model_carries_the_bodies_of_what_it_uses_now() -> None:
    lowered = lower(net("y = Add(c, z_d)").proto(), FUSE)
    proto = to_proto(lowered.model)
    operators.attach_functions(proto)
    assert [f.name for f in proto.functions] == ["ConvAdd"]
