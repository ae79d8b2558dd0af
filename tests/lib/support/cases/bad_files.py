"""A folder of good and bad models, data and configurations, and commands that read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

# Arguments that go through; after IMAGES comes the name of a folder.
GOOD = ("good.onnx", "--data", "good.npz")
IMAGES = ("good.onnx", "--preprocess", "images.toml", "--data")

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


def write(folder: Path) -> None:
    """Write all of them into the folder."""
    _models(folder)
    _data(folder)
    _texts(folder)


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
    custom.graph.node[1].op_type = "Mystery"  # in the standard domain; those of other domains are left to the target
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
