"""`onnxq eval`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnxq.cli.common import data_options, open_source, progress, samples_of, table
from onnxq.cli.guard import OUTPUT, Command
from onnxq.cli.output import check_outputs, deliver, json_text
from onnxq.cli.terminal import out

if TYPE_CHECKING:
    from onnxq.measure.evaluation import Evaluation


@click.command("eval", cls=Command)
@click.argument("model")
@click.option("--against", metavar="FLOAT", help="Float model: also report agreement and output errors.")
@click.option("--output", metavar="TENSOR", help="Tensor to evaluate: any that both models have.")
@click.option(
    "--json", "json_file", type=OUTPUT, metavar="FILE", help="Write the figures as JSON; - prints them instead."
)
@click.option("-q", "--quiet", is_flag=True, help="Print only errors and results.")
@data_options
def command(
    model: str, against: str | None, output: str | None, json_file: str | None, quiet: bool, **options: Any
) -> None:
    """Measure accuracy and speed of MODEL on samples, and its distance from the float model."""
    from onnxq.graph.model import load
    from onnxq.measure.accuracy import evaluate

    check_outputs(json_file)
    loaded = load(model)
    source = open_source(loaded, samples_of(options), required="eval")
    with progress("evaluating") as bar:
        result = evaluate(
            loaded,
            source,
            against=against,
            batch_size=options["batch_size"],
            threads=options["threads"],
            output=output,
            progress=None if quiet else bar,
        )
    deliver(lambda: show(result), (json_file, lambda: json_text(result.to_dict())))


def show(result: Evaluation) -> None:
    """Print the figures as a table, the float model next to the quantized one."""
    other = result.against
    heads = [("", "left"), (result.model, "right")] + ([(other.model, "right")] if other else [])

    def row(name: str, value: str, beside: str | None = None) -> list[str]:
        return [name, value] + ([beside or ""] if other else [])

    rows = [row("samples", str(result.samples))]
    for name, share, error, beside in (
        ("top-1", result.top1, result.top1_error, other.top1 if other else None),
        ("top-5", result.top5, result.top5_error, other.top5 if other else None),
    ):
        if share is not None:
            rows.append(row(name, f"{percent(share)} ± {100 * (error or 0):.2f}", percent(beside)))
    rows.append(
        row("samples/s", f"{result.samples_per_second:.1f}", f"{other.samples_per_second:.1f}" if other else None)
    )
    each = f"{1000 / other.samples_per_second:.2f}" if other else None
    rows.append(row("ms per sample", f"{result.ms_per_sample:.2f}", each))
    table("", heads, rows)
    threads = f"{result.threads} thread(s)" if result.threads else "onnxruntime's default number of threads"
    out("", f"batch {result.batch_size}, {threads}; ± is one standard error")
    if other is None:
        return
    if other.agreement is not None:
        told = f"agreement with {other.model}: {percent(other.agreement)}, KL {other.kl:.4g} nats"
        if other.lost is not None:
            told += f", {other.lost} lost and {other.gained} gained"
        out(told)
    for name, found in other.outputs.items():
        sqnr = "equal" if found.sqnr_db is None else f"SQNR {found.sqnr_db:.2f} dB"
        out(f"output {name}: {sqnr}, cosine {found.cosine:.6f}, largest error {found.max_abs_error:.4g}")


def percent(share: float | None) -> str:
    """A share as a percentage; empty for None."""
    return "" if share is None else f"{100 * share:.2f} %"
