"""Quantizing every kind of model that must work, and real ones, as users do it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.external_data_helper import uses_external_data
from onnx.reference import ReferenceEvaluator

import onnxq
from onnxq.errors import OutputError
from onnxq.execution.inner_tensors import run_session
from onnxq.graph.model import load
from onnxq.graph.walk import all_graphs
from onnxq.numeric.metrics import sqnr_db
from onnxq.profiles.schema import builtin_names
from support.cases.zoo import KINDS, Feed, Kind
from support.command import COMMAND, environment, error_of, inside, listing, succeed

PROFILES = ("onnxruntime-cpu", "tensorrt")
KIND_NAMES = [pytest.param(k, marks=pytest.mark.shared_weight) if k == "shared weight" else k for k in KINDS]
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Least SQNR in dB of any output at 8 bits; per-tensor scales and powers of two cost some.
LEAST = {"tvm": 20, "snpe": 22}


def run(model: onnx.ModelProto | Path, feeds: list[Feed], optimize: bool = False) -> list[NDArray[Any]]:
    """Every output, those of all feeds in a row."""
    session = onnxq.session(model, threads=1, optimize=optimize)
    names = [o.name for o in session.get_outputs()]
    runs = [run_session(session, names, feed) for feed in feeds]
    return [np.concatenate([r[i].ravel() for r in runs]).astype(np.float64) for i in range(len(names))]


def reference(kind: Kind, feeds: list[Feed]) -> list[NDArray[Any]]:
    """Outputs of the float model; by the ONNX reference where onnxruntime has no kernel (bfloat16)."""
    if "bfloat16" not in kind.text:
        return run(kind.model(), feeds)
    runs = [ReferenceEvaluator(kind.model()).run(None, feed) for feed in feeds]
    return [np.concatenate([np.asarray(r[i]).ravel() for r in runs]).astype(np.float64) for i in range(len(runs[0]))]


def weight_types(model: onnx.ModelProto) -> list[int]:
    """Element type of the stored weight of every layer with a quantized one; layers in subgraphs are not counted."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    constants = {t.name: t.data_type for t in model.graph.initializer}
    found = []
    for node in model.graph.node:
        weight = made_by.get(node.input[1]) if node.op_type in LAYERS else None
        if weight is not None and weight.op_type == "DequantizeLinear" and weight.input[0] in constants:
            found.append(constants[weight.input[0]])
    return found


def signature(model: onnx.ModelProto) -> list[tuple[str, Any]]:
    """Inputs (without initializers) and outputs."""
    constants = {t.name for t in model.graph.initializer}
    values = [v for v in (*model.graph.input, *model.graph.output) if v.name not in constants]
    return [(v.name, v.type.SerializeToString(deterministic=True)) for v in values]


def check(kind: Kind, profile: str, **settings: Any) -> onnxq.Quantized:
    """Quantize one kind and compare the result with the float model."""
    source, feeds = kind.model(), kind.feeds()
    result = onnxq.quantize(source, feeds, profile=profile, calibration="max", qdq=True, **settings)
    made = result.model
    onnx.checker.check_model(made, full_check=True)
    assert signature(made) == signature(source)
    assert len(weight_types(made)) == kind.layers
    expected = reference(kind, feeds)
    for optimize in (False, True):
        for want, got in zip(expected, run(made, feeds, optimize), strict=True):
            assert sqnr_db(want, got) > LEAST.get(profile, 25)
    return result


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", KIND_NAMES)
def test_every_kind_of_model(name: str, profile: str) -> None:
    check(KINDS[name], profile)


@pytest.mark.slow
@pytest.mark.parametrize("profile", [p for p in builtin_names() if p not in PROFILES])
@pytest.mark.parametrize("name", KIND_NAMES)
def test_every_kind_of_model_in_every_profile(name: str, profile: str) -> None:
    check(KINDS[name], profile)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_with_4_bits_proven_on_the_way(name: str) -> None:
    """verify: all passes before Q/DQ keep the values."""
    kind = KINDS[name]
    feeds = kind.feeds()
    result = onnxq.quantize(
        kind.model(), feeds, weight_bits=4, activation_bits=4, first_last_bits=None, calibration="max", verify=True
    )
    assert weight_types(result.model) == [TensorProto.INT4] * kind.layers
    proven = [r.text.partition("{")[0] for r in result.reports if r.differences]
    assert {"fold-constants", "eliminate-identity", "fold-batchnorm"} <= set(proven)
    assert ("convert-float32" in proven) == (name != "bfloat16")  # onnxruntime has no kernels to compare with
    for optimize in (False, True):
        for want, got in zip(reference(kind, feeds), run(result.model, feeds, optimize), strict=True):
            assert 0 < sqnr_db(want, got) < 30


@pytest.mark.parametrize("name", ["condition", "loop", "scan"])
def test_bodies_of_control_flow_stay_float_and_are_reported(name: str) -> None:
    result = check(KINDS[name], "onnxruntime-cpu")
    inner = [n for g in list(all_graphs(result.graph_model.graph))[1:] for n in g.nodes]
    assert inner and not any(n.op in ("QuantizeLinear", "DequantizeLinear") for n in inner)
    reasons = {node.name: node.reason for node in result.card.float_nodes}
    layers = [n.name for n in inner if n.op in LAYERS]
    assert layers and all("body of" in reasons[layer] for layer in layers)


def test_both_branches_compute_what_they_did() -> None:
    """The flag still selects the branch in the quantized model."""
    kind = KINDS["condition"]
    made = onnxq.quantize(kind.model(), kind.feeds(), calibration="max").model
    for flag in (False, True):
        feed = kind.feed() | {"flag": np.array(flag)}
        assert sqnr_db(run(kind.model(), [feed])[0], run(made, [feed])[0]) > 25


@pytest.mark.shared_weight
def test_a_shared_weight_is_stored_once() -> None:
    made = check(KINDS["shared weight"], "onnxruntime-cpu").model
    assert [t.name for t in made.graph.initializer if t.dims == [4, 4, 3, 3]] == ["w_quantized"]


def test_dynamic_sizes_stay_dynamic() -> None:
    kind = KINDS["dynamic height and width"]
    made = check(kind, "onnxruntime-cpu").model
    for size in ((1, 3, 8, 8), (2, 3, 30, 14)):
        feed = {"x": np.random.default_rng(3).normal(size=size).astype(np.float32)}
        assert sqnr_db(run(kind.model(), [feed])[0], run(made, [feed])[0]) > 25


def test_samples_of_different_sizes_calibrate_together() -> None:
    kind = KINDS["dynamic height and width"]
    feeds = [{"x": np.random.default_rng(i).normal(size=(1, 3, 8 + i, 12)).astype(np.float32)} for i in range(5)]
    assert onnxq.quantize(kind.model(), feeds, batch_size=4).card.resources.data[0].samples == 5


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_narrow_floats_keep_their_types_outside(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    result = check(kind, "onnxruntime-cpu")
    outside = {v.type.tensor_type.elem_type for v in (*result.model.graph.input, *result.model.graph.output)}
    assert outside == {getattr(TensorProto, name.upper())}
    np.savez(tmp_path / "d.npz", x=np.concatenate([f["x"] for f in kind.feeds()]).astype(np.float32))
    assert len(weight_types(onnxq.quantize(kind.model(), tmp_path / "d.npz").model)) == kind.layers


# Files, through the command line


def save_external(model: onnx.ModelProto, folder: Path) -> Path:
    """model.onnx with all weights in weights/w.bin."""
    (folder / "weights").mkdir(parents=True)
    path = folder / "model.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="weights/w.bin", size_threshold=0)
    return path


def test_external_data_from_another_folder(tmp_path: Path) -> None:
    """The weights are looked up next to the model, not in the working directory; the output has external data too."""
    wide = Kind(KINDS["residual"].text.replace("8", "16"), 3)
    save_external(wide.model(), tmp_path / "in")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    before = listing(tmp_path / "in")
    feeds = wide.feeds()
    np.savez(tmp_path / "d.npz", x=np.concatenate([f["x"] for f in feeds]))
    where = {"cwd": tmp_path / "elsewhere"}
    succeed("quantize", "../in/model.onnx", "-o", "../out/q.onnx", "--data", "../d.npz", **where)
    succeed("opt", "../in/model.onnx", "-o", "../out/o.onnx", "-p", "fold-constants", "--verify", **where)
    assert list(listing(tmp_path / "out")) == ["o.onnx", "o.onnx.data", "q.card.json", "q.onnx", "q.onnx.data"]
    assert listing(tmp_path / "in") == before
    expected = run(wide.model(), feeds)[0]
    np.testing.assert_allclose(run(tmp_path / "out" / "o.onnx", feeds)[0], expected, rtol=1e-4, atol=1e-4)
    assert sqnr_db(expected, run(tmp_path / "out" / "q.onnx", feeds)[0]) > 25
    moved = tmp_path / "moved"
    (tmp_path / "out").rename(moved)
    assert sqnr_db(expected, run(moved / "q.onnx", feeds)[0]) > 25


def test_not_in_place(tmp_path: Path) -> None:
    """opt does not write onto its own input; next to it, it does."""
    path = tmp_path / "m.onnx"
    path.write_bytes(KINDS["residual with batch normalization"].model().SerializeToString())
    passes = ("-p", "fold-constants,fold-batchnorm", "--verify")
    before = listing(tmp_path)
    assert "would replace an input" in error_of(inside("opt", path, "-o", path, *passes, cwd=tmp_path))
    assert listing(tmp_path) == before
    succeed("opt", path, "-o", tmp_path / "n.onnx", *passes)
    assert "BatchNormalization" not in {n.op_type for n in onnx.load(tmp_path / "n.onnx").graph.node}
    assert list(listing(tmp_path)) == ["m.onnx", "n.onnx"]


def test_random_data_for_free_sizes_needs_the_shape(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(KINDS["one-dimensional convolution"].model().SerializeToString())
    args = ("quantize", "m.onnx", "-o", "q.onnx", "--random-data", "3")
    done = subprocess.run(
        [COMMAND, *args], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "--input-shape x:DIMS" in done.stderr
    succeed(*args, "--input-shape", "x:1x3x20", cwd=tmp_path)


def test_several_inputs_from_files(tmp_path: Path) -> None:
    kind = KINDS["two inputs"]
    (tmp_path / "m.onnx").write_bytes(kind.model().SerializeToString())
    feeds = kind.feeds()
    np.savez(tmp_path / "d.npz", **{k: np.concatenate([f[k] for f in feeds]) for k in feeds[0]})
    succeed("quantize", "m.onnx", "-o", "q.onnx", "--data", "d.npz", "--calibration", "max", cwd=tmp_path)
    assert sqnr_db(run(kind.model(), feeds)[0], run(tmp_path / "q.onnx", feeds)[0]) > 25


def test_a_model_beyond_the_protobuf_limit_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything done for models over 2 GB, on a small one: weights stay in their file."""
    for module in ("onnxq.graph.model", "onnxq.execution.save"):
        monkeypatch.setattr(f"{module}.INLINE_LIMIT", 1000)
    path = big_model(tmp_path / "in", layers=3, width=160)
    model = load(path)
    assert model.external
    feeds = [{"x": np.random.default_rng(i).normal(size=(2, 160)).astype(np.float32)} for i in range(4)]
    result = onnxq.quantize(model, feeds, calibration="max", verify=True, weight_bits=4)
    result.save(tmp_path / "q.onnx")
    made = onnx.load(tmp_path / "q.onnx", load_external_data=False)
    assert sum(uses_external_data(t) for t in made.graph.initializer) == 3
    assert (tmp_path / "q.onnx.data").stat().st_size < (tmp_path / "in" / "m.data").stat().st_size / 2
    assert sqnr_db(run(path, feeds)[0], run(tmp_path / "q.onnx", feeds)[0]) > 5


def test_a_full_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights over 2 GB reach onnxruntime through a file in it."""
    for module in ("onnxq.graph.model", "onnxq.execution.save"):
        monkeypatch.setattr(f"{module}.INLINE_LIMIT", 1000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(OutputError, match=r"absent: cannot store a copy .* set TMPDIR"):
        onnxq.quantize(big_model(tmp_path / "in", layers=2, width=160), random_data=1)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_model_over_2_gb(tmp_path: Path) -> None:
    """3 GB of weights: opt and quantize go through in less memory than two copies of them."""
    path = big_model(tmp_path / "in", layers=5, width=12288)
    size = (path.parent / "m.data").stat().st_size
    assert size > 2**31
    for args in (("opt", path, "-p", "fold-constants,eliminate-identity"), ("quantize", path, "--random-data", "2")):
        target = tmp_path / f"{args[0]}.onnx"
        peak = peak_of(*args, "-o", target)
        made = onnx.load(target, load_external_data=False)
        assert [uses_external_data(t) for t in made.graph.initializer if len(t.dims) == 2] == [True] * 5
        assert target.stat().st_size < 2**20
        assert peak < 2 * size, f"{args[0]} took {peak / 2**30:.1f} GiB"
    data = Path(f"{target}.data").stat().st_size
    assert abs(data - size / 4) < size / 1000


def big_model(folder: Path, layers: int, width: int) -> Path:
    """MatMul and Relu in turn, every weight width×width: a permutation and small numbers, so that values live on."""
    folder.mkdir()
    rows = np.arange(width)
    pattern = ((rows % 7 - 3) / width).astype(np.float32)
    nodes, weights, last = [], [], "x"
    with open(folder / "m.data", "wb") as out:
        for i in range(layers):
            weights.append(TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[width, width]))
            weights[-1].data_location = TensorProto.EXTERNAL
            for key, value in (("location", "m.data"), ("offset", out.tell()), ("length", 4 * width * width)):
                weights[-1].external_data.add(key=key, value=str(value))
            for low in range(0, width, 64):
                block = np.tile(pattern, (64, 1))
                block[np.arange(64), (np.arange(64) + low + i) % width] = 1
                out.write(block.tobytes())
            nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"m{i}"], f"fc{i}"))
            nodes.append(helper.make_node("LeakyRelu", [f"m{i}"], [f"r{i}"], f"act{i}"))
            last = f"r{i}"
    inputs, outputs = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", width]) for n in ("x", last))
    graph = helper.make_graph(nodes, "big", [inputs], [outputs], weights)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def peak_of(*args: object) -> int:
    """Run a command that must succeed; its peak resident memory in bytes."""
    process = subprocess.Popen([COMMAND, *map(str, args)], env=environment(), stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_maxrss * 1024


# Real models


# data, preprocessing, layers, least agreement with the float model on 40 samples
REAL = {
    "mobilenetv2_imagenet": ("imagenet_{}", "imagenet-tf", 53, 0.9),
    "squeezenet_imagenet": ("imagenet_{}", "caffe", 26, 0.85),
    "resnet20_cifar10": ("cifar10_{}.npz", "cifar10", 22, 0.95),
}


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("mobilenetv2_imagenet", "onnxruntime-cpu"),
        ("resnet20_cifar10", "tensorrt"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (
                ("mobilenetv2_imagenet", "tensorrt"),
                ("squeezenet_imagenet", "onnxruntime-cpu"),
                ("squeezenet_imagenet", "tensorrt"),
                ("resnet20_cifar10", "onnxruntime-cpu"),
            )
        ),
    ],
)
def test_quantize_eval_check_and_compare(name: str, profile: str, shared: Path, tmp_path: Path) -> None:
    """The commands of a user's first afternoon, one after the other."""
    data, preprocess, layers, agreement = REAL[name]
    model, target = shared / "models" / f"{name}.onnx", tmp_path / "m.int8.onnx"
    calibration, validation = (shared / "data" / data.format(part) for part in ("calib", "val"))
    use = ("--preprocess", preprocess, "--threads", "2")
    done = succeed(
        "quantize", model, "-o", target, "--profile", profile, "--data", calibration, "--limit", "16", *use, "--verify"
    )
    assert "verified: output" in done.err and "RANDOM" not in done.err
    assert len(weight_types(onnx.load(target))) == layers
    assert target.stat().st_size < 0.4 * model.stat().st_size
    found = succeed(
        "eval", target, "--against", model, "--data", validation, "--limit", "40", *use, "-q", "--json", "-"
    )
    figures = json.loads(found.out)
    assert figures["samples"] == figures["labelled"] == 40
    assert figures["against"]["agreement"] >= agreement
    assert abs(figures["top1"] - figures["against"]["top1"]) <= 0.1
    succeed("check", target, "--profile", profile)
    rows = succeed("compare", model, target, "--data", validation, "--limit", "2", *use, "-q", "--csv", "-").out
    assert len(rows.splitlines()) > 10
    card = json.loads(succeed("card", target, "--format", "json").out)
    assert card["resources"]["data"][0]["samples"] == 16 and card["profile"]["name"] == profile
    assert "int8" in succeed("inspect", target).out


def test_batch_normalization_is_folded_exactly(shared: Path, tmp_path: Path) -> None:
    """ResNet-20's outputs change by less than 1e-4."""
    model, data = shared / "models" / "resnet20_cifar10.onnx", shared / "data" / "cifar10_calib.npz"
    source = ("--data", data, "--preprocess", "cifar10", "--limit", "8")
    args = ("-p", "fold-constants,eliminate-identity,fold-batchnorm", "--verify", *source)
    said = succeed("opt", model, "-o", tmp_path / "o.onnx", *args).out
    assert "fold-batchnorm: 21 changed" in said
    differences = [float(part.split()[0]) for part in said.split("differs by at most ")[1:]]
    assert differences[0] == differences[1] == 0 < differences[2] < 1e-4
    ops = [n.op_type for n in onnx.load(tmp_path / "o.onnx").graph.node]
    assert "BatchNormalization" not in ops


@pytest.mark.parametrize("method", ["max", "percentile:99.99", "entropy", "mse"])
def test_every_method_on_one_collection(method: str, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Calibrate once for every profile and method, then quantize without data."""
    model, data = shared / "models" / "resnet20_cifar10.onnx", shared / "data" / "cifar10_calib.npz"
    folder = tmp_path_factory.getbasetemp() / "one_collection"
    folder.mkdir(exist_ok=True)
    stats, target = folder / "stats", folder / "q.onnx"
    if not stats.exists():
        succeed("calibrate", model, "-o", stats, "--data", data, "--preprocess", "cifar10", "--limit", "64")
    feeds = np.load(shared / "data" / "cifar10_val.npz")["images"][:64].astype(np.float32).transpose(0, 3, 1, 2)
    mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)))
    feed = [{"input": (feeds - mean) / std}]
    for profile in PROFILES:
        succeed("quantize", model, "-o", target, "--stats", stats, "--profile", profile, "--calibration", method)
        assert sqnr_db(run(model, feed)[0], run(target, feed)[0]) > 24
