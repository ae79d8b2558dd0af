"""Mutate models and run the commands that read them: nothing may crash, hang, grow, or end in an internal error.

    python tools/fuzz_models.py [--seconds 1800] [--seed 0] [--workers 1] [--out FOLDER] [--reproduce SEED|FILE.json]

A case is a model of the corpus (float, QDQ and integer-only ones, see fuzzing/corpus.py) with one to four mutations of
its structure, sometimes of its bytes. It goes through load and inspect, and some of check, opt, quantize (a profile,
random data), lower and card, in a worker process with limits of memory and time. Right is success, whose product loads
in onnxruntime, or an OnnxqError of one line; all else is a finding. Findings are printed once a kind, and kept in the
folder with their model. Exit code 1 for findings. Linux.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "lib"))

from fuzzing import cases, corpus, stages
from fuzzing.findings import Findings, died, kept
from fuzzing.pool import Death, Limits, results


def run(seed: int, folder: Path, at: Callable[[str], None]) -> stages.Outcome:
    """Run the case of a seed in a worker."""
    return stages.run(cases.drawn(seed), folder, at)


def fuzz(seconds: float, seed: int, workers: int, folder: Path | None, limits: Limits) -> Findings:
    """Run cases for some time and print what is found, and the figures."""
    findings, ended, started = Findings(folder), Counter[tuple[str, str]](), time.monotonic()
    end, executions = started + seconds, 0
    for number, result in results(run, seeds(seed, end), workers, limits):
        executions += 1
        ended.update([(result.stage, "died")] if isinstance(result, Death) else result.ended)
        wrong = isinstance(result, Death) or result.found is not None
        line = findings.add(cases.drawn(number), result) if wrong else None
        if line is not None:
            print(line, flush=True)
    took = time.monotonic() - started
    for stage in dict.fromkeys(stage for stage, _ in ended):
        print(f"{stage}: " + ", ".join(f"{count} {how}" for (one, how), count in sorted(ended.items()) if one == stage))
    for key, count in findings.counts.most_common():
        print(f"{count:6}  {key} (seed {findings.seeds[key]})")
    print(
        f"{executions} executions of {sum(ended.values())} stages in {took:.0f} s, {executions / took:.1f} per second; "
        f"{len(findings.counts)} findings"
    )
    return findings


def seeds(first: int, end: float) -> Iterator[int]:
    """Seeds until the time is over."""
    return itertools.takewhile(lambda _: time.monotonic() < end, itertools.count(first))


def reproduce(what: str, limits: Limits) -> int:
    """Run one case, of a seed or kept in a folder, and show it; 1 if something is wrong."""
    case = cases.drawn(int(what)) if what.isdigit() else kept(Path(what))
    print(f"seed {case.seed}: {case.what}")
    for words in case.commands:
        print("onnxq", *words)
    if what.isdigit():
        model = Path(f"seed-{case.seed}.onnx")
        model.write_bytes(case.content)
        print(f"wrote {model}")
    runs = results(lambda seed, folder, at: stages.run(case, folder, at), [case.seed], 1, limits)
    (_, result), *_ = runs
    found = died(result) if isinstance(result, Death) else result.found
    if not isinstance(result, Death):
        print(*(f"{stage}: {how}" for stage, how in result.ended), sep="\n")
    print("nothing is wrong" if found is None else f"{found.key} ({found.stage})\n{found.message}\n{found.trace}")
    return int(found is not None)


def main() -> int:
    """Fuzz; returns the exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=1800.0)
    options.add_argument("--seed", type=int, default=0, help="of the first case; the others follow")
    options.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    options.add_argument("--out", type=Path, help="folder for the first model of each kind of finding")
    options.add_argument("--reproduce", metavar="SEED|FILE.json", help="run this case only, and show it")
    given = options.parse_args()
    os.environ["NO_COLOR"] = "1"
    if given.reproduce is not None:
        return reproduce(given.reproduce, Limits())
    corpus.warm()
    return 1 if fuzz(given.seconds, given.seed, given.workers, given.out, Limits()).counts else 0


if __name__ == "__main__":
    sys.exit(main())
