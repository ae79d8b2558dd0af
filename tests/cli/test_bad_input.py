"""Wrong input through the real command line: one clear line, an exit code, and nothing changed in the output folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.cases.bad_files import GOOD, IMAGES
from support.command import Finished, error_of, inside, listing, onnxq, succeed

# Arguments, with files of the kit, and words that the one line of the error must contain.
QUANTIZE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "no model": (("absent.onnx", "--random-data", "1"), ("absent.onnx", "no such file")),
    "truncated model": (("truncated.onnx", "--random-data", "1"), ("truncated.onnx", "not an ONNX model")),
    "text as model": (("text.onnx", "--random-data", "1"), ("text.onnx", "not an ONNX model")),
    "empty model": (("empty.onnx", "--random-data", "1"), ("empty.onnx", "not an ONNX model")),
    "model without graph": (("no_graph.onnx", "--random-data", "1"), ("no_graph.onnx", "not an ONNX model")),
    "folder as model": (("folder.onnx", "--random-data", "1"), ("folder.onnx",)),
    "data as model": (("good.npz", "--random-data", "1"), ("good.npz", "not an ONNX model")),
    "external data missing": (("external/m.onnx", "--random-data", "1"), ("m.data", "missing", "w1")),
    "external data short": (("external_short/m.onnx", "--random-data", "1"), ("m.data", "truncated")),
    "invalid graph": (("invalid.onnx", "--random-data", "1"), ("no_such_tensor",)),
    "invalid types": (("mistyped.onnx", "--random-data", "1"), ("int64", "first")),
    "unknown operator": (("custom.onnx", "--random-data", "1"), ("Mystery",)),
    "NaN weights": (("nan_weights.onnx", "--random-data", "1"), ("NaN",)),
    "nothing to quantize": (("nothing.onnx", "--random-data", "1"), ("nothing.onnx", "nothing in it can be quantized")),
    "no data": (("good.onnx",), ("no calibration data",)),
    "two kinds of data": ((*GOOD, "--random-data", "1"), ("not both",)),
    "data missing": (("good.onnx", "--data", "absent.npz"), ("absent.npz", "no such file")),
    "data damaged": (("good.onnx", "--data", "damaged.npz"), ("damaged.npz",)),
    "data without samples": (("good.onnx", "--data", "none.npz"), ("none.npz",)),
    "empty data folder": (("good.onnx", "--data", "nothing_here"), ("nothing_here", "empty")),
    "model as data": (("good.onnx", "--data", "good.onnx"), ("good.onnx", "not data")),
    "wrong input name": (("good.onnx", "--data", "wrong_name.npz"), ("wrong_name.npz", "'x'", "'X'")),
    "wrong shape": (("good.onnx", "--data", "wrong_shape.npz"), ("'x'", "3x8x8", "3x6x8")),
    "wrong type": (("good.onnx", "--data", "wrong_type.npz"), ("'x'", "int64", "float32")),
    "NaN in the data": (("good.onnx", "--data", "nan.npz"), ("nan.npz", "NaN")),
    "infinity in the data": (("good.onnx", "--data", "inf.npz"), ("x", "sample", "inf")),
    "NaN in activations": (("log.onnx", "--data", "signed.npz"), ("tensor x", "sample", "NaN")),
    "infinity in activations": (("log.onnx", "--data", "zeros.npz"), ("tensor x", "[2]", "inf")),
    "images without preprocessing": (("good.onnx", "--data", "images"), ("images", "--preprocess")),
    "unreadable image": ((*IMAGES, "one_broken"), ("1.png",)),
    "labels no numbers": ((*IMAGES, "labels_broken"), ("labels.csv", "cat")),
    "labels of absent images": ((*IMAGES, "labels_missing"), ("labels.csv", "7.png")),
    "preset unknown": ((*GOOD[:1], "--data", "images", "--preprocess", "imagenett"), ("imagenett",)),
    "preprocess broken": ((*GOOD[:1], "--data", "images", "--preprocess", "images_broken.toml"), ("images_broken",)),
    "preprocess key": ((*GOOD[:1], "--data", "images", "--preprocess", "images_unknown.toml"), ("sharpen",)),
    "module missing": (("good.onnx", "--data", "absent_module:samples"), ("absent_module",)),
    "callable missing": (("good.onnx", "--data", "raises:sample"), ("raises", "sample")),
    "callable raises": (("good.onnx", "--data", "raises:samples"), ("raises", "oops")),
    "callable goes wrong later": (("good.onnx", "--data", "late:samples"), ("late", "sample 3", "3x8x9")),
    "shape of no input": ((*GOOD, "--input-shape", "y:1x2"), ("'y'",)),
    "shape malformed": ((*GOOD, "--input-shape", "x-1x2"), ("x-1x2",)),
    "shape contradicts": ((*GOOD, "--input-shape", "x:1x3x9x8"), ("3x9x8",)),
    "unknown profile": ((*GOOD, "--profile", "tensort"), ("tensort", "tensorrt")),
    "profile file missing": ((*GOOD, "--profile", "mine.toml"), ("mine.toml",)),
    "profile file broken": ((*GOOD, "--profile", "profile_broken.toml"), ("profile_broken.toml",)),
    "profile with unknown key": ((*GOOD, "--profile", "profile_key.toml"), ("profile_key.toml", "colour", "4")),
    "unknown option": ((*GOOD, "--profil", "tensorrt"), ("--profil",)),
    "unknown calibration": ((*GOOD, "--calibration", "entropi"), ("entropi",)),
    "percentile of letters": ((*GOOD, "--calibration", "percentile:abc"), ("percentile:abc",)),
    "percentile above 100": ((*GOOD, "--calibration", "percentile:101"), ("101",)),
    "9 bits": ((*GOOD, "--weight-bits", "9"), ("9", "2 to 8")),
    "1 bit": ((*GOOD, "--activation-bits", "1"), ("1", "2 to 8")),
    "0 bits at the ends": ((*GOOD, "--first-last-bits", "0"), ("0", "2 to 8")),
    "bits no number": ((*GOOD, "--first-last-bits", "few"), ("few",)),
    "bits the profile lacks": ((*GOOD, "--profile", "tensorrt", "--weight-bits", "4"), ("tensorrt", "4")),
    "activation bits the profile lacks": (
        (*GOOD, "--profile", "tensorrt", "--activation-bits", "4"),
        ("tensorrt", "4"),
    ),
    "end bits the profile lacks": ((*GOOD, "--profile", "tensorrt", "--first-last-bits", "4"), ("tensorrt", "4")),
    "config missing": ((*GOOD, "--config", "absent.toml"), ("absent.toml",)),
    "config broken": ((*GOOD, "--config", "config_broken.toml"), ("config_broken.toml", "line 1")),
    "config broken JSON": ((*GOOD, "--config", "config_broken.json"), ("config_broken.json", "line 1")),
    "config unknown node": ((*GOOD, "--config", "config_node.toml"), ("frist", "first")),
    "config unknown key": ((*GOOD, "--config", "config_key.toml"), ("config_key.toml", "weight_bit")),
    "config wrong bits": ((*GOOD, "--config", "config_bits.json"), ("config_bits.json", "9")),
    "config no regex": ((*GOOD, "--config", "config_regex.toml"), ("config_regex.toml", "fir(st")),
    "exclude unknown node": ((*GOOD, "--exclude", "frist"), ("frist", "first")),
    "exclude no regex": ((*GOOD, "--exclude", "fir(st"), ("fir(st",)),
    "exclude everything": ((*GOOD, "--exclude", ".*"), ("nothing in it can be quantized",)),
    "op type unknown": ((*GOOD, "--op-types", "Conv,Convv"), ("Convv",)),
    "stats missing": (("good.onnx", "--stats", "absent.stats"), ("absent.stats",)),
    "stats no such file": (("good.onnx", "--stats", "good.npz"), ("good.npz",)),
    "resume not a statistics file": ((*GOOD, "--resume", "good.npz"), ("good.npz",)),
    "save-after unknown": ((*GOOD, "--save-after", "fold-batchnorms=x.onnx"), ("fold-batchnorms",)),
    "save-after malformed": ((*GOOD, "--save-after", "fold-batchnorm"), ("PASS=FILE",)),
    "save-after no folder": ((*GOOD, "--save-after", "fold-batchnorm=absent/x.onnx"), ("absent",)),
    "evaluation data missing": ((*GOOD, "--eval-data", "absent.npz"), ("absent.npz",)),
}


# These as processes of their own by default, all of them with -m slow.
REAL_PROCESS = (
    "truncated model", "empty model", "folder as model", "external data missing", "NaN weights", "nothing to quantize",
    "empty data folder", "wrong input name", "NaN in activations", "unreadable image", "callable raises",
    "callable goes wrong later", "unknown profile", "unknown option", "9 bits", "config broken", "stats missing",
)  # fmt: skip


@pytest.mark.parametrize("case", QUANTIZE)
def test_quantize_refuses(case: str, kit: Path, out: Path) -> None:
    args, words = QUANTIZE[case]
    said = error_of(inside("quantize", *args, "-o", out / "m.onnx", cwd=kit))
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in REAL_PROCESS else pytest.mark.slow) for case in QUANTIZE]
)
def test_quantize_refuses_as_a_process(case: str, kit: Path, out: Path) -> None:
    args, words = QUANTIZE[case]
    said = error_of(onnxq("quantize", *args, "-o", out / "m.onnx", cwd=kit))
    for word in words:
        assert word in said


OPT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "truncated model": (("truncated.onnx", "-p", "fold-constants"), ("truncated.onnx",)),
    "unknown pass": (("good.onnx", "-p", "fold-constant"), ("fold-constant", "fold-constants", "column 1")),
    "unknown option": (("good.onnx", "-p", "fold-constants{size=1}"), ("size", "max_bytes", "column")),
    "option of another type": (("good.onnx", "-p", "fold-constants{max_bytes=big}"), ("max_bytes", "big")),
    "malformed pipeline": (("good.onnx", "-p", "fold-constants;x"), ("column 15",)),
    "empty pipeline": (("good.onnx", "-p", ""), ("pipeline",)),
    "no profile": (("good.onnx", "-p", "insert-qdq"), ("profile",)),
    "unknown profile": (("good.onnx", "-p", "insert-qdq{profile=tensort}"), ("tensort", "tensorrt")),
    "save-after another pass": (
        ("good.onnx", "-p", "fold-constants", "--save-after", "fold-batchnorm=x.onnx"),
        ("fold-batchnorm",),
    ),
    "data of another shape": (
        ("good.onnx", "-p", "fold-constants", "--verify", "--data", "wrong_shape.npz"),
        ("3x6x8",),
    ),
    "stats missing": (("good.onnx", "-p", "insert-qdq{profile=fbgemm}", "--stats", "absent"), ("absent",)),
}


@pytest.mark.parametrize("case", OPT)
def test_opt_refuses(case: str, kit: Path, out: Path) -> None:
    args, words = OPT[case]
    said = error_of(inside("opt", *args, "-o", out / "m.onnx", cwd=kit))
    for word in words:
        assert word in said


CALIBRATE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "no model": (("--data", "good.npz"), ("model",)),
    "no data": (("good.onnx",), ("--data",)),
    "model missing": (("absent.onnx", "--data", "good.npz"), ("absent.onnx",)),
    "infinity": (("good.onnx", "--data", "inf.npz"), ("x", "inf")),
    "start past the end": (("good.onnx", "--data", "good.npz", "--start", "9"), ("9", "4")),
    "merge of nothing": (("--merge", "absent.stats"), ("absent.stats",)),
    "merge of data": (("--merge", "good.npz"), ("good.npz", "not a statistics file")),
    "unknown profile": (("good.onnx", "--data", "good.npz", "--profile", "x"), ("'x'",)),
}


@pytest.mark.parametrize("case", CALIBRATE)
def test_calibrate_refuses(case: str, kit: Path, out: Path) -> None:
    args, words = CALIBRATE[case]
    said = error_of(inside("calibrate", *args, "-o", out / "s.stats", cwd=kit))
    for word in words:
        assert word in said


def test_a_quantized_model_is_not_quantized_again(kit: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "q.onnx", tmp_path / "qq.onnx"
    succeed("quantize", *GOOD, "-o", first, cwd=kit)
    before = listing(tmp_path)
    said = error_of(onnxq("quantize", first, "--data", "good.npz", "-o", second, cwd=kit))
    assert "already quantized" in said and "--requantize" in said
    assert listing(tmp_path) == before


@pytest.mark.parametrize("change", ["other model", "other data", "other tensors"])
def test_resuming_needs_the_same_model_data_and_tensors(change: str, kit: Path, tmp_path: Path) -> None:
    stats = tmp_path / "s.stats"
    succeed("calibrate", *GOOD, "-o", stats, "--profile", "tensorrt", cwd=kit)
    before = listing(tmp_path)
    args = {
        "other model": ("log.onnx", "--data", "positive.npz", "--profile", "tensorrt"),
        "other data": ("good.onnx", "--random-data", "3", "--profile", "tensorrt"),
        "other tensors": GOOD,
    }[change]
    said = error_of(onnxq("calibrate", *args, "-o", stats, cwd=kit))
    assert "s.stats" in said
    assert listing(tmp_path) == before


# What click itself reports


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("quantise",), "quantise"),
        (("quantize",), "MODEL"),
        (("quantize", "good.onnx"), "--output"),
        (("quantize", "good.onnx", "-o", "x.onnx", "--threads", "many"), "many"),
        (("passes", "fold"), "fold"),
        (("profiles", "tensort"), "tensort"),
        (("passes", "a", "b"), "b"),
    ],
)
def test_wrong_usage_is_one_line(args: tuple[str, ...], word: str, kit: Path) -> None:
    done: Finished = onnxq(*args, cwd=kit)
    assert word in error_of(done)
    assert done.err.count("\n") == 1


def test_debug_shows_the_traceback(kit: Path, tmp_path: Path) -> None:
    done = onnxq("quantize", *QUANTIZE["wrong shape"][0], "-o", tmp_path / "m.onnx", cwd=kit, env={"ONNXQ_DEBUG": "1"})
    assert done.code == 1
    assert "Traceback" in done.err and "DataError" in done.err


def test_one_line_whatever_the_file_name(kit: Path, tmp_path: Path) -> None:
    """A line break in a file name must not split the error into two lines."""
    said = error_of(onnxq("quantize", "a\nb.onnx", "--random-data", "1", "-o", tmp_path / "m.onnx", cwd=kit))
    assert "a b.onnx" in said


def test_the_good_files_are_accepted(kit: Path, tmp_path: Path) -> None:
    """The commands above fail because of the one mistake in each of them."""
    succeed("quantize", *GOOD, "-o", tmp_path / "m.onnx", cwd=kit)
    succeed("quantize", *IMAGES, "images", "-o", tmp_path / "i.onnx", cwd=kit)
    succeed("quantize", "log.onnx", "--data", "positive.npz", "-o", tmp_path / "l.onnx", cwd=kit)
    assert json.loads((tmp_path / "m.card.json").read_text())
