"""insert-qdq as most tests run it: statistics by onnxruntime, a profile, a context."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from onnxq import pipeline
from onnxq.calibrate.statistics import Statistics
from onnxq.context import PassContext
from onnxq.graph.match import is_float
from onnxq.graph.model import Model
from onnxq.passes.fuse_activation_clips import FuseActivationClips
from onnxq.passes.insert_qdq import InsertQdq
from onnxq.pipeline import Pass, PassReport
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import Profile, load_profile, parse_profile
from support.build import Feed, qdq
from support.runs import observing, session


def observe(source: Model, feeds: Iterable[Feed]) -> Statistics:
    """Statistics of every float activation of the top-level graph."""
    names = [t.name for n in source.graph.nodes for t in n.outputs if is_float(t)]
    observed = observing(source, names)
    opened = session(observed)
    stats = Statistics()
    for feed in feeds:
        for name, value in feed.items():
            stats.tensor(name).update(value)
        for name, value in zip(names, opened.run(names, feed), strict=True):
            stats.tensor(name).update(value)
    return stats


def context(
    source: Model,
    profile: str | Profile = "onnxruntime-cpu",
    feeds: Sequence[Feed] | None = None,
    statistics: Statistics | None = None,
    **settings: Any,
) -> PassContext:
    """A context with statistics of the model on `feeds` (random ones if there are none)."""
    stats = statistics if statistics is not None else observe(source, feeds if feeds is not None else qdq.feeds(source))
    return PassContext(source, load_profile(profile), QuantSettings(**settings), statistics=stats)


def insert(source: Model, ctx: PassContext | None = None, calibration: str = "max", fuse: bool = False) -> PassReport:
    """Run insert-qdq (and fuse-activation-clips) in place; the report of insert-qdq."""
    passes: tuple[Pass, ...] = (InsertQdq(calibration=calibration), *([FuseActivationClips()] if fuse else []))
    return pipeline.run(source, passes, ctx or context(source))[0]


def profile_of(text: str) -> Profile:
    """A profile from TOML; `name`, `summary` and `source` are filled in."""
    return parse_profile(f'name = "test"\nsummary = "s"\nsource = "s"\n{text}', "test.toml")
