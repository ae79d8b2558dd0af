"""Parts of a model compute what the whole model does, from whatever they are fed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxq.cost.prepared import prepare
from onnxq.data.source import input_specs, open_data
from onnxq.errors import OnnxqError
from onnxq.graph.match import constant_values, is_float
from onnxq.graph.model import to_proto
from onnxq.search.downstream import QMAX, QMIN, SCALE, WEIGHT, ZERO_POINT, activation_part, weight_part
from onnxq.search.float_runs import Forward, run_part
from support.build import floating
from support.cases import zoo

RESIDUAL = """g (float[N,4,5,5] x) => (float[N,4,5,5] y, float[N,4,5,5] aside)
<float[4,4,1,1] w1, float[4,4,1,1] w2, float[4,4,1,1] w3> {
    [c1] a = Conv(x, w1)  ar = Relu(a)
    [c2] b = Conv(ar, w2)  [sum] s = Add(b, ar)  sr = Relu(s)
    [c3] y = Conv(sr, w3)  aside = Neg(ar)
}"""


def outputs_of(model) -> list[str]:
    return [t.name for t in model.graph.outputs if is_float(t)]


@pytest.mark.parametrize("name", [name for name, kind in zoo.KINDS.items() if kind.layers])
def test_with_its_own_weight_a_part_makes_the_models_outputs(name):
    kind = zoo.KINDS[name]
    ready = prepare(kind.model(), "onnxruntime-cpu")
    proto, wanted = to_proto(ready.model), outputs_of(ready.model)
    if not wanted:
        pytest.skip("it has no float32 output to look at")
    parts = {x.node.name: weight_part(ready.model, proto, x.node.name, x.weight_index, wanted) for x in ready.layers}
    data = open_data(kind.feeds(2), input_specs(ready.model.graph))
    with Forward(ready.model, parts, data, wanted=wanted) as forward:
        expected = dict(zip(wanted, forward.run(wanted, forward.batches[0]), strict=True))
        assert parts
        for layer in ready.layers:
            part = parts[layer.node.name]
            tensors = forward.tensors(part.fed, [0])[0]
            weight = np.asarray(constant_values(layer.weight))
            session = forward.open(part.proto())
            for tensor, value in run_part(session, part, tensors, {WEIGHT: weight}).items():
                np.testing.assert_allclose(value, expected[tensor], rtol=1e-4, atol=1e-4 * np.abs(value).max())
            changed = run_part(session, part, tensors, {WEIGHT: weight * np.float32(0.5)})
            seen = tensors[layer.node.inputs[1 - layer.weight_index].name].any()  # not all of it zero behind a Relu
            assert any(not np.array_equal(changed[t], expected[t]) for t in part.outputs) == seen, layer.node.name


def test_a_part_holds_what_depends_on_the_layer_and_reads_the_rest():
    ready = prepare(floating.proto(RESIDUAL), "onnxruntime-cpu")
    proto = to_proto(ready.model)
    part = weight_part(ready.model, proto, "c2", 1, ["y", "aside"])
    assert [n.name for n in part.nodes if n.name in ("c1", "c2", "sum", "c3")] == ["c2", "sum", "c3"]
    assert (part.fed, list(part.outputs)) == (("ar",), ["y"])  # aside does not depend on c2
    assert [t.name for t in part.constants] == ["w3"]
    last = weight_part(ready.model, proto, "c3", 1, ["y"])
    assert [n.name for n in last.nodes] == ["c3"]


@pytest.mark.parametrize(
    ("readers", "kept"),
    [(None, ()), ([("c2", 0)], ("aside", "sum")), ([("sum", 1)], ("aside", "c2"))],
)
def test_an_activation_is_rounded_for_those_readers_alone(readers, kept):
    ready = prepare(floating.proto(RESIDUAL), "onnxruntime-cpu")
    proto = to_proto(ready.model)
    part = activation_part(ready.model, proto, {"ar": readers}, ["y", "aside", "ar"])
    data = open_data(
        {"x": np.random.default_rng(0).normal(size=(1, 4, 5, 5)).astype(np.float32)}, input_specs(ready.model.graph)
    )
    with Forward(ready.model, {"k": part}, data, wanted=["y", "aside", "ar"]) as forward:
        y, _, ar = forward.run(["y", "aside", "ar"], forward.batches[0])
        grid = {SCALE: 0.25, ZERO_POINT: 3.0, QMIN: 1.0, QMAX: 6.0}
        feeds = {k: np.array(v, np.float32) for k, v in grid.items()}
        found = run_part(forward.open(part.proto()), part, forward.tensors(part.fed, [0])[0], feeds)
    rounded = ((np.clip(np.rint(ar / np.float32(0.25)) + 3, 1, 6) - 3) * 0.25).astype(np.float32)
    w2, w3 = (onnx.numpy_helper.to_array(t)[:, :, 0, 0] for t in proto.graph.initializer if t.name in ("w2", "w3"))
    read = {reader: ar if reader in kept else rounded for reader in ("c2", "sum", "aside")}
    total = np.einsum("oc,nchw->nohw", w2, read["c2"]) + read["sum"]
    expected = np.einsum("oc,nchw->nohw", w3, np.maximum(total, 0))
    np.testing.assert_allclose(found["y"], expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(found["y"], y)
    if readers is None:
        assert np.array_equal(found["ar"], rounded)
        assert np.array_equal(found["aside"], -rounded)
    else:
        assert "aside" not in found


def test_errors_in_a_part_are_told_in_one_line():
    ready = prepare(floating.proto(RESIDUAL), "onnxruntime-cpu")
    part = weight_part(ready.model, to_proto(ready.model), "c3", 1, ["y"])
    data = open_data({"x": np.zeros((1, 4, 5, 5), np.float32)}, input_specs(ready.model.graph))
    with Forward(ready.model, {"c3": part}, data, wanted=["y"]) as forward:
        session = forward.open(part.proto())
        with pytest.raises(OnnxqError, match="onnxruntime cannot run a part of the model"):
            run_part(session, part, forward.tensors(part.fed, [0])[0], {WEIGHT: np.zeros((4, 3, 1, 1), np.float32)})
