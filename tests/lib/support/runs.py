"""Models run by plain onnxruntime: com.onnxq on its function bodies, the kernel library is not registered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from onnxq.graph.model import Model, to_proto


def session(source: Model | onnx.ModelProto, optimize: bool = False) -> ort.InferenceSession:
    """A session on one thread, without onnxruntime's own optimizations unless asked for."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    made = to_proto(source) if isinstance(source, Model) else source
    return ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(
    source: Model | onnx.ModelProto,
    feed: Mapping[str, NDArray[Any]],
    optimize: bool = False,
    names: Iterable[str] = (),
) -> dict[str, NDArray[Any]]:
    """Outputs, and the tensors of these names, by name."""
    opened = session(observing(source, names) if names else source, optimize)
    return dict(zip([o.name for o in opened.get_outputs()], opened.run(None, dict(feed)), strict=True))


def observing(source: Model | onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy with these tensors as outputs too."""
    observed = onnx.ModelProto()
    observed.CopyFrom(to_proto(source) if isinstance(source, Model) else source)
    present = {o.name for o in observed.graph.output}
    observed.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in present)
    return observed
