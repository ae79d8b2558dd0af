"""layout-nhwc: what a Transpose moves through, bit for bit, and what holds it."""

from __future__ import annotations

import numpy as np
import pytest

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.errors import PreconditionError
from onnxq.graph.model import load
from onnxq.layout.copies import perm_of
from onnxq.passes.layout_nhwc import LayoutNhwc
from support.build import integers
from support.prove.passes import Proof, prove_exact
from support.runs import run

PASS = LayoutNhwc()
TO_LAST, TO_FIRST = "perm=[0,2,3,1]", "perm=[0,3,1,2]"


CONV = "x_zero_point=128, qmin=0, qmax=255, y_type=2, pads=[1,1,1,1]"
LAYER = "int8[8,3,3,8] w, int32[8] b, int32[8] mul, int32[8] sh = {36,36,36,36,36,36,36,36}, int8[1] zw = {0}"


def layer(result: str, source: str, out: str | None = None) -> str:
    """Text of a convolution of 8 channels as lowering writes it."""
    out = out or result
    return f"""[{result}_in] {result}_x = Transpose<{TO_LAST}>({source})
        [{result}] {result}_nhwc = own.Conv<{CONV}>({result}_x, w, b, mul, sh, zw)
        [{result}_out] {out} = Transpose<{TO_FIRST}>({result}_nhwc)"""


def names(proof: Proof, op: str) -> list[str]:
    """What the nodes of an operator read first and make."""
    return [f"{n.inputs[0].name} -> {n.outputs[0].name}" for n in proof.model.graph.nodes if n.op == op]


def moves(proof: Proof) -> list[str]:
    """The same of Transposes, ChannelsLast among them."""
    return [f"{n.inputs[0].name} -> {n.outputs[0].name}" for n in proof.model.graph.nodes if perm_of(n) is not None]


TWO_LAYERS = f"g (uint8[2,8,5,5] x) => (uint8[2,8,5,5] y) <{LAYER}> {{ {layer('c', 'x')} {layer('d', 'c', 'y')} }}"


def test_two_layers_in_a_row():
    proof = prove_exact(TWO_LAYERS, PASS)
    assert names(proof, "Conv") == ["c_x -> c", "c -> d_nhwc"]
    assert proof.transposes == [[0, 2, 3, 1], [0, 3, 1, 2]]
    assert proof.node("c").metadata["onnxq.layout"] == "0,2,3,1"


def test_a_residual_of_the_input_reads_the_transposed_input_too():
    text = f"""g (float[2,8,5,5] x) => (float[2,8,5,5] y)
        <{LAYER}, float s, uint8 z = {{128}}, int32[8] mula, int32[1] mulb, int32[1] sha = {{33}}> {{
        [q] xq = QuantizeLinear(x, s, z) {layer("c", "xq")}
        [add] a = own.Add<a_zero_point=3, b_zero_point=128, qmin=0, qmax=255, y_type=2, axis=1>(c, xq, mula, mulb, sha)
        {layer("d", "a")} [dq] y = DequantizeLinear(d, s) }}"""
    proof = prove_exact(text, PASS)
    assert len(proof.transposes) == 2
    assert moves(proof) == ["xq -> c_x", "d -> d_transposed"]
    assert names(proof, "Add") == ["c -> a"]
    assert proof.node("add").inputs[1].name == "c_x"
    assert proof.node("add").attrs["axis"] == -1
    assert proof.reasons == {}


def test_bytes_are_moved_rather_than_floats():
    """Transposes go behind QuantizeLinear and before DequantizeLinear, axis and all."""
    text = f"""g (float[2,5,5,8] x) => (float[2,5,5,8] y) <{LAYER}, float[8] s, uint8[8] z, float[8] t> {{
        [in] f = Transpose<{TO_FIRST}>(x) [swap] w2 = Transpose<perm=[0,1,3,2]>(f)
        [q] xq = QuantizeLinear<axis=1>(w2, s, z)
        {layer("c", "xq")} [dq] d = DequantizeLinear<axis=1>(c, t) [out] y = Transpose<{TO_LAST}>(d) }}"""
    proof = prove_exact(text, PASS)
    assert names(proof, "QuantizeLinear") == ["x -> xq"]
    assert proof.node("q").attrs["axis"] == 3
    assert proof.node("q").metadata["onnxq.layout"] == "0,3,2,1"  # what the name stood for is behind both Transposes
    assert proof.transposes == [[0, 2, 1, 3]]
    assert names(proof, "DequantizeLinear") == ["c -> y"]
    assert proof.node("dq").attrs["axis"] == 3


def test_what_one_reader_needs_channels_first_is_made_once():
    text = f"""g (uint8[2,8,5,5] x) => (uint8[2,8,5,5] y, uint8[2,8,5,5] z, uint8[2,8,5,5] v) <{LAYER}, uint8[256] t> {{
        {layer("c", "x")} [lut] l = own.LookupTable(c, t) {layer("d", "l", "y")}
        [t1] m = Transpose<{TO_LAST}>(l) [t2] n = Transpose<{TO_FIRST}>(m) [rest] z = own.LookupTable(n, t)
        [more] v = own.LookupTable(l, t) }}"""
    proof = prove_exact(text, PASS)
    # Two at the outputs z and v would cost more than the one before them.
    assert sorted(moves(proof)) == ["d_nhwc -> y", "l -> l_transposed", "x -> c_x"]
    assert names(proof, "LookupTable") == ["c -> l", "l_transposed -> z", "l_transposed -> v"]


def test_outputs_on_the_way_keep_their_order_and_names():
    text = f"""g (uint8[2,8,5,5] x) => (uint8[2,8,5,5] c, uint8[2,8,5,5] l, uint8[2,5,5,8] d_x, uint8[2,8,5,5] d)
        <{LAYER}, uint8[256] t> {{ {layer("c", "x")} [lut] l = own.LookupTable(c, t) {layer("d", "l")} }}"""
    proof = prove_exact(text, PASS)
    assert sorted(moves(proof)) == ["c_nhwc -> c", "d_nhwc -> d", "d_x -> l", "x -> c_x"]
    assert names(proof, "LookupTable") == ["c_nhwc -> d_x"]


def test_two_outputs_of_the_same_values():
    text = f"""g (uint8[2,8,5,5] x) => (uint8[2,5,5,8] y, uint8[2,5,5,8] z) <uint8[256] t> {{
        [lut] l = own.LookupTable(x, t) [one] y = Transpose<{TO_LAST}>(l) [two] z = Transpose<{TO_LAST}>(l) }}"""
    assert prove_exact(text, PASS).ops == {"LookupTable": 1, "Transpose": 2}


def test_transposes_of_one_tensor_are_merged_and_chains_become_one():
    text = f"""g (uint8[2,8,5,4] x) => (uint8[2,5,4,8] y, uint8[2,5,4,8] z, uint8[8,4,2,5] v) <uint8[256] t> {{
        a = Transpose<{TO_LAST}>(x) b = Transpose<{TO_LAST}>(x) y = own.MaxPool<kernel_shape=[1,1]>(a)
        z = own.MaxPool<kernel_shape=[1,1]>(b) c = Transpose<perm=[3,2,0,1]>(a)
        v = own.MaxPool<kernel_shape=[1,1]>(c) }}"""
    proof = prove_exact(text, PASS)
    assert proof.transposes == [[0, 2, 3, 1], [1, 3, 0, 2]]
    assert moves(proof) == ["x -> a", "x -> c"]


@pytest.mark.parametrize("move", ["DepthToSpace<blocksize=2>(f)", "Transpose<perm=[1,0,2,3]>(f)"])
@pytest.mark.parametrize(
    ("attributes", "dequantize"),
    [
        ("qmin=-2147483648, qmax=2147483647, y_type=6", "DequantizeLinear(w, s)"),
        ("qmin=-2147483648, qmax=2147483647, y_type=6", "DequantizeLinear<axis=1>(w, many)"),
        ("qmin=-128, qmax=127, y_type=3", "DequantizeLinear(w, s, z)"),
    ],
)
def test_nothing_moves_what_onnxruntime_cannot_requantize(attributes, dequantize, move):
    """Its optimizer would take these DequantizeLinears behind a Transpose or Reshape, and then refuse the model."""
    text = f"""g (uint8[2,3,5,5] x) => (float[A,B,C,D] y)
        <int8[4,1,1,3] k, int32[4] b, int32[1] mul, int32[1] sh, int8[1] zw, float s, int8 z = {{3}}, float[4] many> {{
        [in] c = Transpose<{TO_LAST}>(x) [conv] w_nhwc = own.Conv<{attributes}>(c, k, b, mul, sh, zw)
        [out] w = Transpose<{TO_FIRST}>(w_nhwc) [dq] f = {dequantize} [move] y = {move} }}"""
    source = integers.model(text)
    given = integers.feeds(source)
    before = [run(source, feed)["y"] for feed in given]
    proof = prove_exact(source, PASS)
    for feed, expected in zip(given, before, strict=True):
        np.testing.assert_array_equal(run(proof.model, feed, optimize=True)["y"], expected)


def test_squeeze_and_excite():
    """Global pooling, 1x1 convolutions on [N, C, 1, 1], and a product with it: no Transpose but at the ends."""
    text = f"""g (uint8[2,8,5,5] x) => (uint8[2,8,5,5] y)
        <{LAYER}, int8[2,1,1,8] v, int32[2] bv, int8[8,1,1,2] u, int32[1] mul1, int32[1] sh1 = {{33}}> {{
        {layer("c", "x")} [pool] p = own.ReduceMean<axes=[2,3], qmin=0, qmax=255, y_type=2>(c, mul1, sh1)
        [t1] p1 = Transpose<{TO_LAST}>(p) [fc1] e = own.Conv<qmin=0, qmax=255, y_type=2>(p1, v, bv, mul1, sh1, zw)
        [t2] e1 = Transpose<{TO_FIRST}>(e) [t3] e2 = Transpose<{TO_LAST}>(e1)
        [fc2] h = own.Conv<qmin=0, qmax=255, y_type=2>(e2, u, b, mul, sh, zw) [t4] h1 = Transpose<{TO_FIRST}>(h)
        [scale] s = own.Mul<qmin=0, qmax=255, y_type=2>(c, h1, mul1, sh1) {layer("d", "s", "y")} }}"""
    proof = prove_exact(text, PASS)
    assert sorted(moves(proof)) == ["d_nhwc -> y", "x -> c_x"]
    assert "Reshape" not in proof.ops
    assert proof.node("pool").attrs["axes"] == [1, 2]


def test_a_transpose_of_ones_is_a_reshape():
    text = f"""g (uint8[N,1,1,8] x) => (uint8[N,8,1,1] y) <uint8[256] t> {{
        [lut] l = own.LookupTable(x, t) [move] y = Transpose<{TO_FIRST}>(l) }}"""
    proof = prove_exact(text, PASS)
    assert proof.ops == {"LookupTable": 1, "Reshape": 1}
    assert proof.values("move", 1) == [0, 8, 1, 1]


HEAD = """int8[160,7] w, int32[7] b, int32[1] mul, int32[1] sh = {38}, int8[1] zw = {0}"""
GEMM = "own.Gemm<qmin=-128, qmax=127, y_type=3>"


@pytest.mark.parametrize("flat", ["Flatten(p)", "Reshape(p, s)"])
def test_flatten_before_a_matrix_product_permutes_its_rows(flat):
    text = f"""g (uint8[N,4,5,8] x) => (int8[N,7] y) <{HEAD}, uint8[256] t, int64[2] s = {{0, -1}}> {{
        [lut] l = own.LookupTable(x, t) [move] p = Transpose<{TO_FIRST}>(l) [flat] f = {flat}
        [table] v = own.LookupTable(f, t) [fc] y = {GEMM}(v, w, b, mul, sh, zw) }}"""
    source = integers.model(text)
    weight = np.asarray(source.graph.tensors()["w"].values)
    proof = prove_exact(source, PASS)
    assert proof.transposes == []
    rows = np.arange(160).reshape(8, 4, 5).transpose(1, 2, 0).reshape(-1)
    assert proof.values("fc", 1) == weight[rows].tolist()
    for name in ("flat", "table"):
        assert proof.node(name).metadata == {"onnxq.flattened": "8,4,5|1,2,0"}


def test_int4_rows_and_a_weight_that_others_read():
    text = f"""g (uint8[2,4,5,8] x, uint8[2,160] z) => (int8[2,7] y, int8[2,7] q)
        <{HEAD.replace("int8[160,7]", "int4[160,7]")}> {{ [pool] l = own.MaxPool<kernel_shape=[1,1]>(x)
        [move] p = Transpose<{TO_FIRST}>(l) [flat] f = Flatten(p)
        [fc] y = {GEMM}(f, w, b, mul, sh, zw) [other] q = {GEMM}(z, w, b, mul, sh, zw) }}"""
    proof = prove_exact(text, PASS)
    assert proof.transposes == []
    assert proof.node("other").inputs[1].name == "w"
    assert proof.node("fc").inputs[1].name != "w"


@pytest.mark.parametrize(
    ("outputs", "more"),
    [
        ("int8[2,7] y, uint8[2,160] f", ""),
        ("int8[2,7] y, uint8[2,160] v", "v = own.Requantize<qmin=0, qmax=255, y_type=2, axis=1>(f, many, sh)"),
        ("int8[2,7] y, int32[2,160] v", "v = Cast<to=6>(f)"),
    ],
)
def test_rows_stay_where_another_sees_the_order(outputs, more):
    text = f"""g (uint8[2,4,5,8] x) => ({outputs}) <{HEAD}, int32[160] many> {{
        [pool] l = own.MaxPool<kernel_shape=[1,1]>(x) [move] p = Transpose<{TO_FIRST}>(l)
        [flat] f = Flatten(p) [fc] y = {GEMM}(f, w, b, mul, sh, zw) {more} }}"""
    proof = prove_exact(text, PASS, many=1 << 28)
    assert proof.transposes == [[0, 3, 1, 2]]
    assert "Flatten flat: it merges dimensions that the Transpose separates" in proof.reasons["move"]


def test_blocks_and_depth():
    """DepthToSpace and SpaceToDepth of channels-last tensors: one movement of their own, no other."""
    text = f"""g (uint8[2,6,4,8] x) => (uint8[2,6,4,8] y) <uint8[256] t> {{ [first] a = own.LookupTable(x, t)
        [t1] b = Transpose<{TO_FIRST}>(a) [wide] c = DepthToSpace<blocksize=2>(b) [t2] d = Transpose<{TO_LAST}>(c)
        [mid] e = own.MaxPool<kernel_shape=[1,1]>(d) [t3] f = Transpose<{TO_FIRST}>(e)
        [deep] h = SpaceToDepth<blocksize=2>(f) [t4] i = Transpose<{TO_LAST}>(h) [last] y = own.LookupTable(i, t) }}"""
    proof = prove_exact(text, PASS)
    assert proof.transposes == [[0, 1, 3, 2, 4, 5], [0, 1, 3, 2, 4, 5]]
    assert proof.ops == {"LookupTable": 2, "MaxPool": 1, "Reshape": 4, "Transpose": 2}
    assert proof.node("wide").outputs[0].name == "c"
    assert proof.node("wide").metadata == {"onnxq.layout": "0,2,3,1"}


def test_one_dimensional_layers():
    """Lowered as two-dimensional ones of height 1: what is between them is channels-last too."""
    conv = "own.Conv<qmin=0, qmax=255, y_type=2, pads=[0,1,0,1]>"
    text = f"""g (uint8[2,8,9] x) => (uint8[2,8,9] y)
        <int8[8,1,3,8] w, int32[8] b, int32[8] mul, int32[1] sh = {{36}}, int8[1] zw = {{0}}, int64[1] h = {{2}},
         uint8[256] t> {{
        [u1] a = Unsqueeze(x, h) [t1] c = Transpose<{TO_LAST}>(a) [c1] d = {conv}(c, w, b, mul, sh, zw)
        [t2] e = Transpose<{TO_FIRST}>(d) [s1] f = Squeeze(e, h) [lut] i = own.LookupTable(f, t)
        [u2] j = Unsqueeze(i, h) [t3] k = Transpose<{TO_LAST}>(j) [c2] l = {conv}(k, w, b, mul, sh, zw)
        [t4] m = Transpose<{TO_FIRST}>(l) [s2] y = Squeeze(m, h) }}"""
    proof = prove_exact(text, PASS)
    assert len(proof.transposes) == 2
    assert proof.node("lut").metadata["onnxq.layout"] == "0,2,1"
    assert proof.reasons == {}


def test_split_and_concat():
    """Both ways of a channel split come together again (ShuffleNet without its shuffle)."""
    text = f"""g (uint8[2,8,5,5] x) => (uint8[2,8,5,5] y)
        <{LAYER}, int64[2] half = {{4, 4}}, uint8[256] t, int32[2] mul2, int32[2] sh2 = {{30, 30}}> {{
        {layer("c", "x")} [split] l, r = Split<axis=1>(c, half) [lut] r2 = own.LookupTable(r, t)
        [cat] s = own.Concat2<axis=1, zero_points=[1, 2], qmin=0, qmax=255, y_type=2>(mul2, sh2, l, r2)
        {layer("d", "s", "y")} }}"""
    proof = prove_exact(text, PASS)
    assert sorted(moves(proof)) == ["d_nhwc -> y", "x -> c_x"]
    assert proof.node("split").attrs["axis"] == 3
    assert proof.node("cat").attrs["axis"] == -1
    assert proof.node("split").metadata["onnxq.layout"] == "0,2,3,1"


def test_what_holds_a_transpose_is_named():
    text = f"""g (uint8[2,8,5,5] x) => (uint8[2,8,5,5] y) <{LAYER}, uint8[5,5] m, int32[1] sh1, int32[1] mul1> {{
        {layer("c", "x")} [product] p = own.MatMul<qmin=0, qmax=255, y_type=2>(c, m, mul1, sh1)
        {layer("d", "p", "y")} }}"""
    proof = prove_exact(text, PASS)
    assert len(proof.transposes) == 4
    assert set(proof.reasons) == {"c_out", "d_in"}
    assert proof.reasons["c_out"] == (
        "Conv c: its dimension order is fixed; MatMul product: its dimension order is fixed"
    )


def test_averaged_dimensions_must_stay_together():
    text = f"""g (uint8[2,8,5,5] x) => (uint8[2,1,1,5] y) <{LAYER}, int32[1] mul1, int32[1] sh1> {{ {layer("c", "x")}
        [mean] m = own.ReduceMean<axes=[1,2], qmin=0, qmax=255, y_type=2>(c, mul1, sh1) [last] y = Identity(m) }}"""
    proof = prove_exact(text, PASS)
    assert "ReduceMean mean: the dimensions that it averages would not be adjacent" in proof.reasons["c_out"]


@pytest.mark.parametrize(("dims", "held"), [("[8,1,1]", False), ("[8,5,5]", False), ("[5]", True)])
def test_an_operand_of_fewer_dimensions(dims, held):
    """It is transposed too, as far as its own dimensions go."""
    text = f"""g (uint8[2,8,5,5] x, uint8{dims} k) => (uint8[2,8,5,5] y) <{LAYER}, int32[1] mul1, int32[1] sh1> {{
        {layer("c", "x")} [scale] s = own.Mul<qmin=0, qmax=255, y_type=2>(c, k, mul1, sh1) {layer("d", "s", "y")} }}"""
    proof = prove_exact(text, PASS)
    assert len(proof.transposes) == {"[8,1,1]": 2, "[8,5,5]": 3, "[5]": 4}[dims]
    assert ("Mul scale: its operand k has fewer dimensions" in proof.reasons.get("c_out", "")) == held


def test_it_costs_more_elsewhere():
    """One operand comes from a layer, the larger one straight from an input: turning that one costs more."""
    text = f"""g (uint8[2,8,5,5] x, uint8[2,8,50,50] z) => (uint8[2,8,50,50] y)
        <{LAYER}, int32[1] mul1, int32[1] sh1, int64[4] t = {{1, 1, 10, 50}}> {{ {layer("c", "x")}
        [pool] p = own.ReduceMean<axes=[3], qmin=0, qmax=255, y_type=2>(c, mul1, sh1)
        [wide] q = Tile(p, t) [scale] y = own.Mul<qmin=0, qmax=255, y_type=2>(q, z, mul1, sh1) }}"""
    proof = prove_exact(text, PASS)
    assert sorted(moves(proof)) == ["p -> p_transposed", "x -> c_x"]
    assert proof.node("pool").attrs["axes"] == [2]
    assert "Tile wide: it could be moved, at a higher cost" in next(iter(proof.reasons.values()))


def test_subgraphs_read_the_order_they_know():
    text = f"""g (uint8[2,8,5,5] x, bool flag) => (uint8[2,8,5,5] y) <{LAYER}, uint8[256] t> {{ {layer("c", "x")}
        [lut] l = own.LookupTable(c, t)
        [choice] i = If (flag) <then_branch = one () => (uint8[2,8,5,5] p) {{ p = Identity(l) }},
            else_branch = two () => (uint8[2,8,5,5] q) {{ q = Max(l, c) }}> {layer("d", "i", "y")} }}"""
    inputs = [{"x": np.full((2, 8, 5, 5), 7, np.uint8), "flag": np.asarray(flag)} for flag in (True, False)]
    proof = prove_exact(text, PASS, inputs)
    assert len(proof.transposes) <= 4


def test_shared_constants_are_left_alone():
    text = f"""g (uint8[2,8,5,5] x, uint8[2,8,5,5] z) => (uint8[2,8,5,5] y, uint8[2,8,5,5] v)
        <{LAYER}, uint8[8,1,1] k, int32[1] mul1, int32[1] sh1 = {{33}}> {{ {layer("c", "x")}
        [scale] s = own.Mul<qmin=0, qmax=255, y_type=2>(c, k, mul1, sh1) {layer("d", "s", "y")}
        [plain] v = own.Mul<qmin=0, qmax=255, y_type=2>(z, k, mul1, sh1) }}"""
    proof = prove_exact(text, PASS)
    assert np.shape(proof.values("scale", 1)) == (1, 1, 8)
    assert np.shape(proof.values("plain", 1)) == (8, 1, 1)


def test_between_input_and_output_it_stays():
    proof = prove_exact(f"g (uint8[2,8,5,5] x) => (uint8[2,5,5,8] y) {{ [only] y = Transpose<{TO_LAST}>(x) }}", PASS)
    assert proof.changed == 0
    assert proof.reasons == {}


def test_the_runner_proves_it():
    source = integers.model(TWO_LAYERS)
    (report,) = pipeline.run(source, [PASS], PassContext(source), verify=True)
    assert report.differences == {"y": 0.0}


def test_an_older_opset_is_refused():
    source = load(_old())
    with pytest.raises(PreconditionError, match=r"run convert-opset\{version=21\} before it"):
        pipeline.run(source, [PASS], PassContext(source))


def _old():
    import onnx.parser

    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1,2] x) => (float[2,1] y) { y = Transpose(x) }'
    )
