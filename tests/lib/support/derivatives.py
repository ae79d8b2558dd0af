"""Exact derivatives of small networks: their graphs in complex128, differentiated by the complex step.

f(w + ih).imag / h is f'(w) to the last digit, since nothing is subtracted. A ReLU looks at the real part alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import numpy_helper

STEP = 1e-30
Values = Mapping[str, NDArray[Any]]


def forward(model: onnx.ModelProto, feeds: Values, **weights: NDArray[Any]) -> NDArray[np.complex128]:
    """The first output. weights: in place of the model's constants of those names."""
    values = {t.name: numpy_helper.to_array(t).astype(np.complex128) for t in model.graph.initializer}
    values |= {name: np.asarray(v, np.complex128) for name, v in (*feeds.items(), *weights.items())}
    for node in model.graph.node:
        attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        values[node.output[0]] = OPERATORS[node.op_type]([values[name] for name in node.input], attrs)
    return values[model.graph.output[0].name]


def jacobian(model: onnx.ModelProto, feeds: Values, weight: str, w: NDArray[np.float64] | None = None) -> NDArray:
    """dz/dw, (weights, samples, outputs), and z itself as real numbers in [-1] — of the 2-D first output."""
    if w is None:
        w = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == weight).astype(np.float64)
    columns = []
    for i in range(w.size):
        moved = w.astype(np.complex128).reshape(-1)
        moved[i] += 1j * STEP
        columns.append(forward(model, feeds, **{weight: moved.reshape(w.shape)}).imag / STEP)
    columns.append(forward(model, feeds, **{weight: w}).real)
    return np.stack(columns)


def softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def gauss_newton_trace(model: onnx.ModelProto, feeds: Values, weight: str) -> float:
    """Of the mean cross-entropy: mean over samples of Σ_j J_jᵀ (diag p − p pᵀ) J_j."""
    *columns, z = jacobian(model, feeds, weight)
    p = softmax(z)
    forms = [np.einsum("nc,nc,nc->n", p, j, j) - np.einsum("nc,nc->n", p, j) ** 2 for j in columns]
    return float(np.sum(forms) / len(z))


def squared_error_trace(model: onnx.ModelProto, feeds: Values, weight: str) -> float:
    """Of the mean squared error of the output: 2 ‖J‖² / n."""
    *columns, z = jacobian(model, feeds, weight)
    return float(sum(np.sum(j**2) for j in columns) * 2 / z.size)


def hessian_trace(model: onnx.ModelProto, feeds: Values, weight: str, target: NDArray[np.float64]) -> float:
    """Of the mean cross-entropy on class distributions: differences of exact gradients, (samples, classes)."""
    w = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == weight).astype(np.float64)
    h = 1e-6

    def slope(i: int, shift: float) -> float:
        moved = w.astype(np.complex128).reshape(-1)
        moved[i] += shift + 1j * STEP
        z = forward(model, feeds, **{weight: moved.reshape(w.shape)})
        return float(((softmax(z.real) - target) * z.imag / STEP).sum() / len(z))

    return sum((slope(i, h) - slope(i, -h)) / (2 * h) for i in range(w.size))


def _conv(x: NDArray, w: NDArray, b: NDArray | None, attrs: Mapping[str, Any]) -> NDArray:
    groups, pads, strides = attrs.get("group", 1), attrs.get("pads", [0] * 4), attrs.get("strides", [1, 1])
    x = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    windows = sliding_window_view(x, w.shape[2:], axis=(2, 3))[:, :, :: strides[0], :: strides[1]]
    parts = [
        np.einsum("nchwij,ocij->nohw", part, kernel)
        for part, kernel in zip(np.split(windows, groups, axis=1), np.split(w, groups, axis=0), strict=True)
    ]
    y = np.concatenate(parts, axis=1)
    return y if b is None else y + b.reshape(1, -1, 1, 1)


def _gemm(x: NDArray, w: NDArray, b: NDArray, attrs: Mapping[str, Any]) -> NDArray:
    return x @ (w.T if attrs.get("transB") else w) + b


OPERATORS: dict[str, Any] = {
    "Conv": lambda v, a: _conv(v[0], v[1], v[2] if len(v) > 2 else None, a),
    "Gemm": lambda v, a: _gemm(v[0], v[1], v[2], a),
    "MatMul": lambda v, a: v[0] @ v[1],
    "Add": lambda v, a: v[0] + v[1],
    "Relu": lambda v, a: np.where(v[0].real > 0, v[0], 0),
    "Tanh": lambda v, a: np.tanh(v[0]),
    "GlobalAveragePool": lambda v, a: v[0].mean(axis=(2, 3), keepdims=True),
    "Flatten": lambda v, a: v[0].reshape(len(v[0]), -1),
}
