"""The ONNX package's own operator tests, the 1,400 that onnxruntime runs: load, save and every float pass."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.graph.model import load, to_proto
from onnxq.graph.protos import IR_MAX
from support.runs import run

RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
# Cannot be carried or converted, each refused with a message (tested where it is refused).
REFUSED = {"test_identity_opt", "test_if_opt", "test_loop16_seq_none", "test_scan_sum"}
FOLDS = "fold-constants,eliminate-identity,fold-batchnorm,fold-channel-affine,fuse-matmul-add"
TEXTS = ["", FOLDS, "convert-opset{version=13}", f"convert-opset{{version=21}},{FOLDS}", "convert-float32"]

Case = tuple[str, onnx.ModelProto, dict[str, Any], list[Any]]


@functools.cache
def cases(constants: bool) -> list[Case]:
    """Name, model, inputs and onnxruntime's outputs. constants: every input but the first becomes an initializer."""
    from onnx.backend.test.case.node import collect_testcases

    found: list[Case] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collected = collect_testcases(None)
    for case in collected:
        if case.name in REFUSED or RANDOM & {n.op_type for n in case.model.graph.node}:
            continue
        for inputs, _ in case.data_sets:
            built = onnx.ModelProto.FromString(case.model.SerializeToString())
            built.ir_version = min(built.ir_version, IR_MAX)
            names = [v.name for v in built.graph.input]
            feed = {n: v if isinstance(v, list) else np.asarray(v) for n, v in zip(names, inputs, strict=False)}
            if constants:
                for name in names[1:]:
                    fix(built, feed, name)
            try:
                found.append((case.name, built, feed, list(run(built, feed).values())))
            except Exception:  # an operator or type that onnxruntime lacks
                continue
    return found


def fix(built: onnx.ModelProto, feed: dict[str, Any], name: str) -> None:
    """Turn an input into an initializer."""
    value = feed.get(name)
    if not isinstance(value, np.ndarray) or value.dtype.kind in "OUS":
        return
    built.graph.initializer.append(numpy_helper.from_array(value, name))
    built.graph.input.remove(next(v for v in built.graph.input if v.name == name))
    del feed[name]


def same(old: Any, new: Any) -> bool:
    if isinstance(old, list):
        return len(old) == len(new) and all(map(same, old, new))
    if not isinstance(old, np.ndarray):
        return old == new or old is new
    if (old.shape, old.dtype) != (new.shape, new.dtype):
        return False
    return np.array_equal(old, new) if old.dtype.kind in "OUS" else close(old, new)


def close(old: NDArray, new: NDArray) -> bool:
    # float16: onnxruntime computes it in float32 as far as it can, which depends on what was folded.
    relative, absolute = (1e-2, 2e-3) if old.dtype == np.float16 else (1e-5, 1e-6)
    return np.allclose(old.astype(np.float64), new.astype(np.float64), relative, absolute, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("constants", [False, True])
@pytest.mark.parametrize("text", TEXTS)
def test_values_are_kept(text, constants):
    failures = []
    changed = 0
    for name, built, feed, expected in cases(constants):
        try:
            source = load(built)
            if text:
                reports = pipeline.run(source, pipeline.parse(text), PassContext(source))
                changed += any(r.changed for r in reports)
            found = list(run(to_proto(source), feed).values())
        except Exception as err:  # collected, so that one run shows them all
            failures.append(f"{name}: {type(err).__name__}: {str(err)[:200]}")
            continue
        if not same(expected, found):
            failures.append(f"{name}: other values")
    assert not failures, "\n".join(failures)
    assert len(cases(constants)) > 1000
    assert changed > 10 or not text
