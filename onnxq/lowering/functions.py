"""Activations of ONNX as functions of real numbers, for tables: float64 in and out, attributes with ONNX's defaults."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Attributes = Mapping[str, Any]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Reals, _: Attributes) -> Reals:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))  # without overflow


def _hard_sigmoid(x: Reals, a: Attributes) -> Reals:
    return np.clip(float(a.get("alpha", 0.2)) * x + float(a.get("beta", 0.5)), 0.0, 1.0)


def _hard_swish(x: Reals, _: Attributes) -> Reals:
    return np.asarray(x * np.clip(x / 6.0 + 0.5, 0.0, 1.0))


def _leaky_relu(x: Reals, a: Attributes) -> Reals:
    return np.where(x >= 0, x, float(a.get("alpha", 0.01)) * x)


def _prelu(x: Reals, a: Attributes) -> Reals:
    return np.where(x >= 0, x, float(a["second"]) * x)


def _elu(x: Reals, a: Attributes) -> Reals:
    return np.where(x >= 0, x, float(a.get("alpha", 1.0)) * np.expm1(np.minimum(x, 0)))


def _celu(x: Reals, a: Attributes) -> Reals:
    alpha = float(a.get("alpha", 1.0))
    return np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha))


def _selu(x: Reals, a: Attributes) -> Reals:
    alpha, gamma = float(a.get("alpha", 1.67326319217681884765625)), float(a.get("gamma", 1.05070102214813232421875))
    return np.asarray(gamma * np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0))))


def _gelu(x: Reals, a: Attributes) -> Reals:
    how = a.get("approximate", "none")
    if (how.decode() if isinstance(how, bytes) else how) == "tanh":
        return np.asarray(0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))))
    return np.asarray(0.5 * x * (1.0 + _erf(x / math.sqrt(2.0))))


def _softplus(x: Reals, _: Attributes) -> Reals:
    return np.logaddexp(0.0, x)


def _mish(x: Reals, a: Attributes) -> Reals:
    return np.asarray(x * np.tanh(_softplus(x, a)))


def _swish(x: Reals, a: Attributes) -> Reals:
    return np.asarray(x * _sigmoid(float(a.get("alpha", 1.0)) * x, a))


def _shrink(x: Reals, a: Attributes) -> Reals:
    bias, lambd = float(a.get("bias", 0.0)), float(a.get("lambd", 0.5))
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0.0))


def _thresholded_relu(x: Reals, a: Attributes) -> Reals:
    return np.where(x > float(a.get("alpha", 1.0)), x, 0.0)


def _plain(function: Callable[[Any], Any]) -> Callable[[Reals, Attributes], Reals]:
    def apply(x: Reals, _: Attributes) -> Reals:
        with np.errstate(all="ignore"):
            return np.asarray(function(x))

    return apply


ACTIVATIONS: dict[str, Callable[[Reals, Attributes], Reals]] = {
    "Sigmoid": _sigmoid, "HardSigmoid": _hard_sigmoid, "HardSwish": _hard_swish, "LeakyRelu": _leaky_relu,
    "PRelu": _prelu, "Elu": _elu, "Celu": _celu, "Selu": _selu, "Gelu": _gelu, "Softplus": _softplus, "Mish": _mish,
    "Swish": _swish, "Shrink": _shrink, "ThresholdedRelu": _thresholded_relu,
    "Softsign": _plain(lambda x: x / (1.0 + np.abs(x))), "Tanh": _plain(np.tanh), "Erf": _plain(_erf),
    "Exp": _plain(np.exp), "Log": _plain(np.log), "Sqrt": _plain(np.sqrt), "Abs": _plain(np.abs),
    "Neg": _plain(np.negative), "Reciprocal": _plain(np.reciprocal), "Floor": _plain(np.floor),
    "Ceil": _plain(np.ceil), "Round": _plain(np.rint), "Sign": _plain(np.sign), "Sin": _plain(np.sin),
    "Cos": _plain(np.cos), "Atan": _plain(np.arctan), "Sinh": _plain(np.sinh), "Cosh": _plain(np.cosh),
    "Asinh": _plain(np.arcsinh),
}  # fmt: skip
