"""Reading the JSON files that searches work on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from onnxq.errors import ConfigError


def read_json(file: Path, what: str) -> Any:
    """The file's table. what: "a latency file", for messages. Raises ConfigError when it is missing or no JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as err:
        raise ConfigError(f"{file}: cannot be read: {err.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as err:
        raise ConfigError(f"{file}: not {what}: {str(err).splitlines()[0]}") from None
