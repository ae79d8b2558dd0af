"""The rule of each operator: whether a Transpose may move through it, and how the operator changes."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_graphsurgeon as gs

from onnxq.graph.match import STANDARD_DOMAINS, constant_values, is_constant, is_own
from onnxq.graph.refusal import Refused, RefusedError
from onnxq.layout import own, standard
from onnxq.layout.flip import Flip, Given


def propose(node: gs.Node, given: Given) -> Flip | Refused:
    """How the node computes with one operand transposed, or why it cannot. Constants are transposed in place."""
    rules = own.RULES if is_own(node) else standard.RULES if node.domain in STANDARD_DOMAINS else {}
    rule = rules.get(node.op)
    if rule is None:
        return Refused("its dimension order is fixed")
    try:
        return _with_constants(node, rule(node, given))
    except RefusedError as err:
        return err.refused


def _with_constants(node: gs.Node, flip: Flip) -> Flip:
    inputs, constants = list(flip.inputs), dict(flip.constants)
    for i, perm in enumerate(flip.inputs):
        if perm is not None and is_constant(node.inputs[i]):
            values = constant_values(node.inputs[i])
            assert values is not None
            constants[i] = np.ascontiguousarray(values.transpose(perm))
            inputs[i] = None
    return dataclasses.replace(flip, inputs=tuple(inputs), constants=constants)
