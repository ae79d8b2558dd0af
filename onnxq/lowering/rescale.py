"""Ratios of scales as multipliers and shifts: numeric/dyadic.py chooses them; its refusal becomes a node's reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnxq.errors import NumericError
from onnxq.graph.refusal import RefusedError
from onnxq.numeric import dyadic
from onnxq.numeric.dyadic import Form


@dataclass(frozen=True)
class Rescale:
    """Multipliers (one array per term) and the shift, as operator inputs. form: "fixed", "general", "identity"."""

    multipliers: tuple[NDArray[np.int32], ...]
    shift: NDArray[np.int32]
    form: str


IDENTITY = Rescale((np.array([dyadic.IDENTITY[0]], np.int32),), np.array([dyadic.IDENTITY[1]], np.int32), "identity")


def rescale(form: Form, ratios: Sequence[ArrayLike], bounds: Sequence[ArrayLike]) -> Rescale:
    """One rescale of one or more terms; bounds: integers ≥ |term|. Raises RefusedError if none is accurate enough.

    form "fixed" falls back to the general form where the fixed shift does not fit.
    """
    try:
        found = dyadic.choose(ratios, bounds, form)
    except NumericError as err:
        if form != "fixed":
            raise RefusedError(str(err)) from None
        return rescale("general", ratios, bounds)
    return Rescale(found.multipliers, found.shift, found.form)


def rescale_each(form: Form, ratios: Sequence[float], bounds: Sequence[int]) -> Rescale:
    """Several one-term rescales in one operator (Concat): a multiplier and a shift each, all in the same form."""
    parts = [rescale(form, [r], [b]) for r, b in zip(ratios, bounds, strict=True)]
    if any(p.form == "general" for p in parts):
        parts = [rescale("general", [r], [b]) for r, b in zip(ratios, bounds, strict=True)]
    multipliers = np.concatenate([p.multipliers[0] for p in parts])
    return Rescale((multipliers,), np.concatenate([p.shift for p in parts]), parts[0].form)
