"""Run operators of com.onnxq with random and hostile attributes, shapes and weights, on every tier of this CPU.

    python tools/fuzz_kernels.py [--minutes 30] [--seed 0] [--replay SEED]

Each case is a node of the kernels' tests with a few things changed. It runs on its kernel, and on its function body in
onnxruntime's own operators, each in a process of its own with limits of time and memory. A finding is a process that
dies, that takes too long, or a kernel whose result is not the body's. Findings are printed once a kind, with a seed
for --replay. ONNXQ_LIBRARY selects a build with sanitizers (checks/sanitize_kernels.py). Exit code 1 for findings.
"""

from __future__ import annotations

import argparse
import os
import pickle
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "lib"))

from onnxq.errors import OnnxqError
from onnxq.execution import library, runtime
from onnxq.operators import DOMAIN, SCHEMAS, VERSION, attach_functions
from support.cases.operators import Case, nodes  # type: ignore[import-not-found]
from support.prove.operator_bodies import activations  # type: ignore[import-not-found]

SECONDS, BYTES = 20, 6 << 30  # of one run
MAX_OUTPUT = 1 << 22  # values: larger outputs are not compared
EXTREMES = [0, -1, 1, 2, 3, 5, 127, 255, 256, 2**15, 2**31 - 1, 2**31, 2**32, 2**40, 2**60 + 1, 2**61, 2**62]
EXTREMES += [2**63 - 8, 2**63 - 2, 2**63 - 1, -(2**63)]
WINDOWS = {"kernel_shape": 2, "strides": 2, "dilations": 2, "pads": 4}
SIZES = [0, 1, 1, 2, 3, 4, 5, 8, 17, 33]


def mutated(case: Case, rng: np.random.Generator) -> Case:
    """The case with one to five things changed, attributes that are lists (windows) most often."""
    arrays, attributes = dict(case.arrays), dict(case.attributes)
    schema = SCHEMAS[case.op]
    names = [a.name for a in schema.attributes]
    lists = [n for n in names if n in WINDOWS]
    for _ in range(int(rng.integers(1, 6))):
        kind = rng.integers(0, 6)
        if kind <= 2 and lists:
            name = str(rng.choice(lists))
            attributes[name] = _attribute(attributes.get(name, (1,) * WINDOWS[name]), rng)
        elif kind == 3 and names:
            name = str(rng.choice(names))
            attributes[name] = _attribute(attributes.get(name, 0), rng)
        elif arrays:
            name = str(rng.choice(sorted(arrays)))
            arrays[name] = _array(arrays[name], rng) if kind == 4 else _values(arrays[name], rng)
    return replace(case, arrays=arrays, attributes=attributes)


def _attribute(value: Any, rng: np.random.Generator) -> Any:
    if not isinstance(value, tuple | list):
        return int(rng.choice(np.array(EXTREMES, object))) if rng.random() < 0.6 else int(rng.integers(-3, 9))
    values = list(value)
    what = rng.integers(0, 4)
    if what == 0 and values:
        values.pop()
    elif what == 1:
        values.append(1)
    elif values:
        place = int(rng.integers(0, len(values)))
        values[place] = _attribute(values[place], rng)
    return tuple(values)


def _array(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other dimensions: one changed, removed or added, the values repeated."""
    shape = list(array.shape)
    what = rng.integers(0, 4)
    if what == 0 and shape:
        shape.pop(int(rng.integers(0, len(shape))))
    elif what == 1:
        shape.insert(int(rng.integers(0, len(shape) + 1)), int(rng.choice(SIZES)))
    elif shape:
        shape[int(rng.integers(0, len(shape)))] = int(rng.choice(SIZES))
    return np.resize(array, shape) if array.size else np.zeros(shape, array.dtype)


def _values(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Extreme values of the same type, everywhere or at one place."""
    if array.dtype.kind not in "iu" or not array.size:
        return array
    info = np.iinfo(array.dtype)
    chosen = int(rng.choice(np.array([info.min, info.max, 0, 1, 62, 63], object)))
    changed = array.copy()
    if rng.random() < 0.5:
        changed[...] = np.clip(chosen, info.min, info.max)
    else:
        changed.flat[int(rng.integers(0, array.size))] = np.clip(chosen, info.min, info.max)
    return changed


def model_of(case: Case, bodies: bool) -> onnx.ModelProto:
    """A model of the one node; activations are inputs without sizes."""
    fed = activations(case.op)
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), [f"{n}{i}" for i in range(a.ndim)])
        for n, a in case.arrays.items()
        if n in fed
    ]
    constants = [numpy_helper.from_array(a, n) for n, a in case.arrays.items() if n not in fed]
    node = helper.make_node(case.op, list(case.arrays), ["y"], "n", domain=DOMAIN, **case.attributes)
    graph = helper.make_graph([node], "g", inputs, [helper.make_empty_tensor_value_info("y")], constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    if bodies:
        attach_functions(model)
    return model


def outcome(case: Case, bodies: bool) -> tuple[str, Any]:
    """("ran", y) or ("refused", why). Runs in a process of its own."""
    try:
        session = runtime.session(model_of(case, bodies), threads=2, kernels=not bodies)
        (y,) = session.run(None, {n: a for n, a in case.arrays.items() if n in activations(case.op)})
    except Exception as err:  # onnxruntime's own classes derive straight from Exception
        return "refused", str(err)[:200]
    return "ran", y if y.size <= MAX_OUTPUT else y.shape


def inherited() -> int:
    """Bytes of address space that the process has: a child starts with them."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def isolated(run: Callable[[], tuple[str, Any]]) -> tuple[str, Any]:
    """The result of a function in a child process with limits, or ("died", how)."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if "ASAN_OPTIONS" not in os.environ:  # a sanitizer reserves terabytes
            most = BYTES + inherited()
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        signal.alarm(2 * SECONDS)
        try:
            with os.fdopen(write, "wb") as out:
                pickle.dump(run(), out)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as into:
        raw = into.read()
    _, status = os.waitpid(child, 0)
    if raw and not status:
        found: tuple[str, Any] = pickle.loads(raw)  # of our own child
        return found
    died = signal.Signals(status & 127).name if status & 127 else f"exit {status >> 8}"
    return "died", "too slow" if died in ("SIGALRM", "SIGXCPU") else died


def judged(case: Case) -> str:
    """What is wrong with a case, else empty."""
    kind, y = isolated(lambda: outcome(case, bodies=False))
    if kind == "died":
        return f"kernel: {y}"
    if kind == "refused":
        return ""
    body, expected = isolated(lambda: outcome(case, bodies=True))
    if body != "ran" or isinstance(y, tuple) or isinstance(expected, tuple):
        return ""  # onnxruntime has its own limits, and its own faults
    if y.dtype != expected.dtype or y.shape != expected.shape:
        return f"shape: {y.dtype}{list(y.shape)} is {expected.dtype}{list(expected.shape)} in the body"
    return "" if np.array_equal(y, expected) else "values differ from the body's"


def tiers() -> list[str]:
    """The tiers of the library that this CPU can run."""
    found = []
    for tier in library.kernel_tiers():
        os.environ[library.ISA_VARIABLE] = tier
        try:
            found.append(library.kernel_isa())
        except OnnxqError:
            continue
    return found


def drawn(seed: int, tier_names: list[str]) -> tuple[Case, str]:
    """The case and the tier of a seed."""
    rng = np.random.default_rng(seed)
    cases = nodes()
    return mutated(cases[int(rng.integers(0, len(cases)))], rng), str(rng.choice(tier_names))


def main() -> int:
    """Fuzz; returns the exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=30.0)
    options.add_argument("--seed", type=int, default=0, help="of the first case; the others follow")
    options.add_argument("--replay", type=int, help="run the case of this seed only, and show it")
    given = options.parse_args()
    names = tiers()
    if given.replay is not None:
        case, tier = drawn(given.replay, names)
        os.environ[library.ISA_VARIABLE] = tier
        print(tier, case, "\n", judged(case) or "nothing is wrong", "\n", isolated(lambda: outcome(case, False))[:2])
        return 0
    end, seed, findings, kinds = time.monotonic() + 60 * given.minutes, given.seed, Counter[str](), Counter[str]()
    while time.monotonic() < end:
        case, tier = drawn(seed, names)
        os.environ[library.ISA_VARIABLE] = tier
        wrong = judged(case)
        kinds[case.op] += 1
        if wrong:
            key = f"{case.op}: {wrong}"
            if not findings[key]:
                print(f"seed {seed}, {tier}: {key}\n  {case}", flush=True)
            findings[key] += 1
        seed += 1
    print(f"{seed - given.seed} cases of {len(kinds)} operators on {', '.join(names)}; {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
