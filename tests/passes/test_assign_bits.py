"""assign-bits: widths as part of a pipeline's text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.errors import ConfigError
from onnxq.graph.match import constant_values
from onnxq.graph.model import Model, to_proto
from onnxq.passes.assign_bits import AssignBits
from onnxq.placement.settings import Override, QuantSettings
from support.build import qdq
from support.insertion import context
from support.prove.nodes import dequantize_of

NET = """g (float[1,4,6,6] x) => (float[1,4,6,6] y) <float[4,4,1,1] w1, float[4,4,1,1] w2, float[4,4,1,1] w3>
{ [a] p = Conv(x, w1) [b] q = Conv(p, w2) [c] y = Conv(q, w3) }"""


@pytest.fixture
def model() -> Model:
    return qdq.model(NET, opset=21)


def assigned(model: Model, text: str, before: QuantSettings | None = None) -> QuantSettings:
    ctx = PassContext(model, settings=before)
    unchanged = to_proto(model).SerializeToString(deterministic=True)
    (report,) = pipeline.run(model, pipeline.parse(text), ctx)
    assert report.changed == 0 and report.text == text
    assert to_proto(model).SerializeToString(deterministic=True) == unchanged
    assert ctx.settings is not None
    return ctx.settings


def test_widths(model: Model) -> None:
    found = assigned(model, "assign-bits{weights=4 activations=6 first_last=none}")
    assert (found.weight_bits, found.activation_bits, found.first_last_bits) == (4, 6, None)
    assert assigned(model, "assign-bits") == QuantSettings()


def test_other_settings_stay(model: Model) -> None:
    before = QuantSettings(calibration="max", exclude=("a",), op_types=("Conv",), overrides={"b": Override(3)})
    found = assigned(model, "assign-bits{weights=4}", before)
    assert (found.calibration, found.exclude, found.op_types, found.overrides) == (
        "max", ("a",), ("Conv",), {"b": Override(3)},
    )  # fmt: skip


def test_config(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "bits.toml"
    path.write_text('"[ab]" = { weight_bits = 4 }\nc = "float"\n')
    found = assigned(
        model, f"assign-bits{{config={path}}}", QuantSettings(overrides={"c": Override(5), "a": Override(2)})
    )
    assert found.overrides == {"c": Override(keep_float=True), "a": Override(2), "[ab]": Override(4)}
    path.write_text("d = { weight_bits = 4 }\n")
    with pytest.raises(ConfigError, match="'d' matches no node of the model"):
        assigned(model, f"assign-bits{{config={path}}}")


def test_widths_that_do_not_exist(model: Model) -> None:
    with pytest.raises(ConfigError, match="weight_bits: 9 is not a width of 2 to 8 bits"):
        assigned(model, "assign-bits{weights=9}")


def test_insert_qdq_uses_them(model: Model) -> None:
    ctx = context(model)
    pipeline.run(model, (AssignBits(weights=4, first_last=6), *pipeline.parse("insert-qdq{calibration=max}")), ctx)
    largest = {n: int(np.abs(constant_values(dequantize_of(model, n, 1).inputs[0]).astype(int)).max()) for n in "abc"}
    assert largest == {"a": 31, "b": 7, "c": 31}
