"""insert-qdq with fewer bits: weights and activations of every width, first and last layers, overrides."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from ml_dtypes import int4

from onnxq.errors import PreconditionError
from onnxq.graph import marks
from onnxq.graph.match import constant_values
from onnxq.graph.model import to_proto
from onnxq.numeric.quantize import fake_quantize
from onnxq.passes.insert_qdq import needed_opset
from onnxq.placement.planner import plan
from onnxq.placement.settings import Override, QuantSettings
from support.build import copy_of, qdq
from support.insertion import context, insert, profile_of
from support.placements import kept
from support.prove.nodes import dequantize_of, node_of, nodes_of, reads, reasons
from support.prove.values import sqnr
from support.runs import run
from support.small_net import NET, check


@pytest.mark.parametrize("bits", range(2, 9))
def test_weights_of_every_width(bits: int) -> None:
    model = qdq.model(NET, opset=21)
    feed = qdq.feeds(model)[0]
    expected = run(model, feed)["y"]
    insert(model, context(model, feeds=[feed], weight_bits=bits, first_last_bits=None))
    check(model)
    for name in ("conv", "depthwise", "project", "fc"):
        node = dequantize_of(model, name, 1)
        codes = constant_values(node.inputs[0])
        assert codes.dtype == (int4 if bits <= 4 else np.int8)
        assert constant_values(node.inputs[2]).dtype == codes.dtype
        limit = 2 ** (bits - 1) - 1
        assert int(codes.astype(int).min()) >= -limit and int(codes.astype(int).max()) <= limit
        assert int(np.abs(codes.astype(int)).max()) == limit
        assert getattr(node, "metadata", {}).get(marks.BITS.key) == (None if bits in (4, 8) else str(bits))
    reread = copy_of(model)
    for optimize in (False, True):
        found = run(reread, feed, optimize)["y"]
        assert sqnr(expected, found) > 4 * bits - 8
    if bits <= 4:
        packed = next(t for t in to_proto(reread).graph.initializer if t.name == "w3_quantized")
        assert packed.data_type == onnx.TensorProto.INT4 and len(packed.raw_data) == 8 * 8 // 2


def test_4_bits_need_opset_21() -> None:
    model = qdq.model(NET, opset=13)
    ctx = context(model, weight_bits=4)
    with pytest.raises(PreconditionError, match=r"opset 13, needed is 21: run convert-opset\{version=21\}"):
        insert(model, ctx)
    codes, words = kept("int8"), kept("int16")  # sums of 16 bits need it too
    for target, bits, opset in ((codes, 4, 21), (codes, 5, 13), (codes, 8, 13), (words, 5, 21), (words, 8, 13)):
        assert needed_opset(target, plan(model.graph, target, QuantSettings(weight_bits=bits))) == opset


@pytest.mark.parametrize("profile", ["onnxruntime-cpu", "onnxq"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_activations_of_every_width(bits: int, profile: str) -> None:
    model = qdq.model(NET, opset=21)
    feeds = qdq.feeds(model)
    expected = np.stack([run(model, f)["y"] for f in feeds])
    insert(model, context(model, profile, feeds, activation_bits=bits, first_last_bits=None), fuse=True)
    check(model)
    stored = [n for n in nodes_of(model, "QuantizeLinear") if constant_values(n.inputs[2]).dtype == np.int16]
    assert bool(stored) == (profile == "onnxq" and bits < 8)
    narrow = [n for n in nodes_of(model, "QuantizeLinear") if n not in stored]
    assert narrow
    for node in narrow:
        assert constant_values(node.inputs[2]).dtype == np.uint8  # never a 4-bit type
        clip = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
        if bits == 8:
            assert clip is None or clip.op != "Clip"
            continue
        assert clip.op == "Clip" and clip.metadata == {marks.BITS.key: str(bits)}
    observed = to_proto(model)
    codes = [n.outputs[0].name for n in narrow]
    observed.graph.output.extend(onnx.ValueInfoProto(name=n) for n in codes)
    for feed in feeds:
        off, on = run(observed, feed), run(observed, feed, optimize=True)
        for name in codes:
            assert int(off[name].max()) <= 2**bits - 1
            # The same at both levels, up to rounding: one code, where a float sum is that close to a tie.
            assert int(np.abs(off[name].astype(int) - on[name].astype(int)).max()) <= 1
    found = np.stack([run(model, f)["y"] for f in feeds])
    assert sqnr(expected, found) > 4 * bits - 8


@pytest.mark.parametrize("bits", [2, 3, 4, 7])
def test_narrow_activation_is_exactly_the_grid(bits: int) -> None:
    model = qdq.model("g (float[1,2,64,64] x) => (float[1,2,64,64] y) <float[2,2,1,1] w> { [n] y = Conv(x, w) }")
    feed = qdq.feeds(model, low=-3, high=5)[0]
    ctx = context(model, "onnxq", [feed], activation_bits=bits, first_last_bits=None)
    insert(model, ctx)
    x_dequantized = node_of(model, "n").inputs[0].name
    proto = to_proto(model)
    proto.graph.output.append(onnx.ValueInfoProto(name=x_dequantized))
    wild = {"x": feed["x"] * 2}  # outside the range too
    assert ctx.placement is not None
    expected = fake_quantize(wild["x"], ctx.placement.activation_qparams["x"])
    assert len(np.unique(expected)) == 2**bits
    for optimize in (False, True):
        np.testing.assert_array_equal(run(proto, wild, optimize)[x_dequantized], expected)


def test_signed_narrow_activation() -> None:
    profile = profile_of("[graph]\nscheme = 2\n[activations]\nbits = [8, 4]\n[ops]\nConv = {}\n")
    model = qdq.model("g (float[1,2,16,16] x) => (float[1,2,16,16] y) <float[2,2,1,1] w> { [n] y = Conv(x, w) }")
    feed = qdq.feeds(model)[0]
    insert(model, context(model, profile, [feed], activation_bits=4, first_last_bits=None))
    (node,) = nodes_of(model, "QuantizeLinear")
    proto = to_proto(model)
    proto.graph.output.append(onnx.ValueInfoProto(name=node.outputs[0].name))
    codes = run(proto, feed, optimize=True)[node.outputs[0].name]
    assert codes.dtype == np.int8 and (codes.min(), codes.max()) in ((-8, 7), (-7, 7))


def test_first_and_last_layers_have_8_bits() -> None:
    model = qdq.model(NET, opset=21)
    insert(model, context(model, weight_bits=4, activation_bits=4))
    stored = {n: constant_values(dequantize_of(model, n, 1).inputs[0]).dtype for n in ("conv", "project", "fc")}
    assert stored == {"conv": np.int8, "project": int4, "fc": np.int8}


def test_overrides_by_name_and_regex() -> None:
    model = qdq.model(NET, opset=21)
    overrides = {
        "(conv|fc)": Override(weight_bits=4),
        "fc": Override(weight_bits=6),
        "depthwise": Override(keep_float=True),
    }
    ctx = context(model, overrides=overrides)
    report = insert(model, ctx)
    assert ctx.placement is not None
    assert {n: q.format.bits for n, q in ctx.placement.weight_qparams.items()} == {"conv": 4, "project": 8, "fc": 6}
    assert reads(model, "depthwise")[1] == "const"
    assert reasons(report)["depthwise"] == "left in float by the user"
