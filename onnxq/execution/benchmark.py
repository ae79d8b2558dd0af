"""Latency of models side by side: one process, the same inputs, in alternation.

Machine speed drifts, so the models alternate, in reverse order every other round, and ratios are computed between
measurements adjacent in time: the median over the rounds of the quotient of the round's medians. Inputs and outputs
are bound once, so that copies between a runtime's memory and Python's are not timed.
"""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxq.errors import ConfigError, OnnxqError
from onnxq.execution import library
from onnxq.execution.competitors import ONNXRUNTIME, OPENVINO, Competitor, Run, open_competitor
from onnxq.execution.feeds import bench_feeds
from onnxq.execution.layer_times import LayerTimes, Source, layer_times
from onnxq.graph.model import Libraries, Model, load
from onnxq.reporting import Progress

ROUNDS = 15
RUNS_MIN, RUNS_MAX = 2 * ROUNDS, 100_000
SECONDS = 2.0
# onnxruntime's threads spin for about 30 ms after a run and would occupy CPUs at the start of the next model's turn.
SETTLE = 0.05


@dataclass(frozen=True)
class Timing:
    """Latency of one model, in ms per run of the whole batch.

    runtime: onnxruntime or openvino; version: of the runtime. runs: number of timed runs. p10_ms, p90_ms: quantiles.
    ratio: to the first model, above 1 is slower (median over rounds of the quotients of the rounds' medians).
    """

    model: str
    runtime: str
    version: str
    runs: int
    median_ms: float
    p10_ms: float
    p90_ms: float
    ratio: float


@dataclass(frozen=True)
class Benchmark:
    """Latencies of several models on the same inputs.

    threads: as requested, 0 is each runtime's default. isa: the chosen tier of kernels, None without a library.
    inputs: "float32 1x3x224x224" by input name. layers: of the first model, if requested. notes: what was assumed.
    """

    timings: tuple[Timing, ...]
    batch_size: int
    threads: int
    isa: str | None
    cpu: str
    inputs: dict[str, str]
    layers: LayerTimes | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return asdict(self)


def bench(
    model: Source,
    against: Sequence[Source] = (),
    *,
    data: Any = None,
    preprocess: Any = None,
    batch_size: int | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    threads: int = 0,
    seconds: float = SECONDS,
    repeats: int | None = None,
    per_layer: bool = False,
    seed: int = 0,
    custom_ops: Libraries = (),
    progress: Progress | None = None,
) -> Benchmark:
    """Time a model, and others on the same inputs, in alternation in this process.

    against: further models; the text "openvino:m.onnx" runs m.onnx in OpenVINO (hint LATENCY, one stream, `threads`
    threads). data: samples (see open_data), of which the first batch is fed; random ones of the model's types by
    default. batch_size: samples per run, where the model's batch is dynamic. shapes: of inputs with free dimensions,
    {name: dims}. threads: 0 is each runtime's default. seconds: of timed runs per model; repeats: number of runs
    instead. per_layer: also times per layer of the first model. seed: of the random samples. custom_ops: libraries of
    operators that the models need in onnxruntime. progress: called with (rounds done, total rounds). Raises ConfigError
    if the models do not have the same inputs or a dimension is unknown, ModelError if a runtime rejects a model,
    DataError if the data does not fit, MissingDependencyError if OpenVINO is requested but not installed.
    """
    if repeats is not None and repeats < 1:
        raise ConfigError(f"{repeats} repeats: at least one run is needed")
    if not seconds > 0:
        raise ConfigError(f"{seconds} seconds: a positive number is needed")
    kind, measured = _split(model)
    if per_layer and kind == OPENVINO:
        raise ConfigError("times per layer come from onnxruntime: the first model must run in it")
    feeds, count, notes = bench_feeds(load(measured), data, preprocess, batch_size, shapes, seed)
    names = _names([model, *against])
    how: dict[str, Any] = {"threads": threads, "custom_ops": custom_ops}
    competitors = [
        open_competitor(source, feeds, **how, name=name, openvino=kind == OPENVINO)
        for (kind, source), name in zip(map(_split, [model, *against]), names, strict=True)
    ]
    runs = [c.run for c in competitors]
    rounds = measure(runs, seconds=seconds, repeats=repeats, settle=settle(threads), progress=progress)
    timings = tuple(_timing(c, mine, rounds[0]) for c, mine in zip(competitors, rounds, strict=True))
    del competitors
    return Benchmark(
        timings=timings,
        batch_size=count,
        threads=threads,
        isa=_isa(),
        cpu=cpu_name(),
        inputs={n: f"{a.dtype.name} {'x'.join(map(str, a.shape)) or 'scalar'}" for n, a in feeds.items()},
        layers=layer_times(measured, feeds, **how, seconds=seconds) if per_layer else None,
        notes=notes,
    )


def measure(
    runs: Sequence[Run],
    *,
    seconds: float = SECONDS,
    repeats: int | None = None,
    settle: float = 0.0,
    progress: Progress | None = None,
) -> list[list[list[float]]]:
    """Seconds of every timed run, by candidate and round. The first run of a turn fills the caches and is not timed.

    seconds: approximate time per candidate; repeats: timed runs per candidate instead. settle: seconds of pause before
    each turn if there are several candidates.
    """
    rest = settle if len(runs) > 1 else 0.0
    counts = []
    for run in runs:
        started = time.perf_counter()
        run()
        once = max(time.perf_counter() - started, 1e-7)
        counts.append(repeats or min(max(int(seconds / once), RUNS_MIN), RUNS_MAX))
    rounds = min(ROUNDS, *counts)
    found: list[list[list[float]]] = [[] for _ in runs]
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            order = range(len(runs)) if turn % 2 == 0 else reversed(range(len(runs)))
            for i in order:
                share = counts[i] * (turn + 1) // rounds - counts[i] * turn // rounds
                found[i].append(_turn(runs[i], share, rest))
            if progress:
                progress(turn + 1, rounds)
    finally:
        if collecting:
            gc.enable()
    return found


def settle(threads: int) -> float:
    """Seconds of pause before a turn; 0 on one thread, which leaves no spinning threads."""
    return 0.0 if threads == 1 else SETTLE


def _turn(run: Run, count: int, rest: float) -> list[float]:
    clock = time.perf_counter
    if rest:
        time.sleep(rest)
    run()
    times = []
    for _ in range(count):
        started = clock()
        run()
        times.append(clock() - started)
    return times


def paired_ratio(rounds: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> float:
    """Median over the rounds of the quotient of the rounds' medians."""
    pairs = zip(rounds, reference, strict=True)
    return statistics.median(statistics.median(mine) / statistics.median(theirs) for mine, theirs in pairs)


def quantile(values: Sequence[float], share: float) -> float:
    """The quantile of the values at this share (nearest value)."""
    return sorted(values)[round(share * (len(values) - 1))]


def cpu_name() -> str:
    """The CPU's name, as the operating system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.processor() or platform.machine()


def _timing(competitor: Competitor, rounds: list[list[float]], reference: list[list[float]]) -> Timing:
    times = [1000.0 * t for turn in rounds for t in turn]
    return Timing(
        competitor.name,
        competitor.runtime,
        competitor.version,
        len(times),
        statistics.median(times),
        quantile(times, 0.1),
        quantile(times, 0.9),
        paired_ratio(rounds, reference),
    )


def _split(source: Source) -> tuple[str, Source]:
    if isinstance(source, str):
        kind, colon, path = source.partition(":")
        if colon and kind == OPENVINO:
            return kind, path
    return ONNXRUNTIME, source


def _names(sources: Sequence[Source]) -> list[str]:
    """File names; full paths if two models in one runtime have the same name."""
    split = [_split(s) for s in sources]
    short = [(kind, Path(s).name if isinstance(s, (str, Path)) else _made_name(s)) for kind, s in split]
    return [
        str(s[1]) if short.count(n) > 1 and isinstance(s[1], (str, Path)) else n[1]
        for s, n in zip(split, short, strict=True)
    ]


def _made_name(source: Source) -> str:
    return source.name if isinstance(source, Model) else "model"


def _isa() -> str | None:
    try:
        return library.kernel_isa() if library.has_library() else None
    except OnnxqError:
        return None
