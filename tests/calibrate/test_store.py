"""Statistics files: equal statistics give equal files, and a damaged file gives one clear line."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from onnxq.calibrate.statistics import Statistics
from onnxq.calibrate.store import load_statistics, merge_files, save_statistics
from onnxq.errors import CalibrationError, OutputError


def run(samples: range, batch: int = 1, model: str = "a" * 64) -> Statistics:
    """Two tensors of a pretend model over some samples, a batch at a time."""
    stats = Statistics(provenance={"model_sha256": model, "samples": len(samples), "data": ["images/ (rgb)"]})
    values = {i: np.random.default_rng(i).standard_normal((3, 500)).astype(np.float32) * 10**i for i in samples}
    for start in range(0, len(samples), batch):
        x = np.concatenate([values[i] for i in samples[start : start + batch]])
        stats.tensor("conv ü/0").update(x)
        stats.tensor("relu").update(np.maximum(x, 0))
    return stats


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "a.stats"
    save_statistics(run(range(5)), path)
    return path


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    for i, stats in enumerate([Statistics(), run(range(0)), run(range(5))]):
        stats.tensor("never filled")
        stats.tensor("denormal").update(np.array([1e-40, 0.0], np.float32))
        save_statistics(stats, tmp_path / f"{i}.stats")
        assert load_statistics(tmp_path / f"{i}.stats") == stats
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.stats", "1.stats", "2.stats"]


def test_counts_beyond_32_bits_survive(tmp_path: Path) -> None:
    stats = run(range(2))
    for _ in range(31):
        stats["relu"].merge(stats["relu"])
    assert stats["relu"].count == 3000 << 31
    save_statistics(stats, tmp_path / "s")
    assert load_statistics(tmp_path / "s") == stats


def test_shards_batches_and_order_give_the_same_bytes(tmp_path: Path) -> None:
    """Merged shards = one run, batch 1 = batch 7 = ragged, whichever way round, down to the file."""
    save_statistics(run(range(10)), tmp_path / "whole")
    for batch in (3, 7, 10):
        save_statistics(run(range(10), batch), tmp_path / f"batch{batch}")
    shards = [range(4), range(4, 5), range(5, 10)]
    for i, samples in enumerate(shards):
        save_statistics(run(samples, 2), tmp_path / f"shard{i}")
    save_statistics(merge_files([tmp_path / f"shard{i}" for i in (0, 1, 2)]), tmp_path / "merged")
    save_statistics(merge_files([tmp_path / f"shard{i}" for i in (2, 0, 1)]), tmp_path / "other way")
    resumed = load_statistics(tmp_path / "shard0")
    resumed.merge(run(range(4, 10)))
    save_statistics(resumed, tmp_path / "resumed")
    whole = (tmp_path / "whole").read_bytes()
    for name in ("batch3", "batch7", "batch10", "merged", "other way", "resumed"):
        assert (tmp_path / name).read_bytes() == whole, name


def test_the_file_is_plain_npz(saved: Path) -> None:
    with np.load(saved, allow_pickle=False) as archive:
        header = json.loads(bytes(archive["header"]))
        assert header["names"] == ["conv ü/0", "relu"] and header["provenance"]["samples"] == 5
        assert archive["values"][:, 0].tolist() == [7500, 7500]


def test_statistics_of_the_right_model_load(saved: Path) -> None:
    assert load_statistics(saved, "a" * 64) == run(range(5))
    with pytest.raises(CalibrationError, match=r"a\.stats: .*another model .*calibrate this model again"):
        load_statistics(saved, "b" * 64)


def test_shards_of_different_models_do_not_merge(saved: Path, tmp_path: Path) -> None:
    save_statistics(run(range(2), model="b" * 64), tmp_path / "b.stats")
    with pytest.raises(CalibrationError, match=r"b\.stats: .*another model"):
        merge_files([saved, tmp_path / "b.stats"])
    with pytest.raises(CalibrationError, match="no statistics files"):
        merge_files([])


@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(saved: Path, part: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(CalibrationError, match=r"a\.stats: not a statistics file, or a damaged one"):
        load_statistics(saved)


def test_no_flipped_byte_goes_unnoticed(saved: Path) -> None:
    """Either the file is refused or, where the zip format has slack, it means the same."""
    content = saved.read_bytes()
    expected = load_statistics(saved)
    refused = 0
    for i in np.random.default_rng(0).integers(0, len(content), 150):
        saved.write_bytes(content[:i] + bytes([content[i] ^ 0x55]) + content[i + 1 :])
        try:
            assert load_statistics(saved) == expected
        except CalibrationError as err:
            assert str(saved) in str(err)
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x07\x12\x04onnx" * 50, b"PK\x03\x04" + b"\0" * 100])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CalibrationError, match="not a statistics file"):
        load_statistics(tmp_path / "x")


def test_an_npz_or_npy_of_something_else_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros(3))
    np.save(tmp_path / "y.npy", np.zeros(3))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("header.npy", b"not an array")
    for name in ("x.npz", "y.npy", "z.zip"):
        with pytest.raises(CalibrationError, match="not a statistics file"):
            load_statistics(tmp_path / name)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"none\.stats: no such file"):
        load_statistics(tmp_path / "none.stats")
    with pytest.raises(CalibrationError, match="not a statistics file"):
        load_statistics(tmp_path)
    with pytest.raises(OutputError, match="does not exist"):
        save_statistics(run(range(1)), tmp_path / "no folder" / "s")


def rewrite(path: Path, **changes: np.ndarray) -> None:
    """Replace entries of a file by others, consistent as zip and npy."""
    with np.load(path) as archive:
        arrays = {**dict(archive), **changes}
    with path.open("wb") as out:
        np.savez(out, **arrays)


def header(**fields: object) -> np.ndarray:
    base = {"format": "onnxq calibration statistics", "version": 1, "names": ["a", "b"], "provenance": {}}
    return np.frombuffer(json.dumps({**base, **fields}).encode(), np.uint8)


def test_another_version_is_named(saved: Path) -> None:
    rewrite(saved, header=header(version=2))
    with pytest.raises(CalibrationError, match="statistics format 2, this onnxq reads 1: calibrate again"):
        load_statistics(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"header": header(format="something else")},
        {"header": header(names=["a"])},
        {"header": header(names=[1, 2])},
        {"header": header(provenance=[])},
        {"header": np.frombuffer(b"[1, 2]", np.uint8)},
        {"header": np.frombuffer(b"\xff\xfe{", np.uint8)},
        {"values": np.zeros((2, 3), np.int64)},
        {"values": np.zeros(3, np.int64)},
        {"extremes": np.full((2, 2), np.nan)},
        {"extremes": np.array([[1.0, 0.0], [0.0, 1.0]])},
        {"counts": np.zeros((3, 1024), np.uint8)},
        {"counts": np.array(["a"])},
        {"page": np.zeros(1000, np.uint16)},
    ],
)
def test_entries_that_contradict_each_other_are_refused(saved: Path, changes: dict[str, np.ndarray]) -> None:
    rewrite(saved, **changes)
    with pytest.raises(CalibrationError, match="not a statistics file, or a damaged one"):
        load_statistics(saved)


def test_a_failed_write_leaves_what_was_there(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_statistics(run(range(2)), saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]
