"""Options shared by many functions and commands: which samples to use, and how to run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from onnxq.data.preprocess import Preprocess
from onnxq.errors import ConfigError
from onnxq.records import refined


@dataclass(frozen=True)
class DataOptions:
    """Samples that are not yet opened; accepted wherever data is.

    data: a path (images, .npz, test_data_set_*), "module:callable", a dict of arrays, an iterable of
    {input name: array}, an object with get_next(), or an open DataSource. preprocess: preset, TOML file or Preprocess,
    for images only. limit: use at most the first `limit` samples. random_data: number of random samples to use instead
    of data; seed: of the random samples. shapes: {input name: dims} fixes free axes. For the card only: synthetic: the
    samples are made, not recorded; training_samples: number of samples of one epoch of the training, if known.
    """

    data: Any = None
    preprocess: Preprocess | str | Path | None = None
    limit: int | None = None
    random_data: int | None = None
    seed: int = 0
    shapes: Mapping[str, Sequence[int]] | None = None
    synthetic: bool = False
    training_samples: int | None = None

    def __post_init__(self) -> None:
        if self.training_samples is not None and self.training_samples < 1:
            raise ConfigError(f"a training set of {self.training_samples} samples: at least 1 is needed")


def data_options(data: Any, keywords: Mapping[str, Any]) -> DataOptions:
    """A function's data argument (anything, or DataOptions) combined with its keywords."""
    return refined(data if isinstance(data, DataOptions) else DataOptions(data), keywords)


@dataclass(frozen=True)
class RunOptions:
    """How samples are run.

    threads: CPU threads; 0 is automatic. batch_size: samples per run, if the model's batch is dynamic; None is
    automatic. resume: a file from which interrupted work continues and which it keeps up to date (calibration,
    sensitivities). custom_ops: libraries of operators that the model needs, registered with onnxruntime.
    """

    threads: int = 0
    batch_size: int | None = None
    resume: str | Path | None = None
    custom_ops: str | Path | Sequence[str | Path] = ()


class SampleKeywords(TypedDict, total=False):
    """Keywords of every function that accepts data."""

    preprocess: Preprocess | str | Path | None
    limit: int | None


class DataKeywords(SampleKeywords, total=False):
    """The fields of DataOptions, except data, as keywords."""

    random_data: int | None
    seed: int
    shapes: Mapping[str, Sequence[int]] | None
    synthetic: bool
    training_samples: int | None


class RunKeywords(TypedDict, total=False):
    """The fields of RunOptions as keywords."""

    threads: int
    batch_size: int | None
    resume: str | Path | None
    custom_ops: str | Path | Sequence[str | Path]
