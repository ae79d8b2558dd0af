"""Every rule: a Transpose moves through the operator, bit for bit."""

from __future__ import annotations

import pytest

from onnxq.layout.own import RULES
from onnxq.operators import OPERATORS
from onnxq.passes.layout_nhwc import LayoutNhwc
from support.cases.operators import Draw, U, operator_cases
from support.prove.passes import Proof, prove_exact

PASS = LayoutNhwc()
TO_LAST, TO_FIRST = "perm=[0,2,3,1]", "perm=[0,3,1,2]"


def between(op: str, output: str = U, constants: str = "", source: str = "uint8[2,6,5,4]") -> Proof:
    """`op`, which reads `f` (channels-first), between nodes that are channels-last, through the pass.

    output: the tensor `g` that op makes.
    """
    kind, _, dims = output.partition("[")
    rank = dims.count(",") + 1 if dims else 0
    free = f"[{','.join('pqrs'[:rank])}]" if rank else ""
    back = f"Transpose<{TO_LAST}>(g)" if rank == 4 else "Identity(g)"
    last = "own.LookupTable(l, table)" if kind == "uint8" else "Identity(l)"
    text = f"""g ({source} x) => ({kind}{free} y) <uint8[256] table{"," if constants else ""} {constants}> {{
        [first] h = own.LookupTable(x, table) [down] f = Transpose<{TO_FIRST}>(h)
        [op] g = {op} [up] l = {back} [last] y = {last} }}"""
    return prove_exact(text, PASS)


# operator that reads f [2,4,6,5], its result, constants, and what the node looks like afterwards
THROUGH = [
    *(row for found in operator_cases().values() for row in found.moves),
    ("Identity(f)", U, "", {}),
    ("Max(f, k)", U, "uint8[4,1,1] k", {}),
    ("Min(f, k, f)", U, "uint8[1] k", {}),
    ("Clip(f, low, high)", U, "uint8 low = {20}, uint8 high = {200}", {}),
    ("Concat<axis=1>(f, k)", "uint8[2,6,6,5]", "uint8[2,2,6,5] k", {"axis": 3}),
    ("Concat<axis=-1>(f, f)", "uint8[2,4,6,10]", "", {"axis": 2}),
    ("Slice(f, b, e, a)", "uint8[2,2,6,3]", "int64[2] b={1,0}, int64[2] e={3,3}, int64[2] a={1,-1}", {}),
    ("Slice(f, b, e, a)", "uint8[2,2,6,3]", "int32[2] b={1,0}, int32[2] e={3,3}, int32[2] a={1,-1}", {}),
    ("Slice(f, b, e)", "uint8[2,2,6,5]", "int32[2] b={0,0}, int32[2] e={2,2}", {}),
    ("Slice(f, b, e)", "uint8[1,2,6,5]", "int64[2] b={1,1}, int64[2] e={2,3}", {}),
    ("Slice(f, b, e, a, s)", "uint8[2,2,6,5]", "int64[1] b={3}, int64[1] e={0}, int64[1] a={1}, int64[1] s={-2}", {}),
    ("Pad(f, p, c)", "uint8[2,5,6,8]", "int64[8] p={0,1,0,0,0,0,0,3}, uint8 c={9}", {}),
    ('Pad<mode="edge">(f, p)', "uint8[2,5,7,5]", "int64[8] p={0,1,1,0,0,0,0,0}", {}),
    ("Pad(f, p, c, a)", "uint8[2,7,6,5]", "int64[2] p={1,2}, uint8 c={9}, int64[1] a={1}", {}),
    (
        'Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(f, , s)',
        "uint8[2,4,12,10]",
        "float[4] s={1,1,2,2}",
        {},
    ),
    ('Resize<mode="nearest", axes=[3,2]>(f, , , s)', "uint8[2,4,9,7]", "int64[2] s={7,9}", {"axes": [2, 1]}),
    ("Expand(f, s)", "uint8[2,4,6,5]", "int64[3] s={4,1,5}", {}),
    ("Tile(f, s)", "uint8[2,8,6,5]", "int64[4] s={1,2,1,1}", {}),
    ("Gather<axis=1>(f, i)", "uint8[2,3,6,5]", "int64[3] i={2,0,2}", {"axis": 3}),
    ("ReduceMax(f, a)", "uint8[2,4,6,1]", "int64[1] a={-1}", {}),
    ("ReduceMin<noop_with_empty_axes=1>(f)", U, "", {}),
    ("DepthToSpace<blocksize=2>(f)", "uint8[2,1,12,10]", "", None),
    ('DepthToSpace<blocksize=2, mode="CRD">(f)', "uint8[2,1,12,10]", "", None),
    ("Reshape(f, s)", "uint8[2,4,6,5]", "int64[4] s={0,4,-1,5}", {}),
    ("Reshape(f, s)", "uint8[2,8,3,5]", "int64[4] s={2,8,3,5}", None),
]


@pytest.mark.parametrize(("op", "output", "constants", "attributes"), THROUGH, ids=[t[0] for t in THROUGH])
def test_moves_through(op, output, constants, attributes):
    proof = between(op, output, constants)
    if attributes is None:  # its own kind of movement, told by the tests below
        return
    assert proof.transposes == []
    assert proof.reasons == {}
    found = proof.node("op")
    assert {name: found.attrs[name] for name in attributes} == attributes
    assert found.metadata["onnxq.layout"] == "0,2,3,1"
    assert found.outputs[0].name == "g"


RANK_CHANGES = [
    # what op makes of f [2,4,6,1] or [2,4,1,1]; nothing of the Transpose is left, or its share of what is
    ("uint8[2,6,1,4]", "Squeeze(f, a)", "uint8[2,4,6]", "int64[1] a = {3}", [[0, 2, 1]]),
    ("uint8[2,1,1,4]", "Squeeze(f)", "uint8[2,4]", "", []),
    ("uint8[2,1,1,4]", "Flatten(f)", "uint8[2,4]", "", []),
    ("uint8[2,1,1,4]", "Reshape(f, s)", "uint8[2,4]", "int64[2] s = {0, -1}", []),
    ("uint8[N,1,1,4]", "Reshape(f, s)", "uint8[2,4]", "int64[2] s = {-1, 4}", []),
    ("uint8[2,6,5,4]", "ReduceMax<keepdims=0>(f, a)", "uint8[2,4]", "int64[2] a = {2, 3}", []),
    ("uint8[2,6,5,4]", "ArgMax<axis=1, keepdims=0>(f)", "int64[2,6,5]", "", []),
    ("uint8[2,6,5,4]", "Gather<axis=1>(f, i)", "uint8[2,6,5]", "int64 i = {2}", []),
    ("uint8[2,6,5,4]", "Flatten<axis=2>(f)", "uint8[8,30]", "", [[0, 3, 1, 2]]),
    ("uint8[2,6,5,4]", "Reshape(f, s)", "uint8[2,4,30]", "int64[3] s = {2, 4, -1}", [[0, 2, 1]]),
    ("uint8[N,H,5,4]", "Reshape(f, s)", "uint8[2,4,10]", "int64[3] s = {0, 0, -1}", [[0, 3, 1, 2]]),
    ("uint8[N,6,5,4]", "Reshape<allowzero=1>(f, s)", "uint8[2,4,30]", "int64[3] s = {-1, 4, 30}", [[0, 2, 1]]),
    ("uint8[2,6,5,4]", "Shape(f)", "int64[4]", "", []),
    ("uint8[2,6,5,4]", "Shape<start=1, end=-1>(f)", "int64[2]", "", []),
    ("uint8[2,6,5,4]", "Size(f)", "int64", "", []),
]


@pytest.mark.parametrize(
    ("source", "op", "output", "constants", "left"), RANK_CHANGES, ids=[r[1] for r in RANK_CHANGES]
)
def test_changes_of_rank(source, op, output, constants, left):
    proof = between(op, output, constants, source)
    assert proof.transposes == left, proof.reasons


def test_every_rule_of_ours_is_shown():
    """By `moves`, but for LayerNorm's: it keeps its last dimension, which the Transposes above move."""
    for name, found in operator_cases().items():
        ruled = {case.op for case in found.nodes(Draw(1)) if case.op in RULES}
        assert not ruled or found.moves or ruled == {"LayerNorm"}, f"no moves in cases/operators/{name}.py"


def test_layers_and_pools_hold_their_order():
    holding = {"AveragePool", "Conv", "ConvAdd", "Gemm", "GemmAdd", "MatMul", "MaxPool"}
    assert not holding & set(RULES)
    assert holding <= set(OPERATORS) and set(RULES) <= set(OPERATORS)


@pytest.mark.parametrize(("perm", "left"), [("1,0,2", 0), ("0,2,1", 2)])
def test_layer_norm_keeps_its_last_dimension(perm, left):
    size = 4 if left else 6
    text = f"""g (uint8[5,4,6] x) => (uint8[5,4,6] y) <uint8[6,6] m, int32[{size}] gamma, int64[{size}] beta,
        int32[1] mul, int32[1] sh, int32[1] shift = {{24}}> {{
        [first] a = own.MatMul<qmin=0, qmax=255, y_type=2>(x, m, mul, sh) [t1] b = Transpose<perm=[{perm}]>(a)
        [norm] c = own.LayerNorm<epsilon=1, qmin=0, qmax=255, y_type=2, y_zero_point=128>(b, gamma, beta, shift)
        [t2] d = Transpose<perm=[{perm}]>(c) [last] y = own.MatMul<qmin=0, qmax=255, y_type=2>(d, m, mul, sh) }}"""
    proof = prove_exact(text, PASS, gamma=1 << 16, beta=3 << 16, sh=35)
    assert len(proof.transposes) == left
    if left:
        assert "LayerNorm norm: it normalizes the last dimension" in proof.reasons["t1"]
