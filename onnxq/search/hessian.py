"""Traces of layers' Hessians with onnxruntime alone: Hutchinson on the Gauss–Newton matrix, by first differences.

HAWQ-V2 (Dong et al. 2020), equation 2.11: Ω_i(b) = mean trace of layer i's Hessian · ‖Q_b(W_i) − W_i‖². The trace is
E[vᵀ G v] over Rademacher v, G = Jᵀ H_z J, with J v ≈ (z(w + εv) − z(w − εv)) / 2ε of the pre-softmax logits z. G equals
the Hessian where the network is piecewise linear in the weight (ReLU networks, away from kinks), and vᵀ G v is never
negative. Second differences of the loss, which kinks corrupt at every ε, are an option.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnxq.errors import ConfigError, DataError
from onnxq.numeric import curvature
from onnxq.reporting import Progress
from onnxq.search.checkpoint import State
from onnxq.search.downstream import WEIGHT
from onnxq.search.float_runs import Forward, run_part
from onnxq.search.objective import Objective

ROUNDS_MIN = 2  # fewer give no spread between probes
Curvature = Literal["gauss-newton", "second-differences"]


@dataclass(frozen=True)
class HutchinsonOptions:
    """How traces are estimated.

    tolerance: relative standard error at which a layer is done. rounds: largest number of probes; each sample batch has
    its own in each round. epsilon: step of the differences, as a fraction of rms(w). budget: seconds, None for no
    limit; every layer gets ROUNDS_MIN probes regardless. targets: on what the loss of second differences is computed.
    """

    tolerance: float = 0.05
    rounds: int = 64
    epsilon: float = 1e-2
    seed: int = 0
    budget: float | None = 120.0
    curvature: Curvature = "gauss-newton"
    targets: Literal["labels", "outputs"] = "outputs"

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise ConfigError(f"tolerance {self.tolerance}: a fraction above 0 is needed")
        if self.rounds < ROUNDS_MIN:
            raise ConfigError(f"{self.rounds} probes: at least {ROUNDS_MIN} are needed for a standard error")
        if not 0 < self.epsilon < 1:
            raise ConfigError(f"epsilon {self.epsilon}: a fraction between 0 and 1 is needed")
        if self.budget is not None and not self.budget > 0:
            raise ConfigError(f"budget {self.budget}: seconds above 0 are needed, or none")


class Probes:
    """Running sums of vᵀGv of one layer: for each batch over the rounds."""

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self.weights = weights  # share of each batch in the samples
        self.rounds = 0
        self.sums = np.zeros(len(weights))
        self.squares = np.zeros(len(weights))

    def add(self, forms: NDArray[np.float64]) -> None:
        """One round: a form for each batch."""
        self.rounds += 1
        self.sums += forms
        self.squares += forms * forms

    @property
    def trace(self) -> float:
        """The estimate of the trace over the samples."""
        return float(self.weights @ self.sums) / max(self.rounds, 1)

    @property
    def standard_error(self) -> float:
        """Standard error of the trace over these samples, from the spread between probes of the same batch."""
        if self.rounds < ROUNDS_MIN:
            return math.inf
        spread = np.maximum(self.squares - self.sums**2 / self.rounds, 0.0) / (self.rounds - 1)
        return math.sqrt(float(self.weights**2 @ spread) / self.rounds)

    @property
    def sampling_error(self) -> float | None:
        """Standard error of the trace over all inputs, of which these are samples; None for one batch."""
        if len(self.weights) < 2:
            return None
        means = self.sums / max(self.rounds, 1)
        return math.sqrt(float(self.weights**2 @ (means - self.trace) ** 2) * len(means) / (len(means) - 1))


def traces(
    forward: Forward,
    weights: Mapping[str, NDArray[np.float32]],
    objective: Objective,
    options: HutchinsonOptions,
    *,
    state: State | None = None,
    progress: Progress | None = None,
) -> dict[str, Probes]:
    """Estimate the trace of each layer's Hessian.

    forward: with one weight part per layer, by node name, and the objective's tensors requested. weights: their float32
    values. state: continued and kept up to date; unless the time limit intervenes, the result after interruptions
    equals that of one run. progress: called with (probes done, probes that will be needed).
    """
    return _Hutchinson(forward, weights, objective, options, state or State(), progress).run()


class _Hutchinson:
    def __init__(
        self,
        forward: Forward,
        weights: Mapping[str, NDArray[np.float32]],
        objective: Objective,
        options: HutchinsonOptions,
        state: State,
        progress: Progress | None,
    ) -> None:
        self.forward, self.weights, self.objective, self.options = forward, weights, objective, options
        self.state, self.progress = state, progress
        shares = np.array([b.count for b in forward.batches], np.float64) / forward.samples
        self.probes = {name: Probes(shares) for name in weights}
        self.spent = 0.0
        self._continue()
        self.started = time.monotonic()
        self.reference = forward.reference(objective)

    def run(self) -> dict[str, Probes]:
        quota = ROUNDS_MIN
        self._tell()
        while active := [n for n in self.probes if not self._settled(n)]:
            for name, chunks, names in self.forward.visits(active):
                if self._out_of_time():
                    break
                self._visit(name, chunks, names, quota)
            if self._out_of_time():
                break
            quota = max(
                ROUNDS_MIN, min(self.probes[n].rounds for n in active)
            )  # each pass does as much as all earlier ones
        self.state.write()
        return self.probes

    def _settled(self, name: str) -> bool:
        p = self.probes[name]
        if p.rounds < ROUNDS_MIN:
            return False
        return p.rounds >= self.options.rounds or p.standard_error <= self.options.tolerance * abs(p.trace)

    def _out_of_time(self) -> bool:
        """Whether the budget is spent and every layer has an estimate."""
        if self.options.budget is None or self._seconds() < self.options.budget:
            return False
        return all(p.rounds >= ROUNDS_MIN for p in self.probes.values())

    def _seconds(self) -> float:
        return self.spent + time.monotonic() - self.started

    def _visit(self, name: str, chunks: Sequence[Sequence[int]], names: tuple[str, ...], quota: int) -> None:
        part = self.forward.parts[name]
        if not part.outputs or not self.weights[name].any():
            for _ in range(ROUNDS_MIN):
                self.probes[name].add(np.zeros(len(self.forward.batches)))  # the loss does not depend on it
            self._keep(name)
            return
        session = self.forward.open(part.proto())
        for _ in range(quota):
            if self._settled(name) or self._out_of_time():
                break
            forms: list[float] = []
            for chunk in chunks:
                kept = dict(zip(chunk, self.forward.tensors(names, chunk), strict=True))
                forms += self.forward.map(lambda b, k=kept: self._form(name, session, k[b], b), chunk)  # type: ignore[misc]
            if not np.isfinite(forms).all():
                raise DataError(
                    f"layer {name}: the outputs are not finite with weights changed by {self._step(name):.3g}"
                )
            self.probes[name].add(np.array(forms))
            self._keep(name)
            self._tell()
            self.state.checkpoint()

    def _form(self, name: str, session: Any, tensors: Mapping[str, NDArray], index: int) -> float:
        """vᵀ G v of one batch with its own probe of this round."""
        batch, reference = self.forward.batches[index], self.reference[index]
        w = self.weights[name]
        step = self._step(name)
        v = curvature.rademacher(w.shape, self.options.seed, name, self.probes[name].rounds, index)
        v *= np.float32(step)
        part = self.forward.parts[name]
        plus, minus = (
            self.objective.completed(run_part(session, part, tensors, {WEIGHT: w + d}), batch, reference)
            for d in (v, -v)
        )
        if self.options.curvature == "gauss-newton":
            jv = [(p.astype(np.float64) - m) / (2.0 * step) for p, m in zip(plus, minus, strict=True)]
            return self.objective.form(reference, jv)
        labels = batch.labels if self.options.targets == "labels" else None
        above, middle, below = (self.objective.loss_of(v, reference, labels) for v in (plus, reference, minus))
        return curvature.second_difference(above, middle, below, step)

    def _step(self, name: str) -> float:
        return self.options.epsilon * math.sqrt(float(np.mean(self.weights[name].astype(np.float64) ** 2)))

    def _tell(self) -> None:
        if self.progress is None:
            return
        done = sum(p.rounds for p in self.probes.values())
        self.progress(done, max(done, sum(self._expected(n) for n in self.probes)))

    def _expected(self, name: str) -> int:
        """Estimated rounds that the layer will need, from its standard error so far."""
        p = self.probes[name]
        if self._settled(name):
            return p.rounds
        if p.rounds < ROUNDS_MIN or not p.trace:
            return ROUNDS_MIN
        ratio = p.standard_error / (self.options.tolerance * abs(p.trace))
        return min(self.options.rounds, math.ceil(p.rounds * ratio**2))

    def _keep(self, name: str) -> None:
        p = self.probes[name]
        self.state.sections["hessian_seconds"] = self._seconds()
        self.state.sections.setdefault("hessian", {})[name] = [p.rounds, p.sums.tolist(), p.squares.tolist()]

    def _continue(self) -> None:
        kept = self.state.sections
        try:
            self.spent = float(kept.get("hessian_seconds", 0.0))
            for name, (rounds, sums, squares) in kept.get("hessian", {}).items():
                p = self.probes[name]
                p.rounds, p.sums, p.squares = int(rounds), p.sums + sums, p.squares + squares
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise ConfigError(f"{self.state.path}: the state does not fit the model ({err}); remove it") from None
