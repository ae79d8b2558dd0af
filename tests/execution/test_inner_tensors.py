"""Inner tensors are fetched in few runs where their sizes are known, and are the same either way."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxq.data.source import Batch
from onnxq.execution import inner_tensors
from onnxq.execution.inner_tensors import Fetcher, known_bytes
from onnxq.execution.sessions import observed_session
from onnxq.graph.model import Model, load

COUNT = 40


def chain(shape: str) -> Model:
    """COUNT sums, one behind the other."""
    body = " ".join(f"t{i + 1} = Add(t{i}, one)" for i in range(COUNT))
    return load(
        onnx.parser.parse_model(
            f"""<ir_version: 8, opset_import: ["": 17]> g (float[{shape}] t0) => (float[{shape}] t{COUNT})
            <float one = {{1}}> {{ {body} }}"""
        )
    )


@pytest.mark.parametrize(("shape", "size"), [("1,3,5", 60), ("N,3,5", 60), ("N", 4), ("2,a", None)])
def test_sizes_that_shapes_tell(shape: str, size: int | None) -> None:
    model = chain(shape)
    assert known_bytes(model, ["t1", "t2"]) == ({} if size is None else {"t1": size, "t2": size})


@pytest.mark.parametrize("budget", [0, 100, 1 << 20])
def test_known_sizes_save_runs_and_change_nothing(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inner_tensors, "FETCH_BUDGET", budget)
    model, names = chain("N,3"), [f"t{i}" for i in range(1, COUNT + 1)]
    batch = Batch({"t0": np.ones((2, 3), np.float32)}, None, 2, ())
    runs: list[Any] = []
    with observed_session(model, names, threads=1, optimize=False) as session:

        def fetched(known: dict[str, float]) -> dict[str, np.ndarray]:
            fetcher = Fetcher(session, names, known=known)
            groups = list(fetcher.run(batch))
            runs.append(len(groups))
            assert fetcher.bytes == dict.fromkeys(names, 12.0)
            return {name: value for group in groups for name, value in group.items()}

        probed, told = fetched({}), fetched(known_bytes(model, names))
    assert probed.keys() == told.keys() and all(np.array_equal(probed[n], told[n]) for n in names)
    assert runs == [3, {0: COUNT, 100: 10, 1 << 20: 1}[budget]]
