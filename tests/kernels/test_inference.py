"""What the operators tell onnxruntime of their shapes, which its optimizer believes: it folds Shape to constants."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxq.execution import runtime
from support.cases.every_operator import every_operator
from support.kernel_runs import Bundle, needs_library

pytestmark = needs_library


def declared(how: str) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A node of each operator, its inputs declared in one of three ways, and Shape of every result."""
    made: Bundle = every_operator()
    proto, feeds = onnx.ModelProto.FromString(made.proto.SerializeToString()), dict(made.feeds)
    del proto.functions[:]
    for value in list(proto.graph.input):
        kind = value.type.tensor_type
        for dim, size in zip(kind.shape.dim, feeds[value.name].shape, strict=True):
            if how == "sizes":
                dim.dim_value = size
            elif how == "nothing":
                dim.Clear()
    outputs = [o.name for o in proto.graph.output]
    proto.graph.node.extend(helper.make_node("Shape", [name], [f"{name}_of"]) for name in outputs)
    for name in outputs:
        proto.graph.output.append(helper.make_tensor_value_info(f"{name}_of", onnx.TensorProto.INT64, [None]))
    return proto, feeds


@pytest.mark.parametrize("how", ["sizes", "names", "nothing"])
def test_shapes_are_those_at_run_time(how: str) -> None:
    proto, feeds = declared(how)
    session = runtime.session(proto)
    found = session.run(None, feeds)
    made = every_operator()
    types = [o.type for o in session.get_outputs()]
    for case, expected, kind, shape in zip(made.cases, made.expected, types, found[len(made.cases) :], strict=False):
        assert (tuple(shape), kind) == (expected.shape, f"tensor({expected.dtype})"), case.op


def test_dimensions_without_a_name_are_not_taken_for_equal() -> None:
    proto, _ = declared("nothing")
    names = [d for o in runtime.session(proto).get_outputs() for d in o.shape if isinstance(d, str)]
    invented = [name for name in names if "onnxq" in name]
    assert len(invented) == len(set(invented))
