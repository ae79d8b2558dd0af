"""`onnxq search`. Its methods, their options and valid combinations come from the plug-ins."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from onnxq.cli.common import data_options, output_path, proof_options, proving_of, run_of, samples_of, table
from onnxq.cli.guard import OUTPUT, Command
from onnxq.cli.late_help import LateHelp
from onnxq.cli.terminal import out, say
from onnxq.cli.values import bits_or_none, parse_shapes, parse_widths
from onnxq.search.limits import COSTS
from onnxq.search.method import INPUTS, SearchMethod, available, listed, options_of, users

if TYPE_CHECKING:
    from onnxq.search.inputs import SearchInputs
    from onnxq.search.result import SearchResult

LIMITS = tuple(f"max_{cost}" for cost in COSTS)
# Options for search inputs that not every method uses.
GIVE = {"limits": LIMITS, "latency": ("latency",), "sensitivity": ("sensitivity",), "data": ("data", "random_data")}


def limit_options(command: Any) -> Any:
    """--max-size and the others; each may be given more than once."""
    for cost, (_, _, option, counted, example) in reversed(COSTS.items()):
        command = click.option(
            option, f"max_{cost}", multiple=True, metavar="LIMIT", help=f"Limit on {counted}; e.g. {example}."
        )(command)
    return command


def method_options(command: Any) -> Any:
    """The options of every method."""
    fields = {name: f for cls in available().values() for name, f in options_of(cls).items()}
    for name, field in reversed(fields.items()):
        command = _method_option(name, field)(command)
    return command


def _method_option(name: str, field: dataclasses.Field[Any]) -> Any:
    about, text = field.metadata, field.metadata["help"]
    prefix = f"{', '.join(users(name))}: "
    kind: Any = click.Choice(about["choices"]) if about["choices"] else None
    if about["least"] is not None:
        kind = click.IntRange(about["least"])
    elif about["picture"] or about["file"]:
        kind = OUTPUT
    elif isinstance(field.default, int):
        kind = int
    settings: dict[str, Any] = {"type": kind, "metavar": about["metavar"]}
    if field.default is not None and about["parse"] is None:
        settings |= {"default": field.default, "show_default": True}
    if callable(text):
        settings |= {"cls": LateHelp, "late_help": lambda: prefix + text()}
    else:
        settings["help"] = prefix + text
    return click.option(f"--{name.replace('_', '-')}", name, **settings)


def default_widths() -> str:
    """The default widths of each method."""
    common = _numbers(SearchMethod.widths)
    others = [(n, _numbers(cls.widths)) for n, cls in available().items()]
    return "; ".join([common, *(f"{name} {widths}" for name, widths in others if widths != common)])


def _numbers(widths: Sequence[int]) -> str:
    return ",".join(map(str, sorted(widths)))


def _help() -> str:
    about = [f"{name}: {(cls.__doc__ or '').splitlines()[0]}" for name, cls in available().items()]
    end = "The result is a config for `onnxq quantize --config`."
    return "\n\n".join(["Choose the bit-width of every layer of MODEL.", *about, end])


def _of(name: str) -> str:
    return f"{', '.join(users(name))}: {INPUTS[name][1]}."


@click.command("search", cls=Command, help=_help())
@click.argument("model")
@click.option("--method", type=click.Choice(list(available())), required=True, help="Search method.")
@click.option(
    "-o",
    "--output",
    type=OUTPUT,
    help="Config to write, for `onnxq quantize --config`: TOML, or JSON if it ends in .json.",
)
@click.option(
    "--profile", default="onnxruntime-cpu", show_default=True, help="Hardware profile: a name or a .toml file."
)
@click.option("--bits", help=f"Weight widths to choose from.  [default: {default_widths()}]")
@click.option(
    "--activation-bits",
    default="8",
    show_default=True,
    help="Activation widths to choose from, or `same` as the weights'.",
)
@click.option("--first-last-bits", default="none", show_default=True, help="Fixed width of the first and last layers.")
@click.option("--fix", multiple=True, metavar="NODE=BITS", help="Fix a layer (name or regular expression) to a width.")
@click.option("--tie", multiple=True, metavar="NODE,NODE", help="Layers that must share a width.")
@click.option("--tie-blocks", is_flag=True, help="Tie layers that read one tensor or meet in a sum, as HAWQ-V3 does.")
@click.option("--exclude", multiple=True, metavar="NODE|REGEX", help="Leave these nodes in float.")
@click.option("--sensitivity", metavar="FILE", help=_of("sensitivity"))
@click.option("--latency", metavar="FILE", help=_of("latency"))
@limit_options
@method_options
@click.option(
    "--plot", type=OUTPUT, metavar="FILE.png", help="Plot sensitivity, latency gain and chosen bits of every layer."
)
@click.option("--json", "json_file", type=OUTPUT, metavar="FILE", help="Write the result as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors.")
@proof_options
@data_options
def command(model: str, method: str, output: str | None, quiet: bool, **options: Any) -> None:
    from onnxq.plots import check_plot
    from onnxq.search.product import proven_result

    cls = available()[method]
    target = output_path(output) if output else None
    pictures = [name for name, field in options_of(cls).items() if field.metadata["picture"]]
    for picture in ("plot", *pictures):
        if options[picture]:
            check_plot(options[picture])
            output_path(options[picture])
    files = [name for name, field in options_of(cls).items() if field.metadata["file"]]
    for file in ("json_file", *files):
        if options[file]:
            output_path(options[file])
    tell = (lambda _message: None) if quiet else say
    check(cls, options)
    searches = methods_of(cls, options)
    inputs = _inputs(model, cls, options, tell)
    results = [search.run(inputs) for search in searches]
    results[-1] = proven_result(results[-1], searches[-1], inputs)
    for extra in searches[-1].extras(inputs, results):
        if not quiet:
            table("", list(extra.columns), [list(row) for row in extra.rows])
            out()
    result = results[-1]
    for note in result.notes:
        tell(f"note: {note}")
    if not quiet:
        show(results, cls.sweeps)
        if result.proof is not None:
            out(result.proof.summary())
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


def show(results: list[SearchResult], swept: str) -> None:
    """Print every layer of the result and its predicted costs; of several, one line each. swept: the option varied."""
    from onnxq.search.report import rows

    if len(results) > 1:
        lines = [
            [f"{r.parameters[swept]:g}", ", ".join(f"{n} at {b}" for b, n in r.counts().items()), r.summary()[0]]
            for r in results
        ]
        table("", [(swept.upper(), "right"), ("layers", "left"), ("predicted", "left")], lines)
        return
    heads, lines = rows(results[0])
    table("", [(h, "left" if h in ("layer", "op", "weight") else "right") for h in heads], lines)
    out()
    for text in results[0].summary():
        out(text)
    how = "optimal, " if results[0].optimal else ""
    out(f"chosen by {results[0].method}: {how}{results[0].seconds:.2f} s")


def check(cls: type[SearchMethod], options: dict[str, Any]) -> None:
    """Raise ConfigError for an input or option of other methods, which would be ignored, or for a missing one."""
    from onnxq.errors import ConfigError

    given = {flag: name for name, flags in GIVE.items() for flag in flags}
    owned = {n: f for other in available().values() for n, f in options_of(other).items()}
    for flag in (*given, *owned):
        name = given.get(flag, flag)
        methods = users(name)
        if cls.name not in methods and options[flag] and (flag in given or options[flag] != owned[flag].default):
            raise ConfigError(f"{_flag(flag)} is for --method {listed(methods)}, not {cls.name}")
    for name in cls.needs:
        flags = [flag for flag in GIVE.get(name, (name,)) if flag != "random_data"]  # no method works with it alone
        if not any(options[flag] for flag in flags):
            what = f", {INPUTS[name][1]}" if name in INPUTS else ""
            raise ConfigError(f"--method {cls.name} needs {_flag(flags[0])}{what}")


def methods_of(cls: type[SearchMethod], options: dict[str, Any]) -> list[SearchMethod]:
    """The searches requested by the options: one, or one per value of an option that accepts several."""
    values = {name: options[name] for name in options_of(cls) if options[name] is not None}
    texts = values.pop(cls.sweeps, None)
    one = {name: _read(cls, name, value) for name, value in values.items()}
    if texts is None:
        return [cls(**one)]
    return [cls(**one, **{cls.sweeps: _read(cls, cls.sweeps, part, texts)}) for part in texts.split(",")]


def _read(cls: type[SearchMethod], name: str, value: Any, whole: str | None = None) -> Any:
    from onnxq.errors import ConfigError

    parse = options_of(cls)[name].metadata["parse"]
    try:
        return value if parse is None else parse(value)
    except ValueError as err:
        raise ConfigError(f"{_flag(name)} {whole or value!r}: {err}") from None


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _inputs(model: str, cls: type[SearchMethod], options: dict[str, Any], tell: Any) -> SearchInputs:
    from onnxq.search.inputs import SearchInputs

    widths = options["activation_bits"]
    return SearchInputs(
        model,
        parse_widths(options["bits"], "--bits") if options["bits"] else cls.widths,
        {cost: options[flag] for cost, flag in zip(COSTS, LIMITS, strict=True)},
        options["sensitivity"],
        {
            "profile": options["profile"],
            "activation_bits": "same" if widths == "same" else parse_widths(widths, "--activation-bits"),
            "first_last_bits": bits_or_none(options["first_last_bits"]),
            "fixed": dict(parse_fixed(text) for text in options["fix"]),
            "ties": [tuple(part.strip() for part in text.split(",")) for text in options["tie"]],
            "tie_blocks": options["tie_blocks"],
            "exclude": options["exclude"],
            "latency": options["latency"],
            "shapes": parse_shapes(options["shapes"]),
        },
        samples_of(options) if "data" in cls.needs or any(options[flag] for flag in GIVE["data"]) else None,
        run_of(options),
        tell,
        proving_of(options),
    )


def parse_fixed(text: str) -> tuple[str, int]:
    """Parse 'conv1=8'. Raises ConfigError."""
    from onnxq.errors import ConfigError

    name, separator, bits = text.rpartition("=")
    if not (name and separator and bits.isdecimal() and len(bits) < 4):
        raise ConfigError(f"--fix {text!r}: expected NODE=BITS, e.g. conv1=8")
    return name, int(bits)
