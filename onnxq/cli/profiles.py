"""`onnxq profiles`."""

from __future__ import annotations

import click

from onnxq.cli.common import table


@click.command("profiles")
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the hardware profiles, or print one (a name or a .toml file of your own) after validating it."""
    from onnxq.profile import builtin_names, load_profile

    if name is None:
        rows = []
        for n in builtin_names():
            p = load_profile(n)
            scale = "2^k" if p.weights.power_of_two else "float"
            symmetry = "symmetric" if p.weights.symmetric and p.activations.symmetric else (
                "weights symmetric" if p.weights.symmetric else "affine"
            )
            rows.append([n, scale, p.weights.granularity, symmetry, str(p.graph.scheme), p.bias, p.summary])
        heads = ("profile", "scale", "weights", "symmetry", "scheme", "bias", "summary")
        table("", [(h, "left") for h in heads], rows)
        return
    p = load_profile(name)
    click.echo(f"{p.name}: {p.summary}\nsource: {p.source}\n")
    click.echo(f"weights: {p.weights}\nactivations: {p.activations}\nbias: {p.bias}\ngraph: {p.graph}\nlimits: {p.limits}\n")
    table("", [("operator", "left"), ("rule", "left"), ("output", "left"), ("note", "left")],
          [[op, r.action, r.output if r.action == "quantized" else "", r.note] for op, r in p.ops.items()])
