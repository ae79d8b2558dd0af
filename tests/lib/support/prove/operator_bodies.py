"""Models of one com.onnxq operator, and the ways to run them without its kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxq.operators import DOMAIN, SCHEMAS, VERSION, attach_functions
from support.cases.operators import Case

LEVELS = ("ORT_ENABLE_ALL", "ORT_DISABLE_ALL")


def model(
    op: str,
    arrays: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
    y: np.ndarray,
    fed: tuple[str, ...] | None = None,
    opset: int = 21,
) -> onnx.ModelProto:
    """A model of one node that carries its function body; its inputs, of any size, are the activations or `fed`.

    y: an array with the type and rank of the output.
    """
    fed = activations(op) if fed is None else fed
    node = helper.make_node(op, list(arrays), ["y"], name="node", domain=DOMAIN, **attributes)
    constants = [numpy_helper.from_array(values, name) for name, values in arrays.items() if name not in fed]
    graph = helper.make_graph([node], op, [_value(n, arrays[n]) for n in fed], [_value("y", y)], constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, VERSION)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    attach_functions(proto)
    return proto


def _value(name: str, values: np.ndarray) -> onnx.ValueInfoProto:
    dims = [f"{name}{i}" for i in range(values.ndim)]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values.dtype), dims)


def activations(op: str) -> tuple[str, ...]:
    """The inputs of an operator that are not constant."""
    return tuple(i.name for i in SCHEMAS[op].inputs if not i.constant)


def evaluations(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """The model's first output from onnxruntime without the kernel library, at two levels, and from onnx itself."""
    for level in LEVELS:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        yield level, session.run(None, dict(feeds))[0]
    yield "ReferenceEvaluator", ReferenceEvaluator(proto).run(None, dict(feeds))[0]


def check_body(case: Case) -> None:
    """Assert that an operator's body gives the exact integers in every evaluator, and that onnx accepts the model."""
    expected = case.expected()
    proto = model(case.op, case.arrays, case.attributes, expected)
    onnx.checker.check_model(proto, full_check=True)
    for name, found in evaluations(proto, {n: case.arrays[n] for n in activations(case.op)}):
        where = f"{name}: {case}"
        assert found.dtype == expected.dtype and found.shape == expected.shape, (where, found.dtype, found.shape)
        np.testing.assert_array_equal(found, expected, err_msg=where)


def static(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The model with the dimensions of these inputs, and an output of which nothing is known."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    for value in fixed.graph.input:
        for dim, length in zip(value.type.tensor_type.shape.dim, feeds[value.name].shape, strict=True):
            dim.dim_value = length
    fixed.graph.output[0].ClearField("type")
    return fixed
