"""`onnxq quantize`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from onnxq.cli.common import (
    data_options,
    open_source,
    output_path,
    progress,
    proof_options,
    proving_of,
    reporter,
    run_of,
    samples_of,
    weight_range_option,
)
from onnxq.cli.guard import OUTPUT, OUTPUT_MODEL, Command
from onnxq.cli.late_help import calibration_option
from onnxq.cli.terminal import out
from onnxq.cli.values import bits_or_none, names, save_after
from onnxq.errors import InterruptedRun


@click.command("quantize", cls=Command)
@click.argument("model")
@click.option(
    "-o", "--output", type=OUTPUT_MODEL, required=True, help="Model to write; its card is written next to it."
)
@click.option(
    "--profile", default="onnxruntime-cpu", show_default=True, help="Hardware profile: a name or a .toml file."
)
@calibration_option
@click.option("--weight-bits", type=int, help="2 to 8, for every layer.  [default: the profile's]")
@click.option("--activation-bits", type=int, help="2 to 8, for every layer.  [default: the profile's]")
@click.option(
    "--first-last-bits",
    default="8",
    show_default=True,
    help="Width of the first and last layers; none = like the others.",
)
@weight_range_option
@click.option("--config", help="Per-node overrides: a .toml or .json file.")
@click.option("--exclude", multiple=True, metavar="NODE|REGEX", help="Leave these nodes in float.")
@click.option("--op-types", help="Quantize only these operators, separated by commas.")
@click.option("--stats", help="Statistics from `onnxq calibrate`, instead of data.")
@click.option("--resume", help="Statistics file to continue from.  [default: OUTPUT.calibration, removed on success]")
@click.option("--requantize", is_flag=True, help="First strip the Q/DQ of a quantized model.")
@click.option(
    "--qdq", is_flag=True, help="Stop at the QDQ model, with profiles that continue to an integer-only model."
)
@click.option("--verify", is_flag=True, help="Check every value-preserving pass on inputs.")
@proof_options
@click.option("--save-after", type=OUTPUT, metavar="PASS=FILE", help="Also save the model after this pass.")
@click.option("--eval-data", help="Labelled or unlabelled samples for accuracy and agreement in the card.")
@click.option("--synthetic", is_flag=True, help="For the card: the samples are synthetic, not recorded.")
@click.option(
    "--training-samples",
    type=click.IntRange(1),
    metavar="N",
    help="For the card: samples in one epoch of the model's training, of which it then gives the share used.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only errors.")
@data_options
def command(model: str, output: str, quiet: bool, **options: Any) -> None:
    """Quantize MODEL for a hardware profile: calibrate, insert Q/DQ, validate, and write the model with its card.

    Profile onnxq continues to an integer-only model, as with `onnxq lower`.
    """
    from onnxq import api
    from onnxq.card import card_path
    from onnxq.data.options import DataOptions
    from onnxq.graph.model import load
    from onnxq.placement.settings import QuantSettings

    proving = proving_of(options)
    target = output_path(output)
    output_path(str(card_path(target)))
    source = load(model)
    evaluation = None
    if options["eval_data"]:  # opened first: a wrong path must not waste a calibration
        evaluation = open_source(source, DataOptions(options["eval_data"], options["preprocess"]))
    with progress("calibrating") as bar, interim(target, options) as resume:
        settings = QuantSettings(
            options["weight_bits"],
            options["activation_bits"],
            bits_or_none(options["first_last_bits"]),
            options["calibration"],
            options["weight_range"],
            exclude=options["exclude"],
            op_types=names(options["op_types"]),
        )
        result = api.quantize(
            source,
            samples_of(options),
            profile=options["profile"],
            settings=settings,
            overrides=options["config"],
            statistics=options["stats"],
            run=run_of(options, resume),
            reporter=reporter(bar, quiet),
            requantize=options["requantize"],
            qdq=options["qdq"],
            verify=options["verify"],
            save_after=save_after(options["save_after"]),
            proving=proving,
        )
    if evaluation is not None:
        with progress("evaluating") as bar:
            result.evaluate(model, evaluation, threads=options["threads"], progress=None if quiet else bar)
    result.save(target)
    if not quiet:
        out(*result.card.summary().split("\n"))
        out(f"wrote {target} and its card")


@contextlib.contextmanager
def interim(target: Path, options: Mapping[str, Any]) -> Iterator[Path | str | None]:
    """The statistics file to continue from: the user's, or one next to the output that remains only after Ctrl-C."""
    if options["resume"] or options["stats"]:
        yield options["resume"]
        return
    file = target.with_name(target.name + ".calibration")
    interrupted_before = file.exists()
    try:
        yield file
    except Exception as err:
        if not (interrupted_before or isinstance(err, InterruptedRun)):
            file.unlink(missing_ok=True)
        raise
    file.unlink(missing_ok=True)
