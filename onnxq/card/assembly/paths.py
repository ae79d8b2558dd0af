"""Removal of absolute paths from a card: it must not reveal folders of the machine on which it was made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ABSOLUTE = re.compile(r"(?<![\w.:/\\-])(?:/|[A-Za-z]:\\)(?:[^\s/\\{}\"',=]+[/\\])*([^\s/\\{}\"',=]*)")


def without_paths(value: Any) -> Any:
    """A value of JSON types in which every absolute path is reduced to its last part."""
    if isinstance(value, str):
        return _ABSOLUTE.sub(lambda m: m.group(1) or m.group(0), value)
    if isinstance(value, Mapping):
        return {str(k): without_paths(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(v) for v in value]
    return value


def without_folders(pipeline: str) -> str:
    """A pipeline's text with a profile's file reduced to its name: it must not depend on the current folder."""
    return without_paths(re.sub(r"(?<=\bprofile=)[^,{}]*[/\\](?=[^,{}/\\])", "", pipeline))


def without_local_paths(text: str) -> str:
    """Like without_paths, for texts with node names, which look like paths: only existing paths are reduced."""

    def cut(match: re.Match[str]) -> str:
        whole = match.group(0)
        return (match.group(1) or whole) if len(whole) > 1 and Path(whole).exists() else whole

    return _ABSOLUTE.sub(cut, text)
