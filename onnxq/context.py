"""State shared by the passes of a pipeline: the model, the settings, the data, and results of earlier passes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onnxq.data.options import RunOptions
from onnxq.graph.model import Model
from onnxq.placement.cache import PlanCache
from onnxq.reporting import Reporter

if TYPE_CHECKING:
    from onnxq.calibrate.statistics import Statistics
    from onnxq.data.source import DataSource
    from onnxq.placement.plan import Placement
    from onnxq.placement.settings import QuantSettings
    from onnxq.profiles.schema import Profile


@dataclass
class PassContext:
    """State of one pipeline run.

    model: the model whose graph the passes edit. profile, settings: the target and the user's settings.
    data: samples for calibration and verification. statistics: of activations, after the calibrate pass or loaded
    from a file. plans: the placement for the current graph. placement: the Q/DQ placement of insert-qdq, for the card.
    run: how calibration runs its samples. reporter: notified of each pass and of the progress of calibration.
    """

    model: Model
    profile: Profile | None = None
    settings: QuantSettings | None = None
    data: DataSource | None = None
    statistics: Statistics | None = None
    plans: PlanCache = field(default_factory=PlanCache)
    placement: Placement | None = None
    run: RunOptions = field(default_factory=RunOptions)
    reporter: Reporter = field(default_factory=Reporter)
