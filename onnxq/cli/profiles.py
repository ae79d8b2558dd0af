"""`onnxq profiles`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from onnxq.cli.guard import Command
from onnxq.cli.output import json_flag, json_text, print_table
from onnxq.cli.terminal import out, out_text

if TYPE_CHECKING:
    from onnxq.profiles.schema import Profile


@click.command("profiles", cls=Command)
@click.argument("name", required=False)
@json_flag
def command(name: str | None, as_json: bool) -> None:
    """List the hardware profiles, or validate and print one (a name or your own .toml file)."""
    from onnxq.profiles.schema import builtin_names, load_profile
    from onnxq.records import plain

    if as_json:
        found = [load_profile(n) for n in builtin_names()] if name is None else load_profile(name)
        out_text(json_text(plain(found)))
        return
    if name is None:
        heads = ("profile", "scale", "weights", "symmetry", "scheme", "bias", "summary")
        print_table(heads, [_row(load_profile(n)) for n in builtin_names()], left=len(heads))
        return
    p = load_profile(name)
    out(f"{p.name}: {p.summary}", f"source: {p.source}", "", f"bias: {p.bias}")
    for heading, rule in (
        ("weights", p.weights),
        ("activations", p.activations),
        ("graph", p.graph),
        ("limits", p.limits),
    ):
        out(f"{heading}: " + ", ".join(f"{k} {_shown(v)}" for k, v in dataclasses.asdict(rule).items()))
    out()
    rows = [[op, r.action, r.output if r.action == "quantized" else "", r.note] for op, r in p.ops.items()]
    print_table(("operator", "rule", "output", "note"), rows, left=4)


def _row(profile: Profile) -> list[str]:
    w, symmetric = profile.weights, profile.activations.symmetric
    scale = "2^k" if w.power_of_two else "float"
    symmetry = "affine" if not w.symmetric else "symmetric" if symmetric else "weights symmetric"
    return [profile.name, scale, w.granularity, symmetry, str(profile.graph.scheme), profile.bias, profile.summary]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
