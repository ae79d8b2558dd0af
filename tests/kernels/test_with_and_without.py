"""The same model file with the kernel library and without it: kernels and function bodies give the same integers."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from kernel_runs import Bundle, bundle, check_outputs, chosen, needs_library, on_every_tier
from onnx import numpy_helper
from operator_cases import Draw

from onnxq import runtime
from onnxq.ops import SCHEMAS, attach_functions

pytestmark = needs_library


@functools.cache
def every_operator() -> Bundle:
    """A node of each, in models that carry the functions."""
    draw = Draw(1)
    window = {"kernel_shape": (3, 2), "strides": (2, 1), "pads": (1, 0, 2, 1)}
    cases = [
        draw.conv((2, 7, 6, 8), (20, 3, 3, 8), x="int8", w="int4", y="int8", zero_points="many", pads=(1, 1, 1, 1)),
        draw.conv((1, 9, 9, 24), (24, 3, 3, 1), strides=(2, 2)),
        draw.conv((2, 5, 5, 4), (6, 3, 3, 2), residual="int32", x="int8"),
        draw.gemm((3, 20), 37, zero_points="one"),
        draw.gemm((2, 3, 20), 7, w="int4", residual="uint8", y="int8"),
        draw.matmul((2, 1, 9, 33), (3, 33, 5), a="int8"),
        draw.add((2, 3, 4, 65), (65,), a="int32", lengths=(65, 1, 65)),
        draw.add((2, 300), (2, 300), op="Sub", b="int8"),
        draw.mul((2, 9, 70), (2, 1, 70), b="int8"),
        draw.requantize((3, 4, 50), axis=1, lengths=(4, 4)),
        draw.requantize((500,), x="uint8", y="int8"),
        draw.average_pool((2, 6, 7, 70), **window),
        draw.max_pool((2, 6, 7, 70), x="int8", **window),
        draw.reduce_mean((2, 7, 7, 33), x="int8", axes=(1, 2)),
        draw.lookup_table((5, 60), x="int8"),
        draw.channels_last((2, 5, 7, 9), x="int8"),
        draw.softmax((6, 70)),
        draw.layer_norm((6, 70), y="int8"),
    ]
    for count in range(2, 9):
        shapes = tuple((2, 3, i + 1) for i in range(count))
        cases.append(draw.concat(shapes, (("uint8", "int32", "int8", "uint8") * 2)[:count], axis=2))
    made = bundle(cases)
    attach_functions(made.proto)
    return made


def test_there_is_a_case_for_every_operator() -> None:
    assert {case.op for case in every_operator().cases} == set(SCHEMAS)


def test_function_bodies(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    path = tmp_path / "model.onnx"
    onnx.save(every_operator().proto, path)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    check_outputs(every_operator(), session.run(None, every_operator().feeds), "function bodies")


@on_every_tier
def test_kernels(tier: str) -> None:
    made = every_operator()
    with chosen(tier):
        session = runtime.session(made.proto)
    check_outputs(made, session.run(None, made.feeds), "kernels")


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_kernel_is_taken_where_there_is_one(name: str) -> None:
    """A body that is wrong is not run."""
    case = next(case for case in every_operator().cases if case.op == name)
    made = bundle([case])
    attach_functions(made.proto)
    (body,) = made.proto.functions
    del body.node[:]
    nothing = numpy_helper.from_array(np.zeros((), made.expected[0].dtype))
    body.node.append(onnx.helper.make_node("Constant", [], list(body.output), value=nothing))
    session = runtime.session(made.proto)
    check_outputs(made, session.run(None, made.feeds), "kernel")
