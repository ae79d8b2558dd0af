"""From pixels to an input tensor: resizing, cropping, channel order and scaling, from a preset or a TOML file."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from onnxq.data.spec import InputSpec, format_shape
from onnxq.errors import ConfigError, DataError, MissingDependencyError, printable
from onnxq.records import BadText, closest, parse_toml, read_text

if TYPE_CHECKING:
    from PIL import Image

Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Layout = Literal["auto", "nchw", "nhwc"]
Channels = Literal["rgb", "bgr", "gray"]


@dataclass(frozen=True)
class Preprocess:
    """Conversion of an image to an input. The order is: rotate upright (EXIF) → convert to RGB or gray → resize → crop
    → reorder channels → (x · scale − mean) / std, with x in 0…255 → layout and dtype.

    resize: length of the short side, keeping the aspect ratio. size: exact (height, width) instead.
    crop: (height, width) from the centre. An image that already has the crop size is used unchanged, and one whose
    short side (or size) is already right is not resampled.
    interpolation: Pillow's, with antialiasing when shrinking, as in torchvision on Pillow images.
    layout: "auto" is nhwc if the input's last axis, and not its second, equals the number of channels; else nchw.
    channels: "gray" is one channel, 0.299 R + 0.587 G + 0.114 B. Transparency is dropped, not blended.
    mean, std: one number, or one per channel in the order of `channels` (blue first for bgr), in units of x · scale.
    dtype: None is that of the model's input; integers are rounded. input: name of the input; None if there is only one.
    Sizes may be given as one number, scale also as text such as "1/127.5". Raises ConfigError for a bad value.
    """

    name: str = ""
    resize: int | None = None
    size: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    interpolation: Interpolation = "bilinear"
    layout: Layout = "auto"
    channels: Channels = "rgb"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    dtype: str | None = None
    input: str | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        if self.resize is not None and not _positive(self.resize):
            raise ConfigError(f"resize: must be a positive integer, not {self.resize!r}")
        for key in ("size", "crop"):
            put(self, key, _height_width(key, getattr(self, key)))
        for key, allowed in (("interpolation", Interpolation), ("layout", Layout), ("channels", Channels)):
            if getattr(self, key) not in get_args(allowed):
                raise ConfigError(f"{key}: {getattr(self, key)!r} is none of {', '.join(get_args(allowed))}")
        put(self, "scale", _scale(self.scale))
        for key in ("mean", "std"):
            put(self, key, _per_channel(key, getattr(self, key), self.depth))
        if 0.0 in self.std:
            raise ConfigError("std: must not be 0")
        for key in ("name", "dtype", "input"):
            if not isinstance(getattr(self, key), str) and (key == "name" or getattr(self, key) is not None):
                raise ConfigError(f"{key}: must be text, not {getattr(self, key)!r}")
        if self.dtype is not None and not _is_number_type(self.dtype):
            raise ConfigError(f"dtype: {self.dtype!r} is not a numeric type such as float32, float16 or uint8")
        if self.resize is not None and self.size is not None:
            raise ConfigError("resize and size exclude each other: short side, or exact size")
        if self.crop and self.resize is not None and min(self.crop) > self.resize:
            raise ConfigError(f"crop: {_text(self.crop)} is larger than the short side after resize, {self.resize}")
        if self.crop and self.size and (self.crop[0] > self.size[0] or self.crop[1] > self.size[1]):
            raise ConfigError(f"crop: {_text(self.crop)} is larger than size, {_text(self.size)}")

    @property
    def depth(self) -> int:
        """Number of channels of the result."""
        return 1 if self.channels == "gray" else 3

    def as_dict(self) -> dict[str, Any]:
        """The fields that are set, for the card: JSON types only."""
        items = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return {k: list(v) if isinstance(v, tuple) else v for k, v in items if v is not None and v != ""}

    def for_input(self, inputs: tuple[InputSpec, ...]) -> Preprocess:
        """With input, layout and dtype resolved for a model. Raises ConfigError, or DataError if no input fits."""
        spec = self._pick(inputs)
        if spec.shape is not None and len(spec.shape) not in (3, 4):
            raise DataError(f"input {spec.name!r} of shape {format_shape(spec.shape)} does not accept an image")
        if not _is_number_type(self.dtype or spec.dtype.name):
            raise DataError(f"input {spec.name!r} of type {spec.dtype.name} does not accept an image")
        layout = self.layout
        if layout == "auto":
            dims = None if spec.shape is None else spec.shape[-3:]
            layout = "nhwc" if dims and dims[2] == self.depth and dims[0] != self.depth else "nchw"
        ready = dataclasses.replace(self, input=spec.name, layout=layout, dtype=self.dtype or spec.dtype.name)
        _table(ready)  # so that a range that does not fit the type is reported before any image is read
        return ready

    def pixels(self, image: Image.Image) -> np.ndarray:
        """uint8, H×W×channels: upright, converted, resized, cropped, reordered. Raises DataError if too small."""
        from PIL import ImageOps

        image = self._fit(_convert(ImageOps.exif_transpose(image), "L" if self.channels == "gray" else "RGB"))
        array = np.asarray(image).reshape(image.height, image.width, self.depth)
        return array[..., ::-1] if self.channels == "bgr" else array

    def array_pixels(self, array: np.ndarray) -> np.ndarray:
        """The same from a uint8 array, H×W (gray), H×W×1, H×W×3 (RGB) or H×W×4 (RGBA)."""
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[..., 0]
        depth = 1 if array.ndim == 2 else array.shape[2]
        if depth == self.depth and self._resized(array.shape[0], array.shape[1]) is None and not self._crops(array):
            array = array.reshape(*array.shape[:2], depth)
            return array[..., ::-1] if self.channels == "bgr" else array
        return self.pixels(pillow().fromarray(np.ascontiguousarray(array)))

    def tensor(self, pixels: np.ndarray) -> np.ndarray:
        """Convert uint8 H×W×channels to channels×H×W or H×W×channels in dtype, scaled. Requires for_input first.

        Every value is computed once per channel in float64 and rounded once to dtype.
        """
        table = _table(self)
        height, width, depth = pixels.shape
        planes = np.empty((depth, height, width), table.dtype)
        for c in range(depth):
            np.take(table[c], pixels[..., c], out=planes[c])
        return planes if self.layout == "nchw" else np.ascontiguousarray(planes.transpose(1, 2, 0))

    def _pick(self, inputs: tuple[InputSpec, ...]) -> InputSpec:
        names = [spec.name for spec in inputs]
        if self.input is not None and self.input not in names:
            raise ConfigError(
                f"preprocess: the model has no input {self.input!r}{closest(self.input, names)};"
                f" its inputs: {', '.join(names)}"
            )
        if len(inputs) != 1:
            raise DataError(
                f"images can feed a model with one input, this one has {len(inputs)}: {', '.join(names)};"
                " use .npz files keyed by input name"
            )
        return inputs[0]

    def _resized(self, height: int, width: int) -> tuple[int, int] | None:
        """(height, width) to resample to; None if the image is not resampled."""
        if self.crop == (height, width):
            return None
        target = self.size or (height, width)
        if self.resize is not None:
            short = min(height, width)
            # torchvision's rounding: the long side is truncated
            target = (int(self.resize * height / short), int(self.resize * width / short))
        return None if target == (height, width) else target

    def _crops(self, array: np.ndarray) -> bool:
        return self.crop is not None and self.crop != array.shape[:2]

    def _fit(self, image: Image.Image) -> Image.Image:
        target = self._resized(image.height, image.width)
        if target is not None:
            method = getattr(pillow().Resampling, self.interpolation.upper())
            image = image.resize((target[1], target[0]), method)
        if self.crop is None or self.crop == (image.height, image.width):
            return image
        height, width = self.crop
        if height > image.height or width > image.width:
            raise DataError(
                f"the image, {image.height}x{image.width}, is smaller than the crop, {_text(self.crop)};"
                " set resize or size in the preprocessing"
            )
        top, left = round((image.height - height) / 2), round((image.width - width) / 2)
        return image.crop((left, top, left + width, top + height))


def pillow() -> Any:
    """PIL.Image. Raises MissingDependencyError."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingDependencyError("images need Pillow: pip install 'onnxq[images]'") from None
    return Image


@lru_cache(maxsize=8)
def _table(p: Preprocess) -> np.ndarray:
    """(channels, 256): the result for every pixel value, in dtype. Raises ConfigError if the type does not fit."""
    dtype = _dtype(p.dtype or "float32")
    x = np.arange(256, dtype=np.float64)
    mean, std = (np.broadcast_to(np.array(v), (p.depth,))[:, None] for v in (p.mean, p.std))
    values = (x * p.scale - mean) / std
    info: Any = np.iinfo(dtype) if dtype.kind in "iu" else _finfo(dtype)
    if dtype.kind in "iu":
        values = np.rint(values)
    if values.min() < info.min or values.max() > info.max:
        raise ConfigError(f"preprocess: results from {values.min():g} to {values.max():g} do not fit {dtype.name}")
    return values.astype(dtype)


def _convert(image: Image.Image, mode: str) -> Image.Image:
    """Convert any mode to "RGB" or "L"."""
    if image.mode.startswith("I"):  # 16-bit grayscale, which Pillow would saturate at 255
        wide = np.asarray(image)
        if wide.min(initial=0) < 0 or wide.max(initial=0) > 0xFFFF:
            raise DataError("images of 32-bit pixels are not supported; use .npz")
        image = pillow().fromarray((wide >> 8).astype(np.uint8) if wide.max(initial=0) > 255 else wide.astype(np.uint8))
    elif image.mode == "F":
        raise DataError("images of floating-point pixels are not supported; use .npz")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == mode else image.convert("RGB").convert(mode)


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _height_width(key: str, value: Any) -> tuple[int, int] | None:
    pair = (value, value) if isinstance(value, int) else value
    if pair is None:
        return None
    if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(map(_positive, pair)):
        raise ConfigError(f"{key}: must be one positive integer or [height, width], not {value!r}")
    return pair[0], pair[1]


def _scale(value: Any) -> float:
    if isinstance(value, str) and (parts := re.fullmatch(r"\s*([\d.]+)\s*/\s*([\d.]+)\s*", value)):
        with contextlib.suppress(ValueError, ZeroDivisionError):
            value = float(parts[1]) / float(parts[2])
    if not _number(value) or value == 0:
        raise ConfigError(f'scale: must be a number other than 0, or text such as "1/255", not {value!r}')
    return float(value)


def _per_channel(key: str, value: Any, depth: int) -> tuple[float, ...]:
    values = [value] if _number(value) else value
    if not isinstance(values, (list, tuple)) or not all(map(_number, values)) or len(values) not in (1, depth):
        wanted = "a number" if depth == 1 else f"a number or a list of {depth}"
        raise ConfigError(f"{key}: must be {wanted}, not {value!r}")
    return tuple(float(v) for v in values)


def _is_number_type(name: str) -> bool:
    try:
        return _dtype(name).kind in "iuf" or name == "bfloat16"
    except TypeError:
        return False


def _dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def _finfo(dtype: np.dtype) -> Any:
    import ml_dtypes

    return ml_dtypes.finfo(dtype)  # NumPy's finfo lacks bfloat16


def _text(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"


PRESETS: Mapping[str, Preprocess] = {
    p.name: p
    for p in (
        # torchvision's classification reference
        Preprocess(
            "imagenet",
            resize=256,
            crop=(224, 224),
            scale=1 / 255,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        # tf.keras.applications, mode "tf": x / 127.5 − 1
        Preprocess("imagenet-tf", resize=256, crop=(224, 224), scale=1 / 127.5, mean=(1.0,)),
        # Caffe's ImageNet mean, blue first
        Preprocess("caffe", resize=256, crop=(224, 224), channels="bgr", mean=(103.939, 116.779, 123.68)),
        Preprocess("cifar10", mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7)),
        Preprocess("raw"),
    )
}


def load_preprocess(spec: str | Path | Preprocess) -> Preprocess:
    """A preset by name, or a TOML file whose keys are the fields of Preprocess; `preset = "imagenet"` starts from one.

    Raises ConfigError naming the file and the key.
    """
    if isinstance(spec, Preprocess):
        return spec
    if str(spec) in PRESETS:
        return PRESETS[str(spec)]
    path = Path(spec)
    if path.suffix != ".toml" and not path.exists():
        raise ConfigError(
            f"there is no preprocessing preset {str(spec)!r}{closest(str(spec), PRESETS)} (available:"
            f" {', '.join(PRESETS)}); your own file must end in .toml"
        )
    try:
        table = parse_toml(read_text(path))
    except OSError as err:
        raise ConfigError(f"{path}: cannot be read: {err.strerror}") from None
    except BadText as err:
        raise ConfigError(f"{path}: {err}") from None
    return _parse(table, path)


def _parse(table: dict[str, Any], path: Path) -> Preprocess:
    known = [f.name for f in dataclasses.fields(Preprocess) if f.name != "name"]
    for key in table:
        if key not in known and key != "preset":
            hint = closest(key, [*known, "preset"]) or f" (known: preset, {', '.join(known)})"
            raise ConfigError(f"{path}: unknown key {key!r}{hint}")
    base, values = Preprocess(), dict(table)
    preset = values.pop("preset", None)
    if preset is not None:
        if preset not in list(PRESETS):  # may be of any TOML type
            raise ConfigError(f"{path}: preset: {preset!r} is none of {', '.join(PRESETS)}")
        base = PRESETS[preset]
        if "size" in values:  # an exact size replaces the preset's short side and crop
            base = dataclasses.replace(base, resize=None, crop=None)
        if (base.channels, values.get("channels")) in (
            ("rgb", "bgr"),
            ("bgr", "rgb"),
        ):  # per-channel numbers follow the channel order
            base = dataclasses.replace(base, mean=base.mean[::-1], std=base.std[::-1])
    try:
        return dataclasses.replace(base, name=printable(path.name), **values)
    except ConfigError as err:
        raise ConfigError(f"{path}: {err}") from None
