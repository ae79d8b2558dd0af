"""Findings: one of a kind is kept, with its model and the way to reproduce it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from fuzzing.cases import Case, Words
from fuzzing.pool import Death
from fuzzing.stages import Found, Outcome, place_in_dump, short


class Findings:
    """What was wrong so far. folder: where the first of each kind is kept, if anywhere."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self.seeds: dict[str, int] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, case: Case, result: Outcome | Death) -> str | None:
        """Take note of a result; a line for people if it is a finding of a new kind."""
        found, words = (died(result), ()) if isinstance(result, Death) else (result.found, result.words)
        if found is None:
            return None
        self.counts[found.key] += 1
        if self.counts[found.key] > 1:
            return None
        self.seeds[found.key] = case.seed
        if self.folder is not None:
            self._keep(case, found, words)
        lines = [f"seed {case.seed}: {found.key} ({found.stage})", f"  {case.what}", f"  {found.message[:300]}"]
        return "\n".join(lines)

    def _keep(self, case: Case, found: Found, words: Words) -> None:
        assert self.folder is not None
        name = short(found.key)
        (self.folder / f"{name}.onnx").write_bytes(case.content)
        words = words or next((w for w in case.commands if w[0] == found.stage.split()[0]), ())
        table = {
            "key": found.key,
            "seed": case.seed,
            "what": case.what,
            "stage": found.stage,
            "command": "onnxq " + " ".join(words).replace("{model}", f"{name}.onnx").replace("{out}", "out.onnx")
            if words
            else "",
            "reproduce": f"python tools/fuzz_models.py --reproduce {case.seed}",
            "commands": case.commands,
            "message": found.message,
            "trace": found.trace,
        }
        (self.folder / f"{name}.json").write_text(json.dumps(table, indent=1))


def died(death: Death) -> Found:
    """The finding that a worker died."""
    return Found(death.stage, death.how, place_in_dump(death.stack), death.stack[:200], death.stack)


def kept(file: Path) -> Case:
    """The case of a finding in a folder: its .json, beside which is the model."""
    table = json.loads(file.read_text())
    commands = tuple(tuple(words) for words in table["commands"])
    return Case(table["seed"], table["what"], file.with_suffix(".onnx").read_bytes(), commands)
