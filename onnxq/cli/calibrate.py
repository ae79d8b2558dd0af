"""`onnxq calibrate`."""

from __future__ import annotations

from typing import Any

import click

from onnxq.cli.common import data_options, open_source, output_path, progress, run_of, samples_of
from onnxq.cli.guard import OUTPUT, Command
from onnxq.cli.terminal import out


@click.command("calibrate", cls=Command)
@click.argument("model", required=False)
@click.option(
    "-o", "--output", type=OUTPUT, required=True, help="Statistics file; an interrupted run continues from it."
)
@click.option("--profile", help="Observe the tensors that this profile quantizes.  [default: every float activation]")
@click.option("--merge", "shards", multiple=True, metavar="STATS", help="Merge statistics files instead of collecting.")
@click.option("--start", type=click.IntRange(0), default=0, help="Skip this many samples (to process a shard).")
@click.option("--config", help="Per-node overrides (.toml or .json), as for quantize.")
@data_options
@click.argument("more_shards", nargs=-1)
def command(
    model: str | None, output: str, shards: tuple[str, ...], more_shards: tuple[str, ...], **options: Any
) -> None:
    """Collect activation statistics of MODEL for `quantize --stats`, or merge the statistics of several shards.

    \b
    onnxq calibrate m.onnx -o stats --data images/ --profile tensorrt
    onnxq calibrate --merge a --merge b -o stats      (or: --merge a b c)
    The same file serves every calibration method and number format.
    """
    from onnxq.calibrate.store import merge_files, save_statistics
    from onnxq.errors import ConfigError

    target = output_path(output)
    if shards:
        files = [*shards, *filter(None, (model, *more_shards))]
        merged = merge_files(files)
        save_statistics(merged, target)
        out(f"merged {len(files)} files: {len(merged)} tensors, {merged.provenance.get('samples', 0)} samples")
        return
    if model is None or more_shards:
        raise ConfigError("give one model (or --merge FILE FILE …)")
    from onnxq import pipeline, recipes
    from onnxq.calibrate.runner import collect, observable
    from onnxq.context import PassContext
    from onnxq.data.source import skip
    from onnxq.graph.element_types import fill_types
    from onnxq.graph.model import load
    from onnxq.placement.planner import plan
    from onnxq.placement.settings import QuantSettings, load_config
    from onnxq.profiles.schema import load_profile

    loaded = load(model)
    if options["limit"]:
        options["limit"] += options["start"]  # a source's limit counts from its first sample
    source = open_source(loaded, samples_of(options), "calibration")
    assert source is not None
    if options["start"]:
        source = skip(source, options["start"])
    opset = 13
    profile = load_profile(options["profile"]) if options["profile"] else None
    settings = QuantSettings(overrides=load_config(options["config"]) if options["config"] else {})
    fold = profile.graph.fold_batchnorm if profile else True
    pipeline.run(loaded, recipes.prepare_pipeline(opset, fold), PassContext(loaded))
    fill_types(loaded.graph)
    tensors = plan(loaded.graph, profile, settings).observed() if profile else observable(loaded)
    with progress("calibrating") as bar:
        stats = collect(loaded, tensors, source, run_of(options, resume=target), bar)
    out(f"{len(stats)} tensors on {stats.provenance['samples']} samples, saved in {target}")
