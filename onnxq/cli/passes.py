"""`onnxq passes`."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from typing import TYPE_CHECKING, Any

import click

from onnxq.cli.guard import Command
from onnxq.cli.output import json_flag, json_text, print_table
from onnxq.cli.terminal import out, out_text

if TYPE_CHECKING:
    from onnxq.pipeline import Pass


@click.command("passes", cls=Command)
@click.argument("name", required=False)
@json_flag
def command(name: str | None, as_json: bool) -> None:
    """List the graph passes, or show one with its options."""
    from onnxq.errors import PipelineError
    from onnxq.pipeline import available
    from onnxq.records import default, plain

    registry = available()
    if name is None:
        if as_json:
            out_text(json_text([_summary(n, c) for n, c in registry.items()]))
            return
        rows = [[n, "yes" if c.preserves_values else "", _first_line(c)] for n, c in registry.items()]
        print_table(("pass", "preserves values", "what it does"), rows, left=3)
        return
    if name not in registry:
        raise PipelineError(f"there is no pass {name!r} (available: {', '.join(registry)})")
    cls = registry[name]
    hints = typing.get_type_hints(cls)
    fields = [(f.name, default(f), _type_text(hints[f.name])) for f in dataclasses.fields(cls)]
    if as_json:
        options = [
            {"name": n, "type": kind, "required": True}
            if value is dataclasses.MISSING
            else {"name": n, "type": kind, "required": False, "default": plain(value)}
            for n, value, kind in fields
        ]
        out_text(json_text(_summary(name, cls) | {"about": inspect.cleandoc(cls.__doc__ or ""), "options": options}))
        return
    out_text(f"{name}: {cls.__doc__}\n")
    for option, value, kind in fields:
        out(f"  {option}  ({kind}, required)" if value is dataclasses.MISSING else f"  {option} = {value!r}  ({kind})")


def _type_text(hint: Any) -> str:
    """A type as in source: int, str | None."""
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def _summary(name: str, cls: type[Pass]) -> dict[str, Any]:
    return {"name": name, "preserves_values": cls.preserves_values, "summary": _first_line(cls)}


def _first_line(cls: type[Pass]) -> str:
    return (cls.__doc__ or "").splitlines()[0]
