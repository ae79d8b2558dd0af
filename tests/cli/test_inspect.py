"""`onnxq inspect`, and what it says runs in integers."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from onnxq.card import card_path
from onnxq.cli.group import commands
from onnxq.graph.model import Model, load, to_proto
from onnxq.inspection import inspect_model
from support.build import copy_of, qdq
from support.insertion import context, insert

NET = """g (float[N,3,8,8] x) => (float[N,10] y) <float[4,3,3,3] w1, float[4] b1, float[4,4,3,3] w2, float[10,4] w3> {
  [stem] a = Conv<pads=[1,1,1,1]>(x, w1, b1)
  [relu1] b = Relu(a)
  [block] c = Conv<pads=[1,1,1,1]>(b, w2)
  [skip] s = Add(c, b)
  [relu2] d = Relu(s)
  [pool] e = GlobalAveragePool(d)
  [flat] f = Flatten(e)
  [soft] p = Softmax(f)
  [head] y = Gemm<transB=1>(p, w3)
}"""


def run(*args: object):
    return CliRunner().invoke(commands, ["inspect", *map(str, args)])


def write(source: Model | onnx.ModelProto, path: Path) -> Path:
    proto = to_proto(source) if isinstance(source, Model) else source
    path.write_bytes(proto.SerializeToString())
    return path


def quantized(profile: str, **settings) -> Model:
    source = qdq.model(NET, opset=21)
    insert(source, context(source, profile, **settings), fuse=True)
    return copy_of(source)


def kinds(source: Model) -> dict[str, tuple[int, int, int]]:
    return {o.op: (o.integer, o.fused, o.in_float) for o in inspect_model(source).operators}


def test_float_models_have_layers_and_totals(tmp_path):
    result = run(write(qdq.proto(NET), tmp_path / "m.onnx"))
    assert result.exit_code == 0
    assert "m.onnx: float" in result.stdout
    assert "the batch of x (N×3×8×8) is assumed to be 1" in result.stdout
    stem = next(line.split() for line in result.stdout.splitlines() if line.startswith("stem"))
    assert stem[:3] == ["stem", "Conv", "4×3×3×3"]
    assert stem[3:5] == ["6.91", "k"]
    assert "total of 3 layers" in result.stdout


def test_json_holds_every_figure(tmp_path):
    path = write(qdq.proto(NET), tmp_path / "m.onnx")
    found = json.loads(run(path, "--json").stdout)
    assert [layer["macs"] for layer in found["layers"]] == [6912, 9216, 40]
    assert found["totals"]["parameters"] == 108 + 4 + 144 + 40
    assert found["file_bytes"] == path.stat().st_size
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": "N×3×8×8"}]
    assert found["quantized"] is False
    four = json.loads(run(path, "--json", "--input-shape", "x:4x3x8x8").stdout)
    assert [layer["macs"] for layer in four["layers"]] == [4 * 6912, 4 * 9216, 160]
    assert four["assumed"] == ["x (N×3×8×8) is assumed to be 4×3×8×8"]


@pytest.mark.parametrize("profile", ["onnxruntime-cpu", "tensorrt", "openvino", "onnxq"])
def test_a_qdq_model_shows_what_runs_in_integers(profile):
    found = kinds(quantized(profile))
    assert found["Conv"] == (2, 0, 0)
    assert found["Gemm"] == (1, 0, 0)
    assert found["Softmax"] == ((1, 0, 0) if profile == "onnxq" else (0, 0, 1))  # onnxq has one in integers
    assert found["Add"] == (1, 0, 0)
    assert sum(found.get("Relu", (0, 0, 0))[2:]) == 0, "fused or absorbed, none in float"


def test_adds_in_float_are_seen():
    assert kinds(quantized("ascend"))["Add"] == (0, 0, 1)


def test_a_layer_left_in_float_is_seen():
    found = kinds(quantized("onnxruntime-cpu", exclude=("block",)))
    assert found["Conv"] == (1, 0, 1)


def test_a_float_model_has_nothing_in_integers():
    found = inspect_model(qdq.model(NET))
    assert not found.quantized
    assert all(o.integer == o.fused == o.qdq == 0 for o in found.operators)


@pytest.mark.parametrize("bits", [8, 5, 4, 3])
def test_bits_below_the_storage_type_are_shown(tmp_path, bits):
    path = write(quantized("onnxq", weight_bits=bits, activation_bits=bits, first_last_bits=None), tmp_path / "q.onnx")
    layers = json.loads(run(path, "--json").stdout)["layers"]
    assert {(r["weight_bits"], r["activation_bits"]) for r in layers} == {(bits, bits)}


def test_lost_marks_are_made_up_for_by_the_card(tmp_path):
    """Other tools may drop the metadata of nodes; the card still knows the widths."""
    from onnxq import api

    write(qdq.proto(NET), tmp_path / "m.onnx")
    widths = {"weight_bits": 5, "activation_bits": 6, "first_last_bits": None}
    result = api.quantize(tmp_path / "m.onnx", random_data=4, profile="onnxq", qdq=True, **widths)
    proto = result.model
    for node in proto.graph.node:
        del node.metadata_props[:]
    layers = inspect_model(load(proto)).layers
    assert {(r.weight_bits, r.activation_bits) for r in layers} == {(5, 6)}
    assert all(r.bops == 30 * r.macs for r in layers)
    del proto.metadata_props[:]
    assert {(r.weight_bits, r.activation_bits) for r in inspect_model(load(proto)).layers} == {(8, 8)}
    assert card_path("a/m.onnx") == Path("a/m.card.json")


def test_subgraphs_are_listed(tmp_path):
    text = """g (float[1,4] x, bool c) => (float[1,4] y) {
      [choose] y = If (c) <
        then_branch = yes () => (float[1,4] t) <float[4,4] u> { [inner] t = MatMul(x, u) },
        else_branch = no () => (float[1,4] e) { e = Relu(x) }
      > }"""
    parsed = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')
    branch = parsed.graph.node[0].attribute[0].g
    del branch.value_info[:]
    branch.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "u"))
    result = run(write(parsed, tmp_path / "m.onnx"))
    assert result.exit_code == 0
    assert "body    choose.then_branch (If), counted as executed once" in result.stdout
    assert "inner (in choose.then_branch)" in result.stdout


def test_open_shapes_are_said_and_can_be_given(tmp_path):
    net = "g (float[N,3,H,W] x) => (float[N,8,P,Q] y) <float[8,3,3,3] w> { [c] y = Conv(x, w) }"
    path = write(qdq.proto(net), tmp_path / "m.onnx")
    result = run(path)
    assert result.exit_code == 0
    assert "MACs of 1 layer(s), c" in result.stdout
    assert "--input-shape" in result.stdout
    assert "unknown" not in run(path, "--input-shape", "x:1x3x5x5").stdout


def test_mistakes_are_one_line(tmp_path):
    path = write(qdq.proto(NET), tmp_path / "m.onnx")
    (tmp_path / "bad.onnx").write_bytes(path.read_bytes()[:100])
    for args in (
        (tmp_path / "none.onnx",),
        (tmp_path / "bad.onnx",),
        (path, "--input-shape", "z:1x2"),
        (path, "--input-shape", "x:1x2"),
        (path, "--input-shape", "x=1"),
    ):
        result = run(*args)
        assert result.exit_code == 1, args
        assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
        assert result.stdout == ""


@pytest.mark.parametrize(
    "path", sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx")), ids=str
)
def test_old_architectures_can_be_inspected(path):
    result = run(path)
    assert result.exit_code == 0, result.stderr
    assert "unknown" not in result.stdout
    assert "total of" in result.stdout


def test_a_model_of_another_tool(tmp_path):
    """onnxruntime's own static quantizer, as QDQ and as integer operators."""
    from onnxruntime.quantization import QuantFormat, quantize_static

    from bench_support.feed_reader import FeedReader

    feeds = [{"x": np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)}]
    source = write(qdq.proto(NET), tmp_path / "m.onnx")
    for form in (QuantFormat.QDQ, QuantFormat.QOperator):
        target = tmp_path / f"{form}.onnx"
        quantize_static(source, target, FeedReader(feeds), quant_format=form)
        found = inspect_model(load(target))
        assert found.quantized
        products = [r for r in found.layers if r.macs]
        assert [(r.macs, r.weight_bits, r.activation_bits) for r in products][:2] == [(6912, 8, 8), (9216, 8, 8)]
