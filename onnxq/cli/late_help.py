"""Options whose help lists plug-ins, which are imported only when help is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from onnxq.placement.settings import DEFAULT_CALIBRATION

F = TypeVar("F", bound=Callable[..., Any])


class LateHelp(click.Option):
    """An option with its help from a function, called when help is shown."""

    def __init__(self, *args: Any, late_help: Callable[[], str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.late_help = late_help

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The option and its help."""
        self.help = self.late_help()
        return super().get_help_record(ctx)


def range_choosers() -> str:
    """Help text that lists the range choosers."""
    from onnxq.calibrate.usage import usage

    return f"Range chooser: {usage()}."


def calibration_option(command: F) -> F:
    """--calibration: the range chooser of activations."""
    return click.option(
        "--calibration", cls=LateHelp, default=DEFAULT_CALIBRATION, show_default=True, late_help=range_choosers
    )(command)


__all__ = ["LateHelp", "calibration_option", "range_choosers"]
