"""`onnxq passes`."""

from __future__ import annotations

import dataclasses
import typing

import click

from onnxq.cli.output import print_table


@click.command("passes")
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the graph passes, or show one with its options."""
    from onnxq.errors import PipelineError
    from onnxq.pipeline import available

    registry = available()
    if name is None:
        rows = [
            [n, "yes" if c.preserves_values else "", (c.__doc__ or "").splitlines()[0]] for n, c in registry.items()
        ]
        print_table(("pass", "preserves values", "what it does"), rows, left=3)
        return
    if name not in registry:
        raise PipelineError(f"there is no pass {name!r} (available: {', '.join(registry)})")
    cls = registry[name]
    click.echo(f"{name}: {cls.__doc__}")
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        click.echo(f"  {f.name} = {f.default!r}  ({hints[f.name]})")
