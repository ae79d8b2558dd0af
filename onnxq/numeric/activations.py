"""ONNX activations as functions of real numbers: float64 arrays in and out, attributes with ONNX's defaults.

Values outside a function's domain give NaN or infinity, without a warning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Attributes = Mapping[str, Any]
Function = Callable[[Reals, Attributes], Reals]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def activation(op: str, attributes: Attributes | None = None) -> Callable[[Reals], Reals]:
    """The function of an ONNX operator with these attributes. Raises KeyError for operators not in ACTIVATIONS."""
    function, given = ACTIVATIONS[op], attributes or {}

    def apply(x: Reals) -> Reals:
        with np.errstate(all="ignore"):
            return np.asarray(function(x, given), np.float64)

    return apply


def _sigmoid(x: Reals, _: Attributes) -> Reals:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))  # without overflow


def _hard_sigmoid(x: Reals, a: Attributes) -> Reals:
    return np.clip(float(a.get("alpha", 0.2)) * x + float(a.get("beta", 0.5)), 0.0, 1.0)


def _hard_swish(x: Reals, _: Attributes) -> Reals:
    return np.asarray(x * np.clip(x / 6.0 + 0.5, 0.0, 1.0))


def _clip(x: Reals, a: Attributes) -> Reals:
    # As in ONNX: if min exceeds max, every result is max.
    return np.minimum(np.maximum(x, float(a.get("min", -np.inf))), float(a.get("max", np.inf)))


def _leaky_relu(x: Reals, a: Attributes) -> Reals:
    return np.where(x >= 0, x, float(a.get("alpha", 0.01)) * x)


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


def _plain(function: Callable[[Any], Any]) -> Function:
    return lambda x, _: function(x)


# The bounds of Clip are the attributes min and max, the slope of PRelu is the attribute alpha, as in LeakyRelu.
ACTIVATIONS: dict[str, Function] = {
    "Sigmoid": _sigmoid, "HardSigmoid": _hard_sigmoid, "HardSwish": _hard_swish, "LeakyRelu": _leaky_relu,
    "PRelu": _leaky_relu, "Elu": _elu, "Celu": _celu, "Selu": _selu, "Gelu": _gelu, "Softplus": _softplus,
    "Mish": _mish, "Swish": _swish, "Shrink": _shrink, "ThresholdedRelu": _thresholded_relu, "Clip": _clip,
    "Relu": _plain(lambda x: np.maximum(x, 0.0)), "Softsign": _plain(lambda x: x / (1.0 + np.abs(x))),
    "Tanh": _plain(np.tanh), "Erf": _plain(_erf), "Exp": _plain(np.exp), "Log": _plain(np.log),
    "Sqrt": _plain(np.sqrt), "Abs": _plain(np.abs), "Neg": _plain(np.negative), "Reciprocal": _plain(np.reciprocal),
    "Floor": _plain(np.floor), "Ceil": _plain(np.ceil), "Round": _plain(np.rint), "Sign": _plain(np.sign),
    "Sin": _plain(np.sin), "Cos": _plain(np.cos), "Tan": _plain(np.tan), "Asin": _plain(np.arcsin),
    "Acos": _plain(np.arccos), "Atan": _plain(np.arctan), "Sinh": _plain(np.sinh), "Cosh": _plain(np.cosh),
    "Asinh": _plain(np.arcsinh), "Acosh": _plain(np.arccosh), "Atanh": _plain(np.arctanh),
}  # fmt: skip
CLAMPS = ("Relu", "Clip")
# Binary operators. They are functions of one number if the other operand is constant or a function of the same number.
JOINS: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power, "Max": np.maximum,
    "Min": np.minimum,
}  # fmt: skip
