"""Shape inference without the weights."""

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto

from onnxq.graph import shapes
from onnxq.graph.walk import all_graphs
from support.build import floating

NET = """g (float[N,200] x, bool c) => (float[N,200] y) <float[200,200] w, int64[2] s = {-1, 100}> {
    h = MatMul(x, w)
    r = Reshape(h, s)
    i = If (c) <
        then_branch = t () => (float[N,200] a) { k = MatMul(h, w) a = Neg(k) },
        else_branch = e () => (float[N,200] b) { b = Neg(h) }
    >
    z = ReduceSum<keepdims = 0>(r)
    y = Add(i, z)
}"""


def forget(graph: gs.Graph) -> None:
    for g in all_graphs(graph):
        for node in g.nodes:
            for tensor in node.outputs:
                if not any(t is tensor for t in g.outputs):
                    tensor.dtype, tensor.shape = None, None


def tensor(graph: gs.Graph, name: str) -> gs.Tensor:
    return next(t for g in all_graphs(graph) for t in g.tensors().values() if t.name == name)


def test_everything_is_found_again_and_weights_are_what_they_were():
    graph = floating.model(NET).graph
    weight = tensor(graph, "w")
    held = weight._values
    forget(graph)
    assert shapes.infer(graph) is None
    assert tensor(graph, "h").shape == ["N", 200]
    assert tensor(graph, "k").shape == ["N", 200]  # in a subgraph, from a captured weight
    assert tensor(graph, "r").shape[1] == 100
    assert tensor(graph, "z").shape == []
    assert tensor(graph, "h").dtype == np.float32
    assert weight._values is held


def test_what_is_known_stays():
    graph = floating.model(NET).graph
    tensor(graph, "h").shape = ["batch", 200]
    shapes.infer(graph)
    assert tensor(graph, "h").shape == ["batch", 200]
    assert graph.inputs[0].shape == ["N", 200]
    assert graph.outputs[0].shape == ["N", 200]


def test_a_number_replaces_a_name():
    graph = floating.model("g (float[2,3] x) => (float[A,B] y) { h = Neg(x) y = Abs(h) }").graph
    tensor(graph, "h").shape = ["n", 3]
    shapes.infer(graph)
    assert tensor(graph, "h").shape == [2, 3]
    assert graph.outputs[0].shape == ["A", "B"]  # as declared


def test_weights_come_back_when_inference_gives_up():
    graph = floating.model(NET).graph
    held = tensor(graph, "w")._values
    graph.nodes[0].op = "NoSuchOperator"
    graph.nodes[1].attrs["allowzero"] = object()  # cannot be written
    assert shapes.infer(graph)
    assert tensor(graph, "w")._values is held


def test_narrow_types():
    source = floating.model("g (bfloat16[2] x) => (bfloat16[2] y) { h = Neg(x) y = Neg(h) }")
    forget(source.graph)
    shapes.infer(source.graph)
    assert shapes.element_type(tensor(source.graph, "h")) == TensorProto.BFLOAT16
    for dtype, number in ((ml_dtypes.int4, TensorProto.INT4), (np.float16, TensorProto.FLOAT16), (None, 0)):
        assert shapes.element_type(gs.Variable("v", dtype)) == number
    assert shapes.graph_type(TensorProto.FLOAT) == np.float32


@pytest.mark.parametrize(
    ("shape", "known"), [([2, 3], (2, 3)), ([], ()), (["N", 3], None), ([None], None), ([-1, 3], None), (None, None)]
)
def test_static_shapes(shape, known):
    assert shapes.static_shape(gs.Variable("v", np.float32, shape)) == known
