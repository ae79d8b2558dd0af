"""The state of long measurements, saved in a file so that they can be stopped and resumed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxq.errors import ConfigError, InterruptedRun
from onnxq.graph.files import write_text
from onnxq.records import parse_json, read_text

FORMAT = "onnxq-sensitivity-state-1"
SAVE_EVERY = 10.0  # seconds between writes


class State:
    """Results so far, JSON types by section, in a file if there is one.

    identity: of model, data and settings; a file with a different one is rejected. stop: when set, the next
    `checkpoint` writes the file and raises InterruptedRun. Raises ConfigError for a file that is not a state.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        identity: Mapping[str, Any] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.identity = json.loads(json.dumps(identity or {}))
        self.stop = stop
        self.sections: dict[str, Any] = {}
        self.written = time.monotonic()
        if self.path is not None and self.path.exists():
            self._load(self.path)

    def checkpoint(self) -> None:
        """Write the file if it is due; stop here if requested. Raises InterruptedRun."""
        if self.stop is not None and self.stop.is_set():
            self.write()
            if self.path is None:
                raise InterruptedRun("interrupted; nothing was saved (use a resume file to continue later)")
            raise InterruptedRun(f"interrupted; saved in {self.path}, the same command continues from there")
        if time.monotonic() - self.written > SAVE_EVERY:
            self.write()

    def write(self) -> None:
        """Write the file now."""
        self.written = time.monotonic()
        if self.path is not None:
            table = {"format": FORMAT, "identity": self.identity, "sections": self.sections}
            write_text(self.path, json.dumps(table, ensure_ascii=False) + "\n")

    def _load(self, path: Path) -> None:
        try:
            table = parse_json(read_text(path))
            if table["format"] != FORMAT or not isinstance(table["sections"], dict):
                raise ValueError("another format")
        except OSError as err:
            raise ConfigError(f"{path}: cannot be read: {err.strerror}") from None
        except (ValueError, KeyError, TypeError) as err:
            raise ConfigError(f"{path}: not a state of `onnxq sensitivity`, or a damaged one ({err})") from None
        found = table["identity"] if isinstance(table.get("identity"), dict) else {}
        if found != self.identity:
            other = sorted(k for k in {**found, **self.identity} if found.get(k) != self.identity.get(k))
            raise ConfigError(f"{path}: was started with different {', '.join(other)}; remove it to start over")
        self.sections = table["sections"]
