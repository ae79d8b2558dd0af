"""dilated-pool-to-conv: an average over windows with gaps is a depthwise convolution."""

import numpy as np
import pytest

from onnxq.passes.dilated_pool_to_conv import DilatedPoolToConv
from onnxq.passes.eliminate_identity import EliminateIdentity
from support.prove.passes import prove

PASS = DilatedPoolToConv()
PICTURE = "g (float[2,3,9,8] x) => (float[A,B,C,D] y)"
SEQUENCE = "g (float[2,3,9] x) => (float[A,B,C] y)"


@pytest.mark.parametrize(
    ("signature", "attributes", "ops"),
    [
        (PICTURE, "kernel_shape=[2,2], dilations=[2,2]", {"Conv": 1}),
        (PICTURE, "kernel_shape=[2,3], dilations=[3,2], strides=[1,2]", {"Conv": 1}),
        (PICTURE, "kernel_shape=[2,2], dilations=[2,2], pads=[1,0,1,1], count_include_pad=1", {"Conv": 1}),
        (PICTURE, "kernel_shape=[2,2], dilations=[2,2], pads=[1,0,1,1]", {"Conv": 1, "Mul": 1}),
        (PICTURE, 'kernel_shape=[3,2], dilations=[2,1], auto_pad="VALID"', {"Conv": 1}),
        (SEQUENCE, "kernel_shape=[3], dilations=[2]", {"Conv": 1}),
        (SEQUENCE, "kernel_shape=[3], dilations=[2], pads=[2,1], strides=[2]", {"Conv": 1, "Mul": 1}),
        ("g (float[N,3,H,W] x) => (float[A,B,C,D] y)", "kernel_shape=[2,2], dilations=[1,2]", {"Conv": 1}),
        (PICTURE, "kernel_shape=[2,2], dilations=[1,1]", {"AveragePool": 1}),
        (PICTURE, "kernel_shape=[2,2]", {"AveragePool": 1}),
    ],
)
def test_windows(signature, attributes, ops):
    shape = (2, 3, 9) if signature is SEQUENCE else (2, 3, 9, 8)
    feed = {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    proof = prove(f"{signature} {{ [n] y = AveragePool<{attributes}>(x) }}", PASS, [feed], opset=19)
    assert proof.ops == ops and proof.changed == ("Conv" in ops)


@pytest.mark.parametrize(
    ("data", "attributes", "reason"),
    [
        ("N,C,9,8", "kernel_shape=[2,2], dilations=[2,2]", "its number of channels is not known"),
        ("2,3,H,W", "kernel_shape=[2,2], dilations=[2,2], pads=[1,1,1,1]", "depends on unknown sizes"),
        ("2,3,H,W", 'kernel_shape=[2,2], dilations=[2,2], auto_pad="SAME_LOWER"', "on which runtimes disagree"),
        ("2,3,9,8,7", "kernel_shape=[2,2,2], dilations=[2,1,2]", "pools along 3 axes"),
    ],
)
def test_what_stays_in_float_is_kept_apart(data, attributes, reason):
    sizes = (2, 3, 9, 8, 7)[: data.count(",") + 1]
    feed = {"x": np.random.default_rng(0).normal(size=sizes).astype(np.float32)}
    out = ",".join("ABCDE"[: len(sizes)])
    text = f"g (float[{data}] x) => (float[{out}] y) {{ [n] y = AveragePool<{attributes}>(x) }}"
    proof = prove(text, PASS, [feed], opset=19)
    assert proof.ops == {"AveragePool": 1, "Max": 1} and reason in proof.reasons["n"]
    assert prove(proof.model, EliminateIdentity(), [feed]).changed == 0


def test_in_a_branch():
    text = """g (float[N,C,9,8] x, bool b) => (float[A,B,C,D] y) { y = If(b) <
        then_branch = t () => (float[A,B,C,D] u) { [n] u = AveragePool<kernel_shape=[2,2], dilations=[2,2]>(x) },
        else_branch = e () => (float[A,B,C,D] v) { m = Max(x) v = Relu(m) }> }"""
    feeds = [
        {"x": np.random.default_rng(0).normal(size=(1, 2, 9, 8)).astype(np.float32), "b": np.array(b)}
        for b in (True, False)
    ]
    proof = prove(text, PASS, feeds, opset=19)
    assert proof.ops == {"If": 1, "AveragePool": 1, "Max": 2, "Relu": 1} and proof.changed == 1
    assert prove(proof.model, EliminateIdentity(), feeds).ops["Max"] == 1
