"""The text forms of the range choosers, for help texts: nothing that computes is imported."""

from __future__ import annotations

from onnxq import plugins

CHOOSERS = "onnxq.calibrate.choosers"


def usage() -> str:
    """All text forms, with optional parts in brackets: "max, percentile[:P], entropy, mse"."""
    found = plugins.outlines(CHOOSERS)
    ordered = sorted(found, key=lambda name: (found[name].constants.get("clips", True), not found[name].options, name))
    return ", ".join(_form(name, found[name].options) for name in ordered)


def _form(name: str, options: dict[str, bool]) -> str:
    letters = ((option[0].upper(), optional) for option, optional in options.items())
    return name + "".join(f"[:{letter}]" if optional else f":{letter}" for letter, optional in letters)


__all__ = ["CHOOSERS", "usage"]
