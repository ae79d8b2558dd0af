"""Ranks and types of tensors that shape inference leaves unknown, seen by running the model."""

from __future__ import annotations

import itertools

import onnx_graphsurgeon as gs

from onnxq.data.source import DataSource, batches, input_specs
from onnxq.errors import OnnxqError
from onnxq.execution.inner_tensors import Fetcher
from onnxq.execution.known_ops import find_unknown
from onnxq.execution.sessions import observed_session
from onnxq.graph.match import is_tensor
from onnxq.graph.model import Model
from onnxq.graph.shapes import infer
from onnxq.graph.unknown_ops import unavailable

SAMPLES = 2


def observe_ranks(model: Model, data: DataSource) -> int:
    """Fill in the ranks, and unknown types, that the first samples show; returns the number of tensors.

    Dimensions are left open: they may be different in other samples. Tensors whose rank differs between two samples,
    and models that onnxruntime cannot run, are left as they are.
    """
    find_unknown(model)
    lost = unavailable(model.graph)
    unknown = {t.name: t for n in model.graph.nodes for t in n.outputs if _is_unknown(t) and t.name not in lost}
    if not unknown:
        return 0
    ranks: dict[str, set[int]] = {name: set() for name in unknown}
    types = {}
    try:
        with observed_session(model, list(unknown), threads=1, optimize=False) as session:
            fetcher = Fetcher(session, list(unknown))
            for batch in itertools.islice(batches(data, input_specs(model.graph), 1), SAMPLES):
                for group in fetcher.run(batch):
                    for name, value in group.items():
                        ranks[name].add(value.ndim)
                        types[name] = value.dtype
    except OnnxqError:
        return 0  # the run that follows says what is wrong
    seen = [name for name, found in ranks.items() if len(found) == 1]
    for name in seen:
        unknown[name].shape = [None] * next(iter(ranks[name]))
        if unknown[name].dtype is None and types[name].kind in "fiub":
            unknown[name].dtype = types[name]
    infer(model.graph)
    return len(seen)


def _is_unknown(tensor: gs.Tensor) -> bool:
    return not tensor.is_empty() and tensor.shape is None and is_tensor(tensor)
