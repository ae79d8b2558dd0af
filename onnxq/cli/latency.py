"""`onnxq latency`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxq.cli.common import custom_ops_option, output_path, progress, table
from onnxq.cli.guard import OUTPUT, Command
from onnxq.cli.terminal import out, say
from onnxq.cli.values import Amount, parse_shapes, parse_widths

if TYPE_CHECKING:
    from onnxq.cost.latency_table import Latencies


@click.command("latency", cls=Command)
@click.argument("model")
@click.option(
    "-o", "--output", type=OUTPUT, required=True, help="Latency file to write (JSON), for `onnxq search --latency`."
)
@click.option("--bits", default="4,8", show_default=True, help="Weight widths to measure.")
@click.option("--activation-bits", default="8", show_default=True, help="Activation widths to measure, beside 8.")
@click.option("--profile", default="onnxq", show_default=True, help="Profile; must lower to com.onnxq operators.")
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads; 0 = onnxruntime's default.")
@click.option("--input-shape", "shapes", multiple=True, metavar="NAME:1x3x224x224", help="Shape of an input.")
@click.option(
    "--seconds",
    type=Amount(),
    default=0.3,
    show_default=True,
    help="Time per layer and width.",
)
@click.option("--cache", metavar="FOLDER", help="Folder of cached measurements.  [default: ~/.cache/onnxq/latency]")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors.")
@custom_ops_option
def command(
    model: str, output: str, quiet: bool, bits: str, activation_bits: str, shapes: tuple[str, ...], **options: object
) -> None:
    """Measure every layer of the float MODEL at each width of weights and activations, with our kernels, here.

    A quantized MODEL is measured at the widths that it has. `onnxq bench --per-layer` measures any model as it is.
    Cached measurements (same operator, shapes, instruction set, threads and kernels) are reused.
    """
    from onnxq.search.latency import measure_latency

    target = output_path(output)
    with progress("measuring") as bar:
        found = measure_latency(
            model,
            parse_widths(bits, "--bits"),
            activation_bits=parse_widths(activation_bits, "--activation-bits"),
            shapes=parse_shapes(shapes),
            progress=None if quiet else bar,
            **options,  # type: ignore[arg-type]
        )
    found.save(target)
    if quiet:
        return
    _show(found)
    out(f"{found.machine['cpu']}; kernels: {found.machine['isa']}; {found.machine['threads'] or 'default'} threads")
    say(f"wrote {target}")


def _show(found: Latencies) -> None:
    """Print the layers, and the whole model."""
    heads = [("layer", "left"), ("operator", "left")]
    if found.fixed:
        heads += [("widths", "left"), ("µs", "right")]
        rows = [(e, [f"W{w}A{a}" for w, a in e.seconds], list(e.seconds)) for e in found.layers]
        whole = f"{1e3 * next(iter(found.whole.values())):.3f} ms"
    else:
        heads += [(f"W{w}A{a}, µs", "right") for w, a in found.whole]
        rows = [(e, [], list(found.whole)) for e in found.layers]
        whole = ", ".join(f"{1e3 * seconds:.3f} ms at W{w}A{a}" for (w, a), seconds in found.whole.items())
    lines = [
        [e.node, e.operator or "float", *widths, *(f"{1e6 * e.seconds[p]:.1f} ± {1e6 * e.error[p]:.1f}" for p in pairs)]
        for e, widths, pairs in rows
    ]
    table("", heads, lines)
    out("", f"whole model: {whole}; outside the layers {1e3 * found.overhead:.3f} ms")
