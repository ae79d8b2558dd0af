"""Random networks in every profile: placement, folding and fusing in combinations that no list contains."""

from __future__ import annotations

from typing import Any

import onnx
import pytest

import onnxq
from onnxq.measure.consistency import optimization_consistency
from onnxq.numeric.metrics import sqnr_db
from onnxq.profiles.schema import builtin_names
from support.cases.random_graphs import feeds, network

SEEDS = [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 120))]
FEW = {"weight_bits": 4, "activation_bits": 6}
# Least SQNR in dB; random networks add and multiply more often than trained ones.
LEAST, LEAST_FEW = 12, -3


def run(model: onnx.ModelProto, seed: int, optimize: bool) -> list[Any]:
    return onnxq.session(model, threads=1, optimize=optimize).run(None, feeds(seed, 1)[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_random_network(seed: int) -> None:
    """Loads, stays near the float model, gives the same codes at both levels, and can be quantized once more."""
    model = network(seed)
    expected = run(model, seed, False)
    for profile in builtin_names():
        for settings in ({}, *((FEW,) if profile in ("onnxruntime-cpu", "onnxq") else ())):
            made = onnxq.quantize(
                model,
                feeds(seed),
                profile=profile,
                calibration="max",
                qdq=True,
                verify=profile == "tensorrt",
                **settings,
            ).model
            onnx.checker.check_model(made, full_check=True)
            for optimize in (False, True):
                for want, got in zip(expected, run(made, seed, optimize), strict=True):
                    assert sqnr_db(want, got) > (LEAST_FEW if settings else LEAST), profile
            assert max(c.max_lsb for c in optimization_consistency(made, feeds(seed), 2, threads=1)) <= 1, profile
            again = onnxq.quantize(
                made, feeds(seed), profile=profile, calibration="max", qdq=True, requantize=True, **settings
            ).model
            assert _ops(again) == _ops(made), profile


def _ops(model: onnx.ModelProto) -> list[str]:
    return sorted(node.op_type for node in model.graph.node)
