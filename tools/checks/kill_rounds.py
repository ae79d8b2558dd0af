"""Kill runs of `onnxq quantize` at the moment of writing and at checkpoints, and count what is lost.

    python tools/checks/kill_rounds.py --rounds 500

Each round starts a quantization over an older output and sends SIGKILL as soon as its staging files appear, when files
begin to be replaced, a moment later, or at a checkpoint of the calibration. The model must then be the older one or the
new one, byte for byte, and load; and the next run with that output, which continues from a checkpoint if there is one,
must leave the new files and nothing else. Exit code 1 if a round fails. Linux: the folder is watched by polling.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx

import onnxq.api  # imported before the processes are forked
import onnxq.execution.runtime  # noqa: F401
from onnxq import demo
from onnxq.calibrate import runner
from onnxq.cli.group import commands

AIMS = ("staging", "replacing", "card", "checkpoint", "second checkpoint", "any time")
POLL = 0.0003  # seconds
OFTEN, USUAL = 0.001, 30.0  # seconds between checkpoints


def main() -> None:
    """Run the rounds and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="onnxq-kill-") as name, contextlib.chdir(name):
        rounds = Rounds(Path(name), rng)
        for aim in itertools.cycle(AIMS):
            if rounds.killed == options.rounds:
                break
            rounds.run(aim)
        failed = rounds.report()
    sys.exit(bool(failed))


class Rounds:
    """The rounds in one folder, and what became of them."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        self.counts: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self.killed = 0
        (folder / "m.onnx").write_bytes(demo.model_path().read_bytes())
        model = onnx.load(folder / "m.onnx")
        onnx.save_model(
            model, str(folder / "e.onnx"), save_as_external_data=True, location="e.weights", size_threshold=0
        )
        np.savez(folder / "d.npz", **{k: v[:64] for k, v in demo.calibration_data().items()})  # type: ignore[arg-type]
        self.expected = {
            (source, profile): self._made(source, profile)
            for source in ("m", "e")
            for profile in ("tensorrt", "onnxruntime-cpu")
        }

    def run(self, aim: str) -> None:
        """One round."""
        source = self.rng.choice("mme")
        old, new = self.rng.sample(["tensorrt", "onnxruntime-cpu"], 2)
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        before = dict(self.expected[source, old])
        for name, content in before.items():
            (out / name).write_bytes(content)
        process = self._start(source, new, out, OFTEN)
        self._wait(process, aim, out, before)
        os.kill(process, signal.SIGKILL)  # not yet waited for: it cannot be another process
        killed = os.WIFSIGNALED(os.waitpid(process, 0)[1])
        self.killed += killed
        self.counts[f"killed, {aim}" if killed else "had ended before, not a round"] += 1
        self._check(f"{aim}, {source}, {old} to {new}", out, source, old, new)

    def _check(self, what: str, out: Path, source: str, old: str, new: str) -> None:
        found = (out / "q.onnx").read_bytes()
        state = {models(self.expected[source, p]): p for p in (old, new)}.get(model_without_location(found))
        self.counts[f"then there was the {'old' if state == old else 'new' if state == new else 'LOST'} model"] += 1
        if state is None or not loads(out / "q.onnx"):
            self.failures.append(f"{what}: the model is neither the old nor the new one")
        checkpoint = (out / "q.onnx.calibration").exists()
        leftovers = sum(p.name.startswith(".") for p in out.iterdir())
        self.counts["left staging files"] += leftovers > 0
        said = self._finished(source, new, out)
        if said is not None:
            self.failures.append(f"{what}: the next run failed: {said}")
            return
        if checkpoint:
            self.counts["next run continued from a checkpoint"] += 1
        names = {p.name for p in out.iterdir()}
        wanted = {"q.onnx", "q.card.json"}
        if {n for n in names if not n.endswith(".data")} != wanted or sum(n.endswith(".data") for n in names) != (
            source == "e"
        ):
            self.failures.append(f"{what}: after the next run there are {sorted(names)}")
        if model_without_location((out / "q.onnx").read_bytes()) != models(self.expected[source, new]):
            self.failures.append(f"{what}: the next run made another model")

    def _start(self, source: str, profile: str, out: Path, save_every: float) -> int:
        """Start a run in a process of its own, forked from this one, which has everything imported. Its number."""
        words = ["quantize", f"{source}.onnx", "-o", str(out / "q.onnx"), "--data", "d.npz", "--profile", profile, "-q"]
        process = os.fork()
        if process:
            return process
        log = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        runner.SAVE_EVERY = save_every
        os._exit(commands.run(words))

    def _finished(self, source: str, profile: str, out: Path) -> str | None:
        """Run to the end; what it said if it failed."""
        _, status = os.waitpid(self._start(source, profile, out, USUAL), 0)
        return (self.folder / "log").read_text()[-300:] if status else None

    def _wait(self, process: int, aim: str, out: Path, before: dict[str, bytes]) -> None:
        """Wait for the moment, or for the end of the process."""
        if aim == "any time":
            time.sleep(self.rng.random() * 0.5)
            return
        stamps = {name: (out / name).stat().st_mtime_ns for name in before}
        checkpoint, seen = out / "q.onnx.calibration", 0
        last = 0
        while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            names = [p.name for p in out.iterdir()]
            if aim == "staging" and any(n.startswith(".") and (out / n).is_dir() for n in names):
                time.sleep(self.rng.random() * 0.01)
                return
            if aim in ("replacing", "card"):
                changed = [n for n in names if not n.startswith(".") and stamp(out / n) != stamps.get(n, 0)]
                if any(n.endswith((".data", ".card.json")) for n in changed):  # the model is replaced after them
                    time.sleep(self.rng.random() * 0.0004 * (aim == "replacing"))
                    return
            if "checkpoint" in aim and (now := stamp(checkpoint)) != last:
                last, seen = now, seen + 1
                if seen > aim.startswith("second") * self.rng.randint(1, 6):
                    return
            time.sleep(POLL)

    def _made(self, source: str, profile: str) -> dict[str, bytes]:
        out = self.folder / f"{source}-{profile}"
        out.mkdir()
        said = self._finished(source, profile, out)
        if said is not None:
            sys.exit(said)
        return {p.name: p.read_bytes() for p in out.iterdir()}

    def report(self) -> list[str]:
        """Print the figures and the failures; returns the failures."""
        for what, count in sorted(self.counts.items()):
            print(f"{count:6}  {what}")
        print(f"{len(self.failures):6}  failures: lost, damaged or left behind")
        for failure in self.failures[:20]:
            print(f"        {failure}")
        return self.failures


def stamp(path: Path) -> int:
    """When a file was written; 0 without one."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def model_without_location(raw: bytes) -> bytes:
    """A model's bytes without the name of the file of its weights, which depends on what was there."""
    proto = onnx.ModelProto.FromString(raw)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = ""
    return proto.SerializeToString(deterministic=True)


def models(files: dict[str, bytes]) -> bytes:
    """The model of an output."""
    return model_without_location(files["q.onnx"])


def loads(path: Path) -> bool:
    """Whether the model and its weights can be read, and are valid."""
    try:
        onnx.load(path)
        onnx.checker.check_model(str(path))
    except Exception as err:  # whatever is wrong with it
        print(err)
        return False
    return True


if __name__ == "__main__":
    main()
