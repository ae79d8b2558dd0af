"""collect(): statistics depend on the samples, and on nothing about how they were run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from numpy.typing import NDArray

from onnxq import pipeline
from onnxq.calibrate import runner
from onnxq.calibrate.runner import collect, observable
from onnxq.calibrate.statistics import Statistics, TensorStatistics
from onnxq.calibrate.store import load_statistics, merge_files, save_statistics
from onnxq.context import PassContext
from onnxq.data.options import RunOptions
from onnxq.data.source import input_specs, open_data, skip
from onnxq.errors import CalibrationError, DataError, InterruptedRun
from onnxq.execution import inner_tensors as fetch
from onnxq.graph.model import Model, from_proto, load
from onnxq.reporting import Progress
from support.command import COMMAND, environment

# Elementwise, so that onnxruntime gives a sample the same values whatever it shares a batch with.
ELEMENTWISE = """
g (float[n, 3, h, w] x) => (float[n, 3, h, w] y) <float half = {0.5}>
{ a = Relu (x)  b = Mul (x, half)  c = Exp (b)  y = Sub (c, a) }
"""


def model(text: str, opset: int = 17) -> Model:
    return from_proto(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]>\n{text}'))


def images(count: int, size: tuple[int, int] = (5, 4), seed: int = 0) -> NDArray:
    return np.random.default_rng(seed).standard_normal((count, 3, *size)).astype(np.float32)


def run(
    m: Model,
    data: Any,
    tensors: list[str] | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Statistics:
    source = open_data(data, input_specs(m.graph), limit=limit)
    return collect(m, observable(m) if tensors is None else tensors, source, RunOptions(**options), progress)


def counted(*arrays: NDArray) -> TensorStatistics:
    stats = TensorStatistics()
    for array in arrays:
        stats.update(array)
    return stats


class TestEqual:
    def test_to_the_values_themselves(self) -> None:
        x = images(11)
        stats = run(model(ELEMENTWISE), {"x": x}, batch_size=4)
        assert list(stats) == ["x", "a", "b", "c", "y"]
        assert stats["x"] == counted(x)
        assert stats["a"] == counted(np.maximum(x, 0))
        assert stats["b"] == counted(x * np.float32(0.5))
        assert stats.provenance["samples"] == 11

    @pytest.mark.parametrize("threads", [0, 1, 2, 5])
    @pytest.mark.parametrize("batch_size", [None, 1, 7, 11, 100])
    def test_for_any_batch_size_and_number_of_threads(self, batch_size: int | None, threads: int) -> None:
        m, data = model(ELEMENTWISE), {"x": images(23)}
        assert run(m, data, batch_size=batch_size, threads=threads) == run(m, data, batch_size=1, threads=1)

    def test_for_feeds_that_come_batched_and_ragged(self) -> None:
        m, x = model(ELEMENTWISE), images(23)
        ragged = [{"x": x[low:high]} for low, high in ((0, 5), (5, 6), (6, 20), (20, 23))]
        ours, whole = run(m, ragged), run(m, {"x": x})
        assert dict(ours) == dict(whole) and ours.provenance["samples"] == 23

    @pytest.mark.parametrize("cuts", [[9], [1, 2], [4, 11, 20]])
    def test_for_shards(self, cuts: list[int], tmp_path: Path) -> None:
        m, data = model(ELEMENTWISE), {"x": images(23)}
        files = []
        for low, high in zip([0, *cuts], [*cuts, 23], strict=True):
            source = skip(open_data(data, input_specs(m.graph), limit=high), low)
            files.append(tmp_path / f"{low}.stats")
            save_statistics(collect(m, observable(m), source, RunOptions(batch_size=3)), files[-1])
        merged, whole = merge_files(files[::-1]), run(m, data, batch_size=3)
        assert dict(merged) == dict(whole) and merged.provenance["samples"] == 23

    def test_however_few_tensors_are_fetched_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        m, data = model(ELEMENTWISE), {"x": images(9)}
        whole = run(m, data)
        monkeypatch.setattr(fetch, "FETCH_BUDGET", 1)
        monkeypatch.setattr(fetch, "PROBE", 1)
        assert run(m, data, batch_size=2) == whole

    def test_when_the_reader_fills_one_array_again_and_again(self) -> None:
        m, x = model(ELEMENTWISE), images(40)
        buffer = np.empty_like(x[:1])

        def reader() -> Iterator[dict[str, NDArray]]:
            for sample in x:
                buffer[0] = sample
                yield {"x": buffer}

        assert dict(run(m, reader, threads=4)) == dict(run(m, {"x": x}))

    @pytest.mark.parametrize("name", ["mobilenetv2_imagenet", "resnet20_cifar10"])
    def test_for_batch_sizes_of_a_real_model(self, name: str, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """onnxruntime may compute a sample differently in another batch; that is stated, and is rounding."""
        m = load(shared / "models" / f"{name}.onnx")
        pipeline.run(m, pipeline.parse("fold-constants,eliminate-identity,fold-batchnorm"), PassContext(m))
        specs = input_specs(m.graph)
        if "imagenet" in name:
            source = open_data(shared / "data" / "imagenet_calib", specs, preprocess="imagenet-tf", limit=8)
        else:
            x = np.load(shared / "data" / "cifar10_calib.npz")["images"][:40].transpose(0, 3, 1, 2)
            source = open_data({"input": (x / np.float32(64) - 2).astype(np.float32)}, specs)
        tensors = observable(m)
        one = collect(m, tensors, source, RunOptions(2, 1))
        assert one == collect(m, tensors, source, RunOptions(1, 1))
        other = collect(m, tensors, source, RunOptions(2, 3))
        differing = [name for name in tensors if one[name] != other[name]]
        with capsys.disabled():
            print(f"\n{name}: {len(differing)} of {len(tensors)} tensors differ between batch sizes 1 and 3")
        for tensor in differing:
            a, b = one[tensor], other[tensor]
            assert a.count == b.count
            largest = max(abs(a.minimum), abs(a.maximum))
            assert abs(a.minimum - b.minimum) <= 1e-5 * largest and abs(a.maximum - b.maximum) <= 1e-5 * largest
            assert a.sum_sq == pytest.approx(b.sum_sq, rel=1e-4)


class TestModels:
    def test_several_inputs_with_integers_among_them(self) -> None:
        m = model(
            "g (float[n, 4] x, int64[n, 2] ids) => (float[n, 2, 4] y) <float[3, 4] table = "
            "{0, 1, 2, 3, 4, 5, 6, 7, -8, 9, 10, 11}, int64[1] axis = {1}>"
            "{ rows = Gather (table, ids)  wide = Unsqueeze (x, axis)  y = Add (rows, wide)  n2 = Add (ids, ids) }"
        )
        x, ids = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32), np.arange(12).reshape(6, 2) % 3
        assert observable(m) == ["x", "rows", "wide", "y"]
        stats = run(m, {"x": x, "ids": ids}, ["x", "ids", "n2", "rows", "y"], batch_size=4)
        table = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [-8, 9, 10, 11]], np.float32)
        assert stats["ids"] == counted(ids) and stats["n2"] == counted(2 * ids)
        assert stats["rows"] == counted(table[ids]) and stats["y"] == counted(table[ids] + x[:, None])

    def test_zero_size_tensors(self) -> None:
        m = model(
            "g (float[n, 4] x) => (float[n, 4] y, float[n, 0] none) "
            "<int64[1] zero = {0}, int64[1] one = {1}> { none = Slice (x, zero, zero, one)  y = Neg (x) }"
        )
        x = np.ones((3, 4), np.float32)
        stats = run(m, {"x": x}, ["x", "none", "y"])
        assert stats["none"] == TensorStatistics() and stats["y"] == counted(-x)

    def test_fixed_batch_1(self) -> None:
        m = model("g (float[1, 3] x) => (float[1, 3] y) { y = Relu (x) }")
        x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
        for batch_size in (None, 1, 7):
            assert run(m, {"x": x}, batch_size=batch_size)["y"] == counted(np.maximum(x, 0))

    @pytest.mark.parametrize("count", [1, 4, 6, 11])
    def test_the_padding_of_a_fixed_batch_is_not_counted(self, count: int) -> None:
        m = model("g (float[4, 3, 2] x) => (float[12, 2] y) <int64[2] to = {12, 2}> { y = Reshape (x, to) }")
        x = np.random.default_rng(0).standard_normal((count, 3, 2)).astype(np.float32)
        stats = run(m, {"x": x})
        assert stats["x"] == stats["y"] == counted(x)
        assert stats.provenance["samples"] == count

    def test_free_height_and_width(self) -> None:
        m = model(ELEMENTWISE)
        xs = [images(1, size, seed=i) for i, size in enumerate([(5, 4), (5, 4), (2, 9), (7, 7), (1, 1)])]
        stats = run(m, [{"x": x} for x in xs], batch_size=2)
        assert stats["a"] == counted(*(np.maximum(x, 0) for x in xs))

    def test_half_precision_activations(self) -> None:
        m = model("g (float16[n, 3] x) => (float16[n, 3] y) { y = Relu (x) }")
        x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float16)
        assert run(m, {"x": x}, ["y"])["y"] == counted(np.maximum(x, 0).astype(np.float32))

    def test_a_tensor_that_does_not_exist(self) -> None:
        with pytest.raises(CalibrationError, match="there is no tensor nothing to observe"):
            run(model(ELEMENTWISE), {"x": images(1)}, ["nothing"])


class TestBrokenValues:
    TEXT = "g (float[n, 3, h, w] x) => (float[n, 3, h, w] y) { a = Log (x)  y = Relu (a) }"

    @pytest.mark.parametrize("batch_size", [1, 4, 10])
    @pytest.mark.parametrize(("value", "what"), [(-1.0, "1 NaN of"), (0.0, "1 infinite of")])
    def test_name_tensor_and_sample(self, batch_size: int, value: float, what: str) -> None:
        x = np.exp(images(10))
        x[6, 1, 2, 3] = value
        with pytest.raises(CalibrationError, match=rf"^tensor a, sample arrays\[6\]: {what}"):
            run(model(self.TEXT), {"x": x}, batch_size=batch_size)

    def test_in_the_data(self) -> None:
        x = np.exp(images(10))
        x[3, 0, 0, 0], x[7, 0, 0, 0] = np.inf, -np.inf  # NaN is refused by the data source
        with pytest.raises(
            CalibrationError, match=r"^tensor x, sample arrays\[3\], arrays\[7\]: 2 infinite of 600 values"
        ):
            run(model(self.TEXT), {"x": x}, batch_size=10)

    def test_where_a_tensor_has_no_sample_axis_all_are_named(self) -> None:
        m = model("g (float[n, 3] x) => (float y) { a = Log (x)  y = ReduceSum <keepdims = 0> (a) }")
        with pytest.raises(CalibrationError, match=r"^tensor y, sample .* and 2 more: 1 infinite of 1 values"):
            run(m, {"x": np.zeros((5, 3), np.float32)}, ["y"], batch_size=5)

    def test_the_first_one_is_named_whatever_runs_at_the_same_time(self) -> None:
        x = np.exp(images(12))
        x[5:] = -1
        for _ in range(5):
            with pytest.raises(CalibrationError, match=r"^tensor a, sample arrays\[5\]: "):
                run(model(self.TEXT), {"x": x}, threads=4)

    def test_a_sample_onnxruntime_cannot_run(self) -> None:
        m = model("g (float[n, 3] x, float[n, 3] z) => (float[n, 3] y) { y = Add (x, z) }")
        feeds = [{"x": np.ones((2, 3), np.float32), "z": np.ones((k, 3), np.float32)} for k in (2, 2, 5)]
        with pytest.raises(DataError, match=r"^sample \S* ?2\S*: onnxruntime cannot run it: "):
            run(m, feeds)

    def test_no_samples(self) -> None:
        with pytest.raises(DataError):
            run(model(ELEMENTWISE), [])


class TestInterrupted:
    @pytest.mark.parametrize("threads", [1, 3])
    def test_what_is_counted_is_kept_and_continued(self, threads: int, tmp_path: Path) -> None:
        m, data, file = model(ELEMENTWISE), {"x": images(30)}, tmp_path / "stats"
        whole = run(m, data)

        seen = [0]

        def stop(done: int, total: int | None) -> None:
            if done == seen[-1] + 2 and done < 20:  # the first batch of this run
                os.kill(os.getpid(), signal.SIGINT)

        stats = None
        while stats is None:
            try:
                stats = run(m, data, batch_size=2, threads=threads, resume=file, progress=stop)
            except InterruptedRun as interruption:
                seen.append(load_statistics(file).provenance["samples"])
                assert f"interrupted after {seen[-1]} of 30 samples; saved in {file}" in str(interruption)
        assert len(seen) > 3 and seen == sorted(set(seen)), "every run gets further"
        assert stats == whole == load_statistics(file)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_the_command_continues_where_it_was(self, tmp_path: Path) -> None:
        """Ctrl-C in `onnxq calibrate`, at sample 13 of 20: the same command again ends with the same file."""
        m = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{ELEMENTWISE}')
        onnx.save(m, str(tmp_path / "m.onnx"))
        (tmp_path / "samples.py").write_text(
            textwrap.dedent("""
                import os, signal
                import numpy as np
                passes = 0
                def feeds():
                    global passes
                    passes += 1  # the first pass finds number and hash
                    for i in range(20):
                        if "INTERRUPT" in os.environ and passes == 2 and i == 13:
                            os.kill(os.getpid(), signal.SIGINT)
                        yield {"x": np.random.default_rng(i).standard_normal((1, 3, 5, 4)).astype(np.float32)}
            """)
        )

        def calibrate(output: str, **env: str) -> subprocess.CompletedProcess[str]:
            command = [COMMAND, "calibrate", "m.onnx", "-o", output, "--data", "samples:feeds", "--threads", "2"]
            return subprocess.run(
                command, cwd=tmp_path, env=environment(**env), capture_output=True, text=True, timeout=120, check=False
            )

        done = calibrate("whole.stats")
        assert done.returncode == 0, done.stderr
        interrupted = calibrate("part.stats", INTERRUPT="1")
        assert interrupted.returncode == 130, interrupted.stderr
        assert "Traceback" not in interrupted.stderr
        samples = load_statistics(tmp_path / "part.stats").provenance["samples"]
        assert 13 <= samples < 20
        assert f"interrupted after {samples} samples" in interrupted.stderr
        done = calibrate("part.stats")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "part.stats").read_bytes() == (tmp_path / "whole.stats").read_bytes()

    def test_the_file_is_kept_up_to_date(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        m, data, file = model(ELEMENTWISE), {"x": images(30)}, tmp_path / "stats"
        monkeypatch.setattr(runner, "SAVE_EVERY", 0.0)
        kept = []

        def watch(done: int, total: int | None) -> None:
            if file.exists():
                stats = load_statistics(file)
                kept.append((stats.provenance["samples"], stats["x"].count))

        assert run(m, data, threads=3, resume=file, progress=watch) == run(m, data)
        assert len({samples for samples, _ in kept}) > 10
        assert all(count == 60 * samples for samples, count in kept), "whole samples, and as many as it says"

    def test_a_complete_file_is_only_read(self, tmp_path: Path) -> None:
        m, data, file = model(ELEMENTWISE), {"x": images(5)}, tmp_path / "stats"
        stats = run(m, data, resume=file)
        before = file.read_bytes()
        assert run(m, data, resume=file) == stats
        assert file.read_bytes() == before

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"data": {"x": images(5, seed=1)}}, "made from different data or preprocessing"),
            ({"tensors": ["x", "a"]}, "made for different tensors"),
            ({"m": model(ELEMENTWISE.replace("0.5", "0.25"))}, "another model"),
        ],
        ids=["data", "tensors", "model"],
    )
    def test_a_file_of_something_else_is_refused(self, change: dict[str, Any], message: str, tmp_path: Path) -> None:
        file = tmp_path / "stats"
        arguments = {"m": model(ELEMENTWISE), "data": {"x": images(5)}}
        run(**arguments, resume=file)
        with pytest.raises(CalibrationError, match=message):
            run(**(arguments | change), resume=file)

    def test_in_another_thread_signals_are_left_alone(self) -> None:
        results: list[Statistics] = []
        m, data = model(ELEMENTWISE), {"x": images(5)}
        thread = threading.Thread(target=lambda: results.append(run(m, data)))
        thread.start()
        thread.join()
        assert results == [run(m, data)]


class TestCost:
    def test_progress_goes_from_0_to_all(self) -> None:
        calls: list[tuple[int, int | None]] = []
        run(model(ELEMENTWISE), {"x": images(7)}, batch_size=2, progress=lambda *call: calls.append(call))
        assert calls == [(0, 7), (2, 7), (4, 7), (6, 7), (7, 7)]

    def test_fetched_tensors_stay_within_the_budget(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fetch, "FETCH_BUDGET", 1000)
        monkeypatch.setattr(fetch, "PROBE", 1)
        sizes = []
        original = fetch.Fetcher.fetch

        def spy(self: fetch.Fetcher, group: Any, batch: Any) -> dict[str, NDArray]:
            found = original(self, group, batch)
            sizes.append(sum(value.nbytes for value in found.values()))
            return found

        monkeypatch.setattr(fetch.Fetcher, "fetch", spy)
        run(model(ELEMENTWISE), {"x": images(10)}, threads=2)  # 240 bytes a tensor
        assert max(sizes) == 480, "two threads share 1000 bytes"

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
    def test_memory_does_not_depend_on_the_number_of_images(self, shared: Path) -> None:
        """The whole process, on MobileNetV2: design.md §6."""
        code = r"""
            import re, sys
            from pathlib import Path
            from onnxq.calibrate.runner import collect, observable
            from onnxq.data.options import RunOptions
            from onnxq.data.source import input_specs, open_data
            from onnxq.graph.model import load
            m = load(sys.argv[1])
            data = open_data(sys.argv[2], input_specs(m.graph), preprocess="imagenet-tf", limit=int(sys.argv[3]))
            collect(m, observable(m), data, RunOptions(2))
            # Not ru_maxrss: that counts the parent's peak, pytest's, as this process's.
            print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
        """

        def peak(images: int) -> float:
            arguments = [shared / "models" / "mobilenetv2_imagenet.onnx", shared / "data" / "imagenet_calib", images]
            command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
            return float(done.stdout)

        few, many = peak(8), peak(32)
        assert many < 700, "MiB"
        assert many < few + 30
