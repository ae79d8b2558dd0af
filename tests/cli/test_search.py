"""onnxq search and onnxq latency: what they print and write, and what they say to mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onnxq import demo
from onnxq.card import read_card
from onnxq.cost.latency_table import load_latencies
from onnxq.execution import library
from onnxq.graph.model import load
from onnxq.placement.settings import load_config, load_search_record
from support.command import error_of, inside, succeed

pytestmark = pytest.mark.filterwarnings("ignore:.*PuLP 4.0:DeprecationWarning")
ILP = ("search", "m.onnx", "--method", "ilp", "--sensitivity", "s.json", "--bits", "4,8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model, some of its images, and sensitivities."""
    path = tmp_path_factory.mktemp("search")
    (path / "m.onnx").write_bytes(demo.model_path().read_bytes())
    np.savez(path / "d.npz", **{k: v[:32] for k, v in demo.calibration_data().items()})
    done = inside("sensitivity", "m.onnx", "-o", "s.json", "--method", "weight-error", "-q", cwd=path)
    assert done.code == 0, done.err
    return path


def test_mixquant_prints_every_layer_and_quantize_takes_its_file(folder):
    done = succeed("search", "m.onnx", "--method", "mixquant", "--max-size", "60%", "-o", "bits.toml", cwd=folder)
    lines = done.out.splitlines()
    assert lines[0].startswith("most sensitive layers")
    assert any(line.startswith("stem/conv ") for line in lines)
    assert any(line.startswith("size ") and "% of int8" in line for line in lines)
    assert load_search_record(folder / "bits.toml")["method"] == "mixquant"
    how = ("-o", "q.onnx", "--config", "bits.toml", "--data", "d.npz", "-q")
    assert inside("quantize", "m.onnx", *how, cwd=folder).code == 0
    card = read_card(load(folder / "q.onnx"))
    wanted = load_config(folder / "bits.toml")
    assert {r.name: r.weight_bits for r in card.layers if r.name in wanted} == {
        n: o.weight_bits for n, o in wanted.items()
    }
    assert "mixquant" in inside("card", "q.onnx", cwd=folder).out


def test_a_config_in_json_is_read_like_one_in_toml(folder):
    for name in ("c.toml", "c.json"):
        how = ("--method", "mixquant", "--max-size", "60%", "--exclude", "head/.*", "-o", name)
        assert inside("search", "m.onnx", *how, cwd=folder).code == 0
    assert json.loads((folder / "c.json").read_text())["nodes"]
    assert load_config(folder / "c.json") == load_config(folder / "c.toml")
    assert load_search_record(folder / "c.json") == load_search_record(folder / "c.toml")
    how = ("-o", "q2.onnx", "--config", "c.json", "--data", "d.npz", "-q")
    assert inside("quantize", "m.onnx", *how, cwd=folder).code == 0
    widths = {r.name: r.weight_bits for r in read_card(load(folder / "q2.onnx")).layers}
    assert widths["head/gemm"] == 32  # what the search left out stays in float
    assert min(widths.values()) < 8


def test_mixquant_without_anything_says_what_it_assumed(folder):
    done = succeed("search", "m.onnx", "--method", "mixquant", "--rqe", "r.csv", cwd=folder)
    assert "neither a QEM nor a limit" in done.err
    assert "(RQE)" in done.out
    assert (folder / "r.csv").read_text().startswith("layer,parameters,rqe_8,")
    assert (
        "no layer is below 8 bits" in inside("search", "m.onnx", "--method", "mixquant", "--qem", "2", cwd=folder).err
    )


def test_several_qems_in_one_call(folder):
    done = inside("search", "m.onnx", "--method", "mixquant", "--qem", "1,20,1000", cwd=folder)
    assert [line.split()[0] for line in done.out.splitlines()[-3:]] == ["1", "20", "1000"]


def test_ilp_with_limits_a_front_and_pictures(folder):
    pytest.importorskip("matplotlib")
    how = ("--max-size", "70%", "--max-bops", "80%", "--fix", "stem.*=8", "--tie", "head/gemm,block1/conv1")
    files = ("-o", "i.toml", "--pareto", "p.png", "--points", 4, "--plot", "l.svg", "--json", "i.json")
    done = inside(*ILP, *how, *files, cwd=folder)
    assert done.code == 0, done.err
    assert "chosen by ilp: optimal" in done.out
    found = json.loads((folder / "i.json").read_text())
    assert found["predicted"]["size"] <= 0.7 * found["int8"]["size"]
    bits = load_config(folder / "i.toml")
    assert bits["stem/conv"].weight_bits == 8
    assert bits["head/gemm"] == bits["block1/conv1"]
    assert (folder / "p.csv").read_text().startswith("size_share,size,")
    assert (folder / "l.svg").stat().st_size > 1000


def test_partial_takes_data_and_a_drop(folder):
    how = ("--sensitivity", "s.json", "--data", "d.npz", "--max-drop", "50%", "-o", "p.toml")
    done = inside("search", "m.onnx", "--method", "partial", *how, cwd=folder)
    assert done.code == 0, done.err
    assert "0 of 12 layers stay in float" in done.err
    assert load_search_record(folder / "p.toml")["method"] == "partial"


@pytest.mark.skipif(not library.has_library(), reason="no kernel library")
def test_latency_is_measured_and_limits_a_search(folder):
    how = ("--threads", 1, "--seconds", 0.002, "--cache", "cache", "-o", "lat.json")
    done = inside("latency", "m.onnx", *how, cwd=folder)
    assert done.code == 0, done.err
    assert "whole model:" in done.out
    found = load_latencies(folder / "lat.json")
    assert len(found.layers) == 12
    least = sum(min(e.seconds.values()) for e in found.layers) + found.overhead
    limit = f"{1.0001e6 * max(least, 1e-6):.3f}us"
    done = inside(*ILP, "--profile", "onnxq", "--latency", "lat.json", "--max-latency", limit, cwd=folder)
    assert done.code == 0, done.err
    assert "saves µs" in done.out
    assert "\nlatency " in done.out


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--method", "mixquant", "--sensitivity", "s.json"), "--sensitivity is for --method"),
        (("--method", "mixquant", "--latency", "x"), "--latency is for --method"),
        (("--method", "ilp"), "needs --sensitivity"),
        (("--method", "ilp", "--sensitivity", "m.onnx"), "not a sensitivity file"),
        (("--method", "partial", "--max-size", "1MB"), "--max-size is for --method"),
        (("--method", "partial", "--sensitivity", "s.json"), "needs --data"),
        (("--method", "mixquant", "--bits", "4;8"), "widths separated by commas"),
        (("--method", "mixquant", "--qem", "x"), "numbers separated by commas"),
        (("--method", "mixquant", "--fix", "stem/conv"), "expected NODE=BITS"),
        (("--method", "mixquant", "--fix", "stem/cnv=8"), "did you mean 'stem/conv'"),
        (("--method", "mixquant", "--max-size", "1%"), "any QEM the least is"),
        ((*ILP[2:], "--max-size", "30%"), "cannot be met: with these widths the least is"),
        ((*ILP[2:], "--pareto", "p.txt"), "a plot is written as .png"),
        ((*ILP[2:], "--tie", "stem/conv,nothing"), "'nothing' is not a layer"),
        ((*ILP[2:], "--activation-bits", "4,8"), "no activations of"),
    ],
)
def test_mistakes_are_one_line(folder, args, told):
    assert told in error_of(inside("search", "m.onnx", *args, cwd=folder))
