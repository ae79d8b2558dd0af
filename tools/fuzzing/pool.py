"""Worker processes with limits of memory and time. They live from case to case, and are replaced when they die."""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import multiprocessing
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

KEPT_BYTES = 1 << 30  # resident, more than at first: such a worker is replaced before its next case
POLL = 5.0  # seconds
STACK = 4000  # characters


@dataclass(frozen=True)
class Limits:
    """Of one stage of a case. memory: address space beyond what a worker has at first, in bytes. cpu, wall: seconds."""

    memory: int = 4 << 30
    cpu: int = 40
    wall: float = 300.0


@dataclass(frozen=True)
class Death:
    """How a worker died: the signal or what it exceeded, in which stage, and the Python stack then, if known."""

    how: str
    stage: str
    stack: str = ""


Run = Callable[[int, Path, Callable[[str], None]], Any]


@dataclass
class _Worker:
    """One process, and the case that it has. late: it was told to die."""

    process: multiprocessing.process.BaseProcess
    pipe: Connection
    folder: Path
    seed: int = -1
    stage: str = ""
    since: float = 0.0
    late: bool = False


def results(run: Run, seeds: Iterable[int], workers: int, limits: Limits) -> Iterator[tuple[int, Any]]:
    """(seed, what `run` returned) for each seed in any order; a Death for those that killed their worker.

    run: of a seed, a folder for files, and a function that is to be told the name of each stage.
    """
    left = iter(seeds)
    busy: list[_Worker] = []
    with tempfile.TemporaryDirectory(prefix="onnxq-fuzz-") as name:
        try:
            for number, seed in enumerate(itertools.islice(left, workers)):
                busy.append(_given(_start(run, Path(name) / str(number), limits), seed))
            while busy:
                for worker in _speaking(busy, limits.wall):
                    kind, said = _heard(worker)
                    if kind == "at":
                        worker.stage, worker.since = said, time.monotonic()
                        continue
                    busy.remove(worker)
                    yield worker.seed, said
                    following = next(left, None)
                    if kind != "done" or following is None:
                        _end(worker)
                    if following is not None:
                        free = worker if kind == "done" else _start(run, worker.folder, limits)
                        busy.append(_given(free, following))
        finally:
            for worker in busy:
                worker.process.kill()
                worker.process.join()


def _end(worker: _Worker) -> None:
    with contextlib.suppress(OSError):  # it has ended
        worker.pipe.send(None)
    worker.pipe.close()
    worker.process.join()


def _given(worker: _Worker, seed: int) -> _Worker:
    worker.seed, worker.stage, worker.since = seed, "start", time.monotonic()
    worker.pipe.send(seed)
    return worker


def _speaking(busy: list[_Worker], wall: float) -> list[_Worker]:
    """Those with something to say; one that exceeds its time is told to die with its stack, and then killed."""
    heard = wait([w.pipe for w in busy], timeout=POLL)
    for worker in busy:
        if worker.pipe not in heard and time.monotonic() - worker.since > wall and worker.process.pid is not None:
            os.kill(worker.process.pid, signal.SIGKILL if worker.late else signal.SIGABRT)
            worker.late = True
    return [w for w in busy if w.pipe in heard]


def _heard(worker: _Worker) -> tuple[str, Any]:
    """("at", a stage that begins), ("done" or, before the worker ends, "last", the result), ("died", a Death)."""
    try:
        kind, said = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit {code}"
        how = "hangs" if worker.late else "too much CPU time" if how == "SIGXCPU" else how
        return "died", Death(how, worker.stage, (worker.folder / "stack").read_text(errors="replace")[:STACK])
    return kind, said


def _start(run: Run, folder: Path, limits: Limits) -> _Worker:
    (folder / "files").mkdir(parents=True, exist_ok=True)
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=_work, args=(run, (here, there), folder, limits), daemon=True
    )
    process.start()
    there.close()
    return _Worker(process, here, folder)


def _work(run: Run, ends: tuple[Connection, Connection], folder: Path, limits: Limits) -> None:
    """A worker: cases until its pipe is closed."""
    ends[0].close()  # else this process would wait for itself when the other one is gone
    pipe = ends[1]
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
    dump = open(folder / "stack", "w")  # noqa: SIM115  # faulthandler writes to it as long as this process lives
    faulthandler.enable(dump)
    faulthandler.register(signal.SIGXCPU, dump, all_threads=False, chain=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.memory:
        resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + limits.memory, resource.RLIM_INFINITY))
    first = _status("VmRSS")

    def at(stage: str) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(
            resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + limits.cpu, resource.RLIM_INFINITY)
        )
        pipe.send(("at", stage))

    try:
        while (seed := pipe.recv()) is not None:
            answer = run(seed, folder / "files", at)
            if _status("VmRSS") > first + KEPT_BYTES:
                pipe.send(("last", answer))
                break
            pipe.send(("done", answer))
    except EOFError:
        pass
    os._exit(0)


def _status(key: str) -> int:
    """VmSize or VmRSS of this process in bytes (Linux)."""
    text = Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith(key)).split()[1]) * 1024
