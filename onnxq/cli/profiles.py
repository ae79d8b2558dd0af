"""`onnxq profiles`."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from onnxq.cli.common import table


@click.command("profiles")
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the hardware profiles, or print one (a name or a .toml file of your own) after validating it."""
    from onnxq.profiles.schema import builtin_names, load_profile

    if name is None:
        rows = []
        for n in builtin_names():
            p = load_profile(n)
            scale = "2^k" if p.weights.power_of_two else "float"
            symmetry = (
                "symmetric"
                if p.weights.symmetric and p.activations.symmetric
                else ("weights symmetric" if p.weights.symmetric else "affine")
            )
            rows.append([n, scale, p.weights.granularity, symmetry, str(p.graph.scheme), p.bias, p.summary])
        heads = ("profile", "scale", "weights", "symmetry", "scheme", "bias", "summary")
        table("", [(h, "left") for h in heads], rows)
        return
    p = load_profile(name)
    click.echo(f"{p.name}: {p.summary}\nsource: {p.source}\n")
    click.echo(f"bias: {p.bias}")
    for heading, rule in (
        ("weights", p.weights),
        ("activations", p.activations),
        ("graph", p.graph),
        ("limits", p.limits),
    ):
        click.echo(f"{heading}: " + ", ".join(f"{k} {_shown(v)}" for k, v in dataclasses.asdict(rule).items()))
    click.echo()
    table(
        "",
        [("operator", "left"), ("rule", "left"), ("output", "left"), ("note", "left")],
        [[op, r.action, r.output if r.action == "quantized" else "", r.note] for op, r in p.ops.items()],
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
