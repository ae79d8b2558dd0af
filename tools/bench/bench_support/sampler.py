"""A process that runs models on pinned cores and times each run between two probes of the core.

Switches such as ONNXQ_ISA and ONEDNN_MAX_CPU_ISA are read once in a process, and so is a library of kernels: whatever
differs in them has a process of its own. Processes take turns; one that waits uses no core.

The parent writes requests to the process's stdin and reads replies from its stdout, a line of JSON each.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench_support.phases import Sample

PROBE_SECONDS = 4e-6
TOOLS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Probe:
    """The probe of a library of kernels. millions: of multiply-adds."""

    library: Path
    millions: int

    @staticmethod
    def of(library: Path, macs_per_second: float) -> Probe:
        """A probe of about 4 µs: 600 tile products, on AMX."""
        return Probe(library, max(1, round(macs_per_second * PROBE_SECONDS * 1e-6)))

    def function(self) -> Callable[[], float]:
        """Runs the probe on this thread; returns its seconds."""
        found = ctypes.CDLL(str(self.library)).onnxq_probe_seconds
        found.restype, found.argtypes = ctypes.c_double, [ctypes.c_int64]
        return lambda: float(found(self.millions))


class Sampler:
    """The parent's end of such a process. Use it in a `with`."""

    def __init__(self, cores: Sequence[int], probe: Probe, variables: Mapping[str, str | None]) -> None:
        """variables: of the environment, beside this process's; None removes one."""
        arguments = json.dumps({"cores": list(cores), "library": str(probe.library), "millions": probe.millions})
        self._process = subprocess.Popen(
            [sys.executable, __file__, arguments],
            env=_environment(variables),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def open(self, model: Path, feeds: Path, threads: int, openvino: bool = False) -> str:
        """Open a model instead of the last one and run it. feeds: .npz of its inputs. Returns the runtime's version."""
        asked = {"model": str(model), "feeds": str(feeds), "threads": threads, "openvino": openvino}
        return str(self._ask({"open": asked}))

    def turn(self, seconds: float) -> list[Sample]:
        """Run the model for that long, at least once; the first run is not counted: it fills the caches."""
        return [Sample(*row) for row in self._ask({"turn": seconds})]

    def layers(self, model: Path, feeds: Path, threads: int, seconds: float) -> dict[str, Any]:
        """Times per layer in onnxruntime, as JSON types."""
        asked = {"model": str(model), "feeds": str(feeds), "threads": threads, "seconds": seconds}
        return dict(self._ask({"layers": asked}))

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        reply = self._process.stdout.readline()
        if not reply:
            raise RuntimeError(f"the process of {request} ended: its own message is above")
        return json.loads(reply)


def _environment(variables: Mapping[str, str | None]) -> dict[str, str]:
    found: dict[str, str | None] = {**os.environ, **variables}
    paths = [str(TOOLS), *filter(None, [found.get("PYTHONPATH")])]
    return {k: v for k, v in found.items() if v is not None} | {"PYTHONPATH": os.pathsep.join(paths)}


def serve(cores: Sequence[int], probe: Probe) -> None:
    """Answer requests on stdin until it ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what runtimes print
    gc.disable()
    measure = over_cores(probe.function(), cores)
    # The threads of a runtime that shares no core with others are all its own: their time is that of the run.
    clock = time.process_time if len(cores) == 1 else time.perf_counter
    run: Callable[[], Any] | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if "open" in request:
            run = None
            gc.collect()
            os.sched_setaffinity(0, cores)  # before the runtime makes its threads, which inherit it
            reply: Any
            run, reply = _open(**request["open"])
            pin_threads(cores)
        elif "layers" in request:
            reply = _layers(**request["layers"])
        else:
            assert run is not None
            reply = [list(asdict(s).values()) for s in take_turn(run, measure, request["turn"], clock)]
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def take_turn(
    run: Callable[[], Any], probe: Callable[[], float], seconds: float, clock: Callable[[], float]
) -> list[Sample]:
    """Samples of `run` for that long, after a run that is not counted."""
    run()
    found: list[Sample] = []
    end = time.perf_counter() + seconds
    before = probe()
    while not found or time.perf_counter() < end:
        started = clock()
        run()
        taken = clock() - started
        after = probe()
        found.append(Sample(taken, before, after))
        before = after
    return found


def over_cores(probe: Callable[[], float], cores: Sequence[int]) -> Callable[[], float]:
    """The slowest probe over the cores. This thread, of the first core, visits the others."""

    def slowest() -> float:
        found = []
        for core in reversed(cores):
            os.sched_setaffinity(0, [core])
            found.append(probe())
        return max(found)

    return slowest if len(cores) > 1 else probe


def pin_threads(cores: Sequence[int]) -> None:
    """This thread to the first core, all others of the process to the rest: the probes' visits would mix them up."""
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores[1:] or cores)
    os.sched_setaffinity(0, cores[:1])


def _open(model: str, feeds: str, threads: int, openvino: bool) -> tuple[Callable[[], Any], str]:
    from onnxq.execution.competitors import open_competitor

    opened = open_competitor(model, _arrays(feeds), threads=threads, name=Path(model).name, openvino=openvino)
    return opened.run, f"{opened.runtime} {opened.version}"


def _layers(model: str, feeds: str, threads: int, seconds: float) -> dict[str, Any]:
    from onnxq.execution.layer_times import layer_times

    return asdict(layer_times(model, _arrays(feeds), threads=threads, seconds=seconds))


def _arrays(feeds: str) -> dict[str, Any]:
    import numpy as np

    with np.load(feeds) as stored:
        return dict(stored)


if __name__ == "__main__":
    _asked = json.loads(sys.argv[1])
    serve(_asked["cores"], Probe(Path(_asked["library"]), _asked["millions"]))
