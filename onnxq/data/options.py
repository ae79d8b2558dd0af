"""Which samples to use, and how to run them through a model: options that many functions and commands share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from onnxq.data.preprocess import Preprocess
from onnxq.records import refined


@dataclass(frozen=True)
class DataOptions:
    """Samples that are yet to be opened; accepted wherever data is.

    data: a path (images, .npz, test_data_set_*), "module:callable", a dict of arrays, an iterable of
    {input name: array}, an object with get_next(), or an open DataSource. preprocess: preset, TOML file or Preprocess,
    for images only. limit: use at most that many samples, the first ones. random_data: that many random samples, in
    place of data; seed: theirs. shapes: {input name: dims} fixes free axes.
    """

    data: Any = None
    preprocess: Preprocess | str | Path | None = None
    limit: int | None = None
    random_data: int | None = None
    seed: int = 0
    shapes: Mapping[str, Sequence[int]] | None = None


def data_options(data: Any, keywords: Mapping[str, Any]) -> DataOptions:
    """What a function was given as data (anything, or DataOptions), with its keywords."""
    return refined(data if isinstance(data, DataOptions) else DataOptions(data), keywords)


@dataclass(frozen=True)
class RunOptions:
    """How samples are run.

    threads: CPU threads; 0 is automatic. batch_size: samples per run, where the model's batch is dynamic; None is
    automatic. resume: a file that interrupted work continues from and keeps up to date (calibration, sensitivities).
    """

    threads: int = 0
    batch_size: int | None = None
    resume: str | Path | None = None


class SampleKeywords(TypedDict, total=False):
    """What every function that takes data accepts as keywords."""

    preprocess: Preprocess | str | Path | None
    limit: int | None


class DataKeywords(SampleKeywords, total=False):
    """The fields of DataOptions, less data, as keywords."""

    random_data: int | None
    seed: int
    shapes: Mapping[str, Sequence[int]] | None


class RunKeywords(TypedDict, total=False):
    """The fields of RunOptions as keywords."""

    threads: int
    batch_size: int | None
    resume: str | Path | None
