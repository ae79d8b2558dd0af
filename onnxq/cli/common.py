"""What several subcommands share: data options, progress with ETA, tables."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnxq.errors import ConfigError

if TYPE_CHECKING:
    from onnxq.calibrate.runner import Progress
    from onnxq.data.source import DataSource
    from onnxq.graph.model import Model

F = TypeVar("F", bound=Callable[..., Any])
PLAIN_EVERY = 10.0  # seconds between progress lines when stderr is no terminal


def data_options(command: F) -> F:
    """--data, --preprocess, --limit, --random-data, --seed, --input-shape, --batch-size, --threads."""
    for option in (
        click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads; 0 takes as many as are good."),
        click.option("--batch-size", type=click.IntRange(1), help="Samples a run, where the model's batch is dynamic."),
        click.option("--input-shape", "shapes", multiple=True, metavar="NAME:1x3x224x224", help="Shape of an input."),
        click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random data."),
        click.option("--random-data", type=click.IntRange(1), metavar="N", help="N random samples instead of data."),
        click.option("--limit", type=click.IntRange(1), help="Use at most this many samples."),
        click.option("--preprocess", metavar="PRESET|FILE.toml", help="How images become the model's input."),
        click.option("--data", metavar="PATH|module:callable", help="Images, .npz, test_data_set_*, Python callable."),
    ):
        command = option(command)
    return command


def open_source(model: Model, options: dict[str, Any], required: str = "") -> DataSource | None:
    """The data source that the options of data_options describe; None without any.

    required: what needs it; ConfigError when there is none.
    """
    from onnxq.data.source import input_specs, open_data, parse_shape

    spec, random = options.get("data"), options.get("random_data")
    if spec is not None and random is not None:
        raise ConfigError("give --data or --random-data, not both")
    if spec is None and random is None:
        if required:
            raise ConfigError(f"{required} needs data: --data PATH, or --random-data N")
        return None
    source = open_data(
        spec,
        input_specs(model.graph),
        preprocess=options.get("preprocess"),
        limit=options.get("limit"),
        random=random,
        seed=options.get("seed", 0),
        shapes=dict(parse_shape(s) for s in options.get("shapes") or ()),
    )
    for note in source.notes:
        say(note)
    return source


def say(message: str) -> None:
    """One line of information on stderr, so that stdout stays for results."""
    click.echo(message, err=True)


@contextlib.contextmanager
def progress(title: str) -> Iterator[Progress]:
    """A function (done, total) that draws a bar with ETA on a terminal, and a line now and then elsewhere."""
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
    started = time.monotonic()
    first: list[int] = []
    last = [started]

    def update(done: int, total: int | None) -> None:
        first.append(done) if not first else None
        now = time.monotonic()
        if now - last[0] < PLAIN_EVERY:
            return
        last[0] = now
        rate = (done - first[0]) / (now - started)
        eta = f", {(total - done) / rate:.0f} s left" if total is not None and rate > 0 else ""
        say(f"{title}: {done}{f' of {total}' if total is not None else ''}{eta}")

    return update


def output_path(path: str) -> Path:
    """Fail before any work when the output could not be written."""
    from onnxq.graph.files import check_writable

    return check_writable(path)


def table(title: str, columns: list[tuple[str, str]], rows: list[list[str]]) -> None:
    """Print a table on stdout. columns: (heading, "left" | "right")."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    # Piped output is read by programs and diffed: give it the width it needs instead of wrapping.
    if not console.is_terminal:
        console = Console(width=240)
    out = Table(title=title or None, title_justify="left", show_edge=False, pad_edge=False, box=None)
    for heading, align in columns:
        out.add_column(heading, justify="right" if align == "right" else "left", overflow="fold")
    for row in rows:
        out.add_row(*(Text(cell) for cell in row))
    console.print(out)
