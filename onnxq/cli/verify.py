"""`onnxq verify`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from onnxq.cli.common import data_options, open_source, output_path, progress, say, table

if TYPE_CHECKING:
    from onnxq.measure.verification import Verification


@click.command("verify")
@click.argument("qdq", metavar="QDQ")
@click.argument("integer", metavar="INT")
@click.option("--bodies", is_flag=True, help="Run INT on its function bodies even when there are kernels.")
@click.option("--top", type=click.IntRange(0), default=20, show_default=True, help="Rows to print; 0 prints all.")
@click.option("--csv", "csv_file", metavar="FILE", help="Write all layers as CSV, worst first; - prints them instead.")
@click.option("--json", "json_file", metavar="FILE", help="Write everything as JSON; - prints it instead.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors and results.")
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
    """Does the integer model INT compute what the QDQ model says? Layer by layer, fed the QDQ model's own codes.

    Exit code 1 when a layer differs by more than 1 LSB, or in more than 0.1 % of its elements.
    """
    from onnxq.graph.files import write_text
    from onnxq.graph.model import load
    from onnxq.measure.layerwise import verify

    for path in (csv_file, json_file):
        if path not in (None, "-"):
            output_path(str(path))
    reference = load(qdq)
    source = open_source(reference, options, required="verify")
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
    if json_file == "-":
        click.echo(as_json(result), nl=False)
    elif csv_file == "-":
        click.echo(result.to_csv(), nl=False)
    else:
        show(result, top)
    for path, text in ((csv_file, result.to_csv), (json_file, lambda: as_json(result))):
        if path not in (None, "-"):
            write_text(str(path), text())
            say(f"wrote {path}")
    if not result.ok:
        sys.exit(1)


def as_json(result: Verification) -> str:
    """Everything, as JSON."""
    return json.dumps(result.to_dict(), indent=2, ensure_ascii=False) + "\n"


def show(result: Verification, top: int) -> None:
    """Print the worst layers, the outputs and the verdict."""
    left = ("layer", "op")
    heads = (*left, "max LSB", "differ", "of", "share", "drift LSB", "drift share", "")
    rows = [
        [
            layer.layer or layer.tensor,
            layer.op,
            f"{layer.max_lsb:.3g}",
            str(layer.differ),
            str(layer.elements),
            percent(layer.share),
            f"{layer.drift_lsb:.3g}",
            percent(layer.drift_share),
            "" if layer.within else "beyond",
        ]
        for layer in result.layers[: top or None]
    ]
    table("", [(h, "left" if h in left else "right") for h in heads], rows)
    click.echo()
    hidden = len(result.layers) - len(rows)
    if hidden:
        click.echo(f"{hidden} more layers with --top 0, --csv or --json")
    for name, output in result.outputs.items():
        told = "equal" if output.sqnr_db is None else f"SQNR {output.sqnr_db:.2f} dB"
        told += f", largest error {output.max_abs_error:.4g}"
        if output.agreement is not None:
            told += f", the same top class in {percent(output.agreement)} of the samples"
        click.echo(f"output {name}: {told}")
    if result.missing:
        some = ", ".join(result.missing[:3]) + (" …" if len(result.missing) > 3 else "")
        click.echo(f"{len(result.missing)} quantized tensors are not in {result.integer_model}: {some}")
    ran = f"kernels {result.kernels}" if result.kernels else "function bodies"
    verdict = "all within" if result.ok else f"{len(result.beyond)} beyond"
    click.echo(
        f"{len(result.layers)} layers on {result.samples} samples ({ran}): {verdict} 1 LSB in 0.1 % of the elements"
    )


def percent(share: float) -> str:
    """A share as a percentage that shows small ones."""
    return f"{100 * share:.3g} %"
