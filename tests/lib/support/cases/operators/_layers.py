"""What layers with weights are tested on: forms of the rescale, and types that take turns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from support.cases.operators import ALL, EIGHT, Case, Draw, ints, with_

WEIGHTS = ("int8", "int4")
RESIDUALS = ("", *ALL)
RAW = {"y_zero_point": 0, "qmin": -(2**31), "qmax": 2**31 - 1, "y_type": 6}
TYPES = tuple(itertools.product(EIGHT, WEIGHTS, ("none", "one", "many"), ALL))


FORMS = ("fixed", "uniform", "general", "wide", "raw")


VARIANTS = list(itertools.product(EIGHT, ALL, WEIGHTS, ("none", "one", "none", "many"), RESIDUALS))


def scaled(draw: Draw, case: Case, form: str) -> Case:
    """The case with multipliers that spread y over its range, and shifts of one form.

    form: fixed (32 everywhere), uniform (30), general (one for each channel), wide (sums that leave int32 before they
    saturate), raw (the accumulator itself).
    """
    raw = with_(case, {"multiplier": ints(2), "shift": ints(1)}, **RAW)
    for name in ("residual", "residual_multiplier"):
        raw.arrays.pop(name, None)
    raw.attributes.pop("residual_zero_point", None)
    raw = replace(raw, op=case.op.removesuffix("Add"))
    if form == "raw":
        return raw
    acc = raw.expected().astype(float)
    size = float(np.sqrt(np.mean(acc**2))) if acc.size else 1.0
    channels = case.arrays["bias"].size
    ratio = np.exp(draw.rng.uniform(-0.7, 0.7, channels)) * 50 / max(size, 100.0)
    if form == "wide":
        ratio = np.minimum(ratio * 2**20, 2**29)
    shift = {
        "fixed": np.array([32]),
        "uniform": np.array([30]),
        "general": draw.rng.integers(20, 38, channels),
        "wide": draw.rng.integers(1, 12, channels),
    }[form]
    multiplier = np.minimum(np.rint(ratio * 2.0**shift), 2**31 - 1)
    arrays = {"shift": shift.astype(np.int32), "multiplier": multiplier.astype(np.int32)}
    if "residual" in case.arrays:
        bits = np.clip(shift - (15 if case.arrays["residual"].dtype == np.int32 else 2), 0, 30)
        arrays["residual_multiplier"] = np.broadcast_to(2**bits * 9 // 10, channels).astype(np.int32)
    return with_(case, arrays)


def variants(count: int) -> Iterator[tuple[str, tuple[str, str, str, str, str]]]:
    """Forms of the rescale, `count` of each, with types, zero points and residuals that take turns."""
    place = 0
    while True:
        for form in FORMS:
            for _ in range(count):
                place = (place + 67) % len(VARIANTS)  # prime to their number: neighbours differ in everything
                yield form, VARIANTS[place]
