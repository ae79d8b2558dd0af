"""The handler of each standard operator: every module here may define HANDLERS; modules are found by file name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import onnx_graphsurgeon as gs

from onnxq import plugins
from onnxq.lowering.ledger import Work

Handler = Callable[[Work, gs.Node], None]


@functools.cache
def handlers() -> Mapping[str, Handler]:
    """The handler that lowers a node, by operator. Handlers raise RefusedError if it cannot be lowered."""
    found: dict[str, Handler] = {}
    for module in plugins.modules(__package__):
        own: Mapping[str, Handler] = getattr(module, "HANDLERS", {})
        if both := found.keys() & own.keys():
            raise TypeError(f"{module.__name__} lowers {', '.join(sorted(both))}, which another module lowers already")
        found |= own
    return found
