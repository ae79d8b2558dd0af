"""Hutchinson's estimates against exact traces, computed in float64 by another way (support.derivatives)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.cost.prepared import prepare
from onnxq.data.options import RunOptions
from onnxq.data.source import input_specs, open_data
from onnxq.errors import ConfigError, InterruptedRun
from onnxq.graph.match import constant_values
from onnxq.graph.model import load, to_proto
from onnxq.numeric import curvature
from onnxq.search.checkpoint import State
from onnxq.search.downstream import weight_part
from onnxq.search.float_runs import MEMORY, Forward
from onnxq.search.hessian import HutchinsonOptions, Probes, traces
from onnxq.search.objective import find_objective
from support import derivatives
from support.build import floating

CONV = """g (float[N,2,6,6] x) => (float[N,4] y)
<float[4,2,3,3] w1, float[4] b1, float[4,1,3,3] w2, float[4] b2,
 float[4,4,1,1] w3, float[4] b3, float[4,4] w4, float[4] b4> {
    [c1] a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1, b1)   ar = Relu(a)
    [c2] d = Conv<pads=[1,1,1,1], group=4>(ar, w2, b2)        dr = Relu(d)
    [c3] e = Conv(dr, w3, b3)                                  s = Add(e, ar)
    p = GlobalAveragePool(s)  f = Flatten(p)
    [fc] y = Gemm<transB=1>(f, w4, b4)
}"""
TANH = """g (float[N,5] x) => (float[N,3] y) <float[5,6] w1, float[6] b1, float[6,3] w2, float[3] b2> {
    [m1] a = MatMul(x, w1)  ab = Add(a, b1)  t = Tanh(ab)
    [m2] y = Gemm(t, w2, b2)
}"""


def source(model: onnx.ModelProto, samples: int = 12, scale: float = 1.0, seed: int = 3) -> dict[str, np.ndarray]:
    shape = [d.dim_value or samples for d in model.graph.input[0].type.tensor_type.shape.dim]
    shape[0] = samples
    return {"x": np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)}


def estimate(model: onnx.ModelProto, data: Any, loss: str = "auto", **how: Any) -> dict[str, Probes]:
    """Probes of every layer by node name."""
    run = RunOptions(**{k: how.pop(k) for k in ("batch_size", "threads") if k in how})
    memory = how.pop("memory", MEMORY)
    state, progress = how.pop("state", None), how.pop("progress", None)
    ready = prepare(model, "onnxruntime-cpu")
    objective = find_objective(ready.model, loss)  # type: ignore[arg-type]
    proto = to_proto(ready.model)
    parts = {
        layer.node.name: weight_part(ready.model, proto, layer.node.name, layer.weight_index, objective.tensors)
        for layer in ready.layers
    }
    weights = {layer.node.name: np.asarray(constant_values(layer.weight)) for layer in ready.layers}
    samples = open_data(data, input_specs(ready.model.graph))
    options = HutchinsonOptions(**({"budget": None} | how))
    with Forward(ready.model, parts, samples, run, memory=memory, wanted=objective.tensors) as forward:
        return traces(forward, weights, objective, options, state=state, progress=progress)


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    return to_proto(load(model))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_relu_network_is_within_ten_percent_of_gauss_newton_which_is_its_hessian(batch_size):
    model = floating.proto(CONV)
    data = source(model)
    found = estimate(model, data, tolerance=0.04, rounds=500, batch_size=batch_size)
    labels = np.eye(4)[np.arange(12) % 4]
    for node, weight in {"c1": "w1", "c2": "w2", "c3": "w3", "fc": "w4"}.items():
        exact = derivatives.gauss_newton_trace(model, data, weight)
        for target in (labels, np.full((12, 4), 0.25)):
            assert derivatives.hessian_trace(model, data, weight, target) == pytest.approx(exact, rel=1e-4)
        assert found[node].trace == pytest.approx(exact, rel=0.10), node
        assert abs(found[node].trace - exact) < 5 * found[node].standard_error + 0.02 * exact, node
        assert found[node].rounds < 500, node
        assert found[node].standard_error <= 0.04 * found[node].trace, node


def test_the_exact_traces_are_those_of_double_backward():
    torch = pytest.importorskip("torch", reason="torch is not installed: it is no dependency, only a second opinion")
    model = floating.proto(CONV)
    data, target = source(model), np.full((12, 4), 0.25)
    w = {t.name: torch.tensor(onnx.numpy_helper.to_array(t)).double() for t in model.graph.initializer}
    conv = torch.nn.functional.conv2d

    def loss(**changed: Any) -> Any:
        v = w | changed
        ar = torch.relu(conv(torch.tensor(data["x"]).double(), v["w1"], v["b1"], stride=2, padding=1))
        dr = torch.relu(conv(ar, v["w2"], v["b2"], padding=1, groups=4))
        f = (conv(dr, v["w3"], v["b3"]) + ar).mean((2, 3))
        return -(torch.tensor(target) * torch.log_softmax(f @ v["w4"].T + v["b4"], 1)).sum() / 12

    for weight in ("w1", "w2", "w3", "w4"):
        flat = w[weight].reshape(-1)
        hessian = torch.autograd.functional.hessian(lambda x, n=weight: loss(**{n: x.reshape(w[n].shape)}), flat)
        assert float(hessian.trace()) == pytest.approx(derivatives.gauss_newton_trace(model, data, weight), rel=1e-9)
        assert float(hessian.trace()) == pytest.approx(derivatives.hessian_trace(model, data, weight, target), rel=1e-4)


def test_smooth_network_gauss_newton_and_second_differences_each_estimate_their_own_matrix():
    model = floating.proto(TANH)
    data = source(model, scale=1.5)
    labels = np.arange(12) % 3
    newton = estimate(model, data, tolerance=0.03, rounds=200)
    second = estimate(
        model, data | {"labels": labels}, tolerance=0.03, rounds=200, curvature="second-differences", targets="labels"
    )
    for node, weight in {"m1": "w1", "m2": "w2"}.items():
        exact = derivatives.gauss_newton_trace(model, data, weight)
        hessian = derivatives.hessian_trace(model, data, weight, np.eye(3)[labels])
        assert newton[node].trace == pytest.approx(exact, rel=0.1)
        assert abs(second[node].trace - hessian) < 4 * second[node].standard_error + 0.02 * abs(hessian)
        assert (hessian == pytest.approx(exact, rel=1e-4)) == (node == "m2")  # the last layer is linear in its weight


def test_mean_squared_error_where_that_is_the_loss():
    model = floating.proto(CONV)
    data = source(model)
    found = estimate(model, data, "mse", tolerance=0.03, rounds=200)
    for node, weight in {"c1": "w1", "c3": "w3", "fc": "w4"}.items():
        assert found[node].trace == pytest.approx(derivatives.squared_error_trace(model, data, weight), rel=0.1)


def test_a_softmax_at_the_end_changes_nothing():
    plain = floating.proto(CONV)
    ending = "[fc] z = Gemm<transB=1>(f, w4, b4)  q = Softmax(z)  y = Reshape(q, shape)"
    text = CONV.replace("[fc] y = Gemm<transB=1>(f, w4, b4)", ending).replace(
        "float[4] b4>", "float[4] b4, int64[4] shape>"
    )
    behind = floating.proto(text.replace("(float[N,4] y)", "(float[N,4,1,1] y)"), shape=[-1, 4, 1, 1])
    for tensor, other in zip(behind.graph.initializer, plain.graph.initializer, strict=False):
        tensor.CopyFrom(other)
    data = source(plain)
    found, same = (estimate(m, data, rounds=3, tolerance=1e-9) for m in (plain, behind))
    assert [p.trace for p in found.values()] == pytest.approx([p.trace for p in same.values()], rel=1e-6)


@pytest.mark.parametrize("how", [{"threads": 2}, {"memory": 1}, {"memory": 4000}, {"threads": 2, "memory": 1}])
def test_threads_and_the_memory_bound_do_not_show_in_the_result(how):
    model = floating.proto(CONV)
    data = source(model)
    expected = estimate(model, data, rounds=5, tolerance=1e-9, threads=1)
    found = estimate(model, data, rounds=5, tolerance=1e-9, **how)
    assert [p.sums.tolist() for p in found.values()] == [p.sums.tolist() for p in expected.values()]


def test_padding_samples_of_a_fixed_batch_do_not_count():
    model = floating.proto(CONV.replace("N,2,6,6", "4,2,6,6").replace("N,4", "4,4"))
    data = source(model, samples=6)
    found = estimate(model, data, tolerance=0.03, rounds=200)
    exact = derivatives.gauss_newton_trace(model, data, "w1")
    assert found["c1"].trace == pytest.approx(exact, rel=0.1)


def test_seeds_differ_and_repeat():
    model = floating.proto(TANH)
    data = source(model)
    first, again, other = (estimate(model, data, rounds=2, seed=seed)["m1"].trace for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("stops", [[1], [3], [2, 9, 10, 11]])
def test_interrupted_and_resumed_gives_the_uninterrupted_result(tmp_path, stops):
    model = floating.proto(CONV)
    data = source(model)
    how = {"rounds": 40, "tolerance": 0.1}
    expected = estimate(model, data, **how)
    path, identity = tmp_path / "state.json", {"model": "m"}
    for at in stops:
        stop = threading.Event()

        def tell(done: int, _total: int | None, at: int = at, stop: threading.Event = stop) -> None:
            if done >= at:
                stop.set()

        with pytest.raises(InterruptedRun, match="same command continues"):
            estimate(model, data, state=State(path, identity, stop), progress=tell, **how)
    found = estimate(model, data, state=State(path, identity), **how)
    for node, probes in expected.items():
        assert found[node].rounds == probes.rounds
        assert found[node].sums.tolist() == probes.sums.tolist()
        assert found[node].squares.tolist() == probes.squares.tolist()
    assert len({p.rounds for p in expected.values()}) > 1  # layers stop on their own


def test_a_state_of_something_else_is_refused(tmp_path):
    path = tmp_path / "state.json"
    State(path, {"model": "m", "seed": 0}).write()
    with pytest.raises(ConfigError, match="started with different seed; remove it"):
        State(path, {"model": "m", "seed": 1})
    path.write_text("{")
    with pytest.raises(ConfigError, match="not a state"):
        State(path, {})


def test_the_time_limit_leaves_every_layer_an_estimate():
    model = floating.proto(CONV)
    found = estimate(model, source(model), tolerance=1e-9, budget=1e-6)
    assert [p.rounds for p in found.values()] == [2, 2, 2, 2]
    assert all(np.isfinite(p.standard_error) and p.trace > 0 for p in found.values())


def test_a_layer_the_outputs_do_not_depend_on_has_no_trace():
    text = """g (float[N,3] x) => (float[N,3] y, int64[N,1] k) <float[3,3] w, float[3,3] v> {
        [used] y = MatMul(x, w)  [aside] a = MatMul(x, v)  k = ArgMax<axis=1>(a)
    }"""
    found = estimate(floating.proto(text), source(floating.proto(text)), rounds=2)
    assert found["used"].trace > 0
    assert (found["aside"].trace, found["aside"].standard_error) == (0.0, 0.0)


def test_a_weight_that_two_layers_share_is_probed_in_one_of_them_at_a_time():
    text = """g (float[N,4] x) => (float[N,4] y) <float[4,4] w> {
        [first] a = MatMul(x, w)  r = Relu(a)  [second] y = MatMul(r, w)
    }"""
    apart = text.replace("<float[4,4] w>", "<float[4,4] w, float[4,4] v>").replace("MatMul(r, w)", "MatMul(r, v)")
    w = np.random.default_rng(0).normal(0, 0.5, (4, 4))
    shared, own = floating.proto(text, w=w), floating.proto(apart, w=w, v=w)
    data = source(shared)
    found = [[p.trace for p in estimate(m, data, rounds=3).values()] for m in (shared, own)]
    assert found[0] == found[1]


@given(st.integers(1, 4), st.integers(2, 6), st.integers(0, 1000))
def test_forms_are_never_negative_and_are_those_of_the_matrix(rows, classes, seed):
    rng = np.random.default_rng(seed)
    p, jv = curvature.softmax(rng.normal(0, 5, (rows, classes))), rng.normal(0, 1, (rows, classes))
    exact = np.mean([j @ (np.diag(q) - np.outer(q, q)) @ j for q, j in zip(p, jv, strict=True)])
    found = curvature.cross_entropy_form(p, jv)
    assert found >= 0
    assert found == pytest.approx(exact, rel=1e-9, abs=1e-15)
    assert curvature.cross_entropy_form(p, np.ones((rows, classes)) * 7) == pytest.approx(0, abs=1e-20)


def test_rademacher_signs_are_fair_and_their_own():
    v = curvature.rademacher((100, 101), 0, "layer", 0, 0)
    assert set(np.unique(v)) == {-1.0, 1.0}
    assert abs(v.mean()) < 0.05
    changed = ((1, "layer", 0, 0), (0, "other", 0, 0), (0, "layer", 1, 0), (0, "layer", 0, 1))
    others = [curvature.rademacher((100, 101), *args) for args in changed]
    assert all(abs((v * o).mean()) < 0.05 for o in others)


def test_standard_errors_are_those_of_repeated_runs():
    rng = np.random.default_rng(0)
    shares = np.array([0.5, 0.3, 0.2])
    ends: list[float] = []
    told: list[float] = []
    for _ in range(400):
        p = Probes(shares)
        for _ in range(8):
            p.add(rng.gamma(2.0, [1.0, 5.0, 20.0]))
        ends.append(p.trace)
        told.append(p.standard_error)
    assert np.mean(ends) == pytest.approx(float(shares @ [2, 10, 40]), rel=0.02)
    assert np.sqrt(np.mean(np.square(told))) == pytest.approx(np.std(ends), rel=0.1)


@pytest.mark.parametrize(("name", "value"), [("tolerance", 0), ("rounds", 1), ("epsilon", 0), ("budget", -1.0)])
def test_options_that_make_no_sense(name, value):
    with pytest.raises(ConfigError, match=r"needed|or none"):
        HutchinsonOptions(**{name: value})


def test_objectives():
    def of(text: str, **how: Any) -> Sequence[Any]:
        found = find_objective(prepare(floating.proto(text), "onnxruntime-cpu").model, **how)
        return found.loss, found.tensors, found.axis

    pixels = "g (float[N,3,H,W] x) => (float[N,5,H,W] y) <float[5,3,1,1] w> { z = Conv(x, w)  y = Softmax<axis=1>(z) }"
    assert of(pixels) == ("cross-entropy", ("z",), 1)
    assert of(pixels, loss="mse") == ("mse", ("y",), -1)
    image = "g (float[N,3,H,W] x) => (float[N,5,H,W] y) <float[5,3,1,1] w> { y = Conv(x, w) }"
    assert of(image) == ("mse", ("y",), -1)
    assert of(TANH) == ("cross-entropy", ("y",), 1)
    assert of(TANH, output="t", loss="mse") == ("mse", ("t",), -1)
    with pytest.raises(ConfigError, match="cross-entropy needs one output"):
        of(image, loss="cross-entropy")
    with pytest.raises(ConfigError, match="no tensor 'nothing'"):
        of(image, output="nothing")
