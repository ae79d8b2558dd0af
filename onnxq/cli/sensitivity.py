"""`onnxq sensitivity`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnxq.cli.common import (
    data_options,
    open_source,
    output_path,
    progress,
    reporter,
    run_of,
    samples_of,
    table,
    weight_range_option,
)
from onnxq.cli.guard import OUTPUT, Command
from onnxq.cli.late_help import calibration_option
from onnxq.cli.terminal import out
from onnxq.cli.values import Amount

if TYPE_CHECKING:
    from onnxq.search.sensitivity import Sensitivity

METHODS = ("hessian", "one-at-a-time", "weight-error", "output-error")
HEADINGS = {"weights": "weights", "layer": "layer with its inputs", "activations": "activations"}


@click.command("sensitivity", cls=Command)
@click.argument("model")
@click.option(
    "-o", "--output", "target", type=OUTPUT, required=True, help="Sensitivity file to write (JSON), for `onnxq search`."
)
@click.option(
    "--method", type=click.Choice(METHODS), help="How to measure.  [default: hessian; for --kind layer one-at-a-time]"
)
@click.option(
    "--kind",
    type=click.Choice(["weights", "layer"]),
    default="weights",
    show_default=True,
    help="Quantize a layer's weights alone, or the layer: weights and inputs, one layer at a time.",
)
@click.option(
    "--profile", default="onnxruntime-cpu", show_default=True, help="Hardware profile: a name or a .toml file."
)
@click.option("--bits", metavar="8,6,4", help="Weight widths.  [default: all of the profile's]")
@click.option("--activation-bits", metavar="8,6,4", help="Activation widths, measured one at a time.  [default: none]")
@click.option(
    "--loss",
    type=click.Choice(["auto", "cross-entropy", "mse"]),
    default="auto",
    show_default=True,
    help="Loss function.",
)
@click.option(
    "--output-tensor", metavar="TENSOR", help="Tensor on which the loss is computed.  [default: the model's outputs]"
)
@click.option("--metric", type=click.Choice(["loss", "accuracy", "output-error"]), default="loss", show_default=True,
              help="Metric of one-at-a-time.")  # fmt: skip
@click.option("--labels", is_flag=True, help="Compute the loss on labels instead of the float model's own outputs.")
@click.option(
    "--tolerance", type=Amount(), default=0.05, show_default=True, help="Relative standard error to reach (hessian)."
)
@click.option("--probes", default=64, show_default=True, help="Most probes per layer and batch (hessian).")
@click.option(
    "--epsilon",
    type=Amount(),
    default=1e-2,
    show_default=True,
    help="Step of the differences, as a fraction of the weights' rms.",
)
@click.option(
    "--budget", default="120", show_default=True, metavar="SECONDS|none", help="Time limit for probes (hessian)."
)
@click.option(
    "--second-differences",
    is_flag=True,
    help="Second differences of the loss instead of Gauss–Newton: inaccurate at ReLU kinks.",
)
@weight_range_option
@calibration_option
@click.option("--exclude", multiple=True, metavar="NODE|REGEX", help="Leave these nodes in float.")
@click.option("--resume", metavar="FILE", help="State file to continue from; it is kept up to date.")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors.")
@data_options
def command(model: str, target: str, method: str | None, quiet: bool, **options: Any) -> None:
    """Measure how much quantizing each layer of MODEL costs at each width, for `onnxq search --method ilp`.

    Uses the first 64 samples by default (see --limit). --seed applies to the probes and to random data.
    """
    from onnxq.graph.model import load
    from onnxq.search.hessian import HutchinsonOptions
    from onnxq.search.measure import SAMPLES, measure_sensitivity
    from onnxq.search.options import SensitivityOptions

    path = output_path(target)
    if options["resume"]:
        output_path(options["resume"])
    probing = HutchinsonOptions(
        tolerance=options["tolerance"],
        rounds=options["probes"],
        epsilon=options["epsilon"],
        seed=options["seed"],
        budget=_seconds(options["budget"]),
        curvature="second-differences" if options["second_differences"] else "gauss-newton",
        targets="labels" if options["labels"] else "outputs",
    )
    loaded = load(model)
    options["limit"] = options["limit"] or SAMPLES
    source = None
    measurement = SensitivityOptions(
        method,  # type: ignore[arg-type]
        _widths(options["bits"], "--bits"),
        _widths(options["activation_bits"], "--activation-bits"),
        options["loss"],
        options["output_tensor"],
        options["metric"],
        options["labels"],
        options["weight_range"],
        options["calibration"],
        options["exclude"],
        traces=probing,
        kind=options["kind"],
    )
    if method != "weight-error":
        source = open_source(loaded, samples_of(options), required=f"method {measurement.chosen}")
    with progress("measuring") as bar:
        found = measure_sensitivity(
            loaded,
            source,
            profile=options["profile"],
            measurement=measurement,
            run=run_of(options, options["resume"]),
            reporter=reporter(bar, quiet),
        )
    found.save(path)
    if not quiet:
        show(found)
        out(f"took {found.seconds or 0.0:.1f} s")
        out(f"wrote {path}")


def show(found: Sensitivity) -> None:
    """Print the layers, most sensitive first: by the value at the narrowest width that all have."""
    for kind, heading in HEADINGS.items():
        entries = found.of(kind)  # type: ignore[arg-type]
        if not entries:
            continue
        widths = sorted({b for e in entries for b in e.bits}, reverse=True)
        columns = [(heading, "left"), *((f"{b} bits", "right") for b in widths)]
        with_error = any(e.standard_error for e in entries)
        columns += [("± %", "right")] * with_error
        rows = []
        for e in sorted(entries, key=lambda e: -e.bits[min(e.bits)]):
            row = [e.node, *(f"{e.bits[b]:.3g}" if b in e.bits else "" for b in widths)]
            if with_error:
                narrow = min(e.bits)
                value = e.bits[narrow]
                row.append(f"{100 * e.standard_error.get(narrow, 0.0) / value:.1f}" if value else "")
            rows.append(row)
        table(f"{found.method}: most sensitive first", columns, rows)


def _widths(text: str | None, option: str) -> list[int]:
    """Parse '8,6,4'; an empty or missing text is an empty list. Raises ConfigError."""
    from onnxq.errors import ConfigError

    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    if any(not part.isdecimal() or len(part) > 3 for part in parts) or (text is not None and not parts):
        raise ConfigError(f"{option} {text!r}: expected widths separated by commas, such as 8,6,4")
    return [int(part) for part in parts]


def _seconds(text: str) -> float | None:
    """Parse 'none' or a number of seconds. Raises ConfigError."""
    from onnxq.errors import ConfigError

    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--budget {text!r}: expected a number of seconds or 'none'") from None
