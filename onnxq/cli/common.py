"""Shared by several subcommands: data options, progress with ETA, tables."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnxq.cli.terminal import rendered, say
from onnxq.cli.values import parse_shapes
from onnxq.errors import ConfigError, printable
from onnxq.numeric.formats import DEFAULT_WEIGHT_RANGE

if TYPE_CHECKING:
    from onnxq.data.options import DataOptions, RunOptions
    from onnxq.data.source import DataSource
    from onnxq.graph.model import Model
    from onnxq.measure.proof.record import ProofOptions
    from onnxq.reporting import Progress, Reporter

F = TypeVar("F", bound=Callable[..., Any])
PLAIN_EVERY = 10.0  # seconds between progress lines if stderr is not a terminal


def data_options(command: F) -> F:
    """--data, --preprocess, --limit, --random-data, --seed, --input-shape, --batch-size, --threads, --custom-ops."""
    command = custom_ops_option(command)
    for option in (
        click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads; 0 = automatic."),
        click.option("--batch-size", type=click.IntRange(1), help="Samples per run, for a dynamic batch."),
        click.option("--input-shape", "shapes", multiple=True, metavar="NAME:1x3x224x224", help="Shape of an input."),
        click.option(
            "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Seed of the random data."
        ),
        click.option(
            "--random-data", type=click.IntRange(1), metavar="N", help="Use N random samples instead of data."
        ),
        click.option("--limit", type=click.IntRange(1), help="Use at most this many samples."),
        click.option("--preprocess", metavar="PRESET|FILE.toml", help="How to convert images to the model's input."),
        click.option(
            "--data",
            metavar="PATH|module:callable",
            help="Images, .npz, test_data_set_*, or module:callable, whose code is run.",
        ),
    ):
        command = option(command)
    return command


def custom_ops_option(command: F) -> F:
    """--custom-ops: libraries of operators, registered in every session that the command opens."""
    return click.option(
        "--custom-ops",
        multiple=True,
        metavar="LIB.so",
        expose_value=False,
        callback=_register,
        help="Library of operators that the model needs in onnxruntime. It is native code, and it is run.",
    )(command)


def _register(ctx: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> None:
    if not value:
        return
    from onnxq.execution import runtime

    missing = next((path for path in value if not Path(path).is_file()), None)
    if missing is not None:
        raise ConfigError(f"{missing}: no such file (--custom-ops)")
    runtime.use_in_every_session(value)
    ctx.call_on_close(lambda: runtime.use_in_every_session(()))


def weight_range_option(command: F) -> F:
    """--weight-range."""
    option = click.option(
        "--weight-range",
        type=click.Choice(["max", "mse"]),
        help=f"Range chooser of the weights.  [default: {DEFAULT_WEIGHT_RANGE}]",
    )
    return option(command)


def proof_options(command: F) -> F:
    """--proof, --strict and --min-sqnr."""
    for option in reversed(
        (
            click.option(
                "--proof",
                type=click.Choice(["none", "quick", "full"]),
                default="quick",
                show_default=True,
                help="Run the product before it is written: on a few samples, or on all in every runtime here.",
            ),
            click.option("--strict", is_flag=True, help="Findings of the proof are errors (exit code 3)."),
            click.option(
                "--min-sqnr", type=float, metavar="DB", help="Least SQNR of every float output; less is an error."
            ),
        )
    ):
        command = option(command)
    return command


def proving_of(options: Mapping[str, Any]) -> ProofOptions:
    """The options of proof_options as an object."""
    from onnxq.measure.proof.record import ProofOptions

    return ProofOptions(options["proof"], options["strict"], options["min_sqnr"])


def samples_of(options: Mapping[str, Any]) -> DataOptions:
    """--data, --preprocess, --limit, --random-data, --seed and --input-shape."""
    from onnxq.data.options import DataOptions

    names = ("data", "preprocess", "limit", "random_data", "seed")
    declared = {name: options[name] for name in ("synthetic", "training_samples") if name in options}
    return DataOptions(**{name: options[name] for name in names}, **declared, shapes=parse_shapes(options["shapes"]))


def run_of(options: Mapping[str, Any], resume: str | Path | None = None) -> RunOptions:
    """--threads and --batch-size. resume: the file to continue from."""
    from onnxq.data.options import RunOptions

    return RunOptions(options["threads"], options["batch_size"], resume)


def reporter(bar: Progress | None = None, quiet: bool = False) -> Reporter:
    """Reports messages and pass reports to stderr, and progress to a bar; nothing if quiet."""
    from onnxq.reporting import Reporter, describe

    return Reporter() if quiet else Reporter(say, lambda report: say(*describe(report).split("\n")), bar)


def open_source(model: Model, samples: DataOptions, required: str = "") -> DataSource | None:
    """Open the samples and print the source's notes; None if no data is given.

    required: what needs the data, for the message; ConfigError if there is none.
    """
    from onnxq.data.source import input_specs, open_data

    if samples.data is not None and samples.random_data is not None:
        raise ConfigError("give --data or --random-data, not both")
    if samples.data is None and samples.random_data is None:
        if required:
            raise ConfigError(f"{required} needs data: --data PATH, or --random-data N")
        return None
    source = open_data(samples, input_specs(model.graph))
    for note in source.notes:
        say(note)
    return source


@contextlib.contextmanager
def progress(title: str) -> Iterator[Progress]:
    """A function (done, total) that draws a bar with ETA on a terminal, and prints occasional lines elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_progress(title)
        return
    from rich import progress as rich

    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.MofNCompleteColumn())
    times = (rich.TimeElapsedColumn(), rich.TextColumn("ETA"), rich.TimeRemainingColumn())
    with rich.Progress(*columns, *times, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _plain_progress(title: str) -> Progress:
    started = last = time.monotonic()
    first: int | None = None  # already done by the run that was resumed

    def update(done: int, total: int | None) -> None:
        nonlocal first, last
        if first is None:
            first = done
        now = time.monotonic()
        if now - last < PLAIN_EVERY:
            return
        last = now
        rate = (done - first) / (now - started)
        eta = f", {(total - done) / rate:.0f} s left" if total is not None and rate > 0 else ""
        say(f"{title}: {done}{f' of {total}' if total is not None else ''}{eta}")

    return update


def output_path(path: str) -> Path:
    """Fail before any work if the output cannot be written."""
    from onnxq.graph.files import check_writable

    return check_writable(path)


def table(title: str, columns: list[tuple[str, str]], rows: list[list[str]]) -> None:
    """Print a table on stdout. columns: (heading, "left" | "right")."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    # Piped output is read by programs and diffed: use the width it needs instead of wrapping.
    if not console.is_terminal:
        console = Console(width=240)
    out = Table(title=title or None, title_justify="left", show_edge=False, pad_edge=False, box=None)
    for heading, align in columns:
        out.add_column(heading, justify="right" if align == "right" else "left", overflow="fold")
    for row in rows:
        out.add_row(*(Text(printable(cell)) for cell in row))
    with console.capture() as captured:
        console.print(out)
    rendered(captured.get())
