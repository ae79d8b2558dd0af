"""One model with a node of each operator of com.onnxq."""

from __future__ import annotations

import functools

from onnxq.operators import attach_functions
from support.cases.operator_cases import Draw
from support.kernel_runs import Bundle, bundle


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
