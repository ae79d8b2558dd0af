"""Statistics files: one .npz without pickles; equal statistics give equal files."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.calibrate.buckets import NEGATIVE_PAGE, PAGE_SIZE, PAGES
from onnxq.calibrate.statistics import Statistics, TensorStatistics
from onnxq.data.arrays import NpzTable
from onnxq.errors import CalibrationError, DataError
from onnxq.graph.files import write_bytes
from onnxq.records import MAX_BYTES, parse_json

FORMAT = "onnxq calibration statistics"
VERSION = 1
# The earliest time a zip entry can have: files must not depend on when they were written.
EPOCH = (1980, 1, 1, 0, 0, 0)


def save_statistics(stats: Statistics, path: str | Path) -> None:
    """Write a statistics file atomically. Raises OutputError.

    Entries, T tensors in the order of their names, P pages: header (UTF-8 JSON as uint8: format, version, names,
    provenance); values (T, 3) int64: count, zeros, pages; extremes (T, 2) float64: minimum, maximum; page (P,)
    uint16; counts (P, 1024), in the smallest unsigned integer type that fits.
    """
    names = sorted(stats)
    tensors = [stats[name] for name in names]
    header = {"format": FORMAT, "version": VERSION, "names": names, "provenance": stats.provenance}
    pages = [(page, t.pages[page]) for t in tensors for page in sorted(t.pages)]
    counts = np.stack([c for _, c in pages]) if pages else np.zeros((0, PAGE_SIZE), np.int64)
    arrays: dict[str, NDArray] = {
        "header": np.frombuffer(json.dumps(header, sort_keys=True).encode(), np.uint8),
        "values": np.array([(t.count, t.zeros, len(t.pages)) for t in tensors], np.int64).reshape(-1, 3),
        "extremes": np.array([(t.minimum, t.maximum) for t in tensors], np.float64).reshape(-1, 2),
        "page": np.array([page for page, _ in pages], np.uint16),
        "counts": counts.astype(np.min_scalar_type(int(counts.max(initial=0)))),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            entry.create_system = 3  # otherwise the file would depend on the operating system
            npy = io.BytesIO()
            np.lib.format.write_array(npy, array, version=(1, 0), allow_pickle=False)
            archive.writestr(entry, npy.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=1)
    write_bytes(path, content.getvalue())


def load_statistics(path: str | Path, model_sha256: str | None = None) -> Statistics:
    """Read a statistics file; with `model_sha256`, only one from that model.

    Raises CalibrationError if the file is missing, damaged, of a different version, or from a different model.
    """
    try:
        if not Path(path).exists():
            raise CalibrationError(f"{path}: no such file")
        table = NpzTable(Path(path))
        _require(math.prod(table.shapes["header"]) <= MAX_BYTES)
        header = parse_json(bytes(table.load("header")))
        if header["format"] != FORMAT:
            raise ValueError(header["format"])
        if header["version"] != VERSION:
            raise CalibrationError(
                f"{path}: statistics format {header['version']}, this onnxq reads {VERSION}: calibrate again"
            )
        stats = _unpack(header, {name: table.load(name) for name in ("values", "extremes", "page", "counts")})
    except (DataError, ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError) as err:
        raise CalibrationError(
            f"{path}: not a statistics file, or a damaged one ({type(err).__name__}): make it again with "
            "`onnxq calibrate`"
        ) from err
    try:
        stats.require_model(model_sha256)
    except CalibrationError as err:
        raise CalibrationError(f"{path}: {err}") from None
    return stats


def merge_files(paths: Iterable[str | Path]) -> Statistics:
    """The statistics of several shards, as of one run over all of them. Raises CalibrationError as load does."""
    total: Statistics | None = None
    for path in paths:
        shard = load_statistics(path)
        if total is None:
            total = shard
            continue
        try:
            total.merge(shard)
        except CalibrationError as err:
            raise CalibrationError(f"{path}: {err}") from None
    if total is None:
        raise CalibrationError("no statistics files to merge")
    return total


def _unpack(header: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> Statistics:
    """Statistics from the entries of a file; ValueError if they contradict each other."""
    values, extremes, page = arrays["values"], arrays["extremes"], arrays["page"]
    counts = arrays["counts"].astype(np.int64)
    names, provenance = header["names"], header["provenance"]
    _require(isinstance(provenance, dict) and all(isinstance(name, str) for name in names))
    _require(values.shape == (len(names), 3) and extremes.shape == (len(names), 2))
    _require(page.shape == (int(values[:, 2].sum()),) and counts.shape == (page.size, PAGE_SIZE))
    tensors: dict[str, TensorStatistics] = {}
    first = 0
    for name, (count, zeros, pages), (minimum, maximum) in zip(names, values.tolist(), extremes.tolist(), strict=True):
        t = TensorStatistics(
            count, zeros, minimum, maximum, {int(page[i]): counts[i] for i in range(first, first + pages)}
        )
        first += pages
        _require(len(t.pages) == pages and all(0 < p % NEGATIVE_PAGE < 255 and p < PAGES for p in t.pages))
        _require(zeros >= 0 and count == zeros + sum(int(c.sum()) for c in t.pages.values()))
        _require(-math.inf < minimum <= maximum < math.inf if count else not t.pages)
        tensors[name] = t
    return Statistics(tensors, provenance)


def _require(consistent: bool) -> None:
    if not consistent:
        raise ValueError("entries contradict each other")
