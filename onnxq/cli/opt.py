"""`onnxq opt`."""

from __future__ import annotations

from typing import Any

import click

from onnxq.cli.common import data_options, open_source, output_path, progress, run_of, samples_of
from onnxq.cli.guard import OUTPUT, OUTPUT_MODEL, Command
from onnxq.cli.terminal import out, say
from onnxq.cli.values import save_after

RANDOM_SAMPLES = 4


@click.command("opt", cls=Command)
@click.argument("model")
@click.option("-o", "--output", type=OUTPUT_MODEL, required=True, help="Model to write.")
@click.option(
    "-p", "--passes", "text", required=True, help="Passes to run, e.g. 'fold-constants,insert-qdq{profile=fbgemm}'."
)
@click.option("--stats", help="Statistics from `onnxq calibrate`, for insert-qdq.")
@click.option("--verify", is_flag=True, help="Check every value-preserving pass on the data, or on random inputs.")
@click.option("--save-after", type=OUTPUT, metavar="PASS=FILE", help="Also save the model after this pass.")
@data_options
def command(model: str, output: str, text: str, **options: Any) -> None:
    """Run graph passes on MODEL and report what each one did, what it could not do, and why.

    A pipeline with insert-qdq but no calibrate pass calibrates automatically; without --data or --stats it uses random
    data and prints a warning.
    """
    from onnxq import pipeline
    from onnxq.calibrate.store import load_statistics
    from onnxq.context import PassContext
    from onnxq.execution import save
    from onnxq.graph.model import load
    from onnxq.passes.calibrate import Calibrate
    from onnxq.passes.insert_qdq import InsertQdq
    from onnxq.reporting import Reporter

    target = output_path(output)
    passes = pipeline.parse(text)
    loaded = load(model)
    for note in loaded.notes:
        say(note)
    statistics = load_statistics(options["stats"], loaded.sha256) if options["stats"] else None
    insert = next((p for p in passes if isinstance(p, InsertQdq)), None)
    if insert is not None and not any(isinstance(p, Calibrate) for p in passes):
        at = passes.index(insert)
        passes = (*passes[:at], Calibrate(insert.profile), *passes[at:])
    if insert is not None and statistics is None and not options["data"] and not options["random_data"]:
        say("warning: no --data and no --stats: calibrating on RANDOM data; the ranges are meaningless for real inputs")
        options["random_data"] = RANDOM_SAMPLES
    with progress("calibrating") as bar:
        ctx = PassContext(
            loaded,
            data=open_source(loaded, samples_of(options)),
            statistics=statistics,
            run=run_of(options),
            reporter=Reporter(say, lambda report: out(*pipeline.describe(report).split("\n")), bar),
        )
        pipeline.run(loaded, passes, ctx, verify=options["verify"], save_after=save_after(options["save_after"]))
    save.save(loaded, target)
    say(f"wrote {target}")
