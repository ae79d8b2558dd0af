"""How accurate widths chosen by a search are on the reference models of ../shared; run by bench_search.py.

Sensitivities and calibrations are kept in a folder; every evaluation is saved in the results as soon as it is done.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import onnxq
from bench_support.calibration import calibrate
from bench_support.references import REFERENCES
from onnxq.calibrate.store import load_statistics, save_statistics
from onnxq.data.source import Batch, batches, input_specs, open_data
from onnxq.errors import ConfigError
from onnxq.execution.inner_tensors import observed_model, real_part
from onnxq.numeric.metrics import ErrorSums
from onnxq.placement.settings import Override
from onnxq.search.error_table import error_table
from onnxq.search.least_sensitivity import search_ilp
from onnxq.search.linear_program import Limit, Option, Problem, solve
from onnxq.search.measure import measure_sensitivity
from onnxq.search.methods.mixquant import MixQuant, search_mixquant
from onnxq.search.result import SearchResult
from onnxq.search.sensitivity import Sensitivity, load_sensitivity
from onnxq.search.space import Assignment, Space, make_space

PROFILE = "onnxruntime-cpu"
RANDOM = 10
QEMS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
METHODS = ("hessian", "one-at-a-time", "output-error", "weight-error")
FIGURES = ("sqnr_db", "agreement", "top1")


@dataclass(frozen=True)
class Case:
    """One comparison: the limit, and the widths to choose from."""

    model: str
    cost: str
    limit: str
    bits: tuple[int, ...]
    activation_bits: tuple[int, ...] = (8,)

    @property
    def name(self) -> str:
        """Its key in the results."""
        return f"{self.model} {self.cost} {self.limit}"


CASES = (
    Case("resnet20", "size", "60%", (4, 8)),
    Case("resnet20", "bops", "50%", (4, 8), (4, 8)),
    Case("squeezenet", "size", "60%", (4, 8)),
    Case("squeezenet", "bops", "50%", (4, 8), (4, 8)),
    Case("mobilenetv2", "size", "85%", (5, 6, 7, 8)),
)


class Results:
    """A JSON file {key: figures}, written after every result."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}

    def once(self, key: str, make: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
        """The stored figures of the key, else those of make(*args), which are stored."""
        if key not in self.table:
            started = time.perf_counter()
            self.table[key] = make(*args)
            print(f"{key}: {line(self.table[key])}  [{time.perf_counter() - started:.0f} s]", flush=True)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps(self.table, indent=1))
            part.replace(self.path)
        return dict(self.table[key])


def line(row: Mapping[str, Any]) -> str:
    """A result as one line of text."""
    return ", ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
        for k, v in row.items()
        if not isinstance(v, (dict, list))
    )


class Subject:
    """A reference model with its float logits on the validation set."""

    def __init__(self, name: str, folder: Path, threads: int, limit: int | None = None) -> None:
        self.name, self.ref, self.threads, self.limit = name, REFERENCES[name], threads, limit
        self.path, self.data = self.ref.path, self.ref.data
        file = folder / f"{name}.stats"
        if not file.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            save_statistics(calibrate(self.ref, threads)[0], file)
        self.statistics = load_statistics(file)
        self.folder = folder
        self._samples: list[Batch] = []
        self._logits: list[NDArray] = []

    def samples(self) -> list[Batch]:
        """The validation set, decoded once."""
        if not self._samples:
            specs = input_specs(onnxq.load(self.path).graph)
            data = open_data(self.data.validation, specs, preprocess=self.data.preprocess, limit=self.limit)
            self._samples = list(batches(data, specs, self.ref.batch))
        return self._samples

    def evaluate(self, overrides: Mapping[str, Override]) -> dict[str, Any]:
        """Top-1, agreement and logit SQNR of the model with these widths."""
        made = onnxq.quantize(
            self.path, profile=PROFILE, statistics=self.statistics, overrides=overrides, first_last_bits=None, qdq=True
        )
        if not self._logits:
            self._logits = self._run(onnxq.load(self.path))
        sums, agree, right, count = ErrorSums(), 0, 0, 0
        for batch, reference, found in zip(self.samples(), self._logits, self._run(made.graph_model), strict=True):
            sums.add(reference, found)
            a, b = (v.reshape(batch.count, -1).argmax(axis=1) for v in (reference, found))
            agree += int((a == b).sum())
            right += int((b == batch.labels).sum()) if batch.labels is not None else 0
            count += batch.count
        return {"sqnr_db": sums.sqnr_db, "agreement": 100 * agree / count, "top1": 100 * right / count}

    def _run(self, model: onnxq.Model) -> list[NDArray]:
        output = self.ref.output or model.graph.outputs[0].name
        session = onnxq.session(observed_model(model, [output]), threads=self.threads)
        return [real_part(session.run([output], batch.feeds)[0], batch) for batch in self.samples()]

    def sensitivity(self, method: str, activations: bool) -> Sensitivity:
        """At every width of the profile; measured once and stored. activations: adds those of one-at-a-time."""
        searched = any(len(case.activation_bits) > 1 for case in CASES if case.model == self.name)
        file = self.folder / f"{self.name}.{method}.json"
        if not file.is_file():
            started = time.perf_counter()
            found = measure_sensitivity(
                self.path,
                None if method == "weight-error" else self.data.calibration,
                method=method,  # type: ignore[arg-type]
                profile=PROFILE,
                activation_bits=MixQuant.widths if method == "one-at-a-time" and searched else (),
                preprocess=self.data.preprocess,
                batch_size=self.ref.batch,
                threads=self.threads,
                resume=None if method == "weight-error" else file.with_suffix(".state"),
            )
            found.save(file)
            print(f"{file.name}: {time.perf_counter() - started:.0f} s", flush=True)
        found = load_sensitivity(file)
        if activations and not found.of("activations"):
            others = self.sensitivity("one-at-a-time", activations=False).of("activations")
            found = replace(found, layers=(*found.layers, *others))
        return found


def run_ilp(results: Results, folder: Path, args: argparse.Namespace) -> None:
    """Every case of the chosen models."""
    subjects: dict[str, Subject] = {}
    for case in CASES:
        if case.model in args.models.split(","):
            subject = subjects.setdefault(case.model, Subject(case.model, folder, args.threads))
            run_case(results, case, subject)


def run_case(results: Results, case: Case, subject: Subject) -> None:
    """The ILP on each sensitivity and on inverted ones, MixQuant, and random assignments of the same cost."""
    space = make_space(subject.path, profile=PROFILE, bits=case.bits, activation_bits=case.activation_bits)
    limits = {case.cost: case.limit}

    def keep(label: str, found: Assignment) -> None:
        results.once(f"{case.name} {label}", scored, subject, space, found)

    target = 0.0
    for method in METHODS:
        if method in ("output-error", "weight-error") and space.searches_activations:
            continue  # its unit differs from that of the activations' sensitivities
        known = subject.sensitivity(method, space.searches_activations)
        found = assignment_of(space, search_ilp(space, known, limits))
        keep(method, found)
        target = target or space.totals(found)[case.cost]
        if method in ("hessian", "one-at-a-time"):
            keep(f"{method} inverted", worst_assignment(space, known, case.cost, target))
    plain = make_space(space.prepared, bits=case.bits)
    for quantizer in ("affine", "profile"):
        table = error_table(plain.prepared, quantizer, case.bits)
        try:
            weights = assignment_of(plain, search_mixquant(plain, table, limits=limits)).weights
        except ConfigError as err:
            print(f"{case.name} mixquant {quantizer}: {err}")
        else:
            keep(f"mixquant {quantizer}", space.assignment(weights))
    for seed in range(RANDOM):
        keep(f"random {seed}", random_assignment(space, case.cost, target, seed))


def scored(subject: Subject, space: Space, found: Assignment) -> dict[str, Any]:
    """Costs as shares of those at int8, accuracy, and the widths."""
    now, base = space.totals(found), space.costs.baseline()
    chosen = [list(found.weights.values()), list(found.activations.values())]
    return (
        {c: now[c] / base[c] for c in ("size", "bops")} | subject.evaluate(space.overrides(found)) | {"widths": chosen}
    )


def assignment_of(space: Space, result: SearchResult) -> Assignment:
    """The widths of a result."""
    activations = {
        g.name: (result.assignment[g.nodes[0]].activation_bits or 8) if space.searches_activations else 8
        for g in space.costs.groups
    }
    return Assignment({c.node: c.weight_bits or 8 for c in result.layers}, activations)


def worst_assignment(space: Space, known: Sensitivity, cost: str, target: float) -> Assignment:
    """The most sensitivity instead of the least, at a cost of at most the target and at least 99 % of it."""

    def inverted(option: Option) -> Option:
        amount = option.costs.get(cost, 0.0)
        return Option(-option.value, {cost: amount, "least": -amount})

    problem = space.problem(known)
    turned = Problem(
        tuple(replace(c, options={p: inverted(o) for p, o in c.options.items()}) for c in problem.choices),
        {g: {a: inverted(o) for a, o in options.items()} for g, options in problem.groups.items()},
        {cost: problem.fixed[cost], "least": -problem.fixed[cost]},
    )
    found = solve(turned, [Limit(cost, target, "most"), Limit("least", -0.99 * target, "least")])
    return space.assignment(found.weights, {g: bits for g, bits in found.activations.items() if g})


def random_assignment(space: Space, cost: str, target: float, seed: int) -> Assignment:
    """Lower random layers and activation groups step by step until the cost is within 1 % of the target."""
    rng = np.random.default_rng([seed, 1])
    steps: list[tuple[str, str]] = [("w", c.node) for c in space.costs.layers for _ in space.weight_bits[1:]]
    steps += (
        [("a", g.name) for g in space.costs.groups for _ in space.activation_bits[1:]]
        if space.searches_activations
        else []
    )
    for _ in range(1000):
        weights = {c.node: max(space.weight_bits) for c in space.costs.layers}
        activations = {g.name: max(space.activation_bits) for g in space.costs.groups}
        for index in rng.permutation(len(steps)):
            kind, name = steps[index]
            table, allowed = (weights, space.weight_bits) if kind == "w" else (activations, space.activation_bits)
            before = table[name]
            table[name] = allowed[allowed.index(before) + 1]
            found = Assignment(dict(weights), dict(activations))
            now = space.totals(found)[cost]
            if 0.99 * target <= now <= 1.01 * target:
                return found
            if now < target:
                table[name] = before  # too large a step
    raise SystemExit(f"no random assignment within 1 % of {target:g}")


def run_mixquant(results: Results, folder: Path, args: argparse.Namespace) -> None:
    """MixQuant at many QEMs, uniform widths, and MixQuant at the size of each uniform width."""
    for name in args.models.split(","):
        subject = Subject(name, folder, args.threads)
        space = make_space(subject.path, profile=PROFILE, bits=MixQuant.widths)
        tables = {quantizer: error_table(space.prepared, quantizer) for quantizer in ("affine", "profile")}
        for bits in (8, 6, 5, 4):
            even = space.assignment(dict.fromkeys(space.prepared.layer_names(), bits))
            results.once(f"{name} uniform {bits}", scored, subject, space, even)
            for quantizer, table in tables.items():
                if bits < 8:
                    found = search_mixquant(space, table, limits={"size": space.totals(even)["size"]})
                    results.once(f"{name} mixquant {quantizer} at the size of {bits}", figures, subject, found)
        for quantizer, table in tables.items():
            done: dict[tuple, dict[str, Any]] = {}
            for qem in QEMS:
                found = search_mixquant(space, table, qem)
                key = tuple(c.weight_bits for c in found.layers)
                label = f"{name} mixquant {quantizer} QEM {qem:g}"
                done[key] = (
                    results.once(label, done.get, key) if key in done else results.once(label, figures, subject, found)
                )


def figures(subject: Subject, found: SearchResult) -> dict[str, Any]:
    """Size, QEM and accuracy of a result."""
    share = found.predicted["size"] / found.baseline["size"]
    counts = " ".join(f"{b}:{n}" for b, n in found.counts().items())
    return {"size": share, "qem": found.parameters["qem"], "layers": counts} | subject.evaluate(found.assignment)


def report(results: Results, folder: Path, args: argparse.Namespace) -> None:
    """All stored results as tables."""
    del folder, args
    for case in CASES:
        report_case(case, results)
    for name in REFERENCES:
        rows = {k: v for k, v in results.table.items() if k.startswith((f"{name} uniform", f"{name} mixquant"))}
        if rows:
            print(f"\n{name}\n{'':42} {'size %':>7} {'SQNR dB':>8} {'agree %':>8} {'top-1 %':>8}  layers")
        for label, r in rows.items():
            print(f"{label.removeprefix(name + ' '):42} {100 * r['size']:7.1f} {accuracy(r)}  {r.get('layers', '')}")
    for label, r in results.table.items():
        if " latency, " in label:
            print(f"\n{label}: {line(r)}")


def report_case(case: Case, results: Results) -> None:
    """One case: each method with its distance from random assignments in standard deviations, and their mean."""
    rows = {k.removeprefix(case.name + " "): v for k, v in results.table.items() if k.startswith(case.name + " ")}
    if not rows:
        return
    drawn = [v for k, v in rows.items() if k.startswith("random")]
    print(f"\n{case.name}, weights {case.bits}, activations {case.activation_bits}")
    print(f"{'':24} {'size %':>7} {'BOPS %':>7} {'SQNR dB':>8} {'agree %':>8} {'top-1 %':>8}  σ from random, of each")
    spread = {}
    if len(drawn) > 1:
        spread = {k: (statistics.mean(r[k] for r in drawn), statistics.stdev(r[k] for r in drawn)) for k in FIGURES}
    for label, r in rows.items():
        if not label.startswith("random"):
            sigmas = [f"{(r[k] - mean) / sd:+.1f}" for k, (mean, sd) in spread.items() if sd]
            print(f"{label:24} {100 * r['size']:7.1f} {100 * r['bops']:7.1f} {accuracy(r)}  {', '.join(sigmas)}")
    if spread:
        size, bops = (100 * statistics.mean(r[k] for r in drawn) for k in ("size", "bops"))
        spreads = ", ".join(f"{mean:.2f} ± {sd:.2f}" for mean, sd in spread.values())
        print(f"{f'random, mean of {len(drawn)}':24} {size:7.1f} {bops:7.1f} {spreads}")


def accuracy(row: Mapping[str, Any]) -> str:
    """The three figures of accuracy, in columns."""
    return f"{row['sqnr_db']:8.2f} {row['agreement']:8.1f} {row['top1']:8.2f}"
