"""The tensors on which a loss is measured (a classifier's pre-softmax logits, else the outputs), and the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.data.source import Batch
from onnxq.errors import ConfigError, DataError
from onnxq.execution.inner_tensors import real_part
from onnxq.graph.match import STANDARD_DOMAINS, is_float, producer
from onnxq.graph.model import Model
from onnxq.graph.unknown_ops import unavailable
from onnxq.numeric import curvature
from onnxq.numeric.classification import Scores

Loss = Literal["auto", "cross-entropy", "mse"]
LOSSES = ("auto", "cross-entropy", "mse")
# Operators after a Softmax that only forward its values.
MOVERS = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
OPSET_SOFTMAX = 13  # earlier ones flatten from the axis on


@dataclass(frozen=True)
class Objective:
    """A loss over some tensors of a model.

    loss: "cross-entropy" (of one tensor, its classes along `axis`) or "mse" (the sum over tensors of their mean squared
    errors). tensors: names. softmax: a Softmax was stripped from the end.
    """

    loss: Literal["cross-entropy", "mse"]
    tensors: tuple[str, ...]
    axis: int = -1
    softmax: bool = False

    def rows(self, values: Sequence[NDArray], batch: Batch) -> list[NDArray]:
        """The real samples' part of each tensor; for cross-entropy as (rows, classes)."""
        real = [real_part(v, batch) for v in values]
        if self.loss == "mse":
            return real
        moved = np.moveaxis(real[0], self.axis, -1)
        return [moved.reshape(-1, moved.shape[-1])]

    def completed(self, made: Mapping[str, NDArray], batch: Batch, reference: Sequence[NDArray]) -> list[NDArray]:
        """Rows of every tensor: from `made`, or the float model's if a part does not produce the tensor."""
        return [
            self.rows([made[name]], batch)[0] if name in made else float_rows
            for name, float_rows in zip(self.tensors, reference, strict=True)
        ]

    def form(self, reference: Sequence[NDArray], jv: Sequence[NDArray]) -> float:
        """vᵀ G v of a batch from J v and the float model's outputs, both as `rows` gives them; never negative."""
        if self.loss == "cross-entropy":
            return curvature.cross_entropy_form(curvature.softmax(reference[0]), jv[0].astype(np.float64))
        return sum(curvature.squared_error_form(d.astype(np.float64)) for d in jv)

    def loss_of(self, values: Sequence[NDArray], reference: Sequence[NDArray], labels: NDArray | None) -> float:
        """The loss of a batch: on labels, or on the float model's own outputs."""
        if self.loss == "cross-entropy":
            return curvature.cross_entropy(values[0], self.target(reference, labels))
        errors = [(v.astype(np.float64) - r) ** 2 for v, r in zip(values, reference, strict=True)]
        return sum(float(np.mean(e)) for e in errors if e.size)

    def target(self, reference: Sequence[NDArray], labels: NDArray | None) -> NDArray[np.float64]:
        """Class distributions: one-hot labels if there is one per row, else the float model's probabilities."""
        p = curvature.softmax(reference[0])
        if labels is None or len(labels) != len(p):
            return p
        if labels.min(initial=0) < 0 or labels.max(initial=0) >= p.shape[1]:
            raise DataError(f"label {labels.max()}, but the model has {p.shape[1]} classes from 0 on")
        return np.eye(p.shape[1])[labels]


def find_objective(
    model: Model, loss: Loss = "auto", output: str | None = None, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Objective:
    """The loss to measure, from the end of the graph.

    output: the tensor to measure, by default every float output. shapes: of one sample's outputs, if known, to
    recognize a classifier. "auto": cross-entropy after a Softmax, or if the only float output has one score per class,
    else mse.
    Raises ConfigError for an output that does not exist, or a cross-entropy that does not fit.
    """
    if loss not in LOSSES:
        raise ConfigError(f"loss {loss!r}: choose from {', '.join(LOSSES)}")
    tensors = model.graph.tensors()
    if output is not None and output not in tensors:
        names = ", ".join(t.name for t in model.graph.outputs)
        raise ConfigError(f"{model.name} has no tensor {output!r} (--output); its outputs are {names}")
    found = [tensors[output]] if output is not None else [t for t in model.graph.outputs if is_float(t)]
    lost = unavailable(model.graph)
    computed = [t for t in found if t.name not in lost]
    if found and not computed:
        raise ConfigError(
            f"{model.name}: tensor {found[0].name} cannot be computed: {lost[found[0].name]}; or choose another tensor "
            "with --output"
        )
    found = computed
    if not found:
        raise ConfigError(f"{model.name} has no float32 output; choose a tensor with --output")
    if loss == "mse":
        return Objective("mse", tuple(t.name for t in found))
    stripped = [_softmax_input(t, model.opset) for t in found]
    if len(found) == 1 and stripped[0] is not None:
        logits, axis = stripped[0]
        return Objective("cross-entropy", (logits.name,), axis, softmax=True)
    known = {t.name: (shapes or {}).get(t.name) or _shape(t) for t in found}
    scores = Scores.choose({name: shape for name, shape in known.items() if shape}, 1)
    if len(found) == 1 and scores is not None:
        long = next(i for i, d in enumerate(known[scores.output] or ()) if i and d != 1)
        return Objective("cross-entropy", (scores.output,), long)
    if loss == "cross-entropy":
        raise ConfigError(
            f"{model.name}: cross-entropy needs one output with one score per class; choose it with --output, or use "
            "--loss mse"
        )
    return Objective("mse", tuple(t.name for t in found))


def _softmax_input(tensor: gs.Tensor, opset: int) -> tuple[gs.Tensor, int] | None:
    """The input and axis of the Softmax that produces the tensor; None if there is none."""
    node = producer(tensor)
    while node is not None and node.domain in STANDARD_DOMAINS and node.op in MOVERS:
        node = producer(node.inputs[0])
    if node is None or node.domain not in STANDARD_DOMAINS or node.op not in ("Softmax", "LogSoftmax"):
        return None
    return node.inputs[0], int(node.attrs.get("axis", -1 if opset >= OPSET_SOFTMAX else 1))


def _shape(tensor: gs.Tensor) -> tuple[int, ...] | None:
    """Shape for one sample; None unless everything but the first axis is known."""
    if not tensor.shape or not all(isinstance(d, int) for d in tensor.shape[1:]):
        return None
    return (1, *(int(d) for d in tensor.shape[1:]))
