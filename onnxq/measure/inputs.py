"""The samples for measurements, and the inputs that compared models must share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxq.data.source import DataSource, InputSpec, open_data
from onnxq.errors import ConfigError
from onnxq.graph.model import Model


def open_samples(data: Any, inputs: Sequence[InputSpec], preprocess: Any, limit: int | None) -> DataSource:
    """An open DataSource unchanged; anything else is opened with open_data. Raises ConfigError and DataError."""
    return data if isinstance(data, DataSource) else open_data(data, inputs, preprocess=preprocess, limit=limit)


def different_inputs(first: Model, second: Model, inputs: Sequence[Sequence[InputSpec]]) -> ConfigError:
    """The error for two models with different inputs. inputs: of the first, of the second."""
    listed = " and ".join(", ".join(f"{s.name}: {s}" for s in specs) for specs in inputs)
    return ConfigError(f"{first.name} and {second.name} do not have the same inputs ({listed})")
