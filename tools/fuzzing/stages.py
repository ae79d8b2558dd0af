"""Running the commands of a case in this process as users do, and telling what is wrong with how they end."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnxq
import onnxq.passes
from fuzzing.cases import Case, Words
from onnxq.cli import group
from onnxq.errors import OnnxqError

PRODUCTS = ("quantize", "lower")  # what they write must load in onnxruntime
ERRORS: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
    MemoryError,
)
WRAPPED = re.compile(r"\b(\w+Error|\w+Exception|StopIteration)\b[:)]|Traceback|(?i:internal error)")
# The folders of our modules, the deeper ones first; a checkout may lie in a folder of the package's name.
FOLDERS = [(f"{folder}/", "passes") for folder in onnxq.passes.__path__] + [(f"{f}/", "onnxq") for f in onnxq.__path__]
UNKNOWN = re.compile(r"it does not know operator \S+: give the library that has it")
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")
SHOWN = 6000  # characters of a traceback


@dataclass
class Found:
    """What is wrong: stage is the command; kind with where tells whether it is the same as another."""

    stage: str
    kind: str
    where: str
    message: str = ""
    trace: str = ""

    @property
    def key(self) -> str:
        """Findings with the same key are one."""
        return f"{self.kind} in {self.where}" if self.where else f"{self.kind}, {self.stage}"


@dataclass
class Outcome:
    """How each stage ended, done or refused, and the first thing that is wrong."""

    ended: list[tuple[str, str]] = field(default_factory=list)
    found: Found | None = None
    words: Words = ()


def run(case: Case, folder: Path, at: Callable[[str], None] = lambda stage: None) -> Outcome:
    """Run the commands of a case until one finds the model unreadable, or something is wrong.

    folder: for the files. at: is told each stage before it starts.
    """
    model, out = folder / "m.onnx", folder / "out.onnx"
    model.write_bytes(case.content)
    outcome = Outcome()
    at("load")
    if not _load(model, outcome):
        return outcome
    for words in case.commands:
        for leftover in folder.iterdir():
            if leftover != model:
                leftover.unlink()
        outcome.words = words
        at(words[0])
        stage, real = words[0], [w.format(model=model, out=out) if w in ("{model}", "{out}") else w for w in words]
        outcome.found = _command(stage, real, outcome)
        if outcome.found is None and stage in PRODUCTS and out.exists():
            at(f"{stage} product")
            outcome.found = _product(stage, out)
        if outcome.found is not None:
            return outcome
    return outcome


def _load(model: Path, outcome: Outcome) -> bool:
    from onnxq.graph.model import load

    try:
        load(model)
    except Exception as err:
        outcome.found = judged("load", err)
        outcome.ended.append(("load", "refused"))
        return False
    outcome.ended.append(("load", "done"))
    return True


def _command(stage: str, words: list[str], outcome: Outcome) -> Found | None:
    errors: list[BaseException] = []
    printed = io.StringIO()
    with _reporting(errors), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        group.commands.run(words)
    outcome.ended.append((stage, "refused" if errors else "done"))
    for err in errors:
        found = judged(stage, err)
        if found is not None:
            return found
    if (raw := CONTROLS.search(printed.getvalue())) is not None:
        around = printed.getvalue()[max(0, raw.start() - 100) : raw.start() + 40]
        return Found(stage, "control characters in the output", "", repr(around))
    return None


@contextlib.contextmanager
def _reporting(errors: list[BaseException]) -> Iterator[None]:
    """Context in which the errors that end a command are kept as well."""
    real = group.report

    def report(err: BaseException, as_json: bool) -> int:
        errors.append(err)
        return real(err, as_json)

    group.report = report
    try:
        yield
    finally:
        group.report = real


def _product(stage: str, out: Path) -> Found | None:
    from onnxq.execution import runtime

    try:
        runtime.session(str(out), threads=1)
    except Exception as err:
        if UNKNOWN.search(str(err)):
            return None  # an operator that only its target knows, as in the model that was given
        return Found(stage, "the product does not load in onnxruntime", "", str(err)[:500])
    return None


def judged(stage: str, err: BaseException) -> Found | None:
    """What is wrong with an error; None for one that tells a user on one line what is wrong with the model."""
    trace = "".join(traceback.format_exception(err))[-SHOWN:]
    message = str(err)[:500]
    if not isinstance(err, OnnxqError):
        return Found(stage, type(err).__name__, place(err), message, trace)
    cause = err.__cause__
    while isinstance(cause, OnnxqError):
        cause = cause.__cause__
    if isinstance(cause, ERRORS) and cause.__traceback__ is not None:
        return Found(stage, f"wrapped {type(cause).__name__}", place(cause), message, trace)
    if WRAPPED.search(message):
        return Found(stage, "the text of an internal error", place(err), message, trace)
    if "\n" in str(err) or CONTROLS.search(str(err)):
        return Found(stage, "a message with control characters", place(err), repr(message), trace)
    return None


def place(err: BaseException) -> str:
    """The innermost function of ours on the way to an error."""
    found = ((_module(f.filename), f.name) for f in reversed(traceback.extract_tb(err.__traceback__)))
    return next((f"{module}.{name}" for module, name in found if module), "")


def _module(file: str) -> str:
    """The name of one of our modules; empty for another file."""
    for folder, package in FOLDERS:
        if file.startswith(folder) and file.endswith(".py"):
            return f"{package}.{file.removeprefix(folder).removesuffix('.py').replace('/', '.')}"
    return ""


def place_in_dump(dump: str) -> str:
    """The same for the text that faulthandler writes, innermost call first."""
    for line in dump.splitlines():
        match = re.search(r'File "(.+)", line \d+ in (\S+)', line)
        if match and (module := _module(match[1])):
            return f"{module}.{match[2]}"
    return ""


def short(key: str) -> str:
    """A file name for a key."""
    return f"{re.sub(r'[^a-z0-9]+', '-', key.lower())[:60].strip('-')}-{hashlib.sha256(key.encode()).hexdigest()[:6]}"
