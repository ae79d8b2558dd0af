"""Mistakes, through the real command line: one clear line, an exit code, and nothing changed in the output folder."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from support.command import Finished, error_of, inside, listing, onnxq, succeed

SMALL = """
net (float[N,3,8,8] x) => (float[N,4] y) {
  [first] a = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (x, w1, b1)
  [act] r = Relu (a)
  [second] c = Conv (r, w2)
  [pool] p = GlobalAveragePool (c)
  [flat] y = Flatten (p)
}
"""
SHAPES = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (4, 8, 1, 1)}


def small(**values: np.ndarray) -> onnx.ModelProto:
    """Two convolutions; x: N×3×8×8."""
    model = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 13]>' + SMALL)
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        array = values.get(name, rng.normal(0, 0.3, shape).astype(np.float32))
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good and bad models, data and configurations."""
    folder = tmp_path_factory.mktemp("kit")
    _models(folder)
    _data(folder)
    _texts(folder)
    return folder


def _models(folder: Path) -> None:
    raw = small().SerializeToString()
    (folder / "good.onnx").write_bytes(raw)
    (folder / "truncated.onnx").write_bytes(raw[: len(raw) // 2])
    (folder / "text.onnx").write_text("hello, this is no model\n" * 20)
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "folder.onnx").mkdir()
    (folder / "no_graph.onnx").write_bytes(onnx.ModelProto(ir_version=8).SerializeToString())
    holes = small(w1=np.full(SHAPES["w1"], np.nan, np.float32), w2=np.full(SHAPES["w2"], np.nan, np.float32))
    (folder / "nan_weights.onnx").write_bytes(holes.SerializeToString())
    for name in ("external", "external_short"):
        external = folder / name
        external.mkdir()
        onnx.save_model(
            small(), str(external / "m.onnx"), save_as_external_data=True, location="m.data", size_threshold=0
        )
    (folder / "external" / "m.data").unlink()
    with open(folder / "external_short" / "m.data", "r+b") as file:
        file.truncate(100)
    log = small()
    log.graph.node.insert(0, helper.make_node("Log", ["raw"], ["x"], "log"))
    log.graph.input[0].name = "raw"
    (folder / "log.onnx").write_bytes(log.SerializeToString())
    text = "net (float[N,4] x) => (float[N,4] y) { [act] y = Relu (x) }"
    relu = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 13]>' + text)
    (folder / "nothing.onnx").write_bytes(relu.SerializeToString())
    invalid = small()
    invalid.graph.node[0].input[0] = "no_such_tensor"
    (folder / "invalid.onnx").write_bytes(invalid.SerializeToString())
    custom = small()
    custom.graph.node[1].domain = "org.example"
    custom.graph.node[1].op_type = "Mystery"
    custom.opset_import.append(helper.make_opsetid("org.example", 1))
    (folder / "custom.onnx").write_bytes(custom.SerializeToString())
    typed = small()
    typed.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    (folder / "mistyped.onnx").write_bytes(typed.SerializeToString())


def _data(folder: Path) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "good.npz", x=x)
    np.savez(folder / "positive.npz", raw=np.abs(x) + 1)
    np.savez(folder / "signed.npz", raw=x)
    np.savez(folder / "zeros.npz", raw=np.concatenate([np.abs(x[:2]) + 1, 0 * x[:2]]))
    np.savez(folder / "wrong_name.npz", X=x)
    np.savez(folder / "wrong_shape.npz", x=x[:, :, :6])
    np.savez(folder / "wrong_type.npz", x=x.astype(np.int64))
    np.savez(folder / "nan.npz", x=np.where(x > 2, np.nan, x).astype(np.float32))
    np.savez(folder / "inf.npz", x=np.where(x > 2, np.inf, x).astype(np.float32))
    np.savez(folder / "none.npz", x=x[:0])
    (folder / "damaged.npz").write_bytes((folder / "good.npz").read_bytes()[:300])
    (folder / "nothing_here").mkdir()
    for name in ("images", "one_broken", "labels_broken", "labels_missing"):
        (folder / name).mkdir()
        for i in range(3):
            Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).save(folder / name / f"{i}.png")
    (folder / "one_broken" / "1.png").write_bytes(b"\x89PNG no more")
    (folder / "labels_broken" / "labels.csv").write_text("file,label\n0.png,cat\n")
    (folder / "labels_missing" / "labels.csv").write_text("file,label\n0.png,1\n7.png,1\n")
    (folder / "raises.py").write_text("def samples():\n    yield {}['oops']\n")
    (folder / "late.py").write_text(
        "import numpy as np\n"
        "def samples():\n"
        "    for i in range(5):\n"
        "        yield {'x': np.zeros((1, 3, 8, 8 if i < 3 else 9), np.float32)}\n"
    )


def _texts(folder: Path) -> None:
    (folder / "images.toml").write_text('resize = 8\ncrop = 8\nlayout = "nchw"\nscale = 0.00392156862745098\n')
    (folder / "images_broken.toml").write_text("resize = \n")
    (folder / "images_unknown.toml").write_text("resize = 8\nsharpen = 3\n")
    (folder / "config_broken.toml").write_text("[nodes\n")
    (folder / "config_broken.json").write_text('{"first": ')
    (folder / "config_node.toml").write_text('[nodes]\nfrist = "float"\n')
    (folder / "config_key.toml").write_text("[nodes]\nfirst = { weight_bit = 4 }\n")
    (folder / "config_bits.json").write_text('{"first": {"weight_bits": 9}}')
    (folder / "config_regex.toml").write_text('[nodes]\n"fir(st" = "float"\n')
    (folder / "profile_key.toml").write_text('name = "p"\nsummary = "s"\nsource = "s"\ncolour = "red"\n')
    (folder / "profile_broken.toml").write_text("name = = 1\n")


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """An output folder with an older model in it, which must survive whatever is tried."""
    (tmp_path / "m.onnx").write_bytes(b"an older model")
    (tmp_path / "m.card.json").write_text("its card")
    before = listing(tmp_path)
    yield tmp_path
    assert listing(tmp_path) == before, "something was written although the command failed"


GOOD = ("good.onnx", "--data", "good.npz")
IMAGES = ("good.onnx", "--preprocess", "images.toml", "--data")
# What is run, with files of the kit, and words that its one line must have.
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
    "start behind the end": (("good.onnx", "--data", "good.npz", "--start", "9"), ("9", "4")),
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
    assert "quantized already" in said and "--requantize" in said
    assert listing(tmp_path) == before


@pytest.mark.parametrize("change", ["other model", "other data", "other tensors"])
def test_resume_only_what_belongs_together(change: str, kit: Path, tmp_path: Path) -> None:
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


# Where the output cannot go


def test_the_output_folder_must_exist(kit: Path, out: Path) -> None:
    for command, *args in _writers("absent"):
        assert "does not exist" in error_of(onnxq(command, *args, out / "absent" / "m.onnx", cwd=kit))


def test_a_folder_is_no_output(kit: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").mkdir()
    for command, *args in _writers("folder"):
        assert "folder" in error_of(onnxq(command, *args, tmp_path / "m.onnx", cwd=kit))
    assert list((tmp_path / "m.onnx").iterdir()) == []


def test_a_file_is_no_output_folder(kit: Path, out: Path) -> None:
    for command, *args in _writers("file"):
        assert "m.onnx" in error_of(onnxq(command, *args, out / "m.onnx" / "m.onnx", cwd=kit))


def test_a_card_that_cannot_be_written_costs_the_model_too(kit: Path, tmp_path: Path) -> None:
    (tmp_path / "m.card.json").mkdir()
    said = error_of(onnxq("quantize", *GOOD, "-o", tmp_path / "m.onnx", cwd=kit))
    assert "m.card.json" in said
    assert list(listing(tmp_path)) == ["m.card.json"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux's /proc, where nobody can make files")
def test_a_folder_that_takes_no_files(kit: Path) -> None:
    for command, *args in _writers("proc"):
        assert "cannot be written" in error_of(onnxq(command, *args, "/proc/m.onnx", cwd=kit))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(kit: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        for command, *args in _writers("read-only"):
            assert "cannot be written" in error_of(onnxq(command, *args, tmp_path / "m.onnx", cwd=kit))
        assert listing(tmp_path) == {}
    finally:
        tmp_path.chmod(0o755)


def test_a_device_is_no_output(kit: Path, tmp_path: Path) -> None:
    """The file system must not lose /dev/null because root quantized a model into it."""
    device = tmp_path / "m.onnx"
    os.mkfifo(device)
    for command, *args in _writers("device"):
        assert "m.onnx" in error_of(onnxq(command, *args, device, cwd=kit))
    assert device.is_fifo()


def _writers(_why: str) -> tuple[tuple[str, ...], ...]:
    """Commands that write a file, which follows their last argument."""
    return (
        ("quantize", *GOOD, "-o"),
        ("opt", "good.onnx", "-p", "fold-constants", "-o"),
        ("calibrate", *GOOD, "-o"),
    )


# A full disk: no file may grow beyond a limit, which fails in the same calls as a full disk does (EFBIG, not ENOSPC)


def _files_up_to(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", [0, 1000])
@pytest.mark.parametrize("command", ["quantize", "opt", "calibrate"])
def test_a_full_disk(command: str, size: int, kit: Path, out: Path) -> None:
    args = next(a for c, *a in _writers("full") if c == command)
    said = error_of(onnxq(command, *args, out / "n.onnx", cwd=kit, preexec=_files_up_to(size)))
    assert str(out) in said and "File too large" in said


def test_a_full_disk_during_the_weights(kit: Path, tmp_path: Path) -> None:
    """External data: the weights are what does not fit, and neither file may be left."""
    model = small(
        w1=np.ones((512, 3, 3, 3), np.float32), b1=np.ones(512, np.float32), w2=np.ones((4, 512, 1, 1), np.float32)
    )
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    target.mkdir()
    onnx.save_model(model, str(source / "m.onnx"), save_as_external_data=True, location="m.data")
    said = error_of(
        onnxq("opt", source / "m.onnx", "-p", "fold-constants", "-o", target / "m.onnx", preexec=_files_up_to(20000))
    )
    assert "m.onnx" in said
    assert listing(target) == {}


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


def test_one_line_whatever_the_names_hold(kit: Path, tmp_path: Path) -> None:
    """A file name with a line break in it must not make two lines of an error."""
    said = error_of(onnxq("quantize", "a\nb.onnx", "--random-data", "1", "-o", tmp_path / "m.onnx", cwd=kit))
    assert "a b.onnx" in said


def test_the_kit_is_good_where_it_says_so(kit: Path, tmp_path: Path) -> None:
    """The refusals above are about the one thing each of them gets wrong."""
    succeed("quantize", *GOOD, "-o", tmp_path / "m.onnx", cwd=kit)
    succeed("quantize", *IMAGES, "images", "-o", tmp_path / "i.onnx", cwd=kit)
    succeed("quantize", "log.onnx", "--data", "positive.npz", "-o", tmp_path / "l.onnx", cwd=kit)
    assert json.loads((tmp_path / "m.card.json").read_text())
