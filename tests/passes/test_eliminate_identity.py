"""eliminate-identity: every kind of node that does nothing goes, and none that does something."""

import numpy as np
import pytest

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.graph.model import load
from onnxq.passes.eliminate_identity import EliminateIdentity
from support.build import floating
from support.prove.passes import prove

PASS = EliminateIdentity()

# operator and attributes, inputs after `h`, constants, opset
X = "float[2,3,4,4]"
NO_OPS = [
    ("Identity", "", "", 17),
    ("Dropout<ratio = 0.5>", "", "", 11),
    ("Dropout", ", r", "float r = {0.5}", 17),
    ("Dropout", ", r, t", "float r = {0.5}, bool t = {0}", 17),
    ("Cast<to = 1>", "", "", 17),
    ("CastLike", ", like", "float like = {1}", 17),
    ("Concat<axis = 1>", "", "", 17),
    ("Sum", "", "", 17),
    ("Max", "", "", 17),
    ("Min", "", "", 17),
    ("Mean", "", "", 17),
    ("Split<axis = 1, num_outputs = 1>", "", "", 18),
    ("Add", ", c", "float c = {0}", 17),
    ("Add", ", c", "float[3,1,1] c = {0, 0, 0}", 17),
    ("Sub", ", c", "float[1] c = {0}", 17),
    ("Mul", ", c", "float[1,3,1,1] c = {1, 1, 1}", 17),
    ("Div", ", c", "float c = {1}", 17),
    ("Pow", ", c", "float c = {1}", 17),
    ("Clip", "", "", 17),
    ("Clip", ", low, high", "float low = {-3.4028235e38}, float high = {3.4028235e38}", 17),
    ("Clip", "", "", 9),
    ("Pad", ", p", "int64[8] p = {0, 0, 0, 0, 0, 0, 0, 0}", 17),
    ("Pad<pads = [0, 0, 0, 0, 0, 0, 0, 0]>", "", "", 10),
    ("Tile", ", r", "int64[4] r = {1, 1, 1, 1}", 17),
    ("Upsample", ", s", "float[4] s = {1, 1, 1, 1}", 9),
    ("Upsample<scales = [1.0, 1.0, 1.0, 1.0]>", "", "", 7),
    ("Resize", ", s", "float[4] s = {1, 1, 1, 1}", 10),
    ('Resize<mode = "linear">', ', "", s', "float[4] s = {1, 1, 1, 1}", 17),
    ('Resize<mode = "cubic">', ', "", "", s', "int64[4] s = {2, 3, 4, 4}", 17),
    ("Resize<axes = [2, 3]>", ', "", "", s', "int64[2] s = {4, 4}", 18),
    ("AveragePool<kernel_shape = [1, 1]>", "", "", 17),
    ("MaxPool<kernel_shape = [1, 1], strides = [1, 1]>", "", "", 17),
    ("Slice", ", b, e", "int64[2] b = {0, -9}, int64[2] e = {2, 9223372036854775807}", 17),
    ("Slice", ", b, e, a, s", "int64[1] b = {0}, int64[1] e = {4}, int64[1] a = {-1}, int64[1] s = {1}", 17),
    ("Slice<starts = [0], ends = [4], axes = [2]>", "", "", 9),
    ("Expand", ", s", "int64[3] s = {3, 1, 4}", 17),
    ("Reshape", ", s", "int64[4] s = {2, 3, 4, 4}", 17),
    ("Reshape", ", s", "int64[4] s = {0, -1, 4, 0}", 17),
    ("Transpose<perm = [0, 1, 2, 3]>", "", "", 17),
    ("Squeeze", "", "", 17),
]

SOMETHING = [
    ("Dropout", ", r, t", "float r = {0}, bool t = {1}", 17),
    ("Add", ", c", "float[3,1,1] c = {0, 0, 1}", 17),
    ("Mul", ", c", "float c = {0}", 17),
    ("Clip", ", low", "float low = {0}", 17),
    ("Clip<min = -1.0>", "", "", 9),
    ("Pad", ", p", "int64[8] p = {0, 0, 0, 0, 0, 0, 1, 1}", 17),
    ("Tile", ", r", "int64[4] r = {1, 2, 1, 1}", 17),
    ('Resize<mode = "linear">', ', "", s', "float[4] s = {1, 1, 2, 2}", 17),
    ("AveragePool<kernel_shape = [1, 1], strides = [2, 2]>", "", "", 17),
    ("AveragePool<kernel_shape = [2, 2]>", "", "", 17),
    ("MaxPool<kernel_shape = [1, 1], pads = [0, 0, 0, 0], strides = [1, 2]>", "", "", 17),
    ("Slice", ", b, e", "int64[1] b = {1}, int64[1] e = {2}", 17),
    ("Slice", ", b, e, a, s", "int64[1] b = {0}, int64[1] e = {4}, int64[1] a = {2}, int64[1] s = {2}", 17),
    ("Expand", ", s", "int64[5] s = {1, 1, 1, 1, 1}", 17),
    ("Reshape", ", s", "int64[4] s = {3, 2, 4, 4}", 17),
    ("Reshape", ", s", "int64[4] s = {2, 4, 3, 4}", 17),
    ("Transpose<perm = [0, 1, 3, 2]>", "", "", 17),
    ("Transpose", "", "", 17),
    ("Flatten", "", "", 17),
    ("Unsqueeze", ", a", "int64[1] a = {0}", 17),
    ("Relu", "", "", 17),
    ("LpPool<kernel_shape = [1, 1]>", "", "", 17),
]


def graph(op: str, inputs: str, constants: str) -> str:
    name, _, attributes = op.partition("<")
    attributes = f"<{attributes}" if attributes else ""
    declared = f"<{constants}>" if constants else ""
    return f"g ({X} x) => (float{dims(op)} y) {declared} {{ h = Neg(x) i = {name}{attributes}(h{inputs}) y = Abs(i) }}"


def dims(op: str) -> str:
    rank = {"Flatten": 2, "Unsqueeze": 5, "Expand": 5}.get(op, 4)
    return "[" + ",".join("ABCDE"[:rank]) + "]"


@pytest.mark.parametrize(("op", "inputs", "constants", "opset"), NO_OPS)
def test_what_does_nothing_is_removed(op, inputs, constants, opset):
    proof = prove(graph(op, inputs, constants).replace("[A,B,C,D,E]", "[A,B,C,D]"), PASS, opset=opset)
    assert proof.changed == 1
    assert proof.ops == {"Neg": 1, "Abs": 1}


@pytest.mark.parametrize(("op", "inputs", "constants", "opset"), SOMETHING)
def test_what_does_something_stays(op, inputs, constants, opset):
    proof = prove(graph(op, inputs, constants), PASS, opset=opset)
    assert proof.changed == 0
    assert len(proof.graph.nodes) == 3


@pytest.mark.parametrize(
    ("signature", "op"),
    [
        ("g (float[N,3] x) => (float[N,3] y)", "Flatten(h)"),
        ("g (float[N,3,H] x) => (float[N,3,H] y) <int64[3] s = {0, 3, -1}>", "Reshape(h, s)"),
        ("g (float[N,3,H] x) => (float[N,3,H] y) <int64[3] s = {-1, 3, 0}>", "Reshape(h, s)"),
        ("g (float[N,3,H] x) => (float[N,3,H] y) <int64[2] s = {3, 1}>", "Expand(h, s)"),
        ("g (float[N] x) => (float[N] y)", "Transpose(h)"),
        ("g (float[N,3,1,1] x) => (float[N,3,1,1] y)", "GlobalAveragePool(h)"),
        ("g (float[1,1,5] x) => (float[1,1,5] y)", "Transpose<perm = [1, 0, 2]>(h)"),
        ("g (float[N,3] x) => (float[N,3] y) <int64[1] b = {0}, int64[1] e = {2147483647}>", "Slice(h, b, e)"),
    ],
)
def test_shapes_that_are_only_partly_known(signature, op):
    proof = prove(f"{signature} {{ h = Neg(x) i = {op} y = Abs(i) }}", PASS)
    assert proof.ops == {"Neg": 1, "Abs": 1}


@pytest.mark.parametrize(
    ("signature", "op"),
    [
        ("g (float[N,3,H] x) => (float[A,B,C] y) <int64[3] s = {2, 0, -1}>", "Reshape(h, s)"),
        ("g (float[N,3,H] x) => (float[A,B,C] y) <int64[3] s = {-1, 3, 2}>", "Reshape(h, s)"),
        ("g (float[N,3] x) => (float[A,3] y) <int64[2] s = {2, 3}>", "Expand(h, s)"),
        ("g (float[N,3] x) => (float[A,3] y) <float[2,3] z = {0, 0, 0, 0, 0, 0}>", "Add(h, z)"),
        ("g (float[N,3] x) => (float[A,3] y) <int64[1] b = {0}, int64[1] e = {2}>", "Slice(h, b, e)"),
        ("g (float[N,1,H] x) => (float[A,B,H] y) ", "Transpose<perm = [1, 0, 2]>(h)"),
        ("g (float[N,3] x) => (float[A,B,C] y) <float[1,1,1] z = {0}>", "Add(h, z)"),
    ],
)
def test_what_cannot_be_proven_stays(signature, op):
    source = floating.model(f"{signature} {{ h = Neg(x) i = {op} y = Abs(i) }}")
    inputs = [{"x": np.ones([d if isinstance(d, int) else 2 for d in source.graph.inputs[0].shape], np.float32)}]
    assert prove(source, PASS, inputs).changed == 0


def test_a_chain_of_them():
    text = "a = Identity(x) b = Neg(a) c = Identity(b) d = Identity(c) y = Abs(d)"
    proof = prove(f"g (float[3] x) => (float[3] y) {{ {text} }}", PASS)
    assert proof.ops == {"Neg": 1, "Abs": 1}
    assert proof.changed == 3


def test_an_identity_with_several_readers():
    text = "h = Neg(x) i = Identity(h) a = Abs(i) b = Exp(i) c = Add(h, i) d = Add(a, b) y = Add(c, d)"
    proof = prove(f"g (float[3] x) => (float[3] y) {{ {text} }}", PASS)
    assert "Identity" not in proof.ops


def test_an_output_keeps_its_name():
    proof = prove("g (float[3] x) => (float[3] y) { h = Neg(x) y = Identity(h) }", PASS)
    assert proof.ops == {"Neg": 1}
    assert proof.node("h").outputs[0].name == "y"


def test_an_output_whose_source_is_read_elsewhere_too():
    proof = prove("g (float[3] x) => (float[3] y, float[3] z) { h = Neg(x) y = Identity(h) z = Exp(h) }", PASS)
    assert proof.ops == {"Neg": 1, "Exp": 1}
    assert [t.name for t in proof.graph.outputs] == ["y", "z"]


def test_between_an_input_and_an_output_it_stays():
    proof = prove("g (float[3] x) => (float[3] y) { [keep] y = Identity(x) }", PASS)
    assert proof.ops == {"Identity": 1}
    assert proof.reasons == {"keep": "it connects input x to output y"}


def test_between_two_outputs_it_stays():
    proof = prove("g (float[3] x) => (float[3] y, float[3] z) { y = Neg(x) [keep] z = Identity(y) }", PASS)
    assert proof.ops == {"Neg": 1, "Identity": 1}
    assert proof.reasons == {"keep": "its input y and its result z are both outputs"}


def test_two_outputs_of_one_tensor_stay_two():
    proof = prove(
        "g (float[3] x) => (float[3] y, float[3] z) { h = Neg(x) y = Identity(h) [keep] z = Identity(h) }", PASS
    )
    assert proof.ops == {"Neg": 1, "Identity": 1}
    assert "keep" in proof.reasons


def test_between_a_constant_and_an_output_it_stays():
    proof = prove("g (float[3] x) => (float[3] y, float[3] z) <float[3] w> { y = Neg(x) [keep] z = Identity(w) }", PASS)
    assert proof.reasons == {"keep": "it produces output z from a constant"}


def test_a_constant_behind_an_identity_is_read_directly():
    proof = prove("g (float[3] x) => (float[3] y) <float[3] w> { i = Identity(w) y = Add(x, i) }", PASS)
    assert proof.ops == {"Add": 1}


def test_a_dropout_whose_mask_is_used_stays():
    text = "g (float[3] x) => (float[3] y, bool[3] m) { h = Neg(x) [keep] d, m = Dropout(h) y = Abs(d) }"
    proof = prove(text, PASS)
    assert proof.reasons == {"keep": "its other output m is used"}
    unused = "g (float[3] x) => (float[3] y) { h = Neg(x) d, m = Dropout(h) y = Abs(d) }"
    assert prove(unused, PASS).ops == {"Neg": 1, "Abs": 1}
    assert prove(unused, PASS, opset=7).ops == {"Neg": 1, "Abs": 1}


def test_a_cast_to_another_type_stays():
    proof = prove("g (float[3] x) => (float[3] y) { d = Cast<to = 11>(x) y = Cast<to = 1>(d) }", PASS)
    assert proof.changed == 0


def test_limits_known_at_run_time_only():
    proof = prove("g (float[3] x, float c) => (float[3] y) { h = Clip(x, c) i = Add(h, c) y = Abs(i) }", PASS)
    assert proof.changed == 0


def test_inside_subgraphs():
    proof = prove(
        """g (float[3] x, bool c) => (float[3] y) {
            o = Identity(x)
            h = If (c) <
                then_branch = t () => (float[3] a) { n = Identity(o) k = Exp(n) a = Identity(k) },
                else_branch = e () => (float[3] b) { [keep] b = Identity(o) }
            >
            y = Identity(h)
        }""",
        PASS,
    )
    assert proof.ops == {"If": 1, "Exp": 1, "Identity": 1}
    assert proof.reasons == {"keep": "it connects input x to output b"}


def test_a_branch_that_hands_on_what_is_made_outside():
    proof = prove(
        """g (float[3] x, bool c) => (float[3] y) {
            o = Neg(x)
            y = If (c) <
                then_branch = t () => (float[3] a) { a = Exp(o) },
                else_branch = e () => (float[3] b) { [keep] b = Identity(o) }
            >
        }""",
        PASS,
    )
    assert proof.reasons == {"keep": "its input o comes from outside the subgraph"}


def test_a_loop_whose_condition_passes_through():
    source = load(
        floating.proto(
            """g (float[3] x) => (float[3] y) <int64 n = {3}, bool go = {1}> {
            y = Loop (n, go, x) <body = b (int64 i, bool c, float[3] v) => (bool d, float[3] w) {
                [keep] d = Identity(c)
                s = Identity(v)
                w = Add(s, s)
            }>
        }"""
        )
    )
    proof = prove(source, PASS)
    assert proof.ops == {"Loop": 1, "Identity": 1, "Add": 1}
    assert "keep" in proof.reasons


def test_custom_operators_of_the_same_name_stay():
    source = load(floating.proto("g (float[3] x) => (float[3] y) { h = custom.Identity(x) y = Neg(h) }"))
    assert pipeline.run(source, [PASS], PassContext(source))[0].changed == 0
