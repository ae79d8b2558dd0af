"""Pipelines as text: `fold-constants,fold-batchnorm,insert-qdq{profile=tensorrt}`.

Pass names are separated by commas, options in braces are key=value separated by spaces. Parsing is the inverse of
printing, which omits options that equal their defaults.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from onnxq import plugins
from onnxq.errors import PipelineError
from onnxq.pipeline.base import Pass
from onnxq.records import BadRecord, dotted, parse_options, suggest

_QUOTED = r'"(?:[^"\\]|\\.)*"'  # \" and \\ are escapes for " and \
_ITEM = re.compile(rf"\s*([A-Za-z0-9_-]+)\s*(?:\{{((?:[^{{}}\"]|{_QUOTED})*)\}})?\s*")
_OPTION = re.compile(rf"\s*([A-Za-z0-9_-]+)\s*=\s*({_QUOTED}|[^\s\"]+)\s*")


def available() -> dict[str, type[Pass]]:
    """Every pass by name: each is one module in passes/, found by file name."""
    return plugins.find("onnxq.passes", Pass, PipelineError)


def parse(text: str) -> tuple[Pass, ...]:
    """Pipeline text to passes; raises PipelineError with the column of the error."""
    if not text.strip():
        raise PipelineError("the pipeline is empty: name at least one pass, as `onnxq passes` lists them")
    passes: list[Pass] = []
    position = 0
    registry = available()
    while True:
        item = _ITEM.match(text, position)
        if item is None:
            raise _error(text, position, "expected a pass name")
        name, options = item.group(1), item.group(2)
        if name not in registry:
            raise _error(text, item.start(1), f"no pass is called {name!r}{suggest(name, registry, 'there are')}")
        try:
            passes.append(parse_options(registry[name], _parse_options(text, item.start(2), options)))
        except BadRecord as err:
            place = f", option {dotted(err.path)}" if err.path else ""
            raise _error(text, item.start(1), f"pass {name}{place}: {err.reason}") from None
        position = item.end()
        if position == len(text):
            return tuple(passes)
        if text[position] != ",":
            raise _error(text, position, "expected ',' or the end")
        position += 1


def print_pipeline(passes: Iterable[Pass]) -> str:
    """Passes to text; parse(print_pipeline(p)) == p."""
    return ",".join(str(p) for p in passes)


def _parse_options(text: str, start: int, raw: str | None) -> dict[str, str]:
    options: dict[str, str] = {}
    if raw is None:
        return options
    position = 0
    while position < len(raw.rstrip()):
        match = _OPTION.match(raw, position)
        if match is None:
            raise _error(text, start + position, "expected key=value")
        key, value = match.group(1), match.group(2)
        if key in options:
            raise _error(text, start + match.start(1), f"option {key} is given twice")
        options[key] = re.sub(r'\\(["\\])', r"\1", value[1:-1]) if value.startswith('"') else value
        position = match.end()
    return options


def _error(text: str, position: int, message: str) -> PipelineError:
    return PipelineError(f"pipeline {text!r}, column {position + 1}: {message}")
