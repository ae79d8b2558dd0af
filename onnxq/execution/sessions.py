"""Sessions on variants of a model: with inner tensors as outputs, or cut at its quantized tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import onnx

from onnxq.errors import ModelError
from onnxq.execution import runtime
from onnxq.execution.inner_tensors import observed_model
from onnxq.execution.known_ops import find_unknown
from onnxq.execution.save import model_dir, runnable
from onnxq.graph.model import Model
from onnxq.graph.unknown_ops import drop_unknown, unavailable


@contextlib.contextmanager
def variant_session(proto: onnx.ModelProto, model: Model, **options: Any) -> Iterator[Any]:
    """An onnxruntime session on a variant of `model`, whose folder contains the external weights.

    options: of runtime.session. The model's libraries of operators are registered; what depends on an operator that is
    in none of them is left out. Raises ModelError if onnxruntime rejects the variant.
    """
    drop_unknown(proto, find_unknown(model))
    with runnable(proto, model_dir(model)) as opened:
        yield runtime.session(opened, custom_ops=model.custom_ops, **options)


@contextlib.contextmanager
def observed_session(model: Model, tensors: Sequence[str], **options: Any) -> Iterator[Any]:
    """An onnxruntime session with these tensors, inner ones included, as outputs.

    options: of runtime.session. Raises CalibrationError for an unknown tensor, ModelError as variant_session does, and
    for a tensor that depends on an operator that onnxruntime does not know.
    """
    if find_unknown(model):
        lost = unavailable(model.graph)
        for name in tensors:
            if name in lost:
                raise ModelError(f"{model.name}: tensor {name} cannot be computed: {lost[name]}")
    with variant_session(observed_model(model, tensors), model, **options) as session:
        yield session
