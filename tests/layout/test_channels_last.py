"""ChannelsLast in place of a Transpose: where it is put, and that layouts still know it as one."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.execution import library, runtime
from onnxq.graph.model import load, to_proto
from onnxq.layout.copies import perm_of
from onnxq.operators import check_node
from onnxq.passes.layout_nhwc import LayoutNhwc
from support.build import integers
from support.prove.passes import prove_exact
from support.runs import run

PASS = LayoutNhwc()
TO_LAST, TO_FIRST = "perm=[0,2,3,1]", "perm=[0,3,1,2]"
POOL = "own.MaxPool<kernel_shape=[2,2]>"
MATMUL = "own.MatMul<qmin=0, qmax=255, y_type=2>"


@pytest.mark.parametrize(
    ("source", "perm"),
    [
        ("uint8[2,3,5,4]", "[0,2,3,1]"),
        ("int8[2,3,5,4]", "[0,2,3,1]"),
        ("uint8[N,3,H,W]", "[0,2,3,1]"),
        ("uint8[2,3,5]", "[0,2,1]"),
        ("uint8[2,3,5,4,2]", "[0,2,3,4,1]"),
    ],
)
def test_bytes_to_channels_last_before_an_operator_of_ours(source: str, perm: str) -> None:
    """Matrix products hold the order of their operands."""
    dims = source.count(",") + 1
    text = f"""g ({source} x) => (uint8[{",".join("abcde"[:dims])}] y)
        <uint8[3,4] m, int32[1] mul, int32[1] sh = {{36}}> {{
        [move] t = Transpose<perm={perm}>(x) [product] y = {MATMUL}(t, m, mul, sh) }}"""
    proof = prove_exact(text, PASS)
    assert proof.ops == {"ChannelsLast": 1, "MatMul": 1}
    assert check_node(proof.node("move")) == []
    assert proof.changed == 1


@pytest.mark.parametrize(
    ("source", "result", "nodes"),
    [
        ("uint8[2,3,5,4]", "uint8[a,b,c,d]", f"[move] t = Transpose<{TO_LAST}>(x) [last] y = Identity(t)"),
        ("uint8[2,3,5,4]", "uint8[a,b,c,d]", f"[move] t = Transpose<{TO_FIRST}>(x) [last] y = {POOL}(t)"),
        ("uint8[2,3,5,4]", "uint8[a,b,c,d]", f"[move] t = Transpose<perm=[0,3,2,1]>(x) [last] y = {POOL}(t)"),
        ("int32[2,3,5,4]", "uint8[a,b,c,d]", f"[move] t = Transpose<{TO_LAST}>(x) [last] y = own.Wide(t, mul, sh)"),
        ("uint8[2,1,H,W]", "uint8[a,b,c,d]", f"[move] t = Transpose<{TO_LAST}>(x) [last] y = {POOL}(t)"),
        ("uint8[3,5]", "uint8[a,b]", f"[move] t = Transpose<perm=[1,0]>(x) [last] y = {MATMUL}(t, m, mul, sh)"),
    ],
    ids=["no operator of ours", "another way", "other dimensions", "int32", "of one channel", "a matrix"],
)
def test_other_transposes_stay(source: str, result: str, nodes: str) -> None:
    average = "own.AveragePool<kernel_shape=[2,2], qmin=0, qmax=255, y_type=2>"
    text = f"""g ({source} x) => ({result} y) <uint8[3,4] m, int32[1] mul, int32[1] sh = {{36}}> {{
        {nodes.replace("own.Wide", average)} }}"""
    proof = prove_exact(text, PASS)
    assert proof.node("move").op == "Transpose" and proof.node("move").domain in (None, "")
    assert proof.changed == 0


def test_a_copy_that_is_a_graph_output_too() -> None:
    text = f"""g (uint8[2,3,5,4] x) => (uint8[2,5,4,3] t, uint8[2,4,3,3] y) {{
        [move] t = Transpose<{TO_LAST}>(x) [pool] y = {POOL}(t) }}"""
    assert prove_exact(text, PASS).ops == {"ChannelsLast": 1, "MaxPool": 1}


def test_it_cancels_as_a_transpose_does() -> None:
    """What a second run finds behind a new operator: the same as if all of them were Transposes."""
    text = f"""g (uint8[2,3,5,4] x) => (uint8[2,3,5,4] y) <uint8[256] t> {{
        [t1] a = own.ChannelsLast(x) [pool] b = own.MaxPool<kernel_shape=[1,1]>(a) [t2] c = Transpose<{TO_FIRST}>(b)
        [table] d = own.LookupTable(c, t) [t3] e = own.ChannelsLast(d) [more] f = own.MaxPool<kernel_shape=[1,1]>(e)
        [t4] y = Transpose<{TO_FIRST}>(f) }}"""
    proof = prove_exact(text, PASS)
    assert proof.ops == {"ChannelsLast": 1, "MaxPool": 2, "LookupTable": 1, "Transpose": 1}
    assert proof.node("table").metadata["onnxq.layout"] == "0,2,3,1"
    assert proof.reasons == {}


def test_it_becomes_a_transpose_where_it_moves_otherwise() -> None:
    text = f"""g (uint8[2,3,5,4] x) => (uint8[a,b,c,d] y) {{
        [t1] a = own.ChannelsLast(x) [t2] b = own.ChannelsLast(a) [pool] y = {POOL}(b) }}"""
    proof = prove_exact(text, PASS)
    assert proof.ops == {"Transpose": 1, "MaxPool": 1}
    assert proof.transposes == [[0, 3, 1, 2]]
    assert to_proto(proof.model).graph.node[0].domain == ""


def test_it_becomes_a_reshape_where_it_moves_nothing() -> None:
    text = "g (uint8[2,1,5,4] x) => (uint8[2,4,3,1] y) { [t] a = own.ChannelsLast(x) [pool] y = " + POOL + "(a) }"
    proof = prove_exact(text, PASS)
    assert proof.ops == {"Reshape": 1, "MaxPool": 1}
    assert to_proto(proof.model).graph.node[0].domain == ""


def test_it_stays_where_no_reshape_can_name_its_sizes() -> None:
    text = (
        "g (uint8[N,1,H,W] x) => (uint8[a,b,c,d] y) { [t] a = Transpose<perm=[0,2,3,1]>(x) [pool] y = " + POOL + "(a) }"
    )
    assert prove_exact(text, PASS).ops == {"Transpose": 1, "MaxPool": 1}
    wide = text.replace("N,1,H,W", "N,1,3,W")
    assert prove_exact(wide, PASS).ops == {"Reshape": 1, "MaxPool": 1}


def test_a_saved_model_is_left_alone() -> None:
    text = f"""g (uint8[N,3,H,W] x) => (uint8[a,b,c,d] y) <uint8[256] t> {{
        [t1] a = Transpose<{TO_LAST}>(x) [pool] b = {POOL}(a) [t2] c = Transpose<{TO_FIRST}>(b)
        [table] y = own.LookupTable(c, t) }}"""
    proof = prove_exact(text, PASS)
    assert proof.ops["ChannelsLast"] == 1
    again = load(to_proto(proof.model))
    (report,) = pipeline.run(again, [PASS], PassContext(again))
    assert report.changed == 0


def test_a_rank_that_is_not_known() -> None:
    def perm(shape: list[int] | None) -> tuple[int, ...] | None:
        return perm_of(
            gs.Node("ChannelsLast", "n", {}, [gs.Variable("x", np.uint8, shape)], [gs.Variable("y")], "com.onnxq")
        )

    assert perm(None) is None
    assert perm([1, 2, 3, 4, 5]) == (0, 2, 3, 4, 1)
    assert (
        perm_of(gs.Node("ChannelsLast", "n", {}, [gs.Variable("x", np.uint8, [1, 2, 3])], [gs.Variable("y")])) is None
    )


@pytest.mark.skipif(not library.has_library(), reason="onnxq was built without the kernel library")
@pytest.mark.parametrize("threads", [1, 2])
def test_with_kernels(threads: int) -> None:
    conv = "own.Conv<x_zero_point=128, qmin=0, qmax=255, y_type=2, pads=[1,1,1,1]>"
    text = f"""g (float[1,3,64,48] x) => (float[1,8,64,48] y) <float s = {{0.02}}, uint8 z = {{128}}, int8[8,3,3,3] w,
        int32[8] b, int32[8] mul, int32[1] sh = {{36}}, int8[1] zw = {{0}}> {{
        [q] xq = QuantizeLinear(x, s, z) [move] t = Transpose<{TO_LAST}>(xq) [conv] c = {conv}(t, w, b, mul, sh, zw)
        [back] f = Transpose<{TO_FIRST}>(c) [dq] y = DequantizeLinear(f, s, z) }}"""
    source = integers.model(text)
    (feed,) = integers.feeds(source, 1)
    expected = run(source, feed)["y"]
    pipeline.run(source, [PASS], PassContext(source))
    assert "ChannelsLast" in [n.op for n in source.graph.nodes]
    found = runtime.session(to_proto(source), threads=threads).run(None, feed)[0]
    np.testing.assert_array_equal(found, expected)
