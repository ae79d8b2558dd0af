"""A model whose weights stay in files is run with them, by every runtime, from any current folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxq.data.source import Batch
from onnxq.execution import save as saving
from onnxq.graph import model as module
from onnxq.graph.model import load, to_proto
from onnxq.measure.proof.runs import OPENVINO, PLAIN, Way, run

COUNT = 40_000  # more than is read eagerly


@pytest.mark.parametrize("limit", [0, 1 << 30], ids=["written to files", "sent inline"])
@pytest.mark.parametrize("way", [PLAIN, Way(OPENVINO, openvino=True)], ids=["onnxruntime", "openvino"])
def test_weights_left_in_files_are_those_of_the_models_folder(
    tmp_path: Path, way: Way, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way.openvino:
        pytest.importorskip("openvino")
    other, folder = tmp_path / "other", tmp_path / "model"
    for place, first in ((other, 7), (folder, 0)):
        place.mkdir()
        (place / "w").write_bytes(np.arange(first, first + COUNT, dtype=np.float32).tobytes())
    weights = TensorProto(name="s", data_type=1, dims=[COUNT], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="w")
    values = [helper.make_tensor_value_info(name, 1, [COUNT]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "s"], ["y"])], "g", values[:1], values[1:], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx")
    monkeypatch.setattr(module, "INLINE_LIMIT", 0)
    monkeypatch.setattr(saving, "INLINE_LIMIT", limit)
    monkeypatch.chdir(other)
    model = load(folder / "m.onnx")
    ran = run(to_proto(model), model, [Batch({"x": np.zeros(COUNT, np.float32)}, None, 1, ())], way)
    assert not ran.failed
    assert np.array_equal(ran.outputs["y"][0], np.arange(COUNT))
