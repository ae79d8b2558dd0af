"""`onnxq compare`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from onnxq.cli.common import data_options, open_source, progress, samples_of, table
from onnxq.cli.guard import OUTPUT, Command
from onnxq.cli.output import check_outputs, deliver, json_text
from onnxq.cli.terminal import out, say

if TYPE_CHECKING:
    from onnxq.measure.comparison import Comparison


@click.command("compare", cls=Command)
@click.argument("float_model", metavar="FLOAT")
@click.argument("quantized", metavar="QUANT")
@click.option(
    "--isolated", is_flag=True, help="Also show the error that each layer adds by itself (one more run per batch)."
)
@click.option("--top", type=click.IntRange(0), default=20, show_default=True, help="Rows to print; 0 prints all.")
@click.option(
    "--csv", "csv_file", type=OUTPUT, metavar="FILE", help="Write all rows as CSV, worst first; - prints them instead."
)
@click.option("--json", "json_file", type=OUTPUT, metavar="FILE", help="Write everything as JSON; - prints it instead.")
@click.option(
    "--plot",
    type=OUTPUT,
    metavar="FILE.png",
    help="Plot SQNR and cosine over the depth of the network (.png, .svg, .pdf).",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only errors and results.")
@data_options
def command(
    float_model: str,
    quantized: str,
    isolated: bool,
    top: int,
    csv_file: str | None,
    json_file: str | None,
    plot: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Show where QUANT differs from FLOAT: SQNR and cosine of every activation on the same samples, worst first."""
    from onnxq.graph.model import load
    from onnxq.measure.compare import compare
    from onnxq.plots import check_plot, plot_comparison

    check_outputs(csv_file, json_file, plot)
    if plot is not None:
        check_plot(plot)
    reference = load(float_model)
    source = open_source(reference, samples_of(options), required="compare")
    with progress("comparing") as bar:
        result = compare(
            reference,
            quantized,
            source,
            batch_size=options["batch_size"],
            threads=options["threads"],
            isolated=isolated,
            progress=None if quiet else bar,
        )
    if plot is not None:
        plot_comparison(result, plot)
        say(f"wrote {plot}")
    report = (json_file, lambda: json_text(result.to_dict()))
    deliver(lambda: _show(result, top, isolated), report, (csv_file, result.to_csv))


def _show(result: Comparison, top: int, isolated: bool) -> None:
    """Print the worst activations. top: how many, 0 for all."""
    heads = ["layer", "op", "SQNR dB", "cosine", "max error", "bits", "weight bits", "weight SQNR dB"]
    if isolated:
        heads.insert(3, "alone dB")
    rows = []
    for r in result.rows[: top or None]:
        cells = [r.node or r.tensor, r.op, decibels(r.sqnr_db), f"{r.cosine:.6f}", f"{r.max_abs_error:.4g}"]
        cells += [str(r.bits or "float"), str(r.weight_bits or ""), decibels(r.weight_sqnr_db)]
        if isolated:
            cells.insert(3, decibels(r.isolated_sqnr_db))
        rows.append(cells)
    table("", [(h, "left" if h in ("layer", "op") else "right") for h in heads], rows)
    hidden = len(result.rows) - len(rows)
    told = f"{len(result.rows)} activations compared on {result.samples} samples, worst first"
    told += f"; {hidden} more rows with --top 0 or --csv" if hidden else ""
    told += f"; {len(result.skipped)} have no counterpart in {result.quantized_model}" if result.skipped else ""
    out("", f"{told}")


def decibels(value: float | None) -> str:
    """An SQNR for a table: "equal" without error, empty if not measured."""
    if value is None:
        return ""
    return "equal" if value == math.inf else f"{value:.2f}"
