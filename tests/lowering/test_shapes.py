"""Pools, means, concatenations, normalizations and what only moves values, in integers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from support.build import Qdq
from support.prove.lowering import Lowered, check, lower
from support.runs import session

RNG = np.random.default_rng(7)
IMAGE = "float[2,6,9,7] x"


def image(outputs: str = "float[2,C,H,W] r", scale: float = 0.0117193, zero_point: int = 120) -> Qdq:
    return Qdq(IMAGE, outputs).q("x", scale, zero_point)


def end(made: Qdq, scale: float = 0.0083377, zero_point: int = 128) -> Qdq:
    return made.q("y", scale, zero_point).node("r = Identity(y_d)")


def own(lowered: Lowered) -> dict[str, int]:
    return {k.removeprefix("onnxq."): v for k, v in lowered.ops.items() if k.startswith("onnxq")}


def attributes(node: onnx.NodeProto) -> dict:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def constant(lowered: Lowered, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(t for t in lowered.proto.graph.initializer if t.name == name))


AVERAGES = {
    "no padding": "AveragePool<kernel_shape=[3,2], strides=[2,1]>(x_d)",
    "padding counts": "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x_d)",
    "padding does not count": "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x_d)",
    "padding on one side": "AveragePool<kernel_shape=[3,3], pads=[0,2,1,0], strides=[2,2]>(x_d)",
    "ceil": "AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(x_d)",
    "ceil, padding counts": "AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,0,0], ceil_mode=1, "
    "count_include_pad=1>(x_d)",
    "ceil, padding": "AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], ceil_mode=1>(x_d)",
    "dilated": "AveragePool<kernel_shape=[2,2], dilations=[2,3]>(x_d)",
    "same": 'AveragePool<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER">(x_d)',
    "global": "GlobalAveragePool(x_d)",
    "mean of images": "ReduceMean<keepdims=1>(x_d, spatial)",
    "mean of images, axes gone": "ReduceMean<keepdims=0>(x_d, spatial)",
    "mean of channels": "ReduceMean<keepdims=1>(x_d, channels)",
    "mean along the last axes": "ReduceMean<keepdims=0>(x_d, last)",
    "sum": "ReduceSum<keepdims=1>(x_d, last)",
}  # fmt: skip


@pytest.mark.parametrize("name", AVERAGES)
def test_averages(name: str) -> None:
    text = AVERAGES[name]
    flat = "keepdims=0" in text
    made = image("float[2,6] r" if "axes gone" in name else "float[2,6,9] r" if flat else "float[2,C,H,W] r")
    made.const("spatial", [2, 3], np.int64).const("channels", [1], np.int64).const("last", [-1], np.int64)
    lowered = check(end(made.node(f"y = {text}")))
    assert sum(own(lowered).values()) == 1 and not lowered.reasons
    varies = name in (
        "padding does not count",
        "padding on one side",
        "ceil",
        "ceil, padding counts",
        "ceil, padding",
        "same",
    )
    multiplier = constant(lowered, next(n for n in lowered.proto.graph.node if n.domain).input[1])
    assert (multiplier.ndim == 3) == varies


def test_the_average_of_a_sum_that_has_no_quantizer() -> None:
    made = Qdq("float[2,6,9,7] x, float[2,6,9,7] z", "float[2,6,1,1] r").q("x", 0.0117193).q("z", 0.0091139)
    lowered = check(end(made.node("s = Add(x_d, z_d) y = GlobalAveragePool(s)")))
    assert own(lowered) == {"Add": 1, "ReduceMean": 1}


def test_the_average_of_raw_accumulators() -> None:
    """The convolution's own scales, one a channel, become one scale first, in the convolution itself."""
    made = image("float[2,5,1,1] r").weight(
        "w", RNG.integers(-127, 128, (5, 6, 3, 3)), np.linspace(0.01, 0.02, 5), axis=0
    )
    lowered = check(end(made.node("c = Conv(x_d, w_d) y = GlobalAveragePool(c)")))
    assert own(lowered) == {"Conv": 1, "ReduceMean": 1}


def test_what_an_average_needs_to_know() -> None:
    made = Qdq("float[N,6,H,W] x", "float[N,6,1,1] r").q("x", 0.01).node("[mean] y = GlobalAveragePool(x_d)")
    assert lower(end(made).proto()).reasons["mean"].startswith("the number of elements that it averages is unknown")
    made = Qdq("float[N,6,H,W] x", "float[N,6,H,W] r").q("x", 0.01)
    made.node("[pool] y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x_d)")
    assert "depends on unknown sizes" in lower(end(made).proto()).reasons["pool"]
    made = (
        image("float[2,6,9,1] r").const("axes", [0, 3], np.int64).node("[mean] y = ReduceMean<keepdims=0>(x_d, axes)")
    )
    made.outputs = "float[6,9] r"
    assert lower(end(made).proto()).reasons["mean"] == "its axes [0, 3] are not adjacent"
    made = Qdq("float[1,1,3000,3000] x", "float[1,1,1,1] r").q("x", 0.01, 0).node("[mean] y = GlobalAveragePool(x_d)")
    assert lower(end(made).proto()).reasons["mean"].startswith("its sum could reach 2295000000")


MAXIMA = {
    "plain": "MaxPool<kernel_shape=[3,2], strides=[2,1]>(x_d)",
    "padded": "MaxPool<kernel_shape=[3,3], pads=[1,0,1,2]>(x_d)",
    "ceil": "MaxPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(x_d)",
    "dilated": "MaxPool<kernel_shape=[2,2], dilations=[2,3]>(x_d)",
    "same": 'MaxPool<kernel_shape=[2,2], strides=[2,2], auto_pad="SAME_LOWER">(x_d)',
    "global": "GlobalMaxPool(x_d)",
}


@pytest.mark.parametrize("name", MAXIMA)
@pytest.mark.parametrize("scale", [0.0117193, 0.0083377])
def test_max_pools_move_codes(name: str, scale: float) -> None:
    lowered = check(end(image().node(f"y = {MAXIMA[name]}"), scale, 120), share=0.0)
    assert own(lowered) == {"MaxPool": 1} | ({} if scale == 0.0117193 else {"Requantize": 1})


def test_pools_along_one_axis() -> None:
    average = "AveragePool<kernel_shape=[3], pads=[1,1]>"
    for op in ("MaxPool<kernel_shape=[3], strides=[2], pads=[1,1]>", average, "GlobalAveragePool"):
        made = Qdq("float[2,6,9] x", "float[2,6,L] r").q("x", 0.0117193, 120).node(f"y = {op}(x_d)")
        assert not check(end(made)).reasons


def test_a_global_maximum_of_unknown_size_is_a_reduction() -> None:
    made = Qdq("float[N,6,H,W] x", "float[N,6,1,1] r").q("x", 0.0117193, 120).node("y = GlobalMaxPool(x_d)")
    assert check(end(made, 0.0117193, 120), share=0.0).ops["ReduceMax"] == 1


MOVERS = {
    "Reshape": ("y = Reshape(x_d, k)", [2, -1], "float[2,378] r"),
    "Flatten": ("y = Flatten(x_d)", None, "float[2,378] r"),
    "Squeeze": ("u = Unsqueeze(x_d, k) y = Squeeze(u, k)", [0], "float[2,6,9,7] r"),
    "Transpose": ("y = Transpose<perm=[0,2,3,1]>(x_d)", None, "float[2,9,7,6] r"),
    "Slice": ("y = Slice(x_d, k, l, m)", [1, 2], "float[2,C,H,7] r"),
    "Split": ("y, z = Split<axis=1, num_outputs=2>(x_d)", None, "float[2,3,9,7] r"),
    "Gather": ("y = Gather<axis=1>(x_d, k)", [4, 0], "float[2,2,9,7] r"),
    "Pad with zeros": ("y = Pad(x_d, k)", [0, 0, 1, 2, 0, 0, 0, 1], "float[2,6,10,10] r"),
    "Pad by reflection": ('y = Pad<mode="reflect">(x_d, k)', [0, 0, 1, 2, 0, 0, 0, 1], "float[2,6,10,10] r"),
    "Pad with the edge": ('y = Pad<mode="edge">(x_d, k)', [0, 0, 1, 2, 0, 0, 0, 1], "float[2,6,10,10] r"),
    "Pad with a number": ("y = Pad(x_d, k, v)", [0, 0, 1, 2, 0, 0, 0, 1], "float[2,6,10,10] r"),
    "Expand": ("y = Expand(x_d, k)", [3, 1, 1, 1, 1], "float[3,2,6,9,7] r"),
    "Tile": ("y = Tile(x_d, k)", [1, 1, 2, 1], "float[2,6,18,7] r"),
    "SpaceToDepth": ("s = Slice(x_d, k, l, m) y = SpaceToDepth<blocksize=2>(s)", [0, 0], "float[2,24,2,C] r"),
    "DepthToSpace": ("s = Slice(x_d, k, l, m) y = DepthToSpace<blocksize=2>(s)", [0, 0], "float[2,1,8,14] r"),
    "Resize": ('y = Resize<mode="nearest">(x_d, , f)', None, "float[2,6,18,14] r"),
    "Identity and Dropout": ("u = Identity(x_d) y = Dropout(u)", None, "float[2,6,9,7] r"),
    "GatherElements": ("y = GatherElements<axis=0>(x_d, e)", None, "float[1,6,9,7] r"),
    "ReduceMax": ("y = ReduceMax<keepdims=1>(x_d, k)", [1], "float[2,1,9,7] r"),
    "ReduceMin": ("y = ReduceMin<keepdims=1>(x_d, k)", [1], "float[2,1,9,7] r"),
}


def moved(name: str, scale: float) -> Qdq:
    text, values, outputs = MOVERS[name]
    made = image(outputs).const("f", [1, 1, 2, 2]).const("e", np.zeros((1, 6, 9, 7)), np.int64)
    if values is not None:
        made.const("k", values, np.int64)
    ends = {"SpaceToDepth": [4, 6], "DepthToSpace": [4, 4]}.get(name, [5, 8])
    made.const("l", ends, np.int64).const(
        "m", [1, 2] if name == "DepthToSpace" else [2, 3] if name != "Slice" else [1, 2], np.int64
    )
    if name == "DepthToSpace":
        made.outputs = "float[2,1,8,14] r"
    return end(made.const("v", np.float32(0.71)).node(text), scale, 120)


@pytest.mark.parametrize("name", MOVERS)
@pytest.mark.parametrize("scale", [0.0117193, 0.0083377])
def test_what_moves_values_moves_codes(name: str, scale: float) -> None:
    """With one scale on both sides nothing is computed; with two there is one Requantize."""
    lowered = check(moved(name, scale), share=0.0)
    assert not lowered.reasons
    assert own(lowered) == ({} if scale == 0.0117193 else {"Requantize": 1})


def test_padding_between_two_codes_stays_float_without_a_quantizer_behind_it() -> None:
    made = image("float[2,6,10,9] y").const("k", [0, 0, 1, 1, 0, 0, 0, 1], np.int64).const("v", 0.71)
    assert (
        lower(made.node("[pad] y = Pad(x_d, k, v)").proto()).reasons["pad"]
        == "it fills in 0.71, which is not a code of its input"
    )


def test_what_computes_new_values_stays_float() -> None:
    texts = {
        'y = Resize<mode="linear">(x_d, , f)': "it interpolates (linear)",
        "y, i = MaxPool<kernel_shape=[2,2]>(x_d)": "its further output i is read as well",
    }
    for text, reason in texts.items():
        made = image("float[2,6,H,W] r, int64[2,6,8,6] i" if "MaxPool" in text else "float[2,6,H,W] r").const(
            "f", [1, 1, 2, 2]
        )
        assert lower(end(made.node(f"[op] {text}")).proto()).reasons["op"] == reason


def test_a_quantizer_moves_before_what_only_moves_values() -> None:
    """Conv → Relu → MaxPool → Reshape → Q: the convolution makes the codes at once."""
    made = image("float[2,N] r").weight("w", RNG.integers(-127, 128, (5, 6, 3, 3)), 0.013)
    made.const("k", [2, -1], np.int64)
    made.node("c = Conv(x_d, w_d) a = Relu(c) p = MaxPool<kernel_shape=[2,2]>(a) y = Reshape(p, k)")
    lowered = check(end(made, 0.0533, 0))
    assert own(lowered) == {"Conv": 1, "MaxPool": 1}


def test_the_shape_of_what_became_integers() -> None:
    made = image("float[2,378] r").const("zero", [0], np.int64).const("rest", [-1], np.int64)
    made.node("s = Shape(x_d) n = Gather(s, zero) t = Concat<axis=0>(n, rest) y = Reshape(x_d, t)")
    lowered = check(end(made, 0.0117193, 120), share=0.0)
    assert "DequantizeLinear" in lowered.ops and lowered.ops["DequantizeLinear"] == 1


TABLE = RNG.integers(-127, 128, (11, 8))


def test_an_embedding_table_of_codes_is_looked_up_in_integers() -> None:
    made = Qdq("int64[2,5] ids", "float[2,5,8] r").weight("t", TABLE, 0.0117193).node("y = Gather(t_d, ids)")
    lowered = lower(
        end(
            made,
            0.0117193,
            0,
        ).proto()
    )
    assert lowered.ops["Gather"] == 1 and not lowered.reasons


def three(scales: tuple[float, ...] = (0.0117193, 0.0091139, 0.0153371), outputs: str = "float[2,18,4,4] r") -> Qdq:
    made = Qdq(", ".join(f"float[2,6,4,4] {n}" for n in "abc"), outputs)
    for name, scale in zip("abc", scales, strict=True):
        made.q(name, scale, 120)
    return made


def test_concat_of_different_scales() -> None:
    lowered = check(end(three().node("y = Concat<axis=1>(a_d, b_d, c_d)"), 0.0167713))
    assert own(lowered) == {"Concat3": 1}
    assert attributes(lowered.node("onnxq.Concat3"))["zero_points"] == [120, 120, 120]


def test_concat_of_one_scale_only_moves() -> None:
    lowered = check(end(three((0.0117193,) * 3).node("y = Concat<axis=-3>(a_d, b_d, c_d)"), 0.0117193, 120), share=0.0)
    assert own(lowered) == {} and lowered.ops["Concat"] == 1


def test_concat_with_a_constant_and_a_relu() -> None:
    made = three(outputs="float[2,19,4,4] r").const("k", RNG.normal(size=(2, 1, 4, 4)))
    lowered = check(end(made.node("t = Concat<axis=1>(a_d, k, b_d, c_d) y = Relu(t)"), 0.0167713, 0))
    assert own(lowered) == {"Concat4": 1}


def test_concat_of_more_than_eight() -> None:
    made = three(outputs="float[2,54,4,4] r").node("y = Concat<axis=1>(a_d, b_d, c_d, a_d, b_d, c_d, a_d, b_d, c_d)")
    lowered = check(end(made, 0.0167713))
    assert lowered.ops["Concat"] == 1 and own(lowered) == {"Requantize": 9}
    made = three(outputs="float[2,54,4,4] y").node(
        "[cat] y = Concat<axis=1>(a_d, b_d, c_d, a_d, b_d, c_d, a_d, b_d, c_d)"
    )
    assert lower(made.proto()).reasons["cat"].startswith("it joins 9 tensors of different scales")


def test_concat_of_accumulators() -> None:
    """Nothing quantizes the branches: each makes the codes of the QuantizeLinear behind the Concat."""
    made = image("float[2,9,7,5] r")
    for name, channels in (("v", 4), ("w", 5)):
        made.weight(name, RNG.integers(-127, 128, (channels, 6, 3, 3)), np.linspace(0.01, 0.02, channels), axis=0)
    made.node("a = Conv(x_d, v_d) b0 = Conv(x_d, w_d) b = Relu(b0) y = Concat<axis=1>(a, b)")
    lowered = check(end(made, 0.0833))
    assert own(lowered) == {"Conv": 2} and lowered.ops["Concat"] == 1


def test_concat_without_a_quantizer_is_wide() -> None:
    lowered = check(three(outputs="float[2,18,4,4] y").node("y = Concat<axis=1>(a_d, b_d, c_d)"))
    assert attributes(lowered.node("onnxq.Concat3"))["y_type"] == 6


JOINS = {
    "Where": "y = Where(flags, a_d, b_d)",
    "Max": "y = Max(a_d, b_d, c_d)",
    "Min with a constant": "y = Min(a_d, k)",
}


@pytest.mark.parametrize("name", JOINS)
def test_other_joins(name: str) -> None:
    made = three(outputs="float[2,6,4,4] r").const("flags", RNG.integers(0, 2, (4, 4)), bool).const("k", 0.3)
    lowered = check(end(made.node(JOINS[name]), 0.0167713))
    assert not lowered.reasons


NORMS = {
    "Softmax": ("y = Softmax<axis=-1>(x_d)", 1 / 255, 0),
    "Softmax of channels": ("y = Softmax<axis=1>(x_d)", 1 / 255, 0),
    "LayerNormalization": ("y = LayerNormalization(x_d, g, b)", 0.0213, 128),
    "LayerNormalization without bias": ("y = LayerNormalization<epsilon=0.01>(x_d, g)", 0.0213, 128),
}


@pytest.mark.parametrize("name", NORMS)
def test_normalizations(name: str) -> None:
    """Of 2268 results 2 may differ; integers approximate exp and the square root far better than that."""
    text, scale, zero_point = NORMS[name]
    made = Qdq("float[2,6,9,21] x", "float[2,6,9,21] r").q("x", 0.0317, 120)
    made.const("g", RNG.normal(1, 0.3, 21)).const("b", RNG.normal(0, 0.3, 21)).node(text)
    lowered = check(end(made, scale, zero_point), low=-4.0, high=4.0)
    assert len(own(lowered)) == 1 and not lowered.reasons


def test_layer_normalization_of_a_sum_that_has_no_quantizer() -> None:
    made = Qdq("float[2,9,32] x, float[2,9,32] z", "float[2,9,32] r").q("x", 0.0117193).q("z", 0.0091139)
    made.const("g", np.ones(32)).node("s = Add(x_d, z_d) y = LayerNormalization(s, g)")
    lowered = check(end(made, 0.0213), share=0.01)  # the sum has 16 bits: a step of it is 1 % of one of the result
    assert own(lowered) == {"Add": 1, "LayerNorm": 1}


def test_why_a_normalization_stays_float() -> None:
    made = Qdq("float[2,9,K] x", "float[2,9,K] r").q("x", 0.0117193).const("g", 1.0)
    made.node("[norm] y = LayerNormalization(x_d, g)")
    assert "the length of the axis that it normalizes" in lower(end(made).proto()).reasons["norm"]
    made = Qdq("float[2,9,8] x", "float[2,9,8] r").q("x", 0.0117193).const("g", np.ones((9, 8)))
    made.node("[norm] y = LayerNormalization<axis=1>(x_d, g)")
    assert lower(end(made).proto()).reasons["norm"].startswith("it normalizes over more than the last axis")


SPELLED = {
    "LayerNorm": """m = ReduceMean<keepdims=1>(x_d, last) d = Sub(x_d, m) q = Pow(d, two)
        v = ReduceMean<keepdims=1>(q, last) e = Add(v, eps) s = Sqrt(e) n = Div(d, s) h = Mul(n, g) y = Add(h, b)""",
    "RMSNorm": """q = Mul(x_d, x_d) v = ReduceMean<keepdims=1>(q, last) e = Add(v, eps) s = Sqrt(e)
        i = Reciprocal(s) n = Mul(x_d, i) y = Mul(n, g)""",
}


def spelled(name: str, length: int | str = 21) -> Qdq:
    made = Qdq(f"float[2,6,{length}] x", f"float[2,6,{length}] r").q("x", 0.0317, 120).const("last", [-1], np.int64)
    made.const("two", 2.0).const("eps", 1e-5)
    width = length if isinstance(length, int) else 1
    made.const("g", RNG.normal(1, 0.3, width)).const("b", RNG.normal(0, 0.3, width))
    return made.node(SPELLED[name])


@pytest.mark.parametrize("name", SPELLED)
def test_normalizations_that_are_spelled_out(name: str) -> None:
    lowered = check(end(spelled(name), 0.0213, 128), low=-4.0, high=4.0)
    assert own(lowered) == {"LayerNorm": 1} and not lowered.reasons
    assert attributes(lowered.node("onnxq.LayerNorm"))["center"] == (name == "LayerNorm")


def test_one_that_is_not_lowered_as_a_whole() -> None:
    """Its parts are, as far as they go; those that stay say why the whole did."""
    reasons = lower(end(spelled("LayerNorm", "K"), 0.0213, 128).proto()).reasons
    assert reasons and all("the length of the axis that it normalizes is unknown" in r for r in reasons.values())


def test_a_guard_against_nan_behind_a_softmax_goes() -> None:
    made = Qdq("float[2,6,21] x", "float[2,6,21] r").q("x", 0.0317, 120).const("zero", 0.0)
    made.node("p = Softmax(x_d) n = IsNaN(p) y = Where(n, zero, p)")
    lowered = check(end(made, 1 / 255, 0))
    assert own(lowered) == {"Softmax": 1} and not {"IsNaN", "Where"} & set(lowered.ops)
    made = Qdq("float[2,6,21] x, float[2,6,21] z", "float[2,6,21] r").q("x", 0.0317, 120).const("zero", 0.0)
    made.node("[add] s = Add(x_d, z) p = Softmax(s) n = IsNaN(p) y = Where(n, zero, p)")  # z may be anything
    assert {"IsNaN", "Where"} <= set(lower(end(made, 1 / 255, 0).proto()).ops)


def test_a_tensor_of_unknown_rank_stays_float() -> None:
    """Our operators cannot tell onnxruntime of a tensor of unknown rank; it would take Shape of it for []."""
    made = Qdq("float[24] x, int64[K] shape", "float[24] r, int64[L] size").node("u = Reshape(x, shape)")
    made.q("u", 0.0317, 120).node("[sig] y = Sigmoid(u_d)").q("y", 1 / 255, 0)
    made.node("size = Shape(y_d) flat = Constant<value_ints=[-1]>()")
    proto = made.node("r = Reshape(y_d, flat)").proto()
    lowered = lower(proto)
    assert lowered.reasons["sig"] == "the rank of its input u_d is unknown"
    feed = {"x": np.linspace(-4, 4, 24, dtype=np.float32), "shape": np.array([2, 3, 4])}
    got = session(lowered.proto, optimize=True).run(None, feed)
    assert got[1].tolist() == [2, 3, 4]
