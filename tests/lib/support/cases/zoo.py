"""Small models of every kind that must go through: text, what feeds them, and how many layers get integer weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from support.build import floating

Feed = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Kind:
    """One model. dims: lengths of its unknown dimensions in a feed. layers: how many get integer weights.

    make: for what the text form cannot say; gets the parsed model.
    """

    text: str
    layers: int
    opset: int = 17
    ir: int = 8
    dims: tuple[int, ...] = (2,)
    values: dict[str, Any] = field(default_factory=dict)
    make: Callable[[onnx.ModelProto], onnx.ModelProto] = lambda model: model

    def model(self) -> onnx.ModelProto:
        """The float model; equal at each call."""
        return self.make(floating.proto(self.text, self.opset, self.ir, **self.values))

    def feed(self, seed: int = 1) -> Feed:
        """Random numbers: normal, integers 0 to 9, pixels 0 to 255; `dims` in place of unknown dimensions."""
        rng = np.random.default_rng(seed)
        model = self.model()
        constants = {t.name for t in model.graph.initializer}
        found = {}
        for value in model.graph.input:
            if value.name in constants:
                continue
            kind = value.type.tensor_type
            free = iter(self.dims)
            shape = [d.dim_value if d.HasField("dim_value") else next(free) for d in kind.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
            top = 256 if dtype == np.uint8 else 10
            array = rng.integers(0, top, shape) if dtype.kind in "iu" else rng.normal(size=shape)
            if dtype.kind == "b":
                array = rng.integers(0, 2, shape).astype(bool)
            found[value.name] = array.astype(dtype)
        return found

    def feeds(self, count: int = 6) -> list[Feed]:
        """Several, of seeds 1 and up."""
        return [self.feed(seed) for seed in range(1, count + 1)]


def _inputs_too(model: onnx.ModelProto) -> onnx.ModelProto:
    """IR 3: every initializer is an input as well."""
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


def _constant_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every initializer becomes a Constant node."""
    nodes = [onnx.helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    old = list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend([*nodes, *old])
    return model


def _function(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph's first two nodes become a model-local function."""
    first, second = model.graph.node[:2]
    opset = onnx.helper.make_opsetid("", 17)
    inner = onnx.helper.make_function(
        "org.example", "ConvRelu", list(first.input), [second.output[0]], [first, second], [opset]
    )
    call = onnx.helper.make_node("ConvRelu", list(first.input), [second.output[0]], "block", domain="org.example")
    rest = list(model.graph.node[2:])
    del model.graph.node[:]
    model.graph.node.extend([call, *rest])
    model.functions.append(inner)
    model.opset_import.append(onnx.helper.make_opsetid("org.example", 1))
    return model


RESIDUAL = """g (float[N,3,8,8] x) => (float[N,8,8,8] y)
    <float[8,3,3,3] w1, float[8] b1, float[8,8,3,3] w2, float[8] b2, float[8,8,3,3] w3, float[8] b3>
    { [c1] a = Conv<pads=[1,1,1,1]>(x, w1, b1) [r1] r = Relu(a) [c2] c = Conv<pads=[1,1,1,1]>(r, w2, b2)
      [r2] d = Relu(c) [c3] e = Conv<pads=[1,1,1,1]>(d, w3, b3) [add] s = Add(e, r) [r3] y = Relu(s) }"""

KINDS = {
    "residual": Kind(RESIDUAL, 3),
    "residual with batch normalization": Kind(
        """g (float[N,3,8,8] x) => (float[N,8,8,8] y)
        <float[8,3,3,3] w1, float[8] s1, float[8] o1, float[8] m1, float[8] v1, float[8,3,1,1] w2, float[8] s2,
         float[8] o2, float[8] m2, float[8] v2>
        { [c1] a = Conv<pads=[1,1,1,1]>(x, w1) [n1] b = BatchNormalization(a, s1, o1, m1, v1)
          [c2] c = Conv(x, w2) [n2] d = BatchNormalization(c, s2, o2, m2, v2) [add] e = Add(b, d) [r] y = Relu(e) }""",
        2,
        values={"v1": 0.7, "v2": 1.3},
    ),
    "inverted residual": Kind(
        """g (float[N,4,8,8] x) => (float[N,4,8,8] y)
        <float[12,4,1,1] w1, float[12] b1, float[12,1,3,3] w2, float[12] b2, float[4,12,1,1] w3, float[4] b3,
         float zero = {0}, float six = {6}>
        { [expand] a = Conv(x, w1, b1) [clip1] b = Clip(a, zero, six)
          [depthwise] c = Conv<group=12, pads=[1,1,1,1]>(b, w2, b2) [clip2] d = Clip(c, zero, six)
          [project] e = Conv(d, w3, b3) [add] y = Add(x, e) }""",
        3,
    ),
    "concat": Kind(
        """g (float[N,3,8,8] x) => (float[N,6,8,8] y)
        <float[4,3,1,1] w1, float[4] b1, float[4,3,3,3] w2, float[4] b2, float[6,8,1,1] w3, float[6] b3>
        { [c1] a = Conv(x, w1, b1) [r1] b = Relu(a) [c2] c = Conv<pads=[1,1,1,1]>(x, w2, b2) [r2] d = Relu(c)
          [cat] e = Concat<axis=1>(b, d) [c3] y = Conv(e, w3, b3) }""",
        3,
    ),
    "head": Kind(
        """g (float[N,4,6,6] x) => (float[N,5] y) <float[8,4,3,3] w1, float[8] b1, float[5,8] w2, float[5] b2>
        { [c1] a = Conv(x, w1, b1) [r1] b = Relu(a) [p] c = GlobalAveragePool(b) [f] d = Flatten(c)
          [fc] e = Gemm<transB=1>(d, w2, b2) [soft] y = Softmax(e) }""",
        2,
    ),
    "transposed convolution in groups": Kind(
        """g (float[N,4,5,5] x) => (float[N,6,11,11] y) <float[4,3,3,3] w1, float[6] b1, float[6,6,1,1] w2>
        { [up] a = ConvTranspose<group=2, strides=[2,2]>(x, w1, b1) [r] b = Relu(a) [c] y = Conv(b, w2) }""",
        2,
    ),
    "one-dimensional convolution": Kind(
        """g (float[N,3,L] x) => (float[N,4] y) <float[8,3,5] w1, float[8] b1, float[8,4] w2, float[4] b2>
        { [c1] a = Conv<pads=[2,2]>(x, w1, b1) [r] b = Relu(a) [p] c = GlobalAveragePool(b) [f] d = Flatten(c)
          [fc] e = MatMul(d, w2) [bias] y = Add(e, b2) }""",
        2,
        dims=(2, 20),
    ),
    "three-dimensional convolution": Kind(
        """g (float[N,2,4,6,6] x) => (float[N,4,4,6,6] y) <float[4,2,3,3,3] w1, float[4] b1, float[4,4,1,1,1] w2>
        { [c1] a = Conv<pads=[1,1,1,1,1,1]>(x, w1, b1) [r] b = Relu(a) [c2] y = Conv(b, w2) }""",
        2,
    ),
    "squeeze and excite": Kind(
        """g (float[N,4,8,8] x) => (float[N,4,8,8] y)
        <float[8,4,3,3] w1, float[8] b1, float[2,8,1,1] w2, float[2] b2, float[8,2,1,1] w3, float[8] b3,
         float[4,8,1,1] w4>
        { [c1] a = Conv<pads=[1,1,1,1]>(x, w1, b1) [s1] b = Sigmoid(a) [swish] c = Mul(a, b)
          [p] d = GlobalAveragePool(c) [c2] e = Conv(d, w2, b2) [r] f = Relu(e) [c3] h = Conv(f, w3, b3)
          [s2] i = HardSigmoid(h) [scale] j = Mul(c, i) [c4] y = Conv(j, w4) }""",
        4,
    ),
    "attention": Kind(
        """g (float[N,T,16] x) => (float[N,T,16] y)
        <float[16,16] wq, float[16] bq, float[16,16] wk, float[16,16] wv, float[16,16] wo, float[16] bo,
         float[16] gain, float[16] shift, float[16] gain2, float[16] shift2, float[16,32] w1, float[32] b1,
         float[32,16] w2, float root = {4}, int64[4] heads = {0, -1, 4, 4}, int64[3] joined = {0, -1, 16}>
        { [norm] n = LayerNormalization(x, gain, shift)
          [q] q0 = MatMul(n, wq) [qb] q1 = Add(q0, bq) [k] k0 = MatMul(n, wk) [v] v0 = MatMul(n, wv)
          [q4] q2 = Reshape(q1, heads) [k4] k2 = Reshape(k0, heads) [v4] v2 = Reshape(v0, heads)
          [qt] q3 = Transpose<perm=[0,2,1,3]>(q2) [kt] k3 = Transpose<perm=[0,2,3,1]>(k2)
          [vt] v3 = Transpose<perm=[0,2,1,3]>(v2) [scores] s0 = MatMul(q3, k3) [div] s1 = Div(s0, root)
          [soft] p = Softmax<axis=-1>(s1) [mix] o0 = MatMul(p, v3) [ot] o1 = Transpose<perm=[0,2,1,3]>(o0)
          [o3] o2 = Reshape(o1, joined) [o] o4 = MatMul(o2, wo) [ob] o5 = Add(o4, bo) [skip] h = Add(x, o5)
          [norm2] h1 = LayerNormalization(h, gain2, shift2) [up] m0 = MatMul(h1, w1) [upb] m1 = Add(m0, b1)
          [relu] m2 = Relu(m1) [down] m3 = MatMul(m2, w2) [skip2] y = Add(h, m3) }""",
        6,
        dims=(2, 5),
    ),
    "attention with padding": Kind(
        """g (float[N,T,16] x, int64[N,T] mask) => (float[N,T,16] y)
        <float[16,16] wq, float[16,16] wk, float[16,16] wv, float[16,16] wo, float[16] gain, float[16] shift,
         float[16,32] w1, float[32] b1, float[32,16] w2, float two = {2}, float eps = {0.00001}, float one = {1},
         float half = {0.5}, float root2 = {1.41421356}, float least = {-3.4028235e38}, int64[2] middle = {1, 2},
         int64[4] heads = {0, -1, 4, 4}, int64[3] joined = {0, -1, 16}>
        { [m] mean = ReduceMean<axes=[-1]>(x) [d] dev = Sub(x, mean) [p] sq = Pow(dev, two)
          [v] var = ReduceMean<axes=[-1]>(sq) [e] ve = Add(var, eps) [s] std = Sqrt(ve) [n] z = Div(dev, std)
          [g] zg = Mul(z, gain) [b] n = Add(zg, shift)
          [q] q0 = MatMul(n, wq) [k] k0 = MatMul(n, wk) [v0] v0 = MatMul(n, wv)
          [q4] q2 = Reshape(q0, heads) [k4] k2 = Reshape(k0, heads) [v4] v2 = Reshape(v0, heads)
          [qt] q3 = Transpose<perm=[0,2,1,3]>(q2) [kt] k3 = Transpose<perm=[0,2,3,1]>(k2)
          [vt] v3 = Transpose<perm=[0,2,1,3]>(v2) [scores] s0 = MatMul(q3, k3) [scale] s1 = Mul(s0, half)
          [known] known = Cast<to=9>(mask) [ones] ones = Cast<to=1>(known) [wide] wide = Unsqueeze(ones, middle)
          [zeros] zeros = Sub(one, wide) [least] deep = Mul(zeros, least) [masked] s2 = Add(s1, deep)
          [soft] p = Softmax<axis=-1>(s2) [mix] o0 = MatMul(p, v3) [ot] o1 = Transpose<perm=[0,2,1,3]>(o0)
          [o3] o2 = Reshape(o1, joined) [o] o4 = MatMul(o2, wo) [skip] h = Add(x, o4)
          [up] m0 = MatMul(h, w1) [upb] m1 = Add(m0, b1) [gd] g0 = Div(m1, root2) [ge] g1 = Erf(g0)
          [ga] g2 = Add(g1, one) [gm] g3 = Mul(m1, g2) [gh] g4 = Mul(g3, half)
          [down] m3 = MatMul(g4, w2) [skip2] y = Add(h, m3) }""",
        6,
        opset=13,
        dims=(2, 5, 2, 5),
    ),
    "causal attention with rotary positions": Kind(
        """g (float[N,T,8] x) => (float[N,T,8] y)
        <float[8,8] wq, float[8,8] wk, float[8,8] wv, float[8,8] wo, float[8] gain, float two = {2}, float one = {1},
         float eps = {0.00001}, float never = {0}, float deep = {-inf}, float[4,1] speeds = {1, 0.3, 0.1, 0.03},
         int64 start = {0}, int64 step = {1}, int64 second = {1}, int64[1] last = {-1}, int64[1] front = {0},
         int64[2] halves = {4, 4}>
        { [sq] sq = Pow(x, two) [v] var = ReduceMean<axes=[-1]>(sq) [e] ve = Add(var, eps) [s] std = Sqrt(ve)
          [r] inv = Div(one, std) [n] z = Mul(x, inv) [g] n = Mul(gain, z)
          [q] q0 = MatMul(n, wq) [k] k0 = MatMul(n, wk) [v0] v0 = MatMul(n, wv)
          [shape] sh = Shape(x) [len] t = Gather(sh, second) [pos] at = Range(start, t, step)
          [row] at1 = Unsqueeze(at, front) [float] atf = Cast<to=1>(at1)
          [angle] ang = MatMul(speeds, atf) [turn] turn = Transpose<perm=[1,0]>(ang)
          [both] ang2 = Concat<axis=-1>(turn, turn) [c] co = Cos(ang2) [si] sine = Sin(ang2)
          [qh] qa, qb = Split<axis=-1>(q0, halves) [qn] qc = Neg(qb) [qr] qd = Concat<axis=-1>(qc, qa)
          [qco] qe = Mul(q0, co) [qsi] qf = Mul(qd, sine) [qs] q1 = Add(qe, qf)
          [kh] ka, kb = Split<axis=-1>(k0, halves) [kn] kc = Neg(kb) [kr] kd = Concat<axis=-1>(kc, ka)
          [kco] ke = Mul(k0, co) [ksi] kf = Mul(kd, sine) [ks] k1 = Add(ke, kf)
          [kt] k2 = Transpose<perm=[0,2,1]>(k1) [scores] s0 = MatMul(q1, k2)
          [col] at2 = Unsqueeze(at, last) [later] ahead = Greater(at1, at2) [mask] m = Where(ahead, deep, never)
          [masked] s1 = Add(s0, m) [soft] p0 = Softmax<axis=-1>(s1) [nan] bad = IsNaN(p0)
          [guard] p = Where(bad, never, p0)
          [mix] o0 = MatMul(p, v0) [o] o1 = MatMul(o0, wo) [skip] y = Add(x, o1) }""",
        4,
        opset=13,
        dims=(2, 5),
    ),
    "decomposed layer normalization": Kind(
        """g (float[N,T,8] x) => (float[N,T,8] y)
        <float[8,8] w1, float[8] b1, float[8] gain, float two = {2}, float eps = {0.00001}>
        { [m] mean = ReduceMean<axes=[-1], keepdims=1>(x) [d] dev = Sub(x, mean) [p] sq = Pow(dev, two)
          [v] var = ReduceMean<axes=[-1], keepdims=1>(sq) [e] ve = Add(var, eps) [s] std = Sqrt(ve)
          [n] norm = Div(dev, std)
          [g] scaled = Mul(norm, gain) [fc] h = MatMul(scaled, w1) [b] hb = Add(h, b1) [skip] y = Add(x, hb) }""",
        1,
        opset=13,
        dims=(2, 5),
    ),
    "stacked matrices": Kind(
        """g (float[2,5,6] x) => (float[2,5,3] y) <float[2,6,4] w1, float[1,4,3] w2, float[3] b>
        { [fc1] a = MatMul(x, w1) [r] c = Relu(a) [fc2] d = MatMul(c, w2) [bias] y = Add(d, b) }""",
        2,
        dims=(),
    ),
    "embedding": Kind(
        """g (int64[N,T] ids) => (float[N,4] y)
        <float[10,8] table, float[8,8] w1, float[8] b1, float[4,8] w2, float[4] b2>
        { [look] a = Gather(table, ids) [fc] b = MatMul(a, w1) [bias] c = Add(b, b1) [r] d = Relu(c)
          [mean] e = ReduceMean<axes=[1], keepdims=0>(d) [head] y = Gemm<transB=1>(e, w2, b2) }""",
        2,
        dims=(3, 5),
    ),
    "pixels in": Kind(
        """g (uint8[N,8,8,3] image) => (float[N,4] y)
        <float[8,3,3,3] w1, float[8] b1, float[4,8] w2, float[3,1,1] mean = {0.5, 0.4, 0.3}, float large = {255}>
        { [cast] a = Cast<to=1>(image) [scale] b = Div(a, large) [nchw] c = Transpose<perm=[0,3,1,2]>(b)
          [centre] d = Sub(c, mean) [c1] e = Conv(d, w1, b1) [r] f = Relu(e) [p] h = GlobalAveragePool(f)
          [flat] i = Flatten(h) [fc] y = Gemm<transB=1>(i, w2) }""",
        2,
    ),
    "two inputs": Kind(
        """g (float[N,3,8,8] left, float[N,5] right) => (float[N,4] y)
        <float[6,3,3,3] w1, float[6] b1, float[6,5] w2, float[6] b2, float[4,6] w3>
        { [c] a = Conv(left, w1, b1) [r] b = Relu(a) [p] c = GlobalAveragePool(b) [f] d = Flatten(c)
          [fc] e = Gemm<transB=1>(right, w2, b2) [add] h = Add(d, e) [out] y = Gemm<transB=1>(h, w3) }""",
        3,
    ),
    "two outputs": Kind(
        """g (float[N,3,8,8] x) => (float[N,4,8,8] y, float[N,4,8,8] z)
        <float[4,3,1,1] w1, float[4] b1, float[4,4,1,1] w2>
        { [c1] a = Conv(x, w1, b1) [r] y = Relu(a) [c2] z = Conv(y, w2) }""",
        2,
    ),
    "dynamic height and width": Kind(
        """g (float[N,3,H,W] x) => (float[N,4,P,Q] y) <float[8,3,3,3] w1, float[8] b1, float[4,8,1,1] w2,
         float[4] scales = {1, 1, 2, 2}>
        { [c1] a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1, b1) [r] b = Relu(a)
          [up] c = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">
            (b, , scales)
          [c2] y = Conv(c, w2) }""",
        2,
        dims=(1, 12, 20),
    ),
    "shapes computed at run time": Kind(
        """g (float[N,3,H,W] x) => (float[N,D] y)
        <float[4,3,3,3] w1, float[4] b1, int64[1] zero = {0}, int64[1] rest = {-1}>
        { [c1] a = Conv<pads=[1,1,1,1]>(x, w1, b1) [shape] s = Shape(a) [batch] n = Gather(s, zero)
          [to] t = Concat<axis=0>(n, rest) [flat] y = Reshape(a, t) }""",
        1,
        dims=(2, 6, 7),
    ),
    "shared weight": Kind(
        """g (float[N,4,8,8] x) => (float[N,4,8,8] y) <float[4,4,3,3] w, float[4] b, float[4] c>
        { [c1] p = Conv<pads=[1,1,1,1]>(x, w, b) [r] q = Relu(p) [c2] r = Conv<pads=[1,1,1,1]>(q, w, b)
          [c3] y = Conv<pads=[1,1,1,1]>(r, w, c) }""",
        3,
    ),
    "weight computed at run time": Kind(
        """g (float[N,4,8,8] x, float[4,4,1,1] w) => (float[N,4,8,8] y) <float[4,4,1,1] v>
        { [c1] a = Conv(x, v) [c2] y = Conv(a, w) }""",
        1,
    ),
    "condition": Kind(
        """g (float[N,3,8,8] x, bool flag) => (float[N,4,8,8] y) <float[4,3,1,1] w1, float[4] b1, float[4,4,1,1] w2>
        { [c1] a = Conv(x, w1, b1) [r] b = Relu(a)
          [choice] c = If (flag) <
            then_branch = one () => (float[N,4,8,8] t) { [then_conv] t = Conv(b, w2) },
            else_branch = two () => (float[N,4,8,8] e) { [else_neg] e = Neg(b) }>
          [c2] y = Conv(c, w2) }""",
        2,
    ),
    "loop": Kind(
        """g (float[1,4,8,8] x) => (float[1,4,8,8] y)
        <float[4,4,1,1] w1, float[4] b1, float[4,4,1,1] w2, int64 times = {3}, bool go = {1}>
        { [c1] a = Conv(x, w1, b1)
          [repeat] b = Loop (times, go, a) <
            body = step (int64 i, bool c, float[1,4,8,8] p) => (bool d, float[1,4,8,8] q)
            { d = Identity(c) [inner] r = Conv(p, w2) q = Tanh(r) }>
          [c2] y = Conv(b, w2) }""",
        2,
        dims=(),
    ),
    "scan": Kind(
        """g (float[4,T,6] x) => (float[4,T,5] y) <float[6,5] w1, float[5] b1, float[5,5] w2>
        { [fc] a0 = MatMul(x, w1) [b] a = Add(a0, b1) [r] h = Relu(a)
          [run] s = Scan<num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1], body = step (float[4,5] p)
            => (float[4,5] q) { [inner] m = MatMul(p, w2) q = Tanh(m) }>(h)
          [out] y = MatMul(s, w2) }""",
        2,
        dims=(3,),
    ),
    "recurrent": Kind(
        """g (float[T,2,4] x) => (float[T,2,5] y)
        <float[1,24,4] w, float[1,24,6] r, float[1,48] b, float[6,5] w2, int64[1] axis = {1}>
        { [lstm] h = LSTM<hidden_size=6>(x, w, r, b) [sq] s = Squeeze(h, axis) [fc] y = MatMul(s, w2) }""",
        1,
        dims=(3,),
    ),
    "initializers that are inputs": Kind(RESIDUAL, 3, opset=8, ir=3, make=_inputs_too),
    "constant nodes": Kind(RESIDUAL, 3, make=_constant_nodes),
    "model-local function": Kind(RESIDUAL, 3, make=_function),
    "opset 7": Kind(RESIDUAL, 3, opset=7, ir=3, make=_inputs_too),
    "opset 22": Kind(RESIDUAL, 3, opset=22, ir=10),
    "split and slice": Kind(
        """g (float[N,4,8,8] x) => (float[N,2,8,8] y)
        <float[8,4,3,3] w1, float[8] b1, float[2,4,1,1] w2, float[2,2,1,1] w3>
        { [c1] a = Conv<pads=[1,1,1,1]>(x, w1, b1) [r] b = Relu(a) [s] l, h = Split<axis=1>(b) [c2] c = Conv(l, w2)
          [s2] i, j = Split<axis=1>(h) [c3] d = Conv(i, w3) [add] e = Add(c, d) [mul] y = Mul(e, j) }""",
        3,
        opset=13,
    ),
    "pools, padding and activations": Kind(
        """g (float[N,3,9,9] x) => (float[N,4] y)
        <float[8,3,3,3] w1, float[8] b1, float[8,8,3,3] w2, float[8,1,1] slope,
         float[4,8,1,1] w3, float[4] b3, int64[8] wide = {0,0,1,1,0,0,1,1}>
        { [pad] p = Pad<mode="reflect">(x, wide) [c1] a = Conv(p, w1, b1) [prelu] b = PRelu(a, slope)
          [max] c = MaxPool<kernel_shape=[2,2], strides=[1,1]>(b) [c2] d = Conv<pads=[1,1,1,1]>(c, w2)
          [hard] e = HardSwish(d) [avg] f = AveragePool<kernel_shape=[2,2]>(e) [c3] h = Conv(f, w3, b3)
          [leaky] i = LeakyRelu<alpha=0.1>(h) [mean] y = ReduceMean<axes=[2,3], keepdims=0>(i) }""",
        3,
    ),
    "instance normalization and depth to space": Kind(
        """g (float[N,3,6,6] x) => (float[N,1,12,12] y)
        <float[4,3,3,3] w1, float[4] scale, float[4] shift, float[4,4,1,1] w2>
        { [c1] a = Conv<pads=[1,1,1,1]>(x, w1) [norm] b = InstanceNormalization(a, scale, shift) [r] c = Relu(b)
          [c2] d = Conv(c, w2) [shuffle] y = DepthToSpace<blocksize=2>(d) }""",
        2,
    ),
    "float16": Kind(
        """g (float16[N,3,8,8] x) => (float16[N,4] y)
        <float16[8,3,3,3] w1, float16[8] b1, float16[4,8] w2, float16[4] b2>
        { [c1] a = Conv<pads=[1,1,1,1]>(x, w1, b1) [r] b = Relu(a) [p] c = GlobalAveragePool(b) [f] d = Flatten(c)
          [fc] y = Gemm<transB=1>(d, w2, b2) }""",
        2,
    ),
    "bfloat16": Kind(
        """g (bfloat16[N,6] x) => (bfloat16[N,4] y) <bfloat16[6,8] w1, bfloat16[8] b1, bfloat16[8,4] w2>
        { [fc] a = MatMul(x, w1) [b] c = Add(a, b1) [r] d = Relu(c) [out] y = MatMul(d, w2) }""",
        2,
    ),
}  # fmt: skip
