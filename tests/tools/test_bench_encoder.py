"""The benchmark's text encoder: what it computes, and that its versions are what their names say."""

from __future__ import annotations

from pathlib import Path

import bench_encoder
import numpy as np
import pytest

import onnxq
from bench_support.encoder import sentences
from onnxq.check.integer_only import check_integer

WIDTH, WORDS = 128, 1000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return bench_encoder.prepare(tmp_path_factory.mktemp("encoder"), 2, WIDTH)


def test_padding_counts_for_nothing_and_attention_does(files: dict[str, Path]) -> None:
    session = onnxq.session(files["float"])
    (feed,) = (f for f in sentences(2, 24, WORDS) if not f["mask"].all())
    words = feed["mask"] == 1
    (plain,) = session.run(None, feed)
    (other,) = session.run(None, feed | {"ids": np.where(words, feed["ids"], 7)})
    np.testing.assert_allclose(plain[words], other[words], rtol=1e-4, atol=1e-5)
    (alone,) = session.run(None, feed | {"mask": feed["mask"] * (np.arange(24) < 4)})
    assert np.abs(plain - alone)[:, :4].max() > 0.1


def test_every_version_is_near_the_float_model(files: dict[str, Path]) -> None:
    found = bench_encoder.quality(files, 4)
    assert set(found) == set(bench_encoder.LABELS) - {"float"} and min(found.values()) > 15
    assert check_integer(files["onnxq"]) == []


def test_a_table_is_printed(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino")
    times = bench_encoder.bench(files, 16, 1, 0.01)
    assert set(times) == set(bench_encoder.LABELS) and min(times.values()) > 0
    bench_encoder.report({"words": 16, "threads": 1, "ms": times}, {"layers": 2, "sqnr_db": {"onnxq": 20.0}})
    assert "integer-only" in capsys.readouterr().out
