"""Operators that onnxruntime does not have: with their library everything works, without it what can be run does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxq
from onnxq.check.target import check
from onnxq.errors import ConfigError, ModelError, OnnxqError
from onnxq.execution import library as kernels
from onnxq.execution import runtime
from onnxq.execution.benchmark import bench
from onnxq.execution.known_ops import find_unknown
from onnxq.graph.model import load, to_proto
from onnxq.graph.unknown_ops import unavailable
from onnxq.measure.compare import compare
from onnxq.measure.consistency import optimization_consistency
from onnxq.search.latency import measure_latency
from support.build import qdq
from support.command import error_of, succeed
from support.command import onnxq as command
from support.custom_ops import build_library

# Bodies that read x, float[N,3,5,5], and make y; the layers that do not depend on acme.Twice.
BODIES = {
    "at the end": ("a = Conv(x, w1) b = Relu(a) c = Conv(b, w2) y = acme.Twice(c)", {"a", "c"}),
    "at the start": ("t = acme.Twice(x) a = Conv(t, w1) b = Relu(a) y = Conv(b, w2)", set()),
    "in the middle": ("a = Conv(x, w1) b = Relu(a) t = acme.Twice(b) y = Conv(t, w2)", {"a"}),
    "in one branch": ("a = Conv(x, w1) b = Conv(a, w2) t = acme.Twice(a) c = Conv(t, w3) y = Add(b, c)", {"a", "b"}),
    "in both branches": (
        "a = Conv(x, w1) t = acme.Twice(a) b = Conv(t, w2) r = Relu(a) u = acme.Twice(r) c = Conv(u, w3) y = Add(b, c)",
        {"a"},
    ),
    "in a body": (
        "a = Conv(x, w1) b = Conv(a, w2) d = If(k) <then_branch = p () => (float[N,4,5,5] s) { s = acme.Twice(b) }, "
        "else_branch = q () => (float[N,4,5,5] o) { o = Relu(b) }> y = Conv(d, w3)",
        {"a", "b"},
    ),
}
PROFILES = ("onnxruntime-cpu", "tensorrt", "onnxq")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("library"))


def model(kind: str) -> onnx.ModelProto:
    constants = "float[4,3,1,1] w1, float[4,4,1,1] w2"
    body = BODIES[kind][0]
    constants += ", float[4,4,1,1] w3" if "w3" in body else ""
    constants += ", bool k" if "(k)" in body else ""
    text = f"g (float[N,3,5,5] x) => (float[N,4,5,5] y) <{constants}> {{ {body} }}"
    proto = qdq.proto(text, 17, **({"k": True} if "(k)" in body else {}))
    proto.opset_import.append(onnx.helper.make_opsetid("acme", 1))
    return proto


def data(count: int = 4) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(2)
    return [{"x": rng.normal(size=(1, 3, 5, 5)).astype(np.float32)} for _ in range(count)]


def quantized(proto: onnx.ModelProto) -> set[str]:
    """Outputs of the layers whose weights are integers."""
    integers = {o for n in proto.graph.node if n.op_type == "DequantizeLinear" for o in n.output}
    made = {n.output[0] for n in proto.graph.node if n.op_type == "Conv" and n.input[1] in integers}
    return {name.removesuffix("_float") for name in made}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind", BODIES)
def test_without_the_library_the_rest_is_quantized(kind: str, profile: str) -> None:
    source, layers = model(kind), BODIES[kind][1]
    if not layers:
        with pytest.raises(ModelError, match=r"nothing in it can be quantized .*acme\.Twice"):
            onnxq.quantize(source, data(), profile=profile, qdq=True, threads=1)
        return
    made = onnxq.quantize(source, data(), profile=profile, qdq=True, threads=1)
    assert quantized(made.model) == layers
    ops = [n.op_type for n in made.model.graph.node]
    body = [n.op_type for n in made.model.graph.node for a in n.attribute for n in a.g.node]
    assert (ops + body).count("Twice") == BODIES[kind][0].count("Twice")
    assert "onnxruntime does not know" in made.card.to_json()  # why the rest is in float


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind", BODIES)
def test_with_the_library_it_is_a_model_like_any_other(kind: str, profile: str, library: Path, tmp_path: Path) -> None:
    source, samples, how = model(kind), data(), {"custom_ops": library, "threads": 1}
    made = onnxq.quantize(source, samples, profile=profile, qdq=True, **how)
    everything = {n.output[0] for n in source.graph.node if n.op_type == "Conv"}
    assert quantized(made.model) == everything
    made.save(tmp_path / "m.onnx")
    integer = onnxq.lower(tmp_path / "m.onnx", custom_ops=library)
    integer.save(tmp_path / "i.onnx")
    assert onnxq.verify(made.model, integer.model, samples, **how).ok
    for proto in (made.model, integer.model):
        outputs = onnxq.evaluate(proto, samples, against=source, **how).against.outputs
        assert outputs["y"].sqnr_db > 20
    assert {"y"} <= {row.tensor for row in compare(source, made.model, samples, isolated=True, **how).rows}
    assert optimization_consistency(made.model, samples, **how)


def test_what_can_be_measured_without_the_library_is(library: Path, tmp_path: Path) -> None:
    source = model("in one branch")
    made = onnxq.quantize(source, data(), profile="onnxq", qdq=True, threads=1)
    integer = onnxq.lower(made.model)
    integer.save(tmp_path / "i.onnx")  # validated without its operator
    checked = onnxq.verify(made.model, integer.model, data(), threads=1)
    assert checked.ok and checked.layers and not checked.outputs
    rows = {row.tensor for row in compare(source, made.model, data(), threads=1).rows}
    assert {"a", "b"} <= rows and not rows & {"t", "c", "y"}
    assert optimization_consistency(made.model, data(), threads=1)
    why = r"acme\.Twice\), which onnxruntime does not know: give the library that has it \(--custom-ops, custom_ops\)"
    with pytest.raises(ConfigError, match=rf"output y cannot be computed: it depends on t \({why}"):
        onnxq.evaluate(made.model, data(), threads=1)
    with pytest.raises(ConfigError, match=rf"tensor y cannot be computed: it depends on t \({why}"):
        onnxq.measure_sensitivity(source, data(), profile="onnxq", threads=1)
    with pytest.raises(
        ModelError, match=r"model: onnxruntime rejects the model: it does not know operator acme\.Twice: give"
    ):
        bench(made.model, data=data(), repeats=1)
    how: dict[str, Any] = {"custom_ops": library, "threads": 1}
    assert bench(made.model, [source], data=data(), repeats=1, per_layer=True, **how).timings
    assert onnxq.measure_sensitivity(source, data(), profile="onnxq", **how).layers
    assert onnxq.measure_sensitivity(source, data(), profile="onnxq", output="b", threads=1).layers


def test_which_operators_are_unknown(library: Path) -> None:
    source = model("in a body")
    assert find_unknown(load(source)) == {("acme", "Twice")}
    assert set(unavailable(load(source).graph)) == set()  # only marked by find_unknown
    assert find_unknown(load(source, library)) == frozenset()
    both = model("at the end")
    both.graph.node.append(onnx.helper.make_node("Thrice", ["c"], ["z"], "thrice", domain="acme"))
    both.graph.output.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None))
    loaded = load(both, [library])
    assert find_unknown(loaded) == {("acme", "Thrice")}
    assert set(unavailable(loaded.graph)) == {"z"}
    made = onnxq.quantize(to_proto(loaded), data(), profile="onnxruntime-cpu", custom_ops=[library], threads=1)
    assert {n.op_type for n in made.model.graph.node} >= {"Twice", "Thrice"}


@pytest.mark.parametrize("profile", PROFILES)
def test_an_unknown_source_beside_the_layers(profile: str) -> None:
    """It has no inputs, and several outputs; what does not read them is quantized."""
    text = """g (float[N,3,5,5] x) => (float[N,4,5,5] y, float[N,4,5,5] z, int64[n] k)
        <float[4,3,1,1] w1, float[4,4,1,1] w2> {
        s, k = acme.Source() a = Conv(x, w1) b = Relu(a) y = Conv(b, w2) z = Add(a, s) }"""
    source = qdq.proto(text, 17)
    source.opset_import.append(onnx.helper.make_opsetid("acme", 1))
    made = onnxq.quantize(source, data(), profile=profile, threads=1, qdq=True)
    assert quantized(made.model) == {"a", "y"}
    assert [o.name for o in onnxq.lower(made.model).model.graph.output] == ["y", "z", "k"]
    outputs = onnxq.evaluate(made.model, data(), against=source, threads=1).against.outputs
    assert set(outputs) == {"y"} and outputs["y"].sqnr_db > 20


FOREIGN = {
    "another domain": "k, o, s, l = TRT.EfficientNMS_TRT(q, p)",
    "declared for TensorRT": (
        'n, k, s, l = EfficientNMS_TRT<plugin_version="1", background_class=-1, max_output_boxes=5, box_coding=0, '
        "score_activation=0, score_threshold=0.1, iou_threshold=0.5>(q, p)"
    ),
    "declared for GPUs": "k = com.microsoft.BiasSplitGelu(q, v)",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_operators_of_other_providers(kind: str, tmp_path: Path) -> None:
    """As exporters write TensorRT's plug-ins; operators that onnxruntime declares but cannot run on CPUs."""
    text = f"""g (float[N,3,4,4] x) => (float[a,b,c] k) <float[6,3,1,1] w1, float[6,6,1,1] w2, int64[3] t, float[6] v>
        {{ a = Conv(x, w1) b = Relu(a) c = Conv(b, w2) r = Reshape(c, t) q = Transpose<perm=[0,2,1]>(r) p = Sigmoid(q)
        {FOREIGN[kind]} }}"""
    source = qdq.proto(text, 17, t=[0, 6, 16])
    for domain in ("TRT", "com.microsoft"):
        source.opset_import.append(onnx.helper.make_opsetid(domain, 1))
    samples = [{"x": np.random.default_rng(0).normal(size=(1, 3, 4, 4)).astype(np.float32)}]
    for profile in ("tensorrt", "onnxq"):
        made = onnxq.quantize(source, samples, profile=profile, qdq=True, threads=1)
        assert len(quantized(made.model)) == 2
        made.save(tmp_path / "q.onnx")
        onnxq.lower(tmp_path / "q.onnx").save(tmp_path / "i.onnx")


def test_an_operator_of_the_standard_domain_that_nobody_declares() -> None:
    source = qdq.proto("g (float[N,3] x) => (float[N,3] y) <float[3,3] w> { a = MatMul(x, w) [n] y = Nope(a) }", 17)
    with pytest.raises(ModelError, match="node n: Nope is not an operator of ONNX; those of a plug-in need a domain"):
        onnxq.quantize(source, {"x": np.ones((4, 3), np.float32)}, profile="tensorrt")


def test_a_declared_operator_with_a_kernel_is_known() -> None:
    text = "g (float[N,3] x) => (float[N,3] y) { y = com.microsoft.Gelu(x) }"
    source = qdq.proto(text, 17)
    source.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    assert find_unknown(load(source)) == frozenset()


def test_a_wrong_library_is_one_clear_error(tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("no library")
    with pytest.raises(OnnxqError, match=r"text.so, which must be a library of onnxruntime operators"):
        onnxq.quantize(model("at the end"), data(), custom_ops=text)
    with pytest.raises(ConfigError, match=r"none.so: no such file"):
        runtime.session(model("at the end"), custom_ops=tmp_path / "none.so")


def test_check_cannot_tell() -> None:
    found = check(model("in the middle"), "tensorrt")
    assert any("cannot tell whether tensorrt has it" in f.problem and f.node == "t" for f in found)
    behind = next(f for f in found if f.node == "y")
    assert "depends on t (acme.Twice)" in behind.problem and "--custom-ops" in behind.fix


def test_on_the_command_line(library: Path, tmp_path: Path) -> None:
    onnx.save(model("in the middle"), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=np.concatenate([f["x"] for f in data()]))
    ops = ("--custom-ops", library)
    samples = ("--data", "d.npz")
    said = succeed("quantize", "m.onnx", "-o", "q.onnx", *samples, "--profile", "tensorrt", cwd=tmp_path)
    assert "/tmp" not in said.err.replace(str(tmp_path), "")
    assert quantized(onnx.load(tmp_path / "q.onnx")) == {"a"}
    succeed("quantize", "m.onnx", "-o", "q.onnx", *samples, "--profile", "tensorrt", *ops, cwd=tmp_path)
    assert quantized(onnx.load(tmp_path / "q.onnx")) == {"a", "y"}
    succeed("lower", "q.onnx", "-o", "i.onnx", *ops, cwd=tmp_path)
    succeed("verify", "q.onnx", "i.onnx", *samples, *ops, cwd=tmp_path)
    succeed("compare", "m.onnx", "q.onnx", *samples, *ops, cwd=tmp_path)
    succeed("eval", "q.onnx", "--against", "m.onnx", *samples, *ops, cwd=tmp_path)
    succeed("bench", "q.onnx", "--repeats", 1, *ops, cwd=tmp_path)
    succeed("calibrate", "m.onnx", "-o", "s", *samples, *ops, cwd=tmp_path)
    succeed("opt", "m.onnx", "-o", "o.onnx", "-p", "fold-batchnorm", cwd=tmp_path)
    succeed("sensitivity", "m.onnx", *samples, "-o", "s.json", "--method", "output-error", *ops, cwd=tmp_path)
    succeed("check", "m.onnx", "--profile", "tensorrt", *ops, cwd=tmp_path)
    assert "i.onnx: onnxruntime rejects the model: it does not know operator acme.Twice" in error_of(
        command("bench", "i.onnx", cwd=tmp_path)
    )
    wrong = command("bench", "m.onnx", "--custom-ops", "none.so", cwd=tmp_path)
    assert "none.so: no such file (--custom-ops)" in error_of(wrong)


@pytest.mark.skipif(not kernels.has_library(), reason="no kernel library")
def test_latencies_of_a_model_with_such_an_operator(library: Path, tmp_path: Path) -> None:
    made = model("in the middle")
    how: dict[str, Any] = {"threads": 1, "seconds": 0.002, "cache": tmp_path}
    found = measure_latency(made, (8,), **how, custom_ops=library)
    assert {e.node for e in found.layers if e.operator} == BODIES["in the middle"][1] | {"y"}
    integers = onnxq.quantize(made, random_data=1, profile="onnxq", custom_ops=library).model
    assert [e.operator for e in measure_latency(integers, **how, custom_ops=library).layers] == ["Conv", "Conv"]
