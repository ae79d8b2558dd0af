"""verify: an integer model against the QDQ model it stands for, layer by layer; one that is wrong is caught."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import onnxq
from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.errors import ConfigError, DataError
from onnxq.execution import library
from onnxq.execution.cuts import cut_tensors
from onnxq.graph.model import Model, load, to_proto
from onnxq.measure.code_steps import StepTally
from onnxq.measure.verification import LayerDifference, Verification
from onnxq.passes.layout_nhwc import LayoutNhwc
from support.build import integers
from support.runs import run

SX, SW, SC, SP, SV, SY = 0.0613, 0.127, 0.2317, 0.241, 0.131, 0.2291


def dyadic(ratio: float) -> int:
    """The multiplier for shift 32."""
    return round(ratio * 2**32)


QDQ = f"""g (float[N,3,6,6] x) => (float[N,5] y) <
    float sx = {{{SX}}}, uint8 zx = {{128}}, int8[8,3,3,3] w, float sw = {{{SW}}}, int32[8] b, float sb = {{{SX * SW}}},
    float sc = {{{SC}}}, uint8 zc = {{0}}, float sp = {{{SP}}}, int8[8,5] v, float sv = {{{SV}}}, int32[5] d,
    float sd = {{{SP * SV}}}, float sy = {{{SY}}}, uint8 zy = {{100}}> {{
    [q] xq = QuantizeLinear(x, sx, zx) xd = DequantizeLinear(xq, sx, zx)
    wd = DequantizeLinear(w, sw) bd = DequantizeLinear(b, sb)
    [conv] c = Conv<pads=[1,1,1,1]>(xd, wd, bd) [cq] cq = QuantizeLinear(c, sc, zc) cd = DequantizeLinear(cq, sc, zc)
    [pool] p = GlobalAveragePool(cd) [pq] pq = QuantizeLinear(p, sp, zc) pd = DequantizeLinear(pq, sp, zc)
    f = Flatten(pd) vd = DequantizeLinear(v, sv) dd = DequantizeLinear(d, sd)
    [fc] g = Gemm(f, vd, dd) [yq] yq = QuantizeLinear(g, sy, zy) y = DequantizeLinear(yq, sy, zy) }}"""

INTEGER = f"""g (float[N,3,6,6] x) => (float[N,5] y) <
    float sx = {{{SX}}}, uint8 zx = {{128}}, int8[8,3,3,3] w, int32[8] b, int32[8] mc, int32[1] shift = {{32}},
    int8[1] zw = {{0}}, int32[1] mp = {{{dyadic(SC / SP / 36)}}}, int8[8,5] v, int32[5] d,
    int32[1] my = {{{dyadic(SP * SV / SY)}}}, float sy = {{{SY}}}, uint8 zy = {{100}}> {{
    [q] xq = QuantizeLinear(x, sx, zx) [in] xl = Transpose<perm=[0,2,3,1]>(xq)
    [conv] cq_nhwc = own.Conv<pads=[1,1,1,1], x_zero_point=128, qmin=0, qmax=255, y_type=2>(xl, w, b, mc, shift, zw)
    [out] cq = Transpose<perm=[0,3,1,2]>(cq_nhwc)
    [pool] pq = own.ReduceMean<axes=[2,3], qmin=0, qmax=255, y_type=2>(cq, mp, shift) f = Flatten(pq)
    [fc] yq = own.Gemm<qmin=0, qmax=255, y_type=2, y_zero_point=100>(f, v, d, my, shift, zw)
    y = DequantizeLinear(yq, sy, zy) }}"""


def constants() -> dict[str, NDArray[np.int64]]:
    rng = np.random.default_rng(3)
    return {
        "w": rng.integers(-60, 60, (8, 3, 3, 3)),
        "b": rng.integers(-3000, 3000, 8),
        "v": rng.integers(-100, 100, (8, 5)),
        "d": rng.integers(-100, 100, 5),
    }


def weights() -> dict[str, NDArray[np.int64]]:
    """Of INTEGER: the convolution's are channels-last."""
    known = constants()
    return known | {"w": known["w"].transpose(0, 2, 3, 1), "mc": np.asarray(dyadic(SX * SW / SC))}


@pytest.fixture(scope="module")
def qdq() -> Model:
    return integers.model(QDQ, **constants())


def integer(change: Callable[[onnx.ModelProto], None] | None = None, layout: bool = True) -> Model:
    """The integer model with its weights channels-last; change: what is to be wrong in it."""
    made = integers.model(INTEGER, **weights())
    if layout:
        pipeline.run(made, [LayoutNhwc()], PassContext(made))
    if change is None:
        return made
    written = to_proto(made)
    change(written)
    return load(written)


def data(count: int = 40) -> dict[str, NDArray[np.float32]]:
    return {"x": np.random.default_rng(4).normal(0, 3, (count, 3, 6, 6)).astype(np.float32)}


def verified(qdq: Model, found: Model, **how) -> Verification:
    return onnxq.verify(qdq, found, data(), threads=1, **how)


def by_tensor(found: Verification) -> dict[str, LayerDifference]:
    return {layer.tensor: layer for layer in found.layers}


def constant(name: str, change: Callable[[NDArray], NDArray]) -> Callable[[onnx.ModelProto], None]:
    def apply(proto: onnx.ModelProto) -> None:
        tensor = next(t for t in proto.graph.initializer if t.name == name)
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(change(values).astype(values.dtype), name))

    return apply


def attribute(node: str, name: str, value: int) -> Callable[[onnx.ModelProto], None]:
    def apply(proto: onnx.ModelProto) -> None:
        found = next(n for n in proto.graph.node if n.name == node)
        next(a for a in found.attribute if a.name == name).i = value

    return apply


def first_channel(values: NDArray) -> NDArray:
    """1 % more in one channel of eight: one step here and there."""
    return np.where(np.arange(values.size) == 0, values * 1.01, values)


@pytest.mark.parametrize("bodies", [True, False])
@pytest.mark.parametrize("layout", [True, False])
def test_the_right_one_is_right(qdq, layout, bodies):
    found = verified(qdq, integer(layout=layout), bodies=bodies, batch_size=16)
    assert found.ok
    assert found.samples == 40
    assert found.missing == ()
    assert {layer.tensor for layer in found.layers} == {"xq", "cq", "pq", "yq"}
    layers = by_tensor(found)
    assert (layers["cq"].max_lsb, layers["cq"].elements) == (0, 40 * 8 * 36)
    assert (layers["cq"].layer, layers["cq"].op) == (("conv", "Conv") if layout else ("out", "Transpose"))
    assert layers["yq"].max_lsb <= 1
    assert found.outputs["y"].agreement is not None
    assert found.kernels == (library.kernel_isa() if not bodies and library.has_library() else None)


WRONG = [
    ("cq", constant("mc", lambda v: v // 2)),
    ("cq", constant("mc", first_channel)),
    ("cq", attribute("conv", "y_zero_point", 3)),
    ("cq", attribute("conv", "x_zero_point", 127)),
    ("cq", attribute("conv", "qmax", 100)),
    ("cq", constant("b", lambda v: v + np.arange(8) * 40)),
    ("pq", constant("mp", lambda v: v + 2**22)),
    ("pq", attribute("pool", "x_zero_point", 2)),
    ("yq", constant("my", lambda v: v * 1.05)),
    ("yq", attribute("fc", "y_zero_point", 101)),
    ("yq", constant("v", lambda v: v[::-1])),
    ("xq", constant("zx", lambda v: v + 1)),
]


@pytest.mark.parametrize(("tensor", "change"), WRONG)
def test_a_wrong_one_is_caught_at_its_layer_alone(qdq, tensor, change):
    found = verified(qdq, integer(change), bodies=True)
    assert not found.ok
    assert [layer.tensor for layer in found.beyond] == [tensor]
    assert found.layers[0].tensor == tensor
    assert found.layers[0].drift_lsb > 0


def test_what_is_behind_drifts_without_being_blamed(qdq):
    layers = by_tensor(verified(qdq, integer(constant("mc", lambda v: v // 2)), bodies=True))
    assert layers["cq"].max_lsb > 1
    assert layers["pq"].max_lsb <= 1
    assert layers["pq"].drift_lsb > 5
    assert layers["pq"].drift_share > 0.5


def test_rows_of_a_permuted_product():
    """Flatten of a channels-last tensor: the codes are where the weights expect them, and verify knows it."""
    text = """g (float[N,2,3,4] x) => (float[N,5] y) <float s = {0.25}, uint8 z = {9}, int8[24,5] v, int32[5] d,
        float sd = {0.0625}, float sv = {0.25}, float sy = {4.1}, uint8 zy = {100}> {
        [q] xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z) [p] p = MaxPool<kernel_shape=[1,1]>(xd)
        [pq] pq = QuantizeLinear(p, s, z) pd = DequantizeLinear(pq, s, z) [flat] f = Flatten(pd)
        [fq] fq = QuantizeLinear(f, s, z) fd = DequantizeLinear(fq, s, z) vd = DequantizeLinear(v, sv)
        dd = DequantizeLinear(d, sd) [fc] g = Gemm(fd, vd, dd) [yq] yq = QuantizeLinear(g, sy, zy)
        y = DequantizeLinear(yq, sy, zy) }"""
    lowered = """g (float[N,2,3,4] x) => (float[N,5] y) <float s = {0.25}, uint8 z = {9}, int8[24,5] v, int32[5] d,
        int32[1] mul, int32[1] same = {2}, int32[1] one = {1}, int32[1] sh = {32}, int8[1] zw = {0},
        float sy = {4.1}, uint8 zy = {100}> {
        [q] xq = QuantizeLinear(x, s, z) a = Transpose<perm=[0,2,3,1]>(xq) pq_nhwc = own.MaxPool<kernel_shape=[1,1]>(a)
        pq = Transpose<perm=[0,3,1,2]>(pq_nhwc) [flat] f = Flatten(pq)
        [same] fq = own.Requantize<x_zero_point=9, y_zero_point=9, qmin=0, qmax=255, y_type=2>(f, same, one)
        [fc] yq = own.Gemm<x_zero_point=9, qmin=0, qmax=255, y_type=2, y_zero_point=100>(fq, v, d, mul, sh, zw)
        y = DequantizeLinear(yq, sy, zy) }"""
    known = {"v": np.random.default_rng(0).integers(-20, 20, (24, 5)), "d": np.arange(5) * 10}
    reference, found = integers.model(text, **known), integers.model(lowered, mul=dyadic(0.0625 / 4.1), **known)
    pipeline.run(found, [LayoutNhwc()], PassContext(found))
    assert [n.op for n in found.graph.nodes].count("ChannelsLast") == 1
    feed = {"x": np.random.default_rng(4).normal(0, 9, (30, 2, 3, 4)).astype(np.float32)}
    result = onnxq.verify(reference, found, feed, bodies=True)
    assert result.ok, result.beyond
    assert {layer.tensor for layer in result.layers} == {"xq", "pq", "fq", "yq"}
    assert by_tensor(result)["fq"].max_lsb == 0


def test_a_float_output_is_a_layer_too():
    """A last layer whose result is not quantized: in steps of 1/127 of its largest magnitude."""
    text = """g (float[N,4] x) => (float[N,3] y) <float s = {0.25}, uint8 z = {9}, int8[4,3] w, float sw = {0.5}> {
        xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z) wd = DequantizeLinear(w, sw)
        [fc] y = MatMul(xd, wd) }"""
    lowered = """g (float[N,4] x) => (float[N,3] y) <float s = {0.25}, uint8 z = {9}, int8[4,3] w,
        int32[3] d = {0, 0, 0}, int32[1] same = {2}, int32[1] one = {1}, int8[1] zw = {0}, float sy = {0.125}> {
        xq = QuantizeLinear(x, s, z)
        [fc] i = own.Gemm<x_zero_point=9, qmin=-2147483648, qmax=2147483647, y_type=6>(xq, w, d, same, one, zw)
        [dq] y = DequantizeLinear(i, sy) }"""
    weight = {"w": np.arange(12).reshape(4, 3)}
    reference = integers.model(text, **weight)
    feed = {"x": np.random.default_rng(0).normal(0, 4, (50, 4)).astype(np.float32)}
    found = onnxq.verify(reference, integers.model(lowered, **weight), feed, bodies=True)
    assert found.ok
    assert [(layer.layer, layer.quantized) for layer in found.layers if layer.tensor == "y"] == [("dq", False)]
    wrong = onnxq.verify(reference, integers.model(lowered.replace("0.125", "0.13"), **weight), feed, bodies=True)
    assert [layer.tensor for layer in wrong.beyond] == ["y"]


def test_figures_for_machines(qdq):
    found = verified(qdq, integer(constant("mc", lambda v: v // 2)), bodies=True)
    told = json.loads(json.dumps(found.to_dict()))
    assert told["ok"] is False
    assert told["layers"][0]["tensor"] == "cq"
    assert told["layers"][0]["within"] is False
    assert told["outputs"]["y"]["agreement"] == found.outputs["y"].agreement
    lines = found.to_csv().splitlines()
    assert lines[0].startswith("layer,op,tensor,quantized,max_lsb,differ,elements,drift_lsb,drift_share")
    assert len(lines) == 1 + len(found.layers)


def test_one_element_of_a_few_may_differ(qdq):
    layer = by_tensor(verified(qdq, integer(), bodies=True))["yq"]
    assert layer.elements == 200
    one, two = (LayerDifference(*("",) * 3, True, 1, n, 200, 0, 0) for n in (1, 2))
    assert one.within
    assert not two.within
    assert not LayerDifference(*("",) * 3, True, 2, 1, 10**6, 0, 0).within


def test_progress_is_told(qdq):
    told: list[tuple[int, int | None]] = []
    verified(qdq, integer(), bodies=True, batch_size=16, progress=lambda done, total: told.append((done, total)))
    assert told == [(16, 40), (32, 40), (40, 40)]


def test_models_that_do_not_belong_together(qdq):
    other = integers.model(INTEGER.replace("cq", "c").replace("pq", "p").replace("yq", "r").replace("xq", "z"), mc=1)
    with pytest.raises(ConfigError, match=r"no quantized tensor of .* was it lowered from this file"):
        verified(qdq, other)
    with pytest.raises(ConfigError, match="do not have the same inputs"):
        verified(qdq, integers.model(INTEGER.replace("float[N,3,6,6] x", "float[N,3,7,7] x"), mc=1))
    signed = INTEGER.replace("uint8 zy = {100}", "int8 zy = {100}").replace(
        "qmax=255, y_type=2, y_zero_point=100", "qmax=127, y_type=3, y_zero_point=100"
    )
    with pytest.raises(ConfigError, match=r"tensor yq is uint8 in .* and int8 in"):
        verified(qdq, integers.model(signed, mc=1))
    found = integer()
    del next(n for n in found.graph.nodes if n.name == "conv").metadata["onnxq.layout"]
    with pytest.raises(ConfigError, match=r"tensor cq is \[1, 8, 6, 6\] in g and \[1, 6, 6, 8\] in g"):
        verified(qdq, found)


def test_an_integer_model_is_no_reference():
    with pytest.raises(ConfigError, match="g is already an integer model; give the QDQ model first"):
        verified(integer(), integer())


def test_no_samples(qdq):
    with pytest.raises(DataError, match="no samples"):
        onnxq.verify(qdq, integer(), [])


def test_tensors_that_the_integer_model_lacks_are_named(qdq):
    without = INTEGER.replace("pq", "other")
    found = verified(qdq, integers.model(without, **weights()), bodies=True)
    assert found.missing == ("pq",)
    assert "pq" not in by_tensor(found)


def test_what_is_no_number_differs():
    """In a float tensor too, where the comparison with half a step would be false."""
    for scale in (None, 1.0):
        tally = StepTally(scale)
        tally.add(np.asarray([1.0, 2.0, 3.0]), np.asarray([1.0, np.nan, np.inf]))
        assert tally.differ == 2
        assert tally.max_lsb == np.inf


def test_a_tensor_that_a_subgraph_reads_is_fed_there_too():
    text = """g (float[N,4] x, bool flag) => (float[N,4] y) <float s = {0.25}, uint8 z = {9}, uint8[256] t> {
        xq = QuantizeLinear(x, s, z) [same] lq = own.LookupTable(xq, t)
        c = If (flag) <then_branch = one () => (uint8[N,4] p) { p = Max(lq, lq) },
            else_branch = two () => (uint8[N,4] q) { q = Identity(lq) }> y = DequantizeLinear(c, s, z) }"""
    proto, fed = cut_tensors(integers.model(text, t=np.arange(256)), ["lq"])
    codes = np.asarray([[1, 2, 3, 4]], np.uint8)
    for flag in (True, False):
        feed = {"x": np.zeros((1, 4), np.float32), "flag": np.asarray(flag), fed["lq"]: codes}
        found = run(proto, feed)
        np.testing.assert_array_equal(found["y"], (codes.astype(np.float32) - 9) * 0.25)
        np.testing.assert_array_equal(found["lq"], np.full((1, 4), 9))
