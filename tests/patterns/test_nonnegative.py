"""Tensors that hold no negative values, by what makes them."""

from onnxq.patterns.nonnegative import is_nonnegative
from support.build import qdq


def test_nonnegative() -> None:
    text = """g (float[1,4,6,6] x) => (float[1,4,6,6] a, float[1,4,6,6] b, float[1,4,6,6] c, float[1,4,6,6] d,
        float[1,4,6,6] e, float[1,8,6,6] f, float[1,4,6,6] h, float[1,4,6,6] i, float[1,4,6,6] j)
    <float zero = {0.0}, float minus = {-1.0}, float[4,1,1] k = {0,1,2,3}>
    { a = Relu(x) b = Clip(x, zero) c = Clip(x, minus) d = Add(a, b) e = Add(a, c) f = Concat<axis=1>(a, d)
      h = MaxPool<kernel_shape=[1,1]>(a) i = Mul(a, k) j = Sub(a, b) }"""
    model = qdq.model(text)
    found = {t.name for n in model.graph.nodes for t in n.outputs if is_nonnegative(t)}
    assert found == {"a", "b", "d", "f", "h", "i"}


def test_signs_of_a_ladder_are_found_in_linear_time() -> None:
    rungs = " ".join(f"a{i + 1} = Add(a{i}, a{i})" for i in range(60))
    model = qdq.model(f"g (float[4] x) => (float[4] a60) {{ a0 = Relu(x) {rungs} }}")
    assert is_nonnegative(model.graph.outputs[0])
