"""Preprocessing specs: what they compute, presets, and what a TOML file may say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.data.preprocess import PRESETS, Preprocess, load_preprocess
from onnxq.data.source import InputSpec
from onnxq.errors import ConfigError, DataError

Image = pytest.importorskip("PIL.Image")
F32 = np.dtype(np.float32)
NCHW, NHWC = InputSpec("x", ("N", 3, 224, 224), F32), InputSpec("x", ("N", 224, 224, 3), F32)


def run(p: Preprocess, image: Any, spec: InputSpec = NCHW) -> np.ndarray:
    ready = p.for_input((spec,))
    return ready.tensor(ready.array_pixels(image) if isinstance(image, np.ndarray) else ready.pixels(image))


def noise(height: int, width: int, depth: int = 3) -> np.ndarray:
    shape = (height, width, depth) if depth else (height, width)
    return np.random.default_rng(height * width).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        (
            "imagenet",
            lambda x: (
                (x / 255 - np.array([0.485, 0.456, 0.406])[:, None, None])
                / np.array([0.229, 0.224, 0.225])[:, None, None]
            ),
        ),
        ("imagenet-tf", lambda x: x / 127.5 - 1),
        ("caffe", lambda x: x[::-1] - np.array([103.939, 116.779, 123.68])[:, None, None]),
        (
            "cifar10",
            lambda x: (
                (x - np.array([125.3, 123.0, 113.9])[:, None, None]) / np.array([63.0, 62.1, 66.7])[:, None, None]
            ),
        ),
        ("raw", lambda x: x),
    ],
)
def test_presets(preset: str, expected: Any) -> None:
    image = noise(224, 224)
    out = run(PRESETS[preset], image)
    assert out.dtype == F32
    assert out.shape == (3, 224, 224)
    reference = expected(image.transpose(2, 0, 1).astype(np.float64))
    np.testing.assert_allclose(out, reference, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(run(PRESETS[preset], Image.fromarray(image)), out)


def test_an_image_of_the_crop_size_is_taken_as_it_is() -> None:
    image = Image.fromarray(noise(224, 224))
    assert (PRESETS["imagenet"].pixels(image) == np.asarray(image)).all()


def test_a_right_short_side_is_not_resampled() -> None:
    image = Image.fromarray(noise(256, 300))
    assert (Preprocess(resize=256).pixels(image) == np.asarray(image)).all()
    assert (PRESETS["imagenet"].pixels(image) == np.asarray(image)[16:240, 38:262]).all()


def test_resize_keeps_the_aspect_ratio_and_crops_the_centre() -> None:
    image = Image.fromarray(noise(300, 500))
    assert Preprocess(resize=150).pixels(image).shape == (150, 250, 3)
    resized = np.asarray(image.resize((426, 256), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(PRESETS["imagenet"].pixels(image), resized[16:240, 101:325])


def test_size_is_height_then_width() -> None:
    assert Preprocess(size=(20, 30)).pixels(Image.fromarray(noise(50, 40))).shape == (20, 30, 3)


@pytest.mark.parametrize("method", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_interpolation_is_pillows(method: str) -> None:
    image = Image.fromarray(noise(40, 40))
    expected = np.asarray(image.resize((16, 16), getattr(Image.Resampling, method.upper())))
    np.testing.assert_array_equal(Preprocess(size=16, interpolation=method).pixels(image), expected)  # type: ignore[arg-type]


def test_an_image_smaller_than_the_crop_is_refused() -> None:
    with pytest.raises(DataError, match="the image, 20x40, is smaller than the crop, 30x30; set resize or size"):
        Preprocess(crop=30).pixels(Image.fromarray(noise(20, 40)))  # type: ignore[arg-type]


@given(
    st.integers(0, 255),
    st.floats(0.001, 10),
    st.floats(-300, 300),
    st.floats(0.1, 300),
    st.sampled_from(["float32", "float16", "float64"]),
)
def test_value_is_scaled_then_centred_and_rounded_once(
    x: int, scale: float, mean: float, std: float, dtype: str
) -> None:
    p = Preprocess(scale=scale, mean=(mean,), std=(std,), dtype=dtype)
    with np.errstate(over="ignore"):
        expected = np.float64((x * scale - mean) / std).astype(dtype)
        assert (run(p, np.full((2, 2, 3), x, np.uint8)) == expected).all()


def test_layout_follows_the_model_unless_given() -> None:
    image = noise(224, 224)
    np.testing.assert_array_equal(run(PRESETS["raw"], image, NHWC), image)
    np.testing.assert_array_equal(run(PRESETS["raw"], image, NCHW), image.transpose(2, 0, 1))
    assert run(Preprocess(layout="nhwc"), image, NCHW).shape == (224, 224, 3)
    gray = InputSpec("x", (1, 8, 8, 1), F32)
    assert run(Preprocess(channels="gray"), noise(8, 8), gray).shape == (8, 8, 1)
    assert PRESETS["raw"].for_input((InputSpec("x", None, F32),)).layout == "nchw"


def test_gray_weighs_the_channels() -> None:
    image = noise(8, 8)
    expected = np.asarray(Image.fromarray(image).convert("L"))
    out = run(Preprocess(channels="gray"), image, InputSpec("x", (1, 1, 8, 8), F32))
    np.testing.assert_array_equal(out[0], expected)
    np.testing.assert_allclose(out[0], image @ [0.299, 0.587, 0.114], atol=0.51)


@pytest.mark.parametrize("depth", [0, 1])
def test_grey_arrays(depth: int) -> None:
    image = noise(8, 8, depth)
    flat = image.reshape(8, 8)
    np.testing.assert_array_equal(run(Preprocess(channels="gray"), image)[0], flat)
    np.testing.assert_array_equal(run(PRESETS["raw"], image), np.stack([flat] * 3))


def test_every_kind_of_image_becomes_rgb() -> None:
    rgb = Image.fromarray(noise(9, 7))
    expected = np.asarray(rgb)
    raw = PRESETS["raw"]
    transparent = rgb.copy()
    transparent.putalpha(Image.fromarray(noise(9, 7, 0)))
    np.testing.assert_array_equal(raw.pixels(transparent), expected)
    grey = rgb.convert("L")
    for mode in ("L", "LA"):
        np.testing.assert_array_equal(raw.pixels(grey.convert(mode)), np.stack([np.asarray(grey)] * 3, axis=-1))
        np.testing.assert_array_equal(Preprocess(channels="gray").pixels(grey.convert(mode))[..., 0], np.asarray(grey))
    palette = rgb.quantize(256)
    np.testing.assert_array_equal(raw.pixels(palette), np.asarray(palette.convert("RGB")))
    palette.info["transparency"] = b"\x00" * 10
    np.testing.assert_array_equal(raw.pixels(palette), np.asarray(palette.convert("RGBA"))[..., :3])
    cmyk = rgb.convert("CMYK")
    np.testing.assert_array_equal(raw.pixels(cmyk), np.asarray(cmyk.convert("RGB")))
    assert set(raw.pixels(rgb.convert("1")).ravel().tolist()) <= {0, 255}


def test_sixteen_bit_grey_keeps_its_upper_bits() -> None:
    wide = (np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040).astype(np.uint16)
    image = Image.fromarray(wide)
    np.testing.assert_array_equal(Preprocess(channels="gray").pixels(image)[..., 0], wide >> 8)
    with pytest.raises(DataError, match="floating-point"):
        PRESETS["raw"].pixels(Image.fromarray(np.zeros((2, 2), np.float32)))
    with pytest.raises(DataError, match="32-bit"):
        PRESETS["raw"].pixels(Image.fromarray(np.full((2, 2), 1 << 20, np.int32)))


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(noise(10, 20))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as stored:
        np.testing.assert_array_equal(PRESETS["raw"].pixels(stored), np.rot90(np.asarray(image), -1))


def test_integer_inputs_are_rounded_and_must_fit() -> None:
    spec = InputSpec("x", (1, 3, 4, 4), np.dtype(np.uint8))
    image = noise(4, 4)
    np.testing.assert_array_equal(run(PRESETS["raw"], image, spec), image.transpose(2, 0, 1))
    with pytest.raises(ConfigError, match="results from -1 to 1 do not fit uint8"):
        PRESETS["imagenet-tf"].for_input((spec,))
    with pytest.raises(ConfigError, match="do not fit float16"):
        Preprocess(scale=300, dtype="float16").for_input((NCHW,))


def test_models_that_take_no_image() -> None:
    with pytest.raises(DataError, match="'x' of shape Nx7 does not accept an image"):
        PRESETS["raw"].for_input((InputSpec("x", ("N", 7), F32),))
    with pytest.raises(DataError, match="one input, this one has 2: x, y"):
        PRESETS["raw"].for_input((NCHW, InputSpec("y", (1,), F32)))
    with pytest.raises(DataError, match="type bool does not accept an image"):
        PRESETS["raw"].for_input((InputSpec("x", (1, 3, 4, 4), np.dtype(bool)),))
    with pytest.raises(ConfigError, match="no input 'inptu'; did you mean 'input'"):
        Preprocess(input="inptu").for_input((InputSpec("input", (1, 3, 4, 4), F32),))


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "p.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_toml(tmp_path: Path) -> None:
    text = """
        resize = 40
        crop = [32, 30]
        interpolation = "bicubic"
        layout = "nhwc"
        channels = "bgr"
        scale = "1/255"
        mean = [1, 2, 3]
        std = 4
        dtype = "float16"
        input = "x"
    """
    assert load_preprocess(toml(tmp_path, text)) == Preprocess(
        "p.toml", 40, None, (32, 30), "bicubic", "nhwc", "bgr", 1 / 255, (1.0, 2.0, 3.0), (4.0,), "float16", "x"
    )


def test_toml_starts_from_a_preset(tmp_path: Path) -> None:
    found = load_preprocess(str(toml(tmp_path, 'preset = "imagenet"\nresize = 342\ncrop = 299')))
    assert (found.resize, found.crop, found.mean) == (342, (299, 299), PRESETS["imagenet"].mean)
    found = load_preprocess(toml(tmp_path, 'preset = "imagenet"\nsize = 299'))
    assert (found.resize, found.size, found.crop) == (None, (299, 299), None)
    found = load_preprocess(toml(tmp_path, 'preset = "imagenet"\nchannels = "bgr"'))
    assert (found.mean, found.std) == (PRESETS["imagenet"].mean[::-1], PRESETS["imagenet"].std[::-1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sacle = 2", "unknown key 'sacle'; did you mean 'scale'"),
        ("colour = 2", r"unknown key 'colour' \(known: preset, resize"),
        ('preset = "imagnet"', "preset: 'imagnet' is none of imagenet"),
        ("preset = [1]", "preset: .* is none of imagenet"),
        ("name = 'x'", "unknown key 'name'"),
        ("resize = 0", "resize: must be a positive integer"),
        ("resize = true", "resize: must be a positive integer"),
        ("crop = [1, 2, 3]", r"crop: must be one positive integer or \[height, width\]"),
        ("crop = 'big'", "crop: must be"),
        ("size = -1", "size: must be"),
        ("size = true", "size: must be"),
        ("interpolation = 'cubic'", "interpolation: 'cubic' is none of nearest"),
        ("layout = ['nchw']", "layout: .* is none of auto"),
        ("channels = 'rbg'", "channels: 'rbg' is none of rgb"),
        ("scale = 0", "scale: must be a number other than 0"),
        ("scale = '1/0'", "scale: must be a number other than 0"),
        ("scale = '255'", "scale: must be a number other than 0"),
        ("scale = nan", "scale: must be a number other than 0"),
        ("mean = [1, 2]", "mean: must be a number or a list of 3"),
        ("mean = [1, 'a', 3]", "mean: must be a number or a list of 3"),
        ("channels = 'gray'\nmean = [1, 2, 3]", "mean: must be a number, not"),
        ("std = [1, 0, 1]", "std: must not be 0"),
        ("std = inf", "std: must be a number"),
        ("dtype = 'flaot32'", "dtype: 'flaot32' is not a numeric type"),
        ("dtype = 'bool'", "dtype: 'bool' is not a numeric type"),
        ("input = 3", "input: must be text"),
        ("resize = 8\nsize = 8", "resize and size exclude each other"),
        ("resize = 8\ncrop = 9", "crop: 9x9 is larger than the short side after resize, 8"),
        ("size = [8, 20]\ncrop = 9", "crop: 9x9 is larger than size, 8x20"),
        ("resize = ", "Invalid value"),
    ],
)
def test_bad_toml_names_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"p.toml: {message}") as caught:
        load_preprocess(toml(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_spec_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no preprocessing preset 'imagnet'; did you mean 'imagenet'"):
        load_preprocess("imagnet")
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        load_preprocess(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary.toml: not a text file"):
        load_preprocess(tmp_path / "binary.toml")


def test_as_dict_is_what_the_card_needs() -> None:
    assert PRESETS["imagenet-tf"].for_input((NCHW,)).as_dict() == {
        "name": "imagenet-tf",
        "resize": 256,
        "crop": [224, 224],
        "interpolation": "bilinear",
        "layout": "nchw",
        "channels": "rgb",
        "scale": 1 / 127.5,
        "mean": [1.0],
        "std": [1.0],
        "dtype": "float32",
        "input": "x",
    }
