"""Records of a quantization run, from which a card is assembled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnxq.pipeline import PassReport
from onnxq.placement.plan import Placement
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import Profile


@dataclass(frozen=True)
class Made:
    """What was done to the model. pipeline: in text form. reports: one per pass, in order."""

    profile: Profile
    settings: QuantSettings
    placement: Placement
    pipeline: str
    reports: Sequence[PassReport]

    def float_reasons(self) -> dict[str, str]:
        """{node: why it was left in float}; the first reason if there are several."""
        found: dict[str, str] = {}
        for failure in self.placement.skipped:
            found.setdefault(failure.node, failure.reason)
        return found


@dataclass(frozen=True)
class Provenance:
    """The origin of the ranges and the widths.

    statistics: provenance of the activation statistics. data: DataSource.describe(); empty if only statistics were
    given. search: the [search] table of the configuration that set the widths; None without one. synthetic: the user
    says that the samples are made, not recorded. training_samples: of one epoch of the training, None if unknown.
    """

    statistics: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] | None = None
    synthetic: bool = False
    training_samples: int | None = None


@dataclass(frozen=True)
class Effort:
    """Resources used by the run. seconds: since reading the model. peak_rss_bytes: of the process. threads: 0 is
    automatic, None unknown.
    """

    seconds: float
    peak_rss_bytes: int
    threads: int | None = None
