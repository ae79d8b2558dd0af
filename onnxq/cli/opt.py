"""`onnxq opt`."""

from __future__ import annotations

from typing import Any

import click

from onnxq.cli.common import data_options, open_source, output_path, progress, say
from onnxq.cli.values import save_after

RANDOM_SAMPLES = 4


@click.command("opt")
@click.argument("model")
@click.option("-o", "--output", required=True, help="Where the model goes.")
@click.option("-p", "--passes", "text", required=True, help="For example 'fold-constants,insert-qdq{profile=fbgemm}'.")
@click.option("--stats", help="Statistics of `onnxq calibrate`, for insert-qdq.")
@click.option("--verify", is_flag=True, help="Prove every value-preserving pass on the data, or on random inputs.")
@click.option("--save-after", metavar="PASS=FILE", help="Save the model after this pass as well.")
@data_options
def command(model: str, output: str, text: str, **options: Any) -> None:
    """Run graph passes over MODEL and report what each did, what it could not do, and why.

    A pipeline with insert-qdq calibrates by itself where it has no calibrate pass; without --data or --stats
    it does so on random data, and says so.
    """
    from onnxq import pipeline
    from onnxq.calibrate.store import load_statistics
    from onnxq.context import PassContext
    from onnxq.execution import save
    from onnxq.graph.model import load

    target = output_path(output)
    passes = pipeline.parse(text)
    loaded = load(model)
    for note in loaded.notes:
        say(note)
    statistics = load_statistics(options["stats"], loaded.sha256) if options["stats"] else None
    inserts = [i for i, p in enumerate(passes) if p.name == "insert-qdq"]
    if inserts and not any(p.name == "calibrate" for p in passes):
        profile = getattr(passes[inserts[0]], "profile", "")
        calibrate = pipeline.make(pipeline.available()["calibrate"], {"profile": profile})
        passes = (*passes[: inserts[0]], calibrate, *passes[inserts[0] :])
    if inserts and statistics is None and not options["data"] and not options["random_data"]:
        say("warning: no --data and no --stats: calibrating on RANDOM data; the ranges mean nothing for real inputs")
        options["random_data"] = RANDOM_SAMPLES
    with progress("calibrating") as bar:
        ctx = PassContext(
            loaded,
            data=open_source(loaded, options),
            statistics=statistics,
            say=say,
            options={"batch_size": options["batch_size"], "threads": options["threads"], "progress": bar},
        )
        pipeline.run(
            loaded,
            passes,
            ctx,
            verify=options["verify"],
            save_after=save_after(options["save_after"]),
            on_report=lambda report: click.echo(pipeline.describe(report)),
        )
    save.save(loaded, target)
    say(f"wrote {target}")
