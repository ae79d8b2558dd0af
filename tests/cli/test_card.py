"""`onnxq card`, as a user runs it."""

import json

import pytest
from click.testing import CliRunner

from onnxq import api
from onnxq.cli.group import commands
from support.build import qdq

NET = """g (float[N,3,8,8] x) => (float[N,10] y) <float[4,3,3,3] w1, float[10,4] w2> {
  [stem] a = Conv<pads=[1,1,1,1]>(x, w1)
  [relu] b = Relu(a)
  [pool] c = GlobalAveragePool(b)
  [flat] d = Flatten(c)
  [head] y = Gemm<transB=1>(d, w2)
}"""


def run(*args: object):
    return CliRunner().invoke(commands, ["card", *map(str, args)])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model quantized on random data, with its card beside it."""
    folder = tmp_path_factory.mktemp("card")
    (folder / "m.onnx").write_bytes(qdq.proto(NET).SerializeToString())
    result = api.quantize(folder / "m.onnx", random_data=4)
    result.save(folder / "m.int8.onnx")
    return folder / "m.int8.onnx"


def test_markdown_goes_to_stdout(saved):
    result = run(saved)
    assert result.exit_code == 0
    assert result.stdout.startswith("# Quantization card: m.onnx")
    assert "RANDOM DATA" in result.stdout
    assert "| stem | Conv |" in result.stdout
    assert result.stderr == ""


def test_json_is_the_file_beside_the_model(saved):
    result = run(saved, "--format", "json")
    assert result.exit_code == 0
    beside = saved.with_name("m.int8.card.json")
    assert json.loads(result.stdout) == json.loads(beside.read_text())
    assert run(beside, "--format", "json").stdout == result.stdout == beside.read_text()
    assert str(saved.parent) not in result.stdout, "no folder of this machine"


def test_html_to_a_file(saved, tmp_path):
    target = tmp_path / "card.html"
    result = run(saved, "--format", "html", "-o", target)
    assert (result.exit_code, result.stdout) == (0, "")
    assert target.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("form", ["md", "json", "html"])
def test_a_file_holds_what_stdout_shows(saved, tmp_path, form):
    run(saved, "--format", form, "-o", tmp_path / "out")
    assert (tmp_path / "out").read_text() == run(saved, "--format", form).stdout


def test_mistakes_are_one_line(saved, tmp_path):
    for args in (
        (tmp_path / "none.onnx",),
        (saved.with_name("m.onnx"),),
        (saved, "-o", tmp_path / "no" / "such" / "folder.md"),
        (saved, "-o", tmp_path),
    ):
        result = run(*args)
        assert result.exit_code == 1, args
        assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
        assert result.stdout == ""
    assert "no quantization card" in run(saved.with_name("m.onnx")).stderr
    malformed = tmp_path / "x.card.json"
    malformed.write_text('{"schema": 1}')
    assert "malformed quantization card: key 'versions' is missing" in run(malformed).stderr
    assert run(saved, "--format", "pdf").exit_code == 2
