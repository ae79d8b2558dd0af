"""A cache of measured times in a folder, so that a layer is measured once per machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxq.errors import ConfigError
from onnxq.graph.files import write_text
from onnxq.records import parse_json, read_text


@dataclass(frozen=True)
class Timed:
    """Seconds per run: the median, and its standard error from the spread between rounds."""

    median: float
    error: float
    runs: int


def cache_folder() -> Path:
    """The folder of measurements: $XDG_CACHE_HOME/onnxq/latency, by default ~/.cache/onnxq/latency."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "onnxq" / "latency"


@dataclass(frozen=True)
class TimingCache:
    """A folder with one small file per measurement. machine: part of every key."""

    folder: Path
    machine: Mapping[str, Any]

    def key(self, description: Mapping[str, Any]) -> str:
        """Key of a measurement: what was timed, on which machine, and with what."""
        text = json.dumps({"machine": dict(self.machine), "timed": dict(description)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def read(self, key: str) -> Timed | None:
        """The measurement; None if it is missing or unreadable."""
        try:
            table = parse_json(read_text(self.folder / f"{key}.json"))
            return Timed(float(table["median"]), float(table["error"]), int(table["runs"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, key: str, timed: Timed) -> None:
        """Store a measurement. Raises ConfigError if the folder is not writable."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise ConfigError(
                f"{self.folder}: measurements cannot be stored there: {err.strerror}; give --cache"
            ) from None
        write_text(self.folder / f"{key}.json", json.dumps(asdict(timed)))


__all__ = ["Timed", "TimingCache", "cache_folder"]
