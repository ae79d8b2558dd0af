"""The same model file with the kernel library and without it: kernels and function bodies give the same integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from onnxq.execution import runtime
from onnxq.operators import SCHEMAS, attach_functions
from support.cases.every_operator import every_operator
from support.kernel_runs import bundle, check_outputs, chosen, needs_library, on_every_tier

pytestmark = needs_library


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
