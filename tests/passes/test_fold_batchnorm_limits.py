"""fold-batchnorm at its limits: shared and computed values, training mode, half precision, subgraphs, failures."""

import ml_dtypes
import numpy as np
import onnx
import pytest

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.errors import PassError
from onnxq.graph.model import load
from onnxq.passes.fold_batchnorm import FoldBatchNorm
from support.build import floating
from support.cases.batch_norm import CONV, bn, norm, values
from support.prove.passes import prove
from support.prove.values import constant

PASS = FoldBatchNorm()


def refused(text: str, **how) -> str:
    """Why the node `n` was refused; the model still computes the same."""
    proof = prove(text, FoldBatchNorm(standalone=False), **how)
    assert proof.changed == 0
    return proof.reasons["n"]


def test_a_result_that_others_read_is_not_folded():
    text = (
        f"g ({CONV[:-2]} y, float[A,B,C,D] z) <float[6,4,3,3] w, {bn(6)}> "
        f"{{ [c] h = Conv(x, w) [n] y = {norm('h')} [r] z = Relu(h) }}"
    )
    assert "the output of c is also read by r" in refused(text, **values(6))
    output = (
        f"g ({CONV[:-2]} y, float[A,B,C,D] h) <float[6,4,3,3] w, {bn(6)}> {{ [c] h = Conv(x, w) [n] y = {norm('h')} }}"
    )
    assert "the output of c is also a graph output" in refused(output, **values(6))


def test_a_shared_weight_is_not_touched():
    text = (
        f"g ({CONV[:-2]} y, float[A,B,C,D] z) <float[6,4,3,3] w, {bn(6)}> "
        f"{{ h = Conv(x, w) [n] y = {norm('h')} [twin] z = Conv(x, w) }}"
    )
    assert "is shared with twin" in refused(text, **values(6))


def test_a_weight_captured_by_a_subgraph_is_shared():
    text = f"""g (float[1,4,7,7] x, bool c) => (float[A,B,C,D] y) <float[6,4,3,3] w, {bn(6)}> {{
        h = Conv(x, w)
        [n] i = {norm("h")}
        y = If (c) <
            then_branch = t () => (float[A,B,C,D] a) {{ [twin] k = Conv(x, w) a = Add(i, k) }},
            else_branch = e () => (float[A,B,C,D] b) {{ b = Neg(i) }}
        >
    }}"""
    assert "is shared with twin" in refused(text, **values(6))


def test_a_shared_bias_is_copied():
    text = (
        f"g ({CONV[:-2]} y, float[A,B,C,D] z) <float[6,4,3,3] w, float[6,4,3,3] v, float[6] b, {bn(6)}> "
        f"{{ h = Conv(x, w, b) y = {norm('h')} z = Conv(x, v, b) }}"
    )
    proof = prove(text, PASS, **values(6))
    assert proof.ops == {"Conv": 2}


def test_a_weight_computed_at_run_time_is_refused():
    text = (
        f"g (float[1,4,7,7] x, float[6,4,3,3] w) => (float[A,B,C,D] y) <{bn(6)}> "
        f"{{ [c] h = Conv(x, w) [n] y = {norm('h')} }}"
    )
    assert "the weight of c is computed at run time" in refused(text, **values(6))
    bias = (
        f"g (float[1,4,7,7] x, float[6] b) => (float[A,B,C,D] y) <float[6,4,3,3] w, {bn(6)}> "
        f"{{ [c] h = Conv(x, w, b) [n] y = {norm('h')} }}"
    )
    assert "the bias of c is computed at run time" in refused(bias, **values(6))


def test_parameters_computed_at_run_time_are_refused():
    text = "g (float[2,4] x, float[4] ga) => (float[2,4] y) <float[4] be, float[4] va>"
    text += "{ [n] y = BatchNormalization(x, ga, be, be, va) }"
    assert refused(text, va=2) == "its parameters are computed at run time"


def test_training_mode_is_refused():
    text = (
        f"g ({CONV[:-2]} y, float[6] m, float[6] v) <float[6,4,3,3] w, {bn(6)}> "
        f"{{ h = Conv(x, w) [n] y, m, v = BatchNormalization<training_mode = 1>(h, ga, be, mu, va) }}"
    )
    assert refused(text, **values(6)) == "is in training mode"


def test_old_training_form_with_five_outputs_is_refused():
    built = floating.proto(
        f"g ({CONV} <float[6,4,3,3] w, {bn(6)}> {{ h = Conv(x, w) [n] y, a, b, c, d = {norm('h')} }}",
        opset=9,
        **values(6),
    )
    source = load(built)
    report = pipeline.run(source, [PASS], PassContext(source))[0]
    assert [f.reason for f in report.skipped] == ["is in training mode"]


def test_normalization_of_each_element_is_refused():
    built = floating.proto(
        f"g (float[2,4] x) => (float[2,4] y) <{bn(4)}> "
        f"{{ [n] y = BatchNormalization<spatial = 0>(x, ga, be, mu, va) }}",
        opset=7,
        **values(4),
    )
    source = load(built)
    report = pipeline.run(source, [PASS], PassContext(source))[0]
    assert "spatial=0" in report.skipped[0].reason


def test_a_variance_of_zero_needs_an_epsilon():
    text = (
        f"g (float[2,4] x) => (float[2,4] y) <{bn(4)}> "
        f"{{ [n] y = BatchNormalization<epsilon = 0.0>(x, ga, be, mu, va) }}"
    )
    source = floating.model(text, ga=1, be=1, mu=0, va=0)
    report = pipeline.run(source, [PASS], PassContext(source))[0]
    assert "epsilon_floor" in report.skipped[0].reason
    assert pipeline.run(source, [FoldBatchNorm(epsilon_floor=1e-3)], PassContext(source))[0].changed == 1
    assert constant(source.graph.nodes[0].inputs[1]).reshape(-1) == pytest.approx([1e-3**-0.5] * 4)


def test_half_precision_weights_stay_half_precision():
    text = (
        f"g (float16[1,4,7,7] x) => (float16[N,M,H,W] y) <float16[6,4,3,3] w, {bn(6, 'float16')}> "
        f"{{ h = Conv(x, w) y = {norm('h')} }}"
    )
    proof = prove(text, PASS, tolerance=4e-3, **values(6))
    assert proof.ops == {"Conv": 1}
    assert {constant(t).dtype for t in proof.graph.nodes[0].inputs[1:]} == {np.dtype(np.float16)}


def test_half_precision_overflow_is_refused():
    text = (
        f"g (float16[1,4,7,7] x) => (float16[N,M,H,W] y) <float16[6,4,3,3] w, {bn(6, 'float16')}> "
        f"{{ [c] h = Conv(x, w) [n] y = {norm('h')} }}"
    )
    source = floating.model(text, **values(6) | {"ga": 60000, "va": 1e-6, "w": 100})
    report = pipeline.run(source, [FoldBatchNorm(standalone=False)], PassContext(source))[0]
    assert "would overflow float16" in report.skipped[0].reason


def test_bfloat16():
    text = (
        f"g (bfloat16[1,4,7,7] x) => (bfloat16[N,M,H,W] y) <bfloat16[6,4,3,3] w, {bn(6, 'bfloat16')}> "
        f"{{ h = Conv(x, w) y = {norm('h')} }}"
    )
    source = floating.model(text, opset=22, ir=10, **values(6))
    assert pipeline.run(source, [PASS], PassContext(source))[0].changed == 1
    assert constant(source.graph.nodes[0].inputs[1]).dtype == ml_dtypes.bfloat16


def test_float32_parameters_for_half_precision_values():
    text = (
        f"g (float16[1,4,7,7] x) => (float16[N,M,H,W] y) <float16[6,4,3,3] w, {bn(6)}> "
        f"{{ h = Conv(x, w) y = {norm('h')} }}"
    )
    source = floating.model(text, **values(6))
    assert pipeline.run(source, [PASS], PassContext(source))[0].changed == 1
    assert constant(source.graph.nodes[0].inputs[2]).dtype == np.float16


def test_inside_subgraphs():
    text = f"""g (float[1,4,7,7] x, bool c) => (float[A,B,C,D] y) <{bn(6)}> {{
        y = If (c) <
            then_branch = t () => (float[A,B,C,D] a) <float[6,4,3,3] w> {{ h = Conv(x, w) a = {norm("h")} }},
            else_branch = e () => (float[A,B,C,D] b) <float[6,4,3,3] w> {{ i = Conv(x, w) b = {norm("i")} }}
        >
    }}"""
    built = floating.proto(text, **values(6))
    rng = np.random.default_rng(0)
    for attr in built.graph.node[0].attribute:
        del attr.g.value_info[:]
        attr.g.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=(6, 4, 3, 3)).astype(np.float32), "w"))
    proof = prove(built, PASS)
    assert proof.ops == {"If": 1, "Conv": 2}
    assert proof.changed == 2


def test_never_across_the_border_of_a_subgraph():
    text = f"""g (float[1,4,7,7] x, bool c) => (float[A,B,C,D] y) <float[4,4,1,1] w, float[4,4,1,1] v, {bn(4)}> {{
        o = Conv(x, w)
        p = {norm("x")}
        y = If (c) <
            then_branch = t () => (float[A,B,C,D] a) {{ [n] a = {norm("o")} }},
            else_branch = e () => (float[A,B,C,D] b) {{ b = Conv(p, v) }}
        >
    }}"""
    proof = prove(text, FoldBatchNorm(standalone=False), **values(4))
    assert proof.changed == 0
    assert proof.ops == {"Conv": 2, "BatchNormalization": 2, "If": 1}


def test_the_original_arrays_are_never_edited_in_place():
    source = floating.model(
        f"g ({CONV} <float[6,4,3,3] w, float[6] b, {bn(6)}> {{ h = Conv(x, w, b) y = {norm('h')} }}",
        **values(6),
    )
    held = [t.values for t in source.graph.nodes[0].inputs[1:]]
    copies = [v.copy() for v in held]
    pipeline.run(source, [PASS], PassContext(source))
    assert all(np.array_equal(a, b) for a, b in zip(held, copies, strict=True))


def test_a_failure_in_the_middle_of_a_pipeline_names_the_pass(monkeypatch):
    source = floating.model(f"g (float[2,4] x) => (float[2,4] y) <{bn(4)}> {{ y = {norm('x')} }}", **values(4))
    monkeypatch.setattr("onnxq.numeric.affine.batch_norm", lambda *a: 1 / 0)
    with pytest.raises(PassError, match="pass fold-batchnorm failed: ZeroDivisionError"):
        pipeline.run(source, [PASS], PassContext(source))
