"""The operators of com.onnxq in a few lines of 64-bit NumPy each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

TYPES = {2: np.uint8, 3: np.int8, 6: np.int32}


def compute(op: str, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> np.ndarray:
    a = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "group": 1, "axis": -1, **attributes}
    v = {k: x.astype(np.int64) for k, x in arrays.items()}
    for name in ("x", "a", "b", "residual"):
        if name in v and op not in ("MaxPool", "LookupTable", "Softmax"):
            v[name] = v[name] - a.get(f"{name}_zero_point", 0)
    if op in ("Conv", "ConvAdd"):
        return finish(op, conv(v, a) * v["multiplier"], v, a)
    if op in ("Gemm", "GemmAdd"):
        return finish(op, (v["x"] @ (v["w"] - v["w_zero_point"]) + v["bias"]) * v["multiplier"], v, a)
    if op == "MatMul":
        return rescale(v["a"] @ v["b"] * v["multiplier"], v["shift"], a)
    if op == "Mul":
        product = v["a"] * v["b"]
        return rescale(product * v["multiplier"], v["shift"], a).reshape(product.shape)
    if op in ("Add", "Sub", "Requantize"):
        shape = v["x"].shape if op == "Requantize" else np.broadcast_shapes(v["a"].shape, v["b"].shape)
        for name in ("multiplier", "a_multiplier", "b_multiplier", "shift"):
            if name in v and v[name].size > 1:
                v[name] = v[name].reshape([-1 if i == a["axis"] % len(shape) else 1 for i in range(len(shape))])
        if op == "Requantize":
            return rescale(v["x"] * v["multiplier"], v["shift"], a).reshape(shape)
        b_term = v["b"] * v["b_multiplier"]
        total = v["a"] * v["a_multiplier"] + (b_term if op == "Add" else -b_term)
        return rescale(total, v["shift"], a).reshape(shape)
    if op.startswith("Concat"):
        parts = []
        for i, zero_point in enumerate(a["zero_points"]):
            parts.append(rescale((v[f"x_{i}"] - zero_point) * v["multiplier"][i], v["shift"][i], a))
        return np.concatenate(parts, a["axis"])
    if op == "AveragePool":
        return rescale(windows(v["x"], a["kernel_shape"], a, 0).sum(0) * v["multiplier"], v["shift"], a)
    if op == "MaxPool":
        least = np.iinfo(arrays["x"].dtype).min
        return windows(v["x"], a["kernel_shape"], a, least).max(0).astype(arrays["x"].dtype)
    if op == "ReduceMean":
        total = v["x"].sum(tuple(a["axes"]), keepdims=bool(a.get("keepdims", 1)))
        return rescale(total * v["multiplier"], v["shift"], a).reshape(total.shape)
    if op == "LookupTable":
        return arrays["table"][v["x"] - np.iinfo(arrays["x"].dtype).min]
    if op == "Softmax":
        e = v["table"][v["x"].max(a["axis"], keepdims=True) - v["x"]]
        s = e.sum(a["axis"], keepdims=True) << v["shift"]
        return saturate((2 * e * v["multiplier"] + s) // (2 * s), a).reshape(v["x"].shape)
    raise NotImplementedError(op)


def saturate(q: np.ndarray, a: Mapping[str, Any]) -> np.ndarray:
    return np.clip(q + a.get("y_zero_point", 0), a["qmin"], a["qmax"]).astype(TYPES[a["y_type"]])


def rescale(total: np.ndarray, shift: np.ndarray, a: Mapping[str, Any]) -> np.ndarray:
    return saturate((total + (np.int64(1) << (shift - 1))) >> shift, a)


def finish(op: str, total: np.ndarray, v: Mapping[str, np.ndarray], a: Mapping[str, Any]) -> np.ndarray:
    if op.endswith("Add"):
        total = total + v["residual"] * v["residual_multiplier"]
    return rescale(total, v["shift"], a)


def windows(x: np.ndarray, kernel: tuple[int, int], a: Mapping[str, Any], fill: int) -> np.ndarray:
    """[kh·kw, N, OH, OW, C]"""
    top, left, bottom, right = a["pads"]
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    (kh, kw), (sh, sw), (dh, dw) = kernel, a["strides"], a["dilations"]
    rows = [slice(i * dh, x.shape[1] - dh * (kh - 1) + i * dh, sh) for i in range(kh)]
    columns = [slice(j * dw, x.shape[2] - dw * (kw - 1) + j * dw, sw) for j in range(kw)]
    return np.stack([x[:, r, c] for r in rows for c in columns])


def conv(v: Mapping[str, np.ndarray], a: Mapping[str, Any]) -> np.ndarray:
    w = v["w"] - v["w_zero_point"].reshape(-1, 1, 1, 1)
    m, kh, kw, per_group = w.shape
    taken = windows(v["x"], (kh, kw), a, 0)
    taken = taken.reshape(*taken.shape[:-1], a["group"], per_group)
    grouped = w.reshape(a["group"], m // a["group"], kh * kw, per_group)
    acc = np.einsum("tnhwgk,gmtk->nhwgm", taken, grouped)
    return acc.reshape(*acc.shape[:3], m) + v["bias"]
