"""Data and settings made to harm: one line each, soon, in bounded memory, and nothing of them is executed."""

from __future__ import annotations

import io
import json
import struct
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from support.command import error_of, inside

DEEP, DIGITS = 100_000, "9" * 5000
TEXTS = {
    "deep.json": "[" * DEEP + "]" * DEEP,
    "deep tables.json": '{"a":' * DEEP + "1" + "}" * DEEP,
    "less deep.json": '{"a":' * 60 + "1" + "}" * 60,
    "deep.toml": "a = " + "[" * DEEP + "]" * DEEP,
    "deep tables.toml": "a = " + "{b=" * DEEP + "1" + "}" * DEEP,
    "dotted.toml": ".".join("a" * 200) + " = 1",
    "digits.json": f'{{"first": {{"weight_bits": {DIGITS}}}}}',
    "digits.toml": f"[first]\nweight_bits = {DIGITS}",
    "many digits.toml": f"[first]\nweight_bits = {DIGITS[:4000]}",
    "nan.json": '{"first": {"weight_bits": NaN}}',
    "infinity.json": '{"first": {"weight_bits": 1e999}}',
    "nan.toml": "[first]\nweight_bits = nan",
    "binary.toml": "\ud800",
    "controls.toml": '["first\x1b[2J"]\nweight_bits = 4',
    "backtracking.toml": '["(a+)+b"]\nweight_bits = 4',
    "unclosed.toml": '["("]\nweight_bits = 4',
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, kit: Path) -> Path:
    path = tmp_path_factory.mktemp("hostile")
    for name, text in TEXTS.items():
        (path / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    for name in ("good.onnx", "good.npz", "images.toml"):
        (path / name).write_bytes((kit / name).read_bytes())
    model = onnx.load(path / "good.onnx")
    for node in model.graph.node:
        node.name = "a" * 30 + node.name
    onnx.save(model, path / "long.onnx")
    return path


def refused(folder: Path, *words: object) -> str:
    started = time.process_time()
    said = error_of(inside(*words, cwd=folder))
    assert time.process_time() - started < 10
    assert "\n" not in said and len(said) < 3000
    return said


@pytest.mark.parametrize("name", TEXTS)
def test_settings(name: str, folder: Path) -> None:
    quantize = ("quantize", "good.onnx", "--random-data", "1", "-o", "q.onnx")
    said = refused(folder, *quantize, "--config", name)
    assert name in said
    for option in ("--profile", "--preprocess") if name.endswith(".toml") else ():
        assert name in refused(folder, *quantize[:2], "--data", "good.npz", "-o", "q.onnx", option, name)
    for words in (
        (
            ("search", "good.onnx", "--method", "ilp", "--sensitivity", name, "--max-size", "50%"),
            ("search", "good.onnx", "--method", "mixquant", "--latency", name, "--max-latency", "50%"),
            ("card", name),
            ("sensitivity", "good.onnx", "--data", "good.npz", "-o", "s.json", "--resume", name),
        )
        if name.endswith(".json")
        else ()
    ):
        refused(folder, *words)


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(a|aa)+b", "(.*)*x", "(a*)*b$"])
@pytest.mark.parametrize("option", ["--exclude", "--fix"])
def test_patterns_that_backtrack(pattern: str, option: str, folder: Path) -> None:
    if option == "--exclude":
        said = refused(folder, "quantize", "long.onnx", "--random-data", "1", "-o", "q.onnx", option, pattern)
    else:
        how = ("--method", "mixquant", "--max-size", "50%")
        said = refused(folder, "search", "long.onnx", *how, option, f"{pattern}=8")
    assert "no node" in said or "no layer" in said


def npy(header: str | bytes, values: bytes = b"", version: int = 1, length: int | None = None) -> bytes:
    """An .npy file with a header of one's own."""
    raw = header.encode() if isinstance(header, str) else header
    size = len(raw) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", size) + raw + values


def header(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


def pickled() -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([{"a": 1}], object), allow_pickle=True)
    return out.getvalue()


ARRAYS = {
    "negative": npy(header("(-4, 3, 8, 8)"), b"\0" * 3072),
    "negative twice": npy(header("(-4, -3, 8, 8)"), b"\0" * 3072),
    "huge": npy(header("(4, 3, 8, 10**18)".replace("10**18", str(10**18)))),
    "overflowing": npy(header(f"({2**62}, 4, 8, 8)")),
    "huge number": npy(header(f"({DIGITS}, 3, 8, 8)")),
    "short": npy(header("(4, 3, 8, 8)"), b"\0" * 100),
    "long": npy(header("(4, 3, 8, 8)"), b"\0" * 10_000),
    "deep": npy("(" * 9000),
    "deep lists": npy(header("[" * 4000 + "]" * 4000)),
    "deep type": npy(header("(4,)", "[('a', " * 900 + "'<f4'" + ")]" * 900)),
    "operators": npy("-" * 9000 + "1"),
    "no dictionary": npy("[1, 2]"),
    "other keys": npy("{'a': 1}"),
    "no shape": npy(header("'abc'")),
    "no type": npy(header("(4, 3, 8, 8)", "'nonsense'")),
    "a call": npy(header("__import__('os').system('true')")),
    "long header": npy(b" " * 70_000, version=2),
    "longer than the file": npy("{}", version=2, length=2**31),
    "version 3": b"\x93NUMPY\x03\x00" + b"\0" * 100,
    "not NumPy": b"hello",
    "empty": b"",
    "pickle": pickled(),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(name: str, folder: Path) -> None:
    with zipfile.ZipFile(folder / "bad.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", ARRAYS[name])
    assert "bad.npz" in refused(folder, "quantize", "good.onnx", "--data", "bad.npz", "-o", "q.onnx")
    with zipfile.ZipFile(folder / "stats.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in ("header", "values", "extremes", "page", "counts"):
            archive.writestr(f"{entry}.npy", ARRAYS[name])
    assert "stats.npz" in refused(folder, "quantize", "good.onnx", "--stats", "stats.npz", "-o", "q.onnx")


def test_archives(folder: Path) -> None:
    quantize = ("quantize", "good.onnx", "-o", "q.onnx", "--data", "bomb.npz")
    with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(5000):
            archive.writestr(f"{i}.npy", b"")
    assert "arrays" in refused(folder, *quantize)
    # 300 MiB of zeros in 300 KB
    with (
        zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("header.npy", "w", force_zip64=True) as out,
    ):
        out.write(npy(header(f"({300 << 20},)", "'|u1'")))
        for _ in range(300):
            out.write(bytes(1 << 20))
    assert "bomb.npz" in refused(folder, *quantize[:-2], "--stats", "bomb.npz")


def test_numbers_of_many_digits(folder: Path) -> None:
    for words in (
        ("inspect", "good.onnx", "--input-shape", f"x:{DIGITS}x3"),
        ("search", "good.onnx", "--method", "mixquant", "--bits", DIGITS),
        ("search", "good.onnx", "--method", "mixquant", "--max-size", f"{DIGITS}MB"),
        ("search", "good.onnx", "--method", "mixquant", "--max-size", "50%", "--fix", f"first={DIGITS}"),
        ("search", "good.onnx", "--method", "mixquant", "--max-size", "nan%"),
        ("quantize", "good.onnx", "--random-data", "1", "-o", "q.onnx", "--weight-bits", DIGITS),
        ("quantize", "good.onnx", "--random-data", "1", "-o", "q.onnx", "--first-last-bits", DIGITS),
        ("quantize", "good.onnx", "--random-data", "1", "-o", "q.onnx", "--calibration", "percentile:nan"),
        ("quantize", "good.onnx", "--random-data", "1", "-o", "q.onnx", "--calibration", f"percentile:{DIGITS}"),
        ("quantize", "good.onnx", "--random-data", DIGITS, "-o", "q.onnx"),
        ("quantize", "good.onnx", "--random-data", "1", "--seed", DIGITS, "-o", "q.onnx"),
        ("quantize", "good.onnx", "--random-data", "1", "--seed", "-1", "-o", "q.onnx"),
        ("sensitivity", "good.onnx", "--data", "good.npz", "-o", "s.json", "--bits", DIGITS),
        ("sensitivity", "good.onnx", "--data", "good.npz", "-o", "s.json", "--budget", "nan"),
        ("sensitivity", "good.onnx", "--data", "good.npz", "-o", "s.json", "--tolerance", "nan"),
        ("sensitivity", "good.onnx", "--data", "good.npz", "-o", "s.json", "--epsilon", "inf"),
        ("bench", "good.onnx", "--seconds", "nan"),
        ("bench", "good.onnx", "--seconds", "inf"),
    ):
        refused(folder, *words)


@pytest.mark.parametrize("value", ["1" * 400, "NaN", "Infinity", "1e999", DIGITS])
def test_numbers_in_results_that_are_read_back(value: str, folder: Path) -> None:
    """Sensitivities and latencies with a value that is no usable number."""
    search = ("search", "good.onnx", "--method", "ilp", "--max-size", "50%", "--sensitivity")
    assert inside("sensitivity", "good.onnx", "--method", "weight-error", "-o", "w.json", cwd=folder).code == 0
    table = json.loads((folder / "w.json").read_text())
    table["layers"][0]["bits"]["4"] = "HERE"
    (folder / "bad.json").write_text(json.dumps(table).replace('"HERE"', value))
    assert "bad.json" in refused(folder, *search, "bad.json")
    layer = {"node": "first", "operator": "", "seconds": {"4": "HERE"}, "error": {"4": 0}, "measured": True}
    table = {"format": "onnxq-latency-1", "layers": [layer], "bits": [4], "whole": {}, "overhead": 0, "call": 0}
    table |= {"model_sha256": "", "model_name": "", "profile": "", "machine": {}, "inputs": {}}
    (folder / "bad.json").write_text(json.dumps(table).replace('"HERE"', value))
    assert "bad.json" in refused(folder, *search, "w.json", "--latency", "bad.json")


def test_labels(folder: Path) -> None:
    images = folder / "images"
    images.mkdir()
    (images / "0.png").write_bytes(png(8, 8))
    (images / "labels.csv").write_text(f"file,label\n0.png,{DIGITS}\n")
    how = ("--preprocess", "images.toml", "-o", "q.onnx")
    assert "labels.csv, line 2" in refused(folder, "quantize", "good.onnx", "--data", "images", *how)


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content", [png(100_000, 100_000), png(20_000, 9_000), png(64, 64), png(64, 64)[:40], png(0, 8), b"\x89PNG", b""]
)
def test_images(content: bytes, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    how = ("--data", tmp_path, "--preprocess", "images.toml", "-o", "q.onnx")
    assert "bad.png" in refused(folder, "quantize", "good.onnx", *how)


def test_a_tensor_does_not_read_other_files(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(np.ones((1, 3, 8, 8), np.float32).tobytes())
    tensor = numpy_helper.from_array(np.ones((1, 3, 8, 8), np.float32))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(secret))
    sets = tmp_path / "data" / "test_data_set_0"
    sets.mkdir(parents=True)
    (sets / "input_0.pb").write_bytes(tensor.SerializeToString())
    said = refused(folder, "quantize", "good.onnx", "--data", tmp_path / "data", "-o", "q.onnx")
    assert "input_0.pb" in said and "another file" in said


def test_results_read_back_are_json(folder: Path) -> None:
    """What is refused when it is read is not written either."""
    assert inside("inspect", "good.onnx", "--json", cwd=folder).code == 0
    json.loads(inside("inspect", "good.onnx", "--json", cwd=folder).out)
