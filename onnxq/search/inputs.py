"""Inputs of a search: the model, the widths and limits, and measurements or samples."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from onnxq.data.options import DataOptions, RunOptions
from onnxq.errors import ConfigError

if TYPE_CHECKING:
    from onnxq.calibrate.statistics import Statistics
    from onnxq.cost.prepared import Source
    from onnxq.measure.proof.record import ProofOptions
    from onnxq.profiles.schema import Profile
    from onnxq.search.sensitivity import Sensitivity
    from onnxq.search.space import Space

DEFAULT_PROFILE = "onnxruntime-cpu"
STATISTICS = "statistics"
T = TypeVar("T")
LimitTexts = Mapping[str, str | float | Sequence[str | float] | None]


@dataclass(frozen=True)
class SearchInputs:
    """Inputs of a search; each method declares which of them it needs and accepts (SearchMethod).

    source: float model. bits: weight widths to choose from. limits: {cost: "3MB", "60%" of int8, or several}.
    sensitivity: of the same model, or its file. options: the other keywords of make_space; `latency` may be a file.
    samples, run: to calibrate and evaluate with, of methods that need data, and to calibrate and prove the product.
    say: reports while the search runs. proving: how the product is proven (onnxq.search.product); None: not at all.
    Raises ConfigError for a proof that must succeed without samples to make the product with.
    """

    source: Source
    bits: Sequence[int]
    limits: LimitTexts = field(default_factory=dict)
    sensitivity: Sensitivity | str | Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    samples: DataOptions | None = None
    run: RunOptions = field(default_factory=RunOptions)
    say: Callable[[str], None] = lambda _message: None
    proving: ProofOptions | None = None
    _made: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        proving = self.proving
        if self.samples is None and proving is not None and (proving.strict or proving.min_sqnr is not None):
            raise ConfigError("a proof that must succeed needs data to make the product with: give data or random data")

    @property
    def profile(self) -> str | Path | Profile:
        """The target hardware profile."""
        profile: str | Path | Profile = self.options.get("profile", DEFAULT_PROFILE)
        return profile

    @functools.cached_property
    def space(self) -> Space:
        """The widths to choose from, with their costs. Raises as make_space does."""
        from onnxq.cost.latency_table import load_latencies
        from onnxq.search.space import make_space

        latency = self.options.get("latency")
        if isinstance(latency, (str, Path)):
            latency = load_latencies(latency)
        return make_space(self.source, bits=self.bits, **{**self.options, "latency": latency})

    def measured(self) -> Sensitivity:
        """The sensitivities, checked against the space's model. Raises ConfigError."""
        from onnxq.search.sensitivity import Sensitivity, load_sensitivity

        model = self.space.prepared.model
        if self.sensitivity is None:
            raise ConfigError("sensitivities are needed: the file of `onnxq sensitivity`")
        if not isinstance(self.sensitivity, Sensitivity):
            return load_sensitivity(self.sensitivity, model.sha256)
        self.sensitivity.require_model(model.sha256, model.name)
        return self.sensitivity

    def once(self, key: object, make: Callable[[], T]) -> T:
        """The result of make(), called once for all searches on these inputs."""
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made

    def keep_statistics(self, calibrated: Statistics | None) -> None:
        """Keep the statistics of a trial, so that the product is not calibrated again."""
        self._made[STATISTICS] = calibrated

    @property
    def statistics(self) -> Statistics | None:
        """The statistics of a trial, if there was one."""
        found: Statistics | None = self._made.get(STATISTICS)
        return found


__all__ = ["LimitTexts", "SearchInputs"]
