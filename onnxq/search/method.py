"""Search methods: plug-ins that choose widths, one file each in methods/.

Their modules import computing code only when run: the command line reads options and help from the classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from onnxq import plugins
from onnxq.errors import ConfigError

if TYPE_CHECKING:
    from onnxq.search.inputs import SearchInputs
    from onnxq.search.result import SearchResult

# Inputs that not every method uses: name → its name in messages, and what to give.
INPUTS = {
    "limits": ("limits", "a limit on some cost"),
    "latency": ("latencies", "the file of `onnxq latency`"),
    "sensitivity": ("sensitivities", "the file of `onnxq sensitivity`"),
    "data": ("data", "samples to calibrate on"),
}
PROOF_INPUTS = ("data",)  # of every method: the product is made and proven with it


class Table(NamedTuple):
    """A table to print. columns: (heading, "left" or "right")."""

    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class SearchMethod:
    """One way to choose widths. Subclasses are frozen dataclasses: the fields are the options, the docstring the help.

    name: as in --method; equals the file name with - for _. widths: the weight widths to choose from by default.
    needs: required inputs (INPUTS) and options. takes: optional inputs.
    sweeps: option for which the command accepts several values, separated by commas: one search each.
    """

    name: ClassVar[str] = ""
    widths: ClassVar[tuple[int, ...]] = (4, 8)
    needs: ClassVar[tuple[str, ...]] = ()
    takes: ClassVar[tuple[str, ...]] = ("limits",)
    sweeps: ClassVar[str] = ""

    @property
    def range_chooser(self) -> str:
        """How the product's activations are calibrated (onnxq.calibrate.ranges)."""
        from onnxq.placement.settings import DEFAULT_CALIBRATION

        return DEFAULT_CALIBRATION

    def run(self, inputs: SearchInputs) -> SearchResult:
        """Choose widths. Raises ConfigError for limits that cannot be met or inputs that contradict the model."""
        raise NotImplementedError(f"search method {self.name} has no run")

    def extras(self, inputs: SearchInputs, results: Sequence[SearchResult]) -> Iterator[Table]:
        """Tables that the command prints before the results; also writes the files that options request."""
        yield from ()


def about(
    text: str | Callable[[], str],
    *,
    metavar: str | None = None,
    parse: Callable[[str], Any] | None = None,
    choices: Sequence[str] = (),
    least: int | None = None,
    picture: bool = False,
    file: bool = False,
) -> dict[str, Any]:
    """Metadata of a dataclass field: how `onnxq search` presents and parses the option.

    text: help, or a function that returns it when help is shown. metavar: placeholder for the value in help. parse:
    parses the command-line text; its ValueError states what is needed. choices, least: values allowed. picture: the
    value is a .png, .svg or .pdf file to write. file: another file to write.
    """
    return {
        "help": text, "metavar": metavar, "parse": parse, "choices": choices, "least": least, "picture": picture,
        "file": file,
    }  # fmt: skip


def available() -> dict[str, type[SearchMethod]]:
    """Every search method by name, those with the fewest needs first."""
    found = plugins.find("onnxq.search.methods", SearchMethod, ConfigError)
    return dict(sorted(found.items(), key=lambda item: (len(item[1].needs), item[0])))


def options_of(cls: type[SearchMethod]) -> dict[str, dataclasses.Field[Any]]:
    """A method's options by name."""
    return {f.name: f for f in dataclasses.fields(cls)}


def users(name: str) -> list[str]:
    """The methods that use an input or have an option of this name."""
    own = {m: (*PROOF_INPUTS, *cls.needs, *cls.takes, *options_of(cls)) for m, cls in available().items()}
    return [method for method, names in own.items() if name in names]


def require(cls: type[SearchMethod], given: Mapping[str, Any]) -> None:
    """Raise ConfigError for an input that the method needs and is not given."""
    for name in cls.needs:
        if name in INPUTS and not given.get(name):
            noun, what = INPUTS[name]
            raise ConfigError(f"method {cls.name} needs {noun}: give {what}")


def listed(names: Sequence[str]) -> str:
    """Names joined as in a sentence: a, b and c."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def make(cls: type[SearchMethod], options: Mapping[str, Any]) -> tuple[SearchMethod, dict[str, Any]]:
    """A method with the options that it has, and the options that no method has.

    Raises ConfigError for another method's option, unless it has its default value.
    """
    own, rest = {}, {}
    for name, value in options.items():
        owners = [c for c in available().values() if name in options_of(c)]
        if name in options_of(cls):
            own[name] = value
        elif not owners:
            rest[name] = value
        elif value != options_of(owners[0])[name].default:
            raise ConfigError(f"{name} is an option of method {listed(users(name))}, not {cls.name}")
    return cls(**own), rest


__all__ = [
    "INPUTS",
    "PROOF_INPUTS",
    "SearchMethod",
    "Table",
    "about",
    "available",
    "listed",
    "make",
    "options_of",
    "require",
    "users",
]
