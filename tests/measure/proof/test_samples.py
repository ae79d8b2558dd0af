"""How many samples a quick proof runs: fewer where each is much work."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxq.data.source import input_specs, open_data
from onnxq.graph.model import Model, load
from onnxq.measure.proof.samples import choose, work


def built(body: str, x: str, **constants: Any) -> Model:
    """A model with input x."""
    made = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[{x}] x) => (float[] y) {{ {body} }}'
    )
    made.graph.output[0].type.tensor_type.ClearField("shape")
    made.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items())
    return load(made)


def zeros(*shape: int) -> np.ndarray:
    """float32."""
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("body", "x", "w", "macs"),
    [
        ("y = Conv<pads=[1,1,1,1]>(x, w)", "N,8,10,12", (16, 8, 3, 3), 16 * 10 * 12 * 8 * 9),
        ("y = Conv<group=8>(x, w)", "2,8,10,12", (8, 1, 3, 3), 8 * 8 * 10 * 9),
        ("y = ConvTranspose(x, w)", "N,8,5,5", (8, 4, 2, 2), 8 * 25 * 4 * 4),
        ("y = Gemm(x, w)", "N,30", (30, 7), 210),
        ("y = Gemm<transB=1>(x, w)", "N,30", (7, 30), 210),
        ("y = MatMul(x, w)", "N,5,30", (30, 7), 5 * 210),
        ("y = Conv(x, w)", "N,8,h,w", (16, 8, 3, 3), 0),
    ],
)
def test_work_is_counted_per_sample(body: str, x: str, w: tuple[int, ...], macs: int) -> None:
    assert work(built(body, x, w=zeros(*w)).graph) == macs


@pytest.mark.parametrize(("side", "channels", "count"), [(64, 32, 4), (64, 500, 2), (64, 2000, 1), (256, 32, 1)])
def test_a_quick_proof_runs_fewer_samples_of_a_large_model(side: int, channels: int, count: int) -> None:
    model = built("y = Conv<pads=[1,1,1,1]>(x, w)", f"1,64,{side},{side}", w=zeros(channels, 64, 3, 3))
    source = open_data(None, input_specs(model.graph), random=8)
    assert choose(model, source, full=False).count == count
    assert choose(model, source, full=True).count == 8
