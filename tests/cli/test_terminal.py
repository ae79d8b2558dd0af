"""Names from files cannot control the terminal, and no encoding stops a command."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from onnxq.cli import terminal
from onnxq.errors import ModelError, printable
from support.cases.bad_files import GOOD
from support.command import inside, onnxq, succeed

pytestmark = pytest.mark.filterwarnings("ignore:.*PuLP 4.0:DeprecationWarning")
EVIL = "n\x1b[2J\r\n\x00\x07\x9b31m\u202eevil\u2066\u200b\u2028\x7f"
PRINTABLE = "n\\x1b[2J\\x0d\\x0a\\x00\\x07\\x9b31m\\u202eevil\\u2066\\u200b\\u2028\\x7f"


def controls(text: str) -> list[str]:
    """Characters that no output may contain."""
    return [c for c in text if c not in "\n\t" and (unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp"))]


def test_what_is_printable() -> None:
    assert printable(EVIL) == PRINTABLE
    assert printable("weiß → 3×3 ± 层/conv\\x") == "weiß → 3×3 ± 层/conv\\x"
    assert printable(os.fsdecode(b"caf\xe9.onnx")) == "caf\\xe9.onnx"


def test_a_line_stays_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.out("a\nb", "c")
    terminal.say("d\re")
    terminal.out_text("x\x1by\n\tz\n")
    found = capsys.readouterr()
    assert found.out == "a\\x0ab\nc\nx\\x1by\n\tz\n"
    assert found.err == "d\\x0de\n"


def test_text_leaves_in_one_place(root: Path) -> None:
    """No module of the command line prints by other means."""
    for file in (root / "onnxq" / "cli").glob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"click\.s?echo|(?<![\w.])print\(|std(out|err)\.write", text) or file.stem == "terminal", (
            file
        )


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose every name contains controls, but NUL, at which onnxruntime cuts the names of inputs."""
    bad = EVIL.replace("\x00", "")
    folder = tmp_path_factory.mktemp("evil")
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 13]> g (float[N,3,8,8] x) => (float[N,4,8,8] y) {'
        " a = Conv <pads=[1,1,1,1]> (x, w) b = Relu (a) c = Sin (b) y = Conv <pads=[1,1,1,1]> (c, v) }"
    )
    rng = np.random.default_rng(0)
    for name, shape in (("w", (4, 3, 3, 3)), ("v", (4, 4, 3, 3))):
        model.graph.initializer.append(numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name))
    graph = model.graph
    for tensor in (*graph.input, *graph.output, *graph.initializer):
        tensor.name += bad
    for i, node in enumerate(graph.node):
        node.name = f"node{i}{bad}"
        node.input[:] = [name + bad for name in node.input]
        node.output[:] = [name + bad for name in node.output]
    graph.name, model.producer_name, model.producer_version = bad, bad, bad
    onnx.save(model, folder / "m.onnx")
    return folder


COMMANDS = {
    "inspect": ("inspect", "m.onnx"),
    "inspect --json": ("inspect", "m.onnx", "--json"),
    "quantize": ("quantize", "m.onnx", "-o", "q.onnx", "--random-data", "2"),
    "quantize onnxq": ("quantize", "m.onnx", "-o", "i.onnx", "--random-data", "2", "--profile", "onnxq"),
    "opt": ("opt", "m.onnx", "-o", "o.onnx", "-p", "insert-qdq{profile=tensorrt}"),
    "check": ("check", "m.onnx", "--profile", "tensorrt"),
    "check --json": ("check", "m.onnx", "--profile", "onnxq", "--json"),
    "check integer-only": ("check", "i.onnx", "--integer-only"),
    "card": ("card", "q.onnx"),
    "card html": ("card", "q.onnx", "--format", "html"),
    "card json": ("card", "q.onnx", "--format", "json"),
    "compare": ("compare", "m.onnx", "q.onnx", "--random-data", "2", "--isolated"),
    "compare csv": ("compare", "m.onnx", "q.onnx", "--random-data", "2", "--csv", "-"),
    "eval": ("eval", "q.onnx", "--against", "m.onnx", "--random-data", "2"),
    "eval --json": ("eval", "q.onnx", "--against", "m.onnx", "--random-data", "2", "--json", "-"),
    "verify": ("verify", "q.onnx", "q.onnx", "--random-data", "2"),
    "sensitivity": ("sensitivity", "m.onnx", "-o", "s.json", "--method", "weight-error"),
    "search": ("search", "m.onnx", "--method", "ilp", "--sensitivity", "s.json", "--bits", "4,8", "-o", "b.toml",
               "--max-size", "70%"),
    "quantize --config": ("quantize", "m.onnx", "-o", "c.onnx", "--random-data", "2", "--config", "b.toml"),
    "bench": ("bench", "m.onnx", "--repeats", "1", "--per-layer", "--batch", "2"),
    "unknown node": ("quantize", "m.onnx", "-o", "q.onnx", "--random-data", "2", "--exclude", "nodd\x1b0"),
    "unknown file": ("inspect", "a\x1b[2J\r\u202eb.onnx"),
    "unknown input": ("inspect", "m.onnx", "--input-shape", "\x1b]0;x:1x2"),
    "unknown command": ("insp\x1b[2Ject",),
    "unknown option": ("inspect", "m.onnx", "--js\x1bon"),
}  # fmt: skip


def test_names_with_controls_never_reach_the_terminal(evil: Path) -> None:
    for title, command in COMMANDS.items():
        done = inside(*command, cwd=evil)
        assert not controls(done.out), title
        assert not controls(done.err), title
        assert "internal error" not in done.err, (title, done.err)
        assert title.startswith("unknown") or title in ("bench", "check integer-only", "verify") or done.code == 0, (
            title,
            done.err,
        )
        if "--json" in title:
            json.loads(done.out)


def test_the_html_and_config_that_are_written_are_clean_too(evil: Path) -> None:
    assert inside("card", "q.onnx", "--format", "html", "-o", "q.html", cwd=evil).code == 0
    assert not controls((evil / "q.html").read_text(encoding="utf-8"))


def names() -> list[bytes]:
    return [b"caf\xe9", b"\xff\xfe model", "層".encode()]


@pytest.mark.parametrize("name", names())
def test_paths_that_are_not_utf8(name: bytes, kit: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(name)
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    stem = str(folder / os.fsdecode(name))
    Path(f"{stem}.onnx").write_bytes((kit / "good.onnx").read_bytes())
    Path(f"{stem}.npz").write_bytes((kit / "good.npz").read_bytes())
    data = ("--data", f"{stem}.npz")
    for command in (
        ("quantize", f"{stem}.onnx", "-o", f"{stem}.q.onnx", *data, "--eval-data", f"{stem}.npz"),
        ("quantize", f"{stem}.onnx", "-o", f"{stem}.i.onnx", *data, "--profile", "onnxq"),
        ("quantize", f"{stem}.onnx", "-o", f"{stem}.d.onnx", *data, "--profile", "onnxq", "--qdq"),
        ("lower", f"{stem}.d.onnx", "-o", f"{stem}.l.onnx"),
        ("verify", f"{stem}.d.onnx", f"{stem}.l.onnx", *data),
        ("opt", f"{stem}.onnx", "-p", "fold-constants", "-o", f"{stem}.o.onnx"),
        ("calibrate", f"{stem}.onnx", "-o", f"{stem}.stats", *data),
        ("card", f"{stem}.q.onnx", "--format", "html", "-o", f"{stem}.html"),
        ("card", f"{stem}.q.onnx", "--format", "json"),
        ("inspect", f"{stem}.q.onnx", "--json"),
        ("check", f"{stem}.onnx", "--profile", "tensorrt", "--json"),
        ("compare", f"{stem}.onnx", f"{stem}.q.onnx", *data, "--csv", f"{stem}.csv"),
        ("eval", f"{stem}.q.onnx", "--against", f"{stem}.onnx", *data, "--json", f"{stem}.json"),
        ("bench", f"{stem}.q.onnx", "--repeats", "1"),
        ("sensitivity", f"{stem}.onnx", "-o", f"{stem}.s.json", *data, "--probes", "2", "--budget", "none"),
        ("search", f"{stem}.onnx", "--method", "ilp", "--sensitivity", f"{stem}.s.json", "--bits", "4,8",
         "--max-size", "90%", "-o", f"{stem}.toml"),
        ("quantize", f"{stem}.onnx", "-o", f"{stem}.m.onnx", *data, "--config", f"{stem}.toml"),
    ):  # fmt: skip
        done = inside(*command, cwd=tmp_path)
        assert done.code == 0, (command, done.err)
        assert not controls(done.out + done.err), command


@pytest.mark.parametrize(
    "env", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}]
)
def test_an_ascii_terminal(env: dict[str, str], kit: Path, tmp_path: Path) -> None:
    model = tmp_path / "層×.onnx"
    for command in (
        ("quantize", *GOOD, "-o", model),
        ("card", model),
        ("inspect", model),
        ("inspect", model, "--json"),
        ("quantize", "--help"),
        ("profiles",),
        ("passes",),
        ("bench", model, "--repeats", "1"),
    ):
        done = succeed(*command, cwd=kit, env=env)
        assert done.out.isascii() and done.err.isascii(), command
    assert "\\u5c64x.onnx" in succeed("inspect", model, cwd=kit, env=env).out
    assert "no such file" in onnxq("inspect", tmp_path / "没有.onnx", env=env).err


def test_errors_under_json_are_json(kit: Path) -> None:
    for command, code in (
        (("inspect", "absent.onnx", "--json"), 1),
        (("check", "good.onnx", "--profile", "tensort", "--json"), 1),
        (("check", "good.onnx", "--json"), 2),
        (("inspect", "--json"), 2),
        (("eval", "good.onnx", "--json", "-"), 1),
        (("eval", "good.onnx", "--json=-"), 1),
        (("profiles", "absent", "--json"), 1),
        (("passes", "absent", "--json"), 1),
        (("inspect", "--no-such-option", "--json"), 2),
    ):
        done = inside(*command, cwd=kit)
        assert done.code == code, command
        error = json.loads(done.out)["error"]
        assert error["exit_code"] == code
        assert done.err == f"error: {error['message']}\n"
    assert inside("inspect", "absent.onnx", cwd=kit).out == ""


def test_listings_as_json(kit: Path) -> None:
    passes = json.loads(inside("passes", "--json", cwd=kit).out)
    assert {p["name"] for p in passes} >= {"insert-qdq", "fold-constants"}
    one = json.loads(inside("passes", "insert-qdq", "--json", cwd=kit).out)
    assert {"name", "summary", "preserves_values", "about", "options"} == set(one)
    assert {"name", "default", "type"} <= set(one["options"][0])
    profiles = json.loads(inside("profiles", "--json", cwd=kit).out)
    assert json.loads(inside("profiles", "tensorrt", "--json", cwd=kit).out) in profiles
    kernels = json.loads(inside("kernels", "--json", cwd=kit).out)
    assert {"cpu", "library", "features", "tiers", "chosen"} <= set(kernels)


def test_names_in_errors_are_printable_wherever_they_are_shown() -> None:
    told = ModelError("input 'x\x1b[1m' of \u202ea model\nthe second line")
    assert str(told) == "input 'x\\x1b[1m' of \\u202ea model\nthe second line"
