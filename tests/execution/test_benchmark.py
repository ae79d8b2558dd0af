"""Latency side by side: who takes turns when, what is counted, and what is refused. No test depends on the clock."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

import onnxq
from onnxq.errors import ConfigError, DataError, MissingDependencyError, ModelError
from onnxq.execution import benchmark
from onnxq.execution.competitors import open_competitor, openvino_times
from support.build import qdq

TEXT = "g (float[N,6] x) => (float[N,4] y) <float[6,4] w> { [fc] y = MatMul(x, w) }"
IMAGES = "g (float[N,3,H,W] x) => (float[N,4,P,Q] y) <float[4,3,3,3] w> { [c] y = Conv(x, w) }"
QUICK = {"repeats": 2, "threads": 1}


class Clock:
    """A clock that only the candidates move, and a log of who ran when."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.log: list[str] = []
        monkeypatch.setattr(benchmark, "time", SimpleNamespace(perf_counter=lambda: self.now, sleep=self.rest))

    def rest(self, seconds: float) -> None:
        self.log.append("-")
        self.now += seconds

    def candidate(self, name: str, seconds: float, after_others: float = 0.0, drift: float = 0.0) -> Callable[[], None]:
        """Takes `seconds`, `after_others` more when another ran before it, and `drift` times the clock more."""

        def run() -> None:
            cold = bool(self.log) and self.log[-1] != name
            self.log.append(name)
            self.now += (seconds + (after_others if cold else 0.0)) * (1.0 + drift * self.now)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    onnx.save(qdq.proto(TEXT), tmp_path / "a.onnx")
    onnx.save(qdq.proto(TEXT, seed=1), tmp_path / "b.onnx")
    return tmp_path


class TestTurns:
    def test_they_alternate_and_reverse(self, clock: Clock) -> None:
        runs = [clock.candidate(name, 1.0) for name in "abc"]
        rounds = benchmark.measure(runs, repeats=30)
        assert "".join(clock.log[:3]) == "abc"
        turns = "".join(clock.log[3:])
        one, other = "aaabbbccc", "cccbbbaaa"  # a run to warm up and two that are timed
        assert turns == (one + other) * 7 + one
        assert [[len(turn) for turn in mine] for mine in rounds] == [[2] * 15] * 3

    def test_threads_that_spin_are_waited_for(self, clock: Clock) -> None:
        runs = [clock.candidate(name, 1.0) for name in "ab"]
        found = benchmark.measure(runs, repeats=2, settle=7.0)
        assert "".join(clock.log) == "ab" + "-aa" + "-bb" + "-bb" + "-aa"
        assert found == [[[1.0], [1.0]]] * 2
        clock.log.clear()
        benchmark.measure(runs[:1], repeats=2, settle=7.0)
        assert "-" not in clock.log
        assert benchmark.settle(1) == 0.0
        assert benchmark.settle(0) == benchmark.settle(2) > 0.03

    @pytest.mark.parametrize(("repeats", "rounds"), [(1, 1), (7, 7), (15, 15), (16, 15), (100, 15)])
    def test_the_number_of_runs_is_what_was_asked_for(self, repeats: int, rounds: int, clock: Clock) -> None:
        found = benchmark.measure([clock.candidate("a", 1.0), clock.candidate("b", 2.0)], repeats=repeats)
        for mine in found:
            assert sum(map(len, mine)) == repeats
            assert len(mine) == rounds
            assert all(mine)

    def test_each_gets_its_seconds_within_bounds(self, clock: Clock) -> None:
        runs = [clock.candidate("quick", 0.001), clock.candidate("slow", 5.0)]
        quick, slow = benchmark.measure(runs, seconds=2.0)
        assert sum(map(len, quick)) == 2000
        assert sum(map(len, slow)) == benchmark.RUNS_MIN

    def test_the_first_run_of_a_turn_is_not_timed(self, clock: Clock) -> None:
        runs = [clock.candidate(name, 1.0, after_others=9.0) for name in "ab"]
        for mine in benchmark.measure(runs, repeats=30):
            assert {t for turn in mine for t in turn} == {1.0}

    def test_a_drifting_machine_leaves_the_ratio(self, clock: Clock) -> None:
        """Both become twice as slow in the course, which the quotients of neighbouring turns do not see."""
        slow, quick = benchmark.measure(
            [clock.candidate("slow", 2.0, drift=0.01), clock.candidate("quick", 1.0, drift=0.01)], repeats=15
        )
        assert max(quick)[0] > 2 * min(quick)[0]
        assert benchmark.paired_ratio(slow, quick) == pytest.approx(2.0, rel=0.05)

    def test_garbage_collection_rests_meanwhile(self) -> None:
        seen = []
        benchmark.measure([lambda: seen.append(gc.isenabled())], repeats=3)
        assert gc.isenabled()
        assert seen[1:] == [False] * (len(seen) - 1)

    def test_quantiles_are_values_that_occurred(self) -> None:
        values = [float(v) for v in range(10, -1, -1)]
        assert [benchmark.quantile(values, share) for share in (0.0, 0.1, 0.5, 0.9, 1.0)] == [0, 1, 5, 9, 10]
        assert benchmark.quantile([3.0], 0.9) == 3.0


class TestModels:
    def test_what_is_told(self, folder: Path) -> None:
        found = onnxq.bench(folder / "a.onnx", [str(folder / "b.onnx")], batch_size=5, threads=1, repeats=20)
        assert [t.model for t in found.timings] == ["a.onnx", "b.onnx"]
        assert {t.runtime for t in found.timings} == {"onnxruntime"}
        assert [t.runs for t in found.timings] == [20, 20]
        assert found.timings[0].ratio == 1.0
        for t in found.timings:
            assert 0 < t.p10_ms <= t.median_ms <= t.p90_ms
        assert (found.batch_size, found.threads, found.inputs) == (5, 1, {"x": "float32 5x6"})
        assert found.layers is None
        assert json.loads(json.dumps(found.to_dict()))["timings"][1]["model"] == "b.onnx"

    def test_every_form_of_model(self, folder: Path) -> None:
        proto = qdq.proto(TEXT)
        found = onnxq.bench(proto, [proto.SerializeToString(), onnxq.load(folder / "a.onnx")], **QUICK)
        assert [t.model for t in found.timings] == ["model", "model", "a.onnx"]

    def test_files_of_one_name_are_told_apart(self, folder: Path) -> None:
        (folder / "old").mkdir()
        onnx.save(qdq.proto(TEXT), folder / "old" / "a.onnx")
        found = onnxq.bench(folder / "a.onnx", [folder / "old" / "a.onnx", folder / "b.onnx"], **QUICK)
        assert [t.model for t in found.timings] == [str(folder / "a.onnx"), str(folder / "old" / "a.onnx"), "b.onnx"]

    def test_types_other_than_float(self) -> None:
        text = "g (bfloat16[N,6] x, int64[N] i) => (float[N,6] y, int64[N] j) { y = Cast<to=1>(x) j = Add(i, i) }"
        proto = qdq.proto(text)
        assert onnxq.bench(proto, batch_size=2, **QUICK).inputs == {"x": "bfloat16 2x6", "i": "int64 2"}

    def test_progress_counts_the_rounds(self, folder: Path) -> None:
        told: list[tuple[int, int | None]] = []
        onnxq.bench(folder / "a.onnx", repeats=3, threads=1, progress=lambda done, total: told.append((done, total)))
        assert told == [(1, 3), (2, 3), (3, 3)]


class TestOpenvino:
    def test_takes_the_same_model_and_inputs(self, folder: Path) -> None:
        pytest.importorskip("openvino", reason="needs the dev extra: OpenVINO")
        found = onnxq.bench(folder / "a.onnx", [f"openvino:{folder / 'a.onnx'}"], batch_size=3, threads=2, repeats=5)
        assert [(t.model, t.runtime) for t in found.timings] == [("a.onnx", "onnxruntime"), ("a.onnx", "openvino")]

    def test_counts_its_nodes_when_asked(self, folder: Path) -> None:
        pytest.importorskip("openvino", reason="needs the dev extra: OpenVINO")
        feeds = {"x": np.ones((4096, 6), np.float32)}  # times are whole microseconds
        opened = open_competitor(folder / "a.onnx", feeds, threads=1, openvino=True, profile=True)
        nodes = openvino_times(opened)
        assert {"FullyConnected", "MatMul"} & {kind for kind, _, _ in nodes}
        for _, implementation, seconds in nodes:
            assert implementation
            assert 0 < seconds < 1

    def test_a_model_it_refuses(self, tmp_path: Path) -> None:
        pytest.importorskip("openvino", reason="needs the dev extra: OpenVINO")
        onnx.save(qdq.proto("g (float[N,6] x) => (float[N,6] y) { y = Relu(x) }"), tmp_path / "a.onnx")
        onnx.save(qdq.proto("g (float[N,6] x) => (float[N,6] y) { y = com.onnxq.Nope(x) }"), tmp_path / "b.onnx")
        with pytest.raises(ModelError, match=r"^b\.onnx: OpenVINO rejects the model: ") as refusal:
            onnxq.bench(tmp_path / "a.onnx", [f"openvino:{tmp_path / 'b.onnx'}"], **QUICK)
        assert "\n" not in str(refusal.value)
        with pytest.raises(ModelError, match=r"none\.onnx: no such file"):
            onnxq.bench(tmp_path / "a.onnx", [f"openvino:{tmp_path / 'none.onnx'}"], **QUICK)

    def test_its_absence_is_told(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(MissingDependencyError, match="pip install openvino"):
            onnxq.bench(folder / "a.onnx", [f"openvino:{folder / 'a.onnx'}"], **QUICK)

    def test_layers_are_not_its_own(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match="times per layer come from onnxruntime"):
            onnxq.bench(f"openvino:{folder / 'a.onnx'}", per_layer=True, **QUICK)


class TestInputs:
    def test_data_is_what_runs(self, folder: Path) -> None:
        data = {"x": np.ones((4, 6), np.float32)}
        assert onnxq.bench(folder / "a.onnx", data=data, batch_size=3, **QUICK).inputs == {"x": "float32 3x6"}
        with pytest.raises(DataError, match=r"4 sample\(s\) for a batch of 5"):
            onnxq.bench(folder / "a.onnx", data=data, batch_size=5, **QUICK)

    def test_images_have_a_usual_size_unless_told(self) -> None:
        proto = qdq.proto(IMAGES)
        found = onnxq.bench(proto, batch_size=2, **QUICK)
        assert found.inputs == {"x": "float32 2x3x224x224"}
        assert any("assumed to be 224" in note for note in found.notes)
        for shapes in ((2, 3, 9, 9), (1, 3, 9, 9)):
            assert onnxq.bench(proto, batch_size=2, shapes={"x": shapes}, **QUICK).inputs == {"x": "float32 2x3x9x9"}
        assert onnxq.bench(proto, shapes={"x": (4, 3, 9, 9)}, **QUICK).batch_size == 4

    def test_a_batch_that_contradicts_the_shape(self) -> None:
        with pytest.raises(ConfigError, match="the batch size is 2, but the input shapes have 3"):
            onnxq.bench(qdq.proto(IMAGES), batch_size=2, shapes={"x": (3, 3, 9, 9)}, **QUICK)

    def test_an_unknown_dimension_says_how_to_give_it(self) -> None:
        text = "g (float[N,T,6] x) => (float[N,T,4] y) <float[6,4] w> { [fc] y = MatMul(x, w) }"
        with pytest.raises(ConfigError, match=r"axis 1 is unknown; give --input-shape x:DIMS"):
            onnxq.bench(qdq.proto(text), **QUICK)
        assert onnxq.bench(qdq.proto(text), batch_size=2, shapes={"x": (1, 7, 6)}, **QUICK).inputs == {
            "x": "float32 2x7x6"
        }

    def test_a_fixed_batch(self) -> None:
        proto = qdq.proto(TEXT.replace("N", "2"))
        assert onnxq.bench(proto, **QUICK).batch_size == 2
        assert onnxq.bench(proto, batch_size=2, **QUICK).batch_size == 2
        with pytest.raises(ConfigError, match="its batch is fixed to 2; it cannot run 3 samples per batch"):
            onnxq.bench(proto, batch_size=3, **QUICK)

    def test_no_batch_axis(self) -> None:
        proto = qdq.proto("g (float[4] x, float[2,6] z) => (float[4] y, float[2,6] w) { y = Neg(x) w = Neg(z) }")
        assert onnxq.bench(proto, **QUICK).batch_size == 1
        with pytest.raises(ConfigError, match="none of its inputs has a batch axis"):
            onnxq.bench(proto, batch_size=2, **QUICK)


class TestRefusals:
    def test_models_that_take_other_inputs(self, folder: Path) -> None:
        onnx.save(qdq.proto(TEXT.replace("x", "z")), folder / "c.onnx")
        with pytest.raises(ConfigError, match=r"c\.onnx has inputs z, the first model x: they cannot be compared"):
            onnxq.bench(folder / "a.onnx", [folder / "c.onnx"], **QUICK)

    @pytest.mark.parametrize("other", [TEXT.replace("N", "3"), TEXT.replace("float", "float16")], ids=["shape", "type"])
    def test_models_that_take_another_shape_or_type(self, other: str, folder: Path) -> None:
        values: dict[str, Any] = {"w": np.ones((6, 4), np.float16)} if "16" in other else {}
        onnx.save(qdq.proto(other, **values), folder / "c.onnx")
        with pytest.raises(DataError, match=r"^c\.onnx: onnxruntime cannot run it on these inputs: \S") as refusal:
            onnxq.bench(folder / "a.onnx", [folder / "c.onnx"], **QUICK)
        assert "\n" not in str(refusal.value)

    def test_what_is_no_model(self, folder: Path) -> None:
        with pytest.raises(ModelError, match="no such file"):
            onnxq.bench(folder / "none.onnx", **QUICK)
        with pytest.raises(ModelError, match="no such file"):
            onnxq.bench(folder / "a.onnx", [folder / "none.onnx"], **QUICK)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"repeats": 0}, "0 repeats"),
            ({"seconds": 0.0}, "0.0 seconds"),
            ({"batch_size": 0}, "1 or more, not 0"),
            ({"threads": -1}, "-1 threads"),
            ({"shapes": {"q": (1, 6)}}, "not an input of the model"),
        ],
    )
    def test_settings(self, options: dict[str, Any], message: str, folder: Path) -> None:
        with pytest.raises(ConfigError, match=message):
            onnxq.bench(folder / "a.onnx", **options)


def test_the_cpu_has_a_name() -> None:
    assert benchmark.cpu_name().strip()
