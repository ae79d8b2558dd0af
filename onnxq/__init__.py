"""onnxq: from a float ONNX model to one that a target executes in low-precision integers, with a record of the cost.

Quick start::

    q = onnxq.quantize("m.onnx", data, profile="onnxruntime-cpu", calibration="mse")
    q.save("m.int8.onnx")
    session = onnxq.session("m.int8.onnx", threads=2)
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` is not imported: Ctrl-C before cli.signals is installed ends in a traceback
if TYPE_CHECKING:
    from typing import Any

    from onnxq.api import Quantized, quantize
    from onnxq.card import Card, read_card
    from onnxq.data.options import DataOptions, RunOptions
    from onnxq.errors import OnnxqError
    from onnxq.execution.benchmark import bench
    from onnxq.execution.runtime import library_path, session
    from onnxq.graph.model import Model, load
    from onnxq.lowered import Lowered, lower
    from onnxq.measure.accuracy import evaluate
    from onnxq.measure.layerwise import verify
    from onnxq.placement.settings import QuantSettings
    from onnxq.profiles.schema import Profile, load_profile
    from onnxq.reporting import Reporter
    from onnxq.search.choose import search_bits, search_partial
    from onnxq.search.latency import measure_latency
    from onnxq.search.measure import measure_sensitivity
    from onnxq.search.options import SensitivityOptions

# Name → its module, loaded on first use, so that `import onnxq` stays fast.
_PUBLIC = {
    "Card": "onnxq.card",
    "DataOptions": "onnxq.data.options",
    "Lowered": "onnxq.lowered",
    "Model": "onnxq.graph.model",
    "OnnxqError": "onnxq.errors",
    "Profile": "onnxq.profiles.schema",
    "QuantSettings": "onnxq.placement.settings",
    "Quantized": "onnxq.api",
    "Reporter": "onnxq.reporting",
    "RunOptions": "onnxq.data.options",
    "SensitivityOptions": "onnxq.search.options",
    "bench": "onnxq.execution.benchmark",
    "evaluate": "onnxq.measure.accuracy",
    "library_path": "onnxq.execution.runtime",
    "load": "onnxq.graph.model",
    "load_profile": "onnxq.profiles.schema",
    "lower": "onnxq.lowered",
    "measure_latency": "onnxq.search.latency",
    "measure_sensitivity": "onnxq.search.measure",
    "quantize": "onnxq.api",
    "read_card": "onnxq.card",
    "search_bits": "onnxq.search.choose",
    "search_partial": "onnxq.search.choose",
    "session": "onnxq.execution.runtime",
    "verify": "onnxq.measure.layerwise",
}

__all__ = [
    "Card", "DataOptions", "Lowered", "Model", "OnnxqError", "Profile", "QuantSettings", "Quantized", "Reporter",
    "RunOptions", "SensitivityOptions", "bench", "evaluate", "library_path", "load", "load_profile", "lower",
    "measure_latency", "measure_sensitivity", "quantize", "read_card", "search_bits", "search_partial", "session",
    "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'onnxq' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
