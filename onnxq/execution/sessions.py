"""Sessions on variants of a model: with inner tensors as outputs, or cut at its quantized tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import onnx

from onnxq.execution import runtime
from onnxq.execution.inner_tensors import observed_model
from onnxq.execution.save import model_dir, runnable
from onnxq.graph.model import Model


@contextlib.contextmanager
def variant_session(proto: onnx.ModelProto, model: Model, **options: Any) -> Iterator[Any]:
    """An onnxruntime session on a variant of `model`, whose folder contains the external weights.

    options: of runtime.session. Raises ModelError if onnxruntime rejects the variant.
    """
    with runnable(proto, model_dir(model)) as opened:
        yield runtime.session(opened, **options)


@contextlib.contextmanager
def observed_session(model: Model, tensors: Sequence[str], **options: Any) -> Iterator[Any]:
    """An onnxruntime session with these tensors, inner ones included, as outputs.

    options: of runtime.session. Raises CalibrationError for an unknown tensor, ModelError as variant_session does.
    """
    with variant_session(observed_model(model, tensors), model, **options) as session:
        yield session
