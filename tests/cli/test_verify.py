"""`onnxq verify` as users run it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from onnxq.execution import save
from support import command
from support.build import integers

QDQ = """g (float[N,4] x) => (float[N,4] y) <float s = {0.25}, uint8 z = {9}, float t = {0.5}> {
    [q] xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z) [relu] r = Relu(xd)
    [rq] rq = QuantizeLinear(r, t, z) y = DequantizeLinear(rq, t, z) }"""
INTEGER = """g (float[N,4] x) => (float[N,4] y) <float s = {0.25}, uint8 z = {9}, float t = {0.5}, uint8[256] table> {
    [q] xq = QuantizeLinear(x, s, z) [relu] rq = own.LookupTable(xq, table) y = DequantizeLinear(rq, t, z) }"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A QDQ model, an integer model of it, a wrong one, and samples."""
    found = tmp_path_factory.mktemp("verify")
    codes = np.arange(256)
    table = np.clip(np.rint(np.maximum(codes - 9, 0) * 0.25 / 0.5) + 9, 0, 255)
    save.save(integers.model(QDQ), found / "m.qdq.onnx")
    save.save(integers.model(INTEGER, table=table), found / "m.int.onnx")
    save.save(integers.model(INTEGER, table=table + (codes > 40)), found / "wrong.onnx")
    np.savez(found / "x.npz", x=np.random.default_rng(0).normal(5, 5, (100, 4)).astype(np.float32))
    return found


def test_a_right_model(folder):
    done = command.succeed("verify", "m.qdq.onnx", "m.int.onnx", "--data", "x.npz", "--threads", 1, cwd=folder)
    assert "relu" in done.out
    assert "output y: equal" in done.out
    assert "2 layers on 100 samples" in done.out
    assert "all within 1 LSB in 0.1 % of the elements" in done.out


def test_a_wrong_model(folder):
    done = command.inside("verify", "m.qdq.onnx", "wrong.onnx", "--data", "x.npz", "--bodies", cwd=folder)
    assert done.code == 1
    assert "(function bodies): 1 beyond 1 LSB in 0.1 % of the elements" in done.out
    first = done.out.splitlines()[1]
    assert first.startswith("relu ")
    assert first.rstrip().endswith("beyond")


def test_for_machines(folder):
    arguments = ("verify", "m.qdq.onnx", "wrong.onnx", "--data", "x.npz", "--bodies", "-q")
    printed = command.inside(*arguments, "--json", "-", "--csv", "rows.csv", cwd=folder)
    assert printed.code == 1
    told = json.loads(printed.out)
    assert told["ok"] is False
    assert told["samples"] == 100
    rows = list(csv.DictReader((folder / "rows.csv").open()))
    assert [row["tensor"] for row in rows] == [layer["tensor"] for layer in told["layers"]] == ["rq", "xq"]
    again = command.inside(*arguments, "--csv", "-", cwd=folder)
    assert list(csv.DictReader(io.StringIO(again.out))) == rows


def test_top(folder):
    done = command.inside("verify", "m.qdq.onnx", "m.int.onnx", "--random-data", 3, "--top", 1, cwd=folder)
    assert done.code == 0
    assert "1 more layers with --top 0" in done.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("m.qdq.onnx", "m.int.onnx"), "verify needs data"),
        (("m.qdq.onnx", "absent.onnx", "--random-data", 1), "absent.onnx"),
        (("m.int.onnx", "x.npz", "--random-data", 1), "not an ONNX model"),
        (("m.qdq.onnx", "m.int.onnx", "--random-data", 1, "--csv", "no/where.csv"), "the folder no does not exist"),
    ],
)
def test_mistakes(folder, arguments, told):
    done = command.inside("verify", *arguments, cwd=folder)
    assert told in command.error_of(done)
