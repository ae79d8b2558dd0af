"""ChannelsLast tells onnxruntime the shape of its result."""

from __future__ import annotations

from onnxq.execution import runtime
from support.cases.operators import Draw
from support.cases.operators.channels_last import channels_last
from support.kernel_runs import bundle, needs_library

pytestmark = needs_library


def test_the_shape_is_known_before_it_runs() -> None:
    made = bundle([channels_last(Draw(2), (2, 3, 4, 5))])
    for dim, (value, name) in zip(
        made.proto.graph.input[0].type.tensor_type.shape.dim, ((0, "N"), (3, ""), (0, "H"), (5, "")), strict=True
    ):
        dim.Clear()
        if value:
            dim.dim_value = value
        else:
            dim.dim_param = name
    assert runtime.session(made.proto).get_outputs()[0].shape == ["N", "H", 5, 3]
