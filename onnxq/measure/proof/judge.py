"""What is a finding: pure functions from the outputs of runs to words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from onnxq.measure.proof.outputs import OutputDistance, Ran, distance
from onnxq.measure.proof.record import ProofOutput, ProofRun

# Runs of one product differ if one is this much further from the reference than the other, and its outputs are apart
# by more than so many steps. Deep networks drift: onnxruntime's levels are up to 0.6 dB and 3 steps apart on the way
# through a network that is right; a layer that saturates costs 8 dB and more (measured, docs/proof.md).
DROP_DB, DRIFT_STEPS = 3.0, 2.0
# A layer fed with the same codes is at most one step off, on every network tried.
LAYER_STEPS = 2.0
# An integer-only model computes the same integers with kernels and without: nothing but equality is right.
DIGITS = 1

Distances = dict[str, OutputDistance | None]


def distances(reference: Ran, found: Ran) -> Distances:
    """The distance of every output that both runs have, over the batches that the second has run."""
    return {
        name: distance(values[: len(found.outputs[name])], found.outputs[name])
        for name, values in reference.outputs.items()
        if name in found.outputs
    }


def as_run(name: str, found: Ran, apart: Distances, samples: int | None = None) -> ProofRun:
    """The record of one run; figures are rounded, so that they are the same on every machine of a kind.

    samples: number it ran on, where those of the proof are more.
    """
    rows = []
    for output, d in apart.items():
        if d is None:
            rows.append(ProofOutput(output, None, 0.0, compared=False))
            continue
        exact = d.sqnr_db is None or not math.isfinite(d.sqnr_db)
        rows.append(ProofOutput(output, None if exact else round(d.sqnr_db or 0.0, DIGITS), round(d.equal, 4)))
    return ProofRun(name, tuple(rows), found.failed, samples)


def low_outputs(apart: Distances, floor: float) -> Iterator[tuple[str, float]]:
    """Float outputs under the floor: (name, SQNR in dB)."""
    for name, d in apart.items():
        if d is not None and d.sqnr_db is not None and d.sqnr_db < floor:
            yield name, d.sqnr_db


def nonfinite_outputs(apart: Distances) -> Iterator[tuple[str, int]]:
    """Outputs with values that are not finite although the reference's are: (name, count)."""
    for name, d in apart.items():
        if d is not None and d.nonfinite:
            yield name, d.nonfinite


def differing_outputs(plain: Distances, other: Distances, between: Distances, exact: bool) -> Iterator[str]:
    """Outputs that two runs of a product compute differently, beyond rounding.

    plain, other: distances of the runs from the reference; between: of the runs from each other. exact: they must be
    equal, since both compute in integers.
    """
    for name, apart in between.items():
        if apart is None:
            yield name
        elif exact:
            if apart.equal < 1.0:
                yield name
        elif apart.sqnr_db is not None:
            first, second = plain.get(name), other.get(name)
            if first is None or second is None or first.sqnr_db is None or second.sqnr_db is None:
                continue
            if second.sqnr_db < first.sqnr_db - DROP_DB and apart.steps > DRIFT_STEPS:
                yield name


def named(items: Sequence[str], most: int = 3) -> str:
    """Some names for a message, `most` at most."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
