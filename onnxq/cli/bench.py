"""`onnxq bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnxq.cli.common import custom_ops_option, progress
from onnxq.cli.guard import OUTPUT, Command
from onnxq.cli.output import check_outputs, deliver, json_text, print_table
from onnxq.cli.terminal import out, say
from onnxq.cli.values import Amount, parse_shapes

if TYPE_CHECKING:
    from onnxq.execution.benchmark import Benchmark
    from onnxq.execution.layer_times import LayerTime, LayerTimes


@click.command("bench", cls=Command)
@click.argument("model")
@click.option(
    "--against", multiple=True, metavar="MODEL", help="Also time this model; openvino:FILE runs it in OpenVINO."
)
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads; 0 = each runtime's default.")
@click.option("--batch", "--batch-size", "batch_size", type=click.IntRange(1), help="Samples per run.")
@click.option("--input-shape", "shapes", multiple=True, metavar="NAME:1x3x224x224", help="Shape of an input.")
@click.option(
    "--data",
    metavar="PATH|module:callable",
    help="Samples to run on, or module:callable, whose code is run.  [default: random]",
)
@click.option("--preprocess", metavar="PRESET|FILE.toml", help="How to convert images to the model's input.")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Seed of the random inputs."
)
@click.option("--seconds", type=Amount(), default=2.0, show_default=True, help="Time per model.")
@click.option("--repeats", type=click.IntRange(1), help="Number of timed runs per model, instead of --seconds.")
@click.option("--per-layer", is_flag=True, help="Also show the time of MODEL per node.")
@click.option(
    "--json", "json_file", type=OUTPUT, metavar="FILE", help="Write the figures as JSON; - prints them instead."
)
@click.option("-q", "--quiet", is_flag=True, help="Print only errors and results.")
@custom_ops_option
def command(model: str, against: tuple[str, ...], json_file: str | None, quiet: bool, **options: Any) -> None:
    """Measure the latency of MODEL, side by side with other models on the same inputs.

    The models run alternately in one process. Ratios are relative to MODEL: 2.00× is twice its time.
    """
    from onnxq.execution.benchmark import bench

    check_outputs(json_file)
    shapes = parse_shapes(options.pop("shapes"))
    with progress("timing") as bar:
        result = bench(model, against, shapes=shapes, progress=None if quiet else bar, **options)
    for note in result.notes:
        say(note)
    deliver(lambda: _show(result), (json_file, lambda: json_text(result.to_dict())))


def _show(result: Benchmark) -> None:
    """Print the latencies, and the layers if measured."""
    heads = ("model", "runtime", "median ms", "p10", "p90", "ratio", "runs")
    rows = [
        [
            t.model,
            f"{t.runtime} {t.version}",
            *map(_milliseconds, (t.median_ms, t.p10_ms, t.p90_ms)),
            f"{t.ratio:.2f}×",
            str(t.runs),
        ]
        for t in result.timings
    ]
    print_table(heads, rows, left=2)
    threads = f"{result.threads} thread(s)" if result.threads else "each runtime's default number of threads"
    inputs = ", ".join(f"{name} {what}" for name, what in result.inputs.items())
    kernels = f"; kernels: {result.isa}" if result.isa else ""
    out("", f"{inputs}; {threads}; {result.cpu}{kernels}")
    if result.layers is not None:
        out()
        _show_layers(result.layers)


def _show_layers(times: LayerTimes) -> None:
    """Print every node in execution order, the operators, and the nodes that lose the most time."""
    heads = ("node", "op", "ms", "share", "MMAC", "GOP/s", "of ceiling", "KB moved", "GB/s", "plan")
    rows = []
    for layer in times.layers:
        work = ["?" if layer.macs is None else "", "", ""]
        if layer.macs:
            of_ceiling = layer.gops / times.ceiling_gops if times.ceiling_gops else 0.0
            work = [f"{1e-6 * layer.macs:.2f}", f"{layer.gops:.0f}", f"{100 * of_ceiling:.0f} %"]
        traffic = [f"{1e-3 * layer.bytes_moved:.0f}", f"{layer.gbytes:.1f}"]
        share = f"{100 * layer.share:.1f} %"
        rows.append([layer.node, layer.op, _milliseconds(layer.ms), share, *work, *traffic, layer.plan])
    print_table(heads, rows, left=2)
    out()
    ops = [
        [op, str(count), _milliseconds(ms), f"{100 * share:.1f} %"] for op, (count, ms, share) in times.by_op().items()
    ]
    print_table(("op", "nodes", "ms", "share"), ops)
    nodes = sum(layer.ms for layer in times.layers)
    out(
        "",
        f"nodes {_milliseconds(nodes)} ms, whole run {_milliseconds(times.run_ms)} ms, both under the profiler, "
        f"{times.runs} runs",
        f"ceiling {times.ceiling_gops:.0f} GOP/s ({times.ceiling}); largest losses against it:",
    )
    for layer in times.worst():
        out(f"  {_lost(layer)}")


def _lost(layer: LayerTime) -> str:
    """One line about a layer's lost time."""
    work = f"{layer.gops:.0f} GOP/s" if layer.macs else "no products"
    return (
        f"{layer.node} ({layer.op}): {_milliseconds(layer.lost_ms)} of its {_milliseconds(layer.ms)} ms, "
        f"{work}, {layer.gbytes:.1f} GB/s"
    )


def _milliseconds(value: float) -> str:
    """Milliseconds with a resolution of one microsecond."""
    return f"{value:.3f}"
