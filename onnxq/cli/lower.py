"""`onnxq lower`."""

from __future__ import annotations

from typing import Any

import click

from onnxq.cli.common import custom_ops_option, output_path, proof_options, proving_of, reporter
from onnxq.cli.guard import OUTPUT_MODEL, Command
from onnxq.cli.terminal import out
from onnxq.cli.values import parse_shapes


@click.command("lower", cls=Command)
@click.argument("model")
@click.option("-o", "--output", type=OUTPUT_MODEL, required=True, help="Integer-only model to write.")
@click.option(
    "--rescale",
    type=click.Choice(["auto", "fixed", "general"]),
    default="auto",
    show_default=True,
    help="Form of the multipliers: fixed = shift 32, general = individual shifts, auto = fixed where equally exact.",
)
@click.option("--input-shape", "shapes", multiple=True, metavar="NAME:1x3x224x224", help="Fix the shape of an input.")
@click.option("--verify", is_flag=True, help="Check on inputs that the passes after lowering preserve all values.")
@proof_options
@click.option("-q", "--quiet", is_flag=True, help="Print only errors.")
@custom_ops_option
def command(
    model: str, output: str, rescale: str, shapes: tuple[str, ...], verify: bool, quiet: bool, **proof: Any
) -> None:
    """Lower MODEL, a QDQ model from any tool, to integer-only form: no float operator between the first Q and last DQ.

    Operators that cannot be lowered stay in float and are listed with the reason; the exit code is still 0. The result
    is proven against MODEL on random samples.
    """
    from onnxq.card import card_path
    from onnxq.lowered import lower

    target = output_path(output)
    output_path(str(card_path(target)))
    lowered = lower(
        model,
        rescale=rescale,  # type: ignore[arg-type]
        shapes=parse_shapes(shapes),
        verify=verify,
        reporter=reporter(quiet=quiet),
        proving=proving_of(proof),
    )
    lowered.save(target)
    if not quiet:
        for line in _describe(lowered.operators, lowered.rescales, [str(f) for f in lowered.inside()]):
            out(line)
        out(f"wrote {target}")


def _describe(operators: dict[str, int], rescales: dict[str, int], inside: list[str]) -> list[str]:
    """The result for the terminal: operators, forms of multipliers, and the remaining float operators."""
    counts = ", ".join(f"{count} {op}" for op, count in operators.items())
    lines = [f"{sum(operators.values())} integer operators: {counts}"]
    if rescales:
        lines.append("multipliers: " + ", ".join(f"{count} {form}" for form, count in rescales.items()))
    if inside:
        lines.append(f"{len(inside)} operator(s) left in float:")
        lines += [f"  {text}" for text in inside]
    else:
        lines.append("integer-only: no float operator between the first QuantizeLinear and the last DequantizeLinear")
    return lines
