"""`onnxq search`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnxq.cli.common import data_options, output_path, say, table
from onnxq.cli.values import bits_or_none, parse_shapes, parse_widths

if TYPE_CHECKING:
    from onnxq.search.result import SearchResult
    from onnxq.search.space import Space

SHOWN = 5  # of MixQuant's most sensitive layers
LIMITS = {
    "size": "of weights, scales, zero points and biases, packed",
    "bops": "bit operations, b_w · b_a · MACs",
    "latency": "seconds of a run, with --latency",
    "peak": "feature maps alive at once",
    "average": "mean feature map",
}


def limit_options(command: Any) -> Any:
    """--max-size and the others; each may be given more than once."""
    for cost, what in reversed(LIMITS.items()):
        example = "e.g. 60% of int8" if cost != "latency" else "e.g. 80% of int8, 5ms"
        option = click.option(f"--max-{cost}", multiple=True, metavar="LIMIT", help=f"Most {what}; {example}.")
        command = option(command)
    return command


@click.command("search")
@click.argument("model")
@click.option("--method", type=click.Choice(["mixquant", "ilp", "partial"]), required=True, help="How to choose.")
@click.option("-o", "--output", help="Where the widths go: a config for `onnxq quantize --config`.")
@click.option("--profile", default="onnxruntime-cpu", show_default=True, help="A name or a .toml file.")
@click.option("--bits", help="Weight widths to choose from.  [default: 4,8; mixquant 2,3,4,5,6,7,8; partial 8]")
@click.option(
    "--activation-bits", default="8", show_default=True, help="Widths of activations, or same (as the weights')."
)
@click.option(
    "--first-last-bits", default="none", show_default=True, help="Fix the first and last layers to this width."
)
@click.option("--fix", multiple=True, metavar="NODE=BITS", help="Fix a layer (name or regular expression) to a width.")
@click.option("--tie", multiple=True, metavar="NODE,NODE", help="Layers that must share a width.")
@click.option("--tie-blocks", is_flag=True, help="Tie layers that read one tensor or meet in a sum, as HAWQ-V3 does.")
@click.option("--exclude", multiple=True, metavar="NODE|REGEX", help="Leave these nodes in float.")
@click.option("--sensitivity", metavar="FILE", help="ilp, partial: the file of `onnxq sensitivity`.")
@click.option("--latency", metavar="FILE", help="ilp: the file of `onnxq latency`.")
@limit_options
@click.option(
    "--pareto", metavar="FILE.png", help="ilp: the front over the limit on --pareto-cost; points beside it as .csv."
)
@click.option(
    "--pareto-cost", type=click.Choice(list(LIMITS)), default="size", show_default=True, help="What it runs over."
)
@click.option("--points", type=click.IntRange(2), default=25, show_default=True, help="Of the front.")
@click.option(
    "--qem", help="mixquant: quantization error multiplier, or several.  [default: 2; the least, with limits]"
)
@click.option(
    "--quantizer", default="affine", show_default=True, help="mixquant: affine, symmetric, power-of-two, profile."
)
@click.option(
    "--reading",
    type=click.Choice(["lowest", "least-error"]),
    default="lowest",
    show_default=True,
    help="mixquant: of the widths within QEM · error(8).",
)
@click.option("--max-drop", metavar="1%", help="partial: accuracy that may be lost, in points.")
@click.option("--eval-data", help="partial: samples to evaluate on.  [default: those of --data]")
@click.option("--calibration", default="mse", show_default=True, help="partial: max, percentile:P, entropy, mse.")
@click.option("--plot", metavar="FILE.png", help="Every layer: sensitivity, latency gain, chosen bits.")
@click.option("--json", "json_file", metavar="FILE", help="Write the result as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@data_options
def command(model: str, method: str, output: str | None, quiet: bool, **options: Any) -> None:
    """Choose the bit-width of every layer of MODEL.

    mixquant looks at the weights alone: the lowest width whose error is within QEM times that at 8 bits. ilp minimises
    measured sensitivities under any limits. partial leaves the most sensitive layers in float until the accuracy is
    kept. The result is a config for `onnxq quantize --config`.
    """
    from onnxq.plots import check_plot

    target = output_path(output) if output else None
    for picture in (options["plot"], options["pareto"]):
        if picture:
            check_plot(picture)
            output_path(picture)
    if options["json_file"]:
        output_path(options["json_file"])
    tell = (lambda _message: None) if quiet else say
    _check(method, options)
    if method == "partial":
        results = [_partial(model, options, tell)]
    else:
        space = _space(model, method, options)
        run_method = _mixquant if method == "mixquant" else _ilp
        results = run_method(space, options, quiet)
    result = results[-1]
    for note in result.notes:
        tell(f"note: {note}")
    if not quiet:
        show(results)
    _write(result, target, options, tell)


def _write(result: SearchResult, target: Any, options: dict[str, Any], tell: Any) -> None:
    import json

    from onnxq.graph.files import write_text

    if options["plot"]:
        from onnxq.search.report import plot_layers

        plot_layers(result, options["plot"])
        tell(f"wrote {options['plot']}")
    if options["json_file"]:
        write_text(options["json_file"], json.dumps(result.to_dict(), indent=1, ensure_ascii=False) + "\n")
        tell(f"wrote {options['json_file']}")
    if target is not None:
        result.save(target)
        tell(f"wrote {target}")


def show(results: list[SearchResult]) -> None:
    """Print every layer of the result, what is predicted; of several, one line each and the last one's layers."""
    from onnxq.search.report import rows

    if len(results) > 1:
        lines = [
            [f"{r.parameters.get('qem', 0):g}", ", ".join(f"{n} at {b}" for b, n in r.counts().items()), r.summary()[0]]
            for r in results
        ]
        table("", [("QEM", "right"), ("layers", "left"), ("predicted", "left")], lines)
        return
    heads, lines = rows(results[0])
    table("", [(h, "left" if h in ("layer", "op", "weight") else "right") for h in heads], lines)
    click.echo()
    for text in results[0].summary():
        click.echo(text)
    how = "optimal, " if results[0].optimal else ""
    click.echo(f"chosen by {results[0].method}: {how}{results[0].seconds:.2f} s")


def _check(method: str, options: dict[str, Any]) -> None:
    """Options of another method are a mistake rather than ignored."""
    from onnxq.errors import ConfigError

    of = {
        "mixquant": ("qem",),
        "ilp": ("latency", "pareto"),
        "partial": ("max_drop", "eval_data", "data", "random_data"),
    }
    for owner, keys in of.items():
        for key in keys:
            if owner != method and options[key]:
                raise ConfigError(f"--{key.replace('_', '-')} is for --method {owner}, not {method}")
    if options["sensitivity"] and method == "mixquant":
        raise ConfigError("--sensitivity is for --method ilp and partial: MixQuant looks at the weights alone")
    if method == "partial" and any(options[f"max_{cost}"] for cost in LIMITS):
        raise ConfigError("--method partial has one limit, --max-drop")


def _space(model: str, method: str, options: dict[str, Any]) -> Space:
    from onnxq.search.api import WIDTHS
    from onnxq.search.space import make_space

    latency = None
    if options["latency"]:
        from onnxq.cost.latency_table import load_latencies

        latency = load_latencies(options["latency"])
    widths = options["activation_bits"]
    return make_space(
        model,
        profile=options["profile"],
        bits=parse_widths(options["bits"], "--bits") if options["bits"] else WIDTHS[method],
        activation_bits="same" if widths == "same" else parse_widths(widths, "--activation-bits"),
        first_last_bits=bits_or_none(options["first_last_bits"]),
        fixed=dict(parse_fixed(text) for text in options["fix"]),
        ties=[tuple(part.strip() for part in text.split(",")) for text in options["tie"]],
        tie_blocks=options["tie_blocks"],
        exclude=options["exclude"],
        latency=latency,
        shapes=parse_shapes(options["shapes"]),
    )


def _mixquant(space: Space, options: dict[str, Any], quiet: bool) -> list[SearchResult]:
    from onnxq.search import mixquant
    from onnxq.search.api import search_mixquant

    qems = parse_numbers(options["qem"], "--qem") if options["qem"] else [None]
    made = mixquant.error_table(space.prepared, options["quantizer"], space.weight_bits)
    limits = {cost: options[f"max_{cost}"] for cost in LIMITS}
    results = [search_mixquant(space, made, q, reading=options["reading"], limits=limits) for q in qems]
    if not quiet:
        lowest = min(space.weight_bits)
        ranking = made.most_sensitive(lowest)[:SHOWN]
        told = [[name, f"{relative:.4g}", f"{made.errors[name][lowest]:.3g}"] for name, relative in ranking]
        heads = [("most sensitive layers", "left"), (f"error at {lowest} / at 8 bits", "right"), ("error", "right")]
        table("", heads, told)
        click.echo()
    return results


def _ilp(space: Space, options: dict[str, Any], quiet: bool) -> list[SearchResult]:
    from onnxq.errors import ConfigError
    from onnxq.search.api import pareto, read_sensitivity, search_ilp

    if not options["sensitivity"]:
        raise ConfigError("--method ilp needs --sensitivity, the file of `onnxq sensitivity`")
    sensitivity = read_sensitivity(options["sensitivity"], space)
    limits = {cost: options[f"max_{cost}"] for cost in LIMITS}
    result = search_ilp(space, sensitivity, limits)
    if options["pareto"]:
        from onnxq.search.report import front_rows, save_front

        front = pareto(space, sensitivity, options["pareto_cost"], options["points"], limits)
        beside = save_front(front, options["pareto"])
        if not quiet:
            heads = [
                (options["pareto_cost"], "right"),
                ("of int8", "right"),
                ("sensitivity", "right"),
                ("layers", "left"),
            ]
            table("", heads, front_rows(front))
            click.echo()
            say(f"wrote {options['pareto']} and {beside}")
    return [result]


def _partial(model: str, options: dict[str, Any], tell: Any) -> SearchResult:
    from onnxq.errors import ConfigError
    from onnxq.search.partial import search_partial

    for key in ("data", "max_drop", "sensitivity"):
        if not options[key]:
            raise ConfigError(f"--method partial needs --{key.replace('_', '-')}")
    widths = parse_widths(options["bits"] or "8", "--bits")
    if len(widths) != 1:
        raise ConfigError("--method partial takes one width (--bits 8) and float")
    return search_partial(
        model,
        options["data"],
        options["sensitivity"],
        parse_drop(options["max_drop"]),
        eval_data=options["eval_data"],
        profile=options["profile"],
        bits=widths[0],
        calibration=options["calibration"],
        preprocess=options["preprocess"],
        batch_size=options["batch_size"],
        limit=options["limit"],
        threads=options["threads"],
        shapes=parse_shapes(options["shapes"]),
        say=tell,
    )


def parse_drop(text: str) -> float:
    """'1%' to 0.01; ConfigError otherwise."""
    from onnxq.errors import ConfigError

    try:
        return float(text.removesuffix("%")) / 100
    except ValueError:
        raise ConfigError(f"--max-drop {text!r}: points are needed, e.g. 1%") from None


def parse_numbers(text: str, option: str) -> list[float]:
    """'1.5,2' to numbers; ConfigError otherwise."""
    from onnxq.errors import ConfigError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"{option} {text!r}: numbers separated by commas are needed, e.g. 2,10,100") from None


def parse_fixed(text: str) -> tuple[str, int]:
    """'conv1=8' to its parts; ConfigError otherwise."""
    from onnxq.errors import ConfigError

    name, separator, bits = text.rpartition("=")
    if not (name and separator and bits.isdecimal()):
        raise ConfigError(f"--fix {text!r}: NODE=BITS is needed, e.g. conv1=8")
    return name, int(bits)
