"""`onnxq verify`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from onnxq.cli.common import data_options, open_source, progress, samples_of
from onnxq.cli.guard import OUTPUT, Command
from onnxq.cli.output import check_outputs, deliver, first_of, json_text, print_table
from onnxq.cli.terminal import out

if TYPE_CHECKING:
    from onnxq.measure.verification import Verification


@click.command("verify", cls=Command)
@click.argument("qdq", metavar="QDQ")
@click.argument("integer", metavar="INT")
@click.option("--bodies", is_flag=True, help="Run INT on its function bodies even if the kernels are installed.")
@click.option("--top", type=click.IntRange(0), default=20, show_default=True, help="Rows to print; 0 prints all.")
@click.option(
    "--csv",
    "csv_file",
    type=OUTPUT,
    metavar="FILE",
    help="Write all layers as CSV, worst first; - prints them instead.",
)
@click.option("--json", "json_file", type=OUTPUT, metavar="FILE", help="Write everything as JSON; - prints it instead.")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors and results.")
@data_options
def command(
    qdq: str,
    integer: str,
    bodies: bool,
    top: int,
    csv_file: str | None,
    json_file: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Check that the integer model INT computes what the model QDQ specifies, layer by layer on QDQ's own codes.

    Exit code 1 if a layer differs by more than 1 LSB, or in more than 0.1 % of its elements.
    """
    from onnxq.graph.model import load
    from onnxq.measure.layerwise import verify

    check_outputs(csv_file, json_file)
    reference = load(qdq)
    source = open_source(reference, samples_of(options), required="verify")
    with progress("verifying") as bar:
        result = verify(
            reference,
            integer,
            source,
            batch_size=options["batch_size"],
            threads=options["threads"],
            bodies=bodies,
            progress=None if quiet else bar,
        )
    report = (json_file, lambda: json_text(result.to_dict()))
    deliver(lambda: _show(result, top), report, (csv_file, result.to_csv))
    if not result.ok:
        sys.exit(1)


def _show(result: Verification, top: int) -> None:
    """Print the worst layers, the outputs and the verdict."""
    heads = ("layer", "op", "max LSB", "differ", "of", "share", "drift LSB", "drift share", "")
    rows = [
        [
            layer.layer or layer.tensor,
            layer.op,
            f"{layer.max_lsb:.3g}",
            str(layer.differ),
            str(layer.elements),
            _percent(layer.share),
            f"{layer.drift_lsb:.3g}",
            _percent(layer.drift_share),
            "" if layer.within else "beyond",
        ]
        for layer in result.layers[: top or None]
    ]
    print_table(heads, rows, left=2)
    out()
    hidden = len(result.layers) - len(rows)
    if hidden:
        out(f"{hidden} more layers with --top 0, --csv or --json")
    for name, output in result.outputs.items():
        text = "equal" if output.sqnr_db is None else f"SQNR {output.sqnr_db:.2f} dB"
        text += f", largest error {output.max_abs_error:.4g}"
        if output.agreement is not None:
            text += f", the same top class in {_percent(output.agreement)} of the samples"
        out(f"output {name}: {text}")
    if result.missing:
        missing = first_of(result.missing)
        out(f"{len(result.missing)} quantized tensors are not in {result.integer_model}: {missing}")
    ran = f"kernels {result.kernels}" if result.kernels else "function bodies"
    verdict = "all within" if result.ok else f"{len(result.beyond)} beyond"
    out(f"{len(result.layers)} layers on {result.samples} samples ({ran}): {verdict} 1 LSB in 0.1 % of the elements")


def _percent(share: float) -> str:
    """A share as a percentage, with three significant digits."""
    return f"{100 * share:.3g} %"
