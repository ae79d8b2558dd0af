"""The effect on the model's outputs of quantizing only one layer, its weights alone, or one activation.

NVIDIA 2020, section 5.1, quantizes one layer at a time, weights and inputs together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnxq.data.source import Batch
from onnxq.numeric import curvature
from onnxq.numeric.classification import top_classes
from onnxq.numeric.qparams import QParams
from onnxq.reporting import Progress
from onnxq.search.checkpoint import State
from onnxq.search.downstream import GRID, Part
from onnxq.search.float_runs import Forward, Tensors, run_part
from onnxq.search.objective import Objective

Metric = Literal["loss", "accuracy", "output-error"]
METRICS = ("loss", "accuracy", "output-error")


@dataclass
class Damage:
    """Sums over the samples of the effect of one change on the outputs, changed model against float model.

    loss: increase of the objective's loss, times samples. moved: samples whose top class changed. lost: samples that
    became wrong minus samples that became right. error, signal: squared, of the outputs.
    """

    samples: int = 0
    loss: float = 0.0
    moved: int = 0
    lost: int = 0
    labelled: int = 0
    error: float = 0.0
    signal: float = 0.0

    def add(self, other: Damage) -> None:
        """The sum of both."""
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def relative_error(self) -> float:
        """‖y_q − y‖² / ‖y‖²."""
        return self.error / self.signal if self.signal else float(self.error > 0)

    def value(self, metric: Metric) -> float:
        """A mean over samples: loss increase, share of top-1 lost (of top classes moved, without labels), error."""
        if metric == "loss":
            return self.loss / self.samples
        if metric == "accuracy":
            return (self.lost if self.labelled else self.moved) / self.samples
        return self.relative_error


Feeds = Mapping[int, Mapping[str, NDArray]]  # width → a part's feeds in addition to the float model's tensors


def grid_feeds(q: QParams, names: Sequence[str] = GRID) -> dict[str, NDArray]:
    """The scalars of a grid, from per-tensor parameters. names: of scale, zero point, smallest and largest code."""
    numbers = (q.scale, q.zero_point, q.format.qmin, q.format.qmax)
    return {name: np.asarray(number, np.float32).reshape(()) for name, number in zip(names, numbers, strict=True)}


def damages(
    forward: Forward,
    changes: Mapping[str, Callable[[], Feeds]],
    objective: Objective | None,
    *,
    plain: Mapping[str, Callable[[], Tensors]] | None = None,
    labels: bool = False,
    state: State | None = None,
    section: str = "weights",
    progress: Progress | None = None,
) -> dict[str, dict[int, Damage]]:
    """Run every change alone, at every width, over all samples.

    forward: with the part of each change under the same key, and the objective's tensors requested. changes: key →
    function that returns its feeds. objective: None measures the squared error of each part's own outputs, whose
    unchanged values are fed (an activation) or computed with the feed from `plain`. labels: compute the loss on labels
    if there are any, not on the float model's outputs. state: continued and kept up to date, under `section`.
    progress: called with (changes done, total).
    """
    state = state or State()
    kept = state.sections.setdefault(section, {})
    reference = None if objective is None else forward.reference(objective)
    if progress:
        progress(len(kept), len(changes))
    for key, chunks, names in forward.visits([key for key in changes if key not in kept]):
        part = forward.parts[key]
        what = objective or Objective("mse", tuple(part.outputs))
        base = plain[key]() if plain is not None else {}
        found = _Change(forward, part, what, reference, base, labels).run(changes[key](), chunks, names)
        kept[key] = {str(bits): asdict(damage) for bits, damage in found.items()}
        if progress:
            progress(len(kept), len(changes))
        state.checkpoint()
    state.write()
    return {key: {int(bits): Damage(**sums) for bits, sums in kept[key].items()} for key in changes}


@dataclass(frozen=True)
class _Change:
    """One part, run with changed feeds. reference: the objective's rows of every batch; None for the part's own."""

    forward: Forward
    part: Part
    objective: Objective
    reference: Sequence[Sequence[NDArray]] | None
    plain: Tensors
    labels: bool

    def run(self, feeds: Feeds, chunks: Sequence[Sequence[int]], names: tuple[str, ...]) -> dict[int, Damage]:
        """The effect of each width, over all samples."""
        if not self.part.outputs:
            return {bits: Damage(self.forward.samples) for bits in feeds}
        total = {bits: Damage() for bits in feeds}
        session = self.forward.open(self.part.proto())
        for chunk in chunks:
            kept = dict(zip(chunk, self.forward.tensors(names, chunk), strict=True))
            for found in self.forward.map(lambda b, k=kept: self._batch(b, session, k[b], feeds), chunk):  # type: ignore[misc]
                for bits, damage in found.items():
                    total[bits].add(damage)
        return total

    def _batch(self, index: int, session: Any, tensors: Tensors, feeds: Feeds) -> dict[int, Damage]:
        batch = self.forward.batches[index]
        reference = self._own(session, tensors, batch) if self.reference is None else self.reference[index]
        found = {}
        for bits, feed in feeds.items():
            rows = self.objective.completed(run_part(session, self.part, tensors, feed), batch, reference)
            found[bits] = _damage(rows, reference, batch, self.objective, self.labels)
        return found

    def _own(self, session: Any, tensors: Tensors, batch: Batch) -> Sequence[NDArray]:
        names = self.objective.tensors
        if not self.plain:
            return self.objective.rows([tensors[name] for name in names], batch)
        made = run_part(session, self.part, tensors, self.plain)
        return self.objective.rows([made[name] for name in names], batch)


def _damage(
    rows: Sequence[NDArray], reference: Sequence[NDArray], batch: Batch, what: Objective, labels: bool
) -> Damage:
    given = batch.labels if labels else None
    damage = Damage(batch.count)
    if what.loss == "cross-entropy" and given is None:
        increase = curvature.kl_from(rows[0], curvature.softmax(reference[0]))
    else:
        increase = what.loss_of(rows, reference, given) - what.loss_of(reference, reference, given)
    damage.loss = increase * batch.count
    for new, old in zip(rows, reference, strict=True):
        damage.error += _squares(new.astype(np.float64) - old)
        damage.signal += _squares(old.astype(np.float64))
    if what.loss == "cross-entropy" and len(rows[0]) == batch.count:
        new, old = (top_classes(r[0].astype(np.float64)) for r in (rows, reference))
        damage.moved = int((new != old).sum())
        if batch.labels is not None:
            damage.labelled = batch.count
            damage.lost = int((old == batch.labels).sum()) - int((new == batch.labels).sum())
    return damage


def _squares(values: NDArray) -> float:
    flat = values.reshape(-1)
    return float(flat @ flat)
