"""What passes share while a pipeline runs: the model, the settings, the data, and what earlier passes found out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnxq.graph.model import Model

if TYPE_CHECKING:
    from onnxq.calibrate.statistics import Statistics
    from onnxq.data.source import DataSource
    from onnxq.placement.plan import Placement
    from onnxq.placement.settings import QuantSettings
    from onnxq.profiles.schema import Profile


def silent(_message: str) -> None:
    """The default reporter: says nothing."""


@dataclass
class PassContext:
    """State of one pipeline run.

    model: the model whose graph the passes edit. profile, settings: the target and what the user asked for.
    data: samples for calibration and verification. statistics: of activations, once the calibrate pass ran or a
    file was loaded. placement: what insert-qdq put where, for the card. say: one line of information for the user.
    options: threads, batch_size, resume_path, time and progress settings of the calibration runner.
    """

    model: Model
    profile: Profile | None = None
    settings: QuantSettings | None = None
    data: DataSource | None = None
    statistics: Statistics | None = None
    placement: Placement | None = None
    say: Callable[[str], None] = silent
    options: Mapping[str, Any] = field(default_factory=dict)
