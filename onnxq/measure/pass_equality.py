"""Check on real inputs that a pass preserved the values: compares onnxruntime's outputs before and after it.

Optimizations are off in both runs, so that the graphs are compared, not onnxruntime's transformation of them.
Tolerance per output, elementwise: |after - before| <= 1e-4 * max|before| + 1e-6 in float32. It allows for sums in a
different order (a folded scale changes each product by a few float32 roundings, 6e-8 relative, times the depth of the
network) but not for a wrong sign, channel or axis. For float16 and bfloat16 the factor is 32 roundings of that type.
Integer, boolean and string outputs must be equal.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxq.context import PassContext
from onnxq.data.source import batches, input_specs, open_data
from onnxq.errors import ModelError, VerificationError
from onnxq.execution.inner_tensors import run_session
from onnxq.execution.sessions import variant_session
from onnxq.graph.model import Model, to_proto

SAMPLES = 3
RELATIVE, ABSOLUTE = 1e-4, 1e-6
# One unit in the last place relative to 1: 2^-10 for float16, 2^-7 for bfloat16.
NARROW = {"float16": 2.0**-10, "bfloat16": 2.0**-7}

Outputs = dict[str, list[NDArray[Any]]]


def outputs(model: Model, ctx: PassContext) -> Outputs:
    """{output: one array per sample} for the first samples of ctx.data, or seeded random ones.

    Outputs that are not tensors (sequences) are omitted. Raises ModelError if onnxruntime rejects the model or the
    samples, ConfigError if random samples need a shape from the user.
    """
    feeds = samples(model, ctx)
    with variant_session(to_proto(model), model, optimize=False) as session:
        names = [o.name for o in session.get_outputs() if o.type.startswith("tensor")]
        try:
            runs = [run_session(session, names, feed) for feed in feeds]
        except Exception as err:  # onnxruntime's own classes derive straight from Exception
            reason = next((line for line in str(err).splitlines() if line.strip()), type(err).__name__)
            raise ModelError(f"{model.name}: cannot be run for verification: {reason}") from err
    return {name: [np.asarray(run[i]) for run in runs] for i, name in enumerate(names)}


def samples(model: Model, ctx: PassContext) -> list[dict[str, NDArray[Any]]]:
    """The inputs for the comparison: the same ones at every call."""
    inputs = input_specs(model.graph)
    source = ctx.data if ctx.data is not None else open_data(None, inputs, random=SAMPLES)
    return [batch.feeds for batch in itertools.islice(batches(source, inputs, 1), SAMPLES)]


def compare(pass_name: str, before: Outputs, after: Outputs) -> dict[str, float]:
    """Largest absolute difference per output; raises VerificationError beyond the tolerance of this module."""
    if before.keys() != after.keys():
        raise VerificationError(f"pass {pass_name} changed the outputs from {', '.join(before)} to {', '.join(after)}")
    return {name: _difference(pass_name, name, before[name], after[name]) for name in before}


def _difference(pass_name: str, name: str, before: list[NDArray[Any]], after: list[NDArray[Any]]) -> float:
    largest = 0.0
    for sample, (old, new) in enumerate(zip(before, after, strict=True)):
        where = f"pass {pass_name} changed output {name} (sample {sample})"
        if old.shape != new.shape or old.dtype != new.dtype:
            raise VerificationError(
                f"{where}: it was {old.dtype} {list(old.shape)} and is {new.dtype} {list(new.shape)}"
            )
        if not (np.issubdtype(old.dtype, np.floating) or old.dtype.name in NARROW):
            if not np.array_equal(old, new):
                raise VerificationError(f"{where}: {int(np.sum(old != new))} of {old.size} values differ")
            continue
        a, b = old.astype(np.float64), new.astype(np.float64)
        finite = np.isfinite(a)
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.all(np.isfinite(b[finite])):
            raise VerificationError(f"{where}: different elements are infinite or NaN")
        if not np.any(finite):
            continue
        difference = float(np.max(np.abs(b[finite] - a[finite])))
        relative = max(RELATIVE, 32 * NARROW.get(old.dtype.name, 0.0))
        tolerance = relative * float(np.max(np.abs(a[finite]))) + ABSOLUTE
        if difference > tolerance:
            raise VerificationError(f"{where} by {difference:.3g}, more than rounding explains ({tolerance:.3g})")
        largest = max(largest, difference)
    return largest
