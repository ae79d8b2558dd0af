"""onnxq.quantize as a library: every form of data gives the same model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import onnxq
from onnxq import demo
from onnxq.calibrate.store import load_statistics, save_statistics
from onnxq.data.source import input_specs, open_data
from onnxq.errors import ConfigError, DataError, OnnxqError
from onnxq.graph.model import load
from support.demo_model import SAMPLES, bare

Feed = dict[str, NDArray[Any]]


class Reader:
    """onnxruntime's CalibrationDataReader."""

    def __init__(self, images: NDArray[np.float32]) -> None:
        self._left = iter(images)

    def get_next(self) -> Feed | None:
        image = next(self._left, None)
        return None if image is None else {"image": image[None]}


def _generator(images: NDArray[np.float32]) -> Iterator[Feed]:
    for image in images:
        yield {"image": image[None]}


def _ragged(images: NDArray[np.float32]) -> Iterator[Feed]:
    for low in range(0, len(images), 7):
        yield {"image": images[low : low + 7]}


def _npz(images: NDArray[np.float32], folder: Path) -> Path:
    np.savez(folder / "data.npz", image=images, labels=np.zeros(len(images), np.int64))
    return folder / "data.npz"


def _npz_folder(images: NDArray[np.float32], folder: Path) -> Path:
    for i, image in enumerate(images):
        np.savez(folder / f"{i:03}.npz", image=image[None])
    return folder


def _test_data_sets(images: NDArray[np.float32], folder: Path) -> Path:
    for i, image in enumerate(images):
        inner = folder / f"test_data_set_{i}"
        inner.mkdir()
        (inner / "input_0.pb").write_bytes(numpy_helper.from_array(image[None], "image").SerializeToString())
    return folder


FORMS: dict[str, Callable[[NDArray[np.float32], Path], Any]] = {
    "list": lambda images, _: list(_generator(images)),
    "generator": lambda images, _: _generator(images),
    "ragged batches": lambda images, _: _ragged(images),
    "callable": lambda images, _: lambda: _generator(images),
    "get_next": lambda images, _: Reader(images),
    "npz": _npz,
    "npz as text": lambda images, folder: str(_npz(images, folder)),
    "folder of npz": _npz_folder,
    "test data sets": _test_data_sets,
    "open source": lambda images, _: open_data({"image": images}, input_specs(load(demo.model_path()).graph)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_gives_the_same_model(
    form: str, images: NDArray[np.float32], expected: onnx.ModelProto, tmp_path: Path
) -> None:
    found = onnxq.quantize(demo.model_path(), FORMS[form](images, tmp_path))
    assert bare(found.model) == bare(expected)
    assert [use.samples for use in found.card.resources.data] == [SAMPLES]


def test_the_batch_size_changes_nothing(images: NDArray[np.float32], expected: onnx.ModelProto) -> None:
    """Float32 sums may differ by batch size within onnxruntime; ranges on this model do not."""
    found = onnxq.quantize(demo.model_path(), {"image": images}, batch_size=7, threads=1)
    ours, theirs = ({t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (found.model, expected))
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        if name.endswith("_scale"):
            np.testing.assert_allclose(values, theirs[name], rtol=1e-3)


def test_limit_takes_the_first_samples(images: NDArray[np.float32]) -> None:
    limited = onnxq.quantize(demo.model_path(), {"image": images}, limit=16)
    assert bare(limited.model) == bare(onnxq.quantize(demo.model_path(), {"image": images[:16]}).model)


def test_random_data_is_reported_and_seeded() -> None:
    said: list[str] = []
    first = onnxq.quantize(demo.model_path(), random_data=3, seed=1, say=said.append)
    assert any("RANDOM" in line for line in said)
    assert "random" in first.card.to_markdown().lower()
    assert bare(first.model) == bare(onnxq.quantize(demo.model_path(), random_data=3, seed=1).model)
    assert bare(first.model) != bare(onnxq.quantize(demo.model_path(), random_data=3, seed=2).model)


def test_data_is_required_exactly_once(images: NDArray[np.float32]) -> None:
    with pytest.raises(ConfigError, match="no calibration data"):
        onnxq.quantize(demo.model_path())
    with pytest.raises(ConfigError, match="not both"):
        onnxq.quantize(demo.model_path(), {"image": images}, random_data=3)
    with pytest.raises(DataError, match="'image'"):
        onnxq.quantize(demo.model_path(), {"picture": images})
    assert issubclass(DataError, OnnxqError)


def test_statistics_instead_of_data(images: NDArray[np.float32], expected: onnx.ModelProto, tmp_path: Path) -> None:
    collected = onnxq.quantize(demo.model_path(), {"image": images}).statistics
    assert collected is not None
    save_statistics(collected, tmp_path / "stats")
    for given in (collected, tmp_path / "stats", str(tmp_path / "stats")):
        found = onnxq.quantize(demo.model_path(), statistics=given)
        assert bare(found.model) == bare(expected)
        assert [use.samples for use in found.card.resources.data] == [SAMPLES]


def test_one_collection_serves_every_method(images: NDArray[np.float32]) -> None:
    statistics = onnxq.quantize(demo.model_path(), {"image": images}).statistics
    for method in ("max", "percentile:99.9", "entropy", "mse"):
        fresh = onnxq.quantize(demo.model_path(), {"image": images}, calibration=method)
        again = onnxq.quantize(demo.model_path(), statistics=statistics, calibration=method)
        assert bare(fresh.model) == bare(again.model)


def test_a_resume_file_is_made_and_used(images: NDArray[np.float32], expected: onnx.ModelProto, tmp_path: Path) -> None:
    kept = tmp_path / "kept.stats"
    first = onnxq.quantize(demo.model_path(), {"image": images}, resume=kept)
    assert load_statistics(kept).provenance["samples"] == SAMPLES
    seen: list[int] = []
    again = onnxq.quantize(
        demo.model_path(), {"image": images}, resume=kept, progress=lambda done, total: seen.append(done)
    )
    assert set(seen) == {SAMPLES}, "the samples were run again"
    assert bare(first.model) == bare(again.model) == bare(expected)


def test_progress_counts_samples(images: NDArray[np.float32]) -> None:
    seen: list[tuple[int, int | None]] = []
    onnxq.quantize(demo.model_path(), {"image": images}, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, SAMPLES) and seen[-1] == (SAMPLES, SAMPLES)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
