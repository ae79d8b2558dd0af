"""`onnxq compare` as users run it."""

import csv
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxq.graph.model import to_proto
from support import command
from support.build import qdq
from support.insertion import context, insert

TEXT = """g (float[N,4,6,6] x) => (float[N,4,6,6] y) <float[4,4,1,1] w, float[4] b, float[4,4,1,1] v, float[4] k>
    { [c1] a = Conv(x, w, b) [r] r = Relu(a) [c2] y = Conv(r, v, k) }"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = qdq.model(TEXT)
    feeds = qdq.feeds(made)
    onnx.save(qdq.proto(TEXT), tmp_path / "f.onnx")
    insert(made, context(made, "onnxruntime-cpu", feeds=feeds), fuse=True)
    onnx.save(to_proto(made), tmp_path / "q.onnx")
    np.savez(tmp_path / "data.npz", x=np.concatenate([f["x"] for f in feeds]))
    return tmp_path


def test_table_csv_and_plot(folder):
    done = command.succeed(
        "compare",
        "f.onnx",
        "q.onnx",
        "--data",
        "data.npz",
        "--csv",
        "c.csv",
        "--plot",
        "p.png",
        "--isolated",
        cwd=folder,
    )
    rows = [line.split() for line in done.out.splitlines()]
    assert rows[0][:4] == ["layer", "op", "SQNR", "dB"]
    assert {r[0] for r in rows[1:4]} == {"c1", "c2", "x"}
    assert "3 activations compared on 6 samples, worst first" in done.out
    read = list(csv.DictReader((folder / "c.csv").open()))
    figures = [float(r["sqnr_db"]) for r in read]
    assert figures == sorted(figures)
    assert {r["op"] for r in read} == {"Conv+Relu", "Conv", "input"}
    assert (folder / "p.png").read_bytes().startswith(b"\x89PNG")


def test_top_limits_the_table_not_the_csv(folder):
    done = command.succeed("compare", "f.onnx", "q.onnx", "--data", "data.npz", "--top", 1, cwd=folder)
    assert "2 more rows with --top 0 or --csv" in done.out
    printed = command.succeed("compare", "f.onnx", "q.onnx", "--data", "data.npz", "--top", 1, "--csv", "-", cwd=folder)
    assert len(printed.out.splitlines()) == 4


def test_refusals_are_one_line_and_leave_nothing(folder):
    before = command.listing(folder)
    for args, told in (
        (["compare", "f.onnx", "q.onnx"], "compare needs data"),
        (["compare", "f.onnx", "none.onnx", "--data", "data.npz"], "no such file"),
        (["compare", "f.onnx", "q.onnx", "--data", "data.npz", "--plot", "p.bmp"], ".png, .svg, .pdf"),
        (["compare", "f.onnx", "q.onnx", "--data", "data.npz", "--csv", "no/c.csv"], "does not exist"),
    ):
        assert told in command.error_of(command.onnxq(*args, cwd=folder))
    assert command.listing(folder) == before


def test_notes_on_the_data_are_printed_once(folder):
    text = "g (float[N,1,H,W] x) => (float[N,1,H,W] y) <float[1,1,1,1] w> { [c] y = Conv(x, w) }"
    onnx.save(qdq.proto(text), folder / "open.onnx")
    done = command.succeed("compare", "open.onnx", "open.onnx", "--random-data", 1, cwd=folder)
    assert done.err.count("unknown height or width assumed to be 224") == 1
