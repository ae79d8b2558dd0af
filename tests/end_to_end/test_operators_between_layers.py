"""Conv, an operator, Conv: for every variant of every operator the product runs in onnxruntime as users run it.

onnxruntime makes integer forms of the operators that it finds between Q/DQ and moves the Transposes of integer layers
through others; not every variant survives that. Held against the float model, unoptimized and optimized by default.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from onnx import numpy_helper

import onnxq
from onnxq.profiles.schema import builtin_names

OPSETS = (13, 17, 18, 19, 21, 23)


class Variant(NamedTuple):
    """An operator on c: [1, 4, 6, 8] with results in e, the constants it takes, the first opset that has it."""

    steps: str
    constants: str = ""
    opset: int = 13
    last: int = 99


def axes(op: str, opset: int, axes_: str, **attributes: int) -> list[Variant]:
    """A reduction with axes as an attribute, and as an input from that opset on."""
    extra = "".join(f", {k}={v}" for k, v in attributes.items())
    return [
        Variant(f"e = {op}<axes=[{axes_}]{extra}>(c)", last=opset - 1),
        Variant(
            f"e = {op}<{extra[2:] or 'keepdims=1'}>(c, k)", f"int64[{axes_.count(',') + 1}] k = {{{axes_}}}", opset
        ),
    ]


VARIANTS: dict[str, Variant] = {
    "Pad": Variant("e = Pad(c, p)", "int64[8] p = {0, 0, 1, 2, 0, 0, 2, 1}"),
    "Pad channels": Variant("e = Pad(c, p)", "int64[8] p = {0, 0, 1, 0, 0, 0, 0, 1}"),
    "Pad value": Variant("e = Pad(c, p, v)", "int64[8] p = {0, 0, 1, 2, 0, 0, 2, 1}, float v = {0.7}"),
    "Pad edge": Variant('e = Pad<mode="edge">(c, p)', "int64[8] p = {0, 0, 1, 2, 0, 0, 2, 1}"),
    "Pad reflect": Variant('e = Pad<mode="reflect">(c, p)', "int64[8] p = {0, 0, 1, 2, 0, 0, 2, 1}"),
    "Pad wrap": Variant('e = Pad<mode="wrap">(c, p)', "int64[8] p = {0, 0, 1, 2, 0, 0, 2, 1}", 19),
    "Pad crops": Variant("e = Pad(c, p)", "int64[8] p = {0, 0, -1, 2, 0, 0, 2, -1}"),
    "Pad axes": Variant('e = Pad(c, p, "", a)', "int64[4] p = {1, 1, 1, 1}, int64[2] a = {2, 3}", 18),
    "Pad axes value": Variant("e = Pad(c, p, v, a)", "int64[2] p = {1, 1}, float v = {-0.5}, int64[1] a = {-1}", 18),
    "Pad axes edge": Variant('e = Pad<mode="edge">(c, p, "", a)', "int64[4] p = {1, 0, 1, 2}, int64[2] a = {3, 2}", 18),
    "CenterCropPad": Variant("e = CenterCropPad(c, n)", "int64[4] n = {1, 4, 8, 5}", 18),
    "CenterCropPad axes": Variant("e = CenterCropPad<axes=[2, 3]>(c, n)", "int64[2] n = {8, 5}", 18),
    "CenterCropPad crops": Variant("e = CenterCropPad<axes=[-1]>(c, n)", "int64[1] n = {5}", 18),
    **{
        f"Resize {mode} {how}": Variant(f'e = Resize<mode="{mode}"{attributes}>(c, "", {operands})', constants, opset)
        for mode in ("nearest", "linear", "cubic")
        for how, attributes, operands, constants, opset in (
            ("scales", "", "s", "float[4] s = {1, 1, 2, 1.5}", 13),
            ("sizes", "", '"", n', "int64[4] n = {1, 4, 9, 5}", 13),
            ("asymmetric", ', coordinate_transformation_mode="asymmetric"', "s", "float[4] s = {1, 1, 2, 2}", 13),
            ("align", ', coordinate_transformation_mode="align_corners"', "s", "float[4] s = {1, 1, 2, 2}", 13),
            ("axes", ", axes=[2, 3]", "s", "float[2] s = {2, 1.5}", 18),
            ("one axis", ", axes=[3]", '"", n', "int64[1] n = {11}", 18),
            ("not_larger", ', axes=[2, 3], keep_aspect_ratio_policy="not_larger"', '"", n', "int64[2] n = {12, 99}",
             18),
            ("not_smaller", ', keep_aspect_ratio_policy="not_smaller", axes=[2, 3]', '"", n', "int64[2] n = {9, 9}",
             18),
            ("rounded", ', axes=[2, 3], keep_aspect_ratio_policy="not_larger"', '"", n', "int64[2] n = {11, 13}", 18),
            ("one axis in proportion", ', axes=[2], keep_aspect_ratio_policy="not_smaller"', '"", n',
             "int64[1] n = {13}", 18),
            ("shrinks", "", "s", "float[4] s = {1, 1, 0.5, 0.75}", 13),
            ("shrinks one axis", ", axes=[-1]", "s", "float[1] s = {0.5}", 18),
            ("half_pixel_symmetric", ', coordinate_transformation_mode="half_pixel_symmetric"', "s",
             "float[4] s = {1, 1, 1.5, 2}", 19),
        )
    },
    **{
        f"Resize {mode} antialias": Variant(f'e = Resize<mode="{mode}", antialias=1{more}>(c, "", {s})', constants, 18)
        for mode in ("linear", "cubic")
        for more, s, constants in ((", axes=[2, 3]", "s", "float[2] s = {0.5, 0.5}"),)
    },
    "Resize outside": Variant("e = Resize<mode=\"cubic\", exclude_outside=1>(c, \"\", s)", "float[4] s = {1, 1, 2, 2}"),
    "Resize crop": Variant(
        'e = Resize<mode="linear", coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=0.5>'
        '(c, r, "", n)', "float[8] r = {0, 0, 0.1, 0.2, 1, 1, 0.8, 1.3}, int64[4] n = {1, 4, 6, 5}",
    ),
    "Resize crop axes": Variant(
        'e = Resize<axes=[2, 3], mode="linear", coordinate_transformation_mode="tf_crop_and_resize">(c, r, "", n)',
        "float[4] r = {0.1, 0.2, 0.8, 0.9}, int64[2] n = {6, 5}", 18,
    ),
    **{
        f"{op} {name}": Variant(f"e = {op}<kernel_shape=[2, 3]{attributes}>(c)", "", opset)
        for op in ("AveragePool", "MaxPool", "LpPool")
        for name, attributes, opset in (
            ("plain", "", 13),
            ("strides", ", strides=[2, 2]", 13),
            ("pads", ", pads=[1, 1, 0, 1], strides=[2, 1]", 13),
            ("same", ', auto_pad="SAME_UPPER", strides=[2, 2]', 13),
            ("same lower", ', auto_pad="SAME_LOWER"', 13),
            ("valid", ', auto_pad="VALID"', 13),
        )
    },
    **{
        f"{op} {name}": Variant(f"e = {op}<kernel_shape=[2, 3]{attributes}>(c)", "", opset)
        for op, opset in (("AveragePool", 19), ("MaxPool", 13))
        for name, attributes in (
            ("dilations", ", dilations=[2, 2]"),
            ("dilations pads", ", dilations=[2, 1], pads=[1, 1, 1, 1]"),
            ("dilations strides", ", dilations=[2, 2], strides=[2, 1]"),
            ("ceil", ", ceil_mode=1, strides=[2, 2]"),
            ("dilations ceil", ", ceil_mode=1, strides=[2, 2], dilations=[2, 2]"),
        )
    },
    "AveragePool include": Variant("e = AveragePool<kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1>(c)"),
    "AveragePool include dilations": Variant(
        "e = AveragePool<kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1, dilations=[2, 2]>(c)", "", 19
    ),
    "AveragePool include ceil": Variant(
        "e = AveragePool<kernel_shape=[2, 2], pads=[1, 1, 1, 1], strides=[2, 2], ceil_mode=1, count_include_pad=1>(c)",
    ),
    "MaxPool order": Variant("e = MaxPool<kernel_shape=[2, 2], storage_order=1>(c)"),
    "MaxPool indices": Variant("e, i = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(c)"),
    "MaxPool unpool": Variant(
        "m, i = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(c) "
        "e = MaxUnpool<kernel_shape=[2, 2], strides=[2, 2]>(m, i)"
    ),
    "GlobalAveragePool": Variant("e = GlobalAveragePool(c)"),
    "GlobalMaxPool": Variant("e = GlobalMaxPool(c)"),
    "GlobalLpPool": Variant("e = GlobalLpPool(c)"),
    **{
        f"{op} {i} {j}": variant
        for op, opset in (("ReduceMean", 18), ("ReduceMax", 18), ("ReduceMin", 18), ("ReduceL2", 18), ("ReduceSum", 13))
        for j, at in enumerate(("2, 3", "-1"))
        for i, variant in enumerate(axes(op, opset, at, keepdims=1))
    },
    "ReduceMean nothing": Variant("e = ReduceMean<noop_with_empty_axes=1>(c)", "", 18),
    "Split": Variant("e, f = Split<axis=2>(c)", "", 13, 17),
    "Split sizes": Variant("e, f = Split<axis=-1>(c, n)", "int64[2] n = {3, 5}"),
    "Split num_outputs": Variant("e, f, g = Split<axis=3, num_outputs=3>(c)", "", 18),
    "Split channels": Variant("f, g = Split<axis=1>(c, n) e = Concat<axis=-3>(g, f)", "int64[2] n = {1, 3}"),
    "Slice": Variant("e = Slice(c, b, d)", "int64[3] b = {0, 0, 1}, int64[3] d = {1, 4, 5}"),
    "Slice axes": Variant("e = Slice(c, b, d, a)", "int64[1] b = {1}, int64[1] d = {-1}, int64[1] a = {-1}"),
    "Slice steps": Variant(
        "e = Slice(c, b, d, a, t)", "int64[1] b = {0}, int64[1] d = {99}, int64[1] a = {2}, int64[1] t = {2}"
    ),
    "Slice backwards": Variant(
        "e = Slice(c, b, d, a, t)", "int64[1] b = {-1}, int64[1] d = {-99}, int64[1] a = {3}, int64[1] t = {-1}"
    ),
    "Gather": Variant("e = Gather<axis=2>(c, j)", "int64[3] j = {0, 2, -1}"),
    "Gather channels": Variant("e = Gather<axis=1>(c, j)", "int64[4] j = {3, 1, 0, 2}"),
    "GatherElements": Variant("e = GatherElements<axis=3>(c, j)", "int64[1,4,1,2] j = {0, 1, 2, 3, 4, 5, 6, 7}"),
    "Concat": Variant("r = Relu(c) e = Concat<axis=2>(c, r)"),
    "Concat negative": Variant("r = Relu(c) e = Concat<axis=-1>(c, r, c)"),
    "Softmax": Variant("e = Softmax(c)"),
    "Softmax channels": Variant("e = Softmax<axis=1>(c)"),
    "LogSoftmax": Variant("e = LogSoftmax<axis=1>(c)"),
    "LayerNormalization": Variant("e = LayerNormalization(c, w8)", "", 17),
    "LayerNormalization axis": Variant("e = LayerNormalization<axis=2>(c, w68, w68)", "", 17),
    "InstanceNormalization": Variant("e = InstanceNormalization(c, w4, w4)"),
    "GroupNormalization": Variant("e = GroupNormalization<num_groups=2>(c, w4, w4)", "", 21),
    "RMSNormalization": Variant("e = RMSNormalization<axis=-1>(c, w8)", "", 23),
    "LRN": Variant("e = LRN<size=3>(c)"),
    "LpNormalization": Variant("e = LpNormalization<axis=1>(c)"),
    "MeanVarianceNormalization": Variant("e = MeanVarianceNormalization(c)"),
    "GridSample": Variant("e = GridSample(c, grid)", "", 16, 19),
    "GridSample new": Variant('e = GridSample<mode="linear">(c, grid)', "", 20),
    "DepthToSpace": Variant("f = DepthToSpace<blocksize=2>(c) e = Concat<axis=1>(f, f, f, f)"),
    "DepthToSpace CRD": Variant('f = DepthToSpace<blocksize=2, mode="CRD">(c) e = Concat<axis=1>(f, f, f, f)'),
    "SpaceToDepth": Variant("f = SpaceToDepth<blocksize=2>(c) e, g = Split<axis=1>(f, n)", "int64[2] n = {4, 12}"),
    "Relu": Variant("e = Relu(c)"),
    "Clip": Variant("e = Clip(c, lo, hi)", "float lo = {-0.5}, float hi = {1}"),
    "Clip low": Variant("e = Clip(c, lo)", "float lo = {-0.5}"),
    "Clip high": Variant('e = Clip(c, "", hi)', "float hi = {0.5}"),
    "Clip nothing": Variant("e = Clip(c)"),
    "LeakyRelu": Variant("e = LeakyRelu<alpha=0.2>(c)"),
    "PRelu": Variant("e = PRelu(c, w411)"),
    "Elu": Variant("e = Elu<alpha=0.5>(c)"),
    "Selu": Variant("e = Selu(c)"),
    "Celu": Variant("e = Celu<alpha=0.5>(c)"),
    "ThresholdedRelu": Variant("e = ThresholdedRelu<alpha=0.3>(c)"),
    "Sigmoid": Variant("e = Sigmoid(c)"),
    "Tanh": Variant("e = Tanh(c)"),
    "HardSigmoid": Variant("e = HardSigmoid(c)"),
    "HardSigmoid alpha": Variant("e = HardSigmoid<alpha=0.25, beta=0.4>(c)"),
    "HardSwish": Variant("e = HardSwish(c)", "", 14),
    "Gelu": Variant("e = Gelu(c)", "", 20),
    "Gelu tanh": Variant('e = Gelu<approximate="tanh">(c)', "", 20),
    "Mish": Variant("e = Mish(c)", "", 18),
    "Swish": Variant("e = Swish(c)", "", 24),
    "Softplus": Variant("e = Softplus(c)"),
    "Softsign": Variant("e = Softsign(c)"),
    "Erf": Variant("e = Erf(c)"),
    "Einsum": Variant('e = Einsum<equation="nchw,cd->ndhw">(c, w44)'),
    "Einsum transposes": Variant('e = Einsum<equation="nchw->ncwh">(c)'),
    "Reshape": Variant("e = Reshape(c, n)", "int64[4] n = {0, 4, 8, -1}"),
    "Flatten": Variant("f = Flatten<axis=2>(c) e = Reshape(f, n)", "int64[4] n = {1, 4, 6, 8}"),
    "Transpose": Variant("e = Transpose<perm=[0, 1, 3, 2]>(c)"),
    "Transpose channels": Variant(
        "t = Transpose<perm=[0, 2, 3, 1]>(c) u = Relu(t) e = Transpose<perm=[0, 3, 1, 2]>(u)"
    ),
    "Squeeze": Variant("s = Squeeze(c, a) e = Unsqueeze(s, a)", "int64[1] a = {0}"),
    "Expand": Variant("m = GlobalAveragePool(c) e = Expand(m, n)", "int64[4] n = {1, 4, 5, 3}"),
    "Tile": Variant("e = Tile(c, n)", "int64[4] n = {1, 1, 2, 1}"),
    "Add": Variant("e = Add(c, c)"),
    "Add constant": Variant("e = Add(c, w411)"),
    "Sub": Variant("r = Relu(c) e = Sub(c, r)"),
    "Mul": Variant("s = Sigmoid(c) e = Mul(c, s)"),
    "Mul constant": Variant("e = Mul(c, w411)"),
    "Mul by a pool": Variant("m = GlobalAveragePool(c) s = Sigmoid(m) e = Mul(s, c)"),
    "Div": Variant("e = Div(c, w411)"),
    "Sum": Variant("r = Relu(c) e = Sum(c, r, c)"),
    "Mean": Variant("r = Relu(c) e = Mean(c, r)"),
    "Max": Variant("e = Max(c, w411)"),
    "Min": Variant("r = Sigmoid(c) e = Min(c, r)"),
    "Where": Variant("z = Greater(c, zero) e = Where(z, c, zero)"),
    "Pow": Variant("e = Pow(c, two)"),
    "Abs": Variant("e = Abs(c)"),
    "Neg": Variant("e = Neg(c)"),
    "Sqrt": Variant("r = Relu(c) e = Sqrt(r)"),
    "Exp": Variant("e = Exp(c)"),
    "Dropout": Variant("e, i = Dropout(c)"),
    "BatchNormalization": Variant("r = Relu(c) e = BatchNormalization(r, w4, w4, w4, v4)"),
    "CumSum": Variant("e = CumSum(c, ax)", "int64 ax = {2}"),
    "TopK": Variant("e, i = TopK<axis=3>(c, n)", "int64[1] n = {5}"),
    "ReverseSequence": Variant("e = ReverseSequence<batch_axis=0, time_axis=1>(c, n)", "int64[1] n = {3}"),
    "Trilu": Variant("e = Trilu(c)", "", 14),
    "ConvTranspose": Variant("e = ConvTranspose<strides=[2, 2], output_padding=[1, 0]>(c, wt)"),
    "ConvTranspose grouped": Variant("e = ConvTranspose<group=2, auto_pad=\"SAME_UPPER\", strides=[2, 1]>(c, wg)"),
    "MatMul": Variant("e = MatMul(c, w88)"),
    "MatMul batched": Variant("t = Transpose<perm=[0, 1, 3, 2]>(c) e = MatMul(c, t)"),
    "Conv": Variant('e = Conv<auto_pad="SAME_LOWER", strides=[2, 1]>(c, wc)'),
}  # fmt: skip


def model(variant: Variant, opset: int) -> onnx.ModelProto:
    """The operator between two 1x1 convolutions."""
    rng = np.random.default_rng(0)
    shapes = {
        "w": (4, 3, 1, 1), "w2": (2, 4, 1, 1), "w4": (4,), "w8": (8,), "w68": (6, 8), "w411": (4, 1, 1), "w44": (4, 4),
        "w88": (8, 8), "wt": (4, 4, 2, 2), "wg": (4, 2, 2, 2), "wc": (4, 4, 3, 3), "grid": (1, 5, 7, 2),
    }  # fmt: skip
    values = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for name in ("w411", "w8", "w68", "w4"):
        values[name] = np.abs(values[name]) + np.float32(0.5)
    values["grid"] = np.clip(values["grid"] / 2, -1, 1)
    values |= {"v4": np.full(4, 2, np.float32), "zero": np.float32(0), "two": np.float32(2)}
    text = f"""<ir_version: {8 if opset < 19 else 10}, opset_import: ["": {opset}]>
        g (float[1,3,6,8] x) => (float[A,B,C,D] y)
        {f"<{variant.constants}>" if variant.constants else ""} {{ c = Conv(x, w) {variant.steps} y = Conv(e, w2) }}"""
    made = onnx.parser.parse_model(text)
    read = {name for node in made.graph.node for name in node.input}
    made.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in values.items() if n in read)
    return made


def run(made: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], level: str) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, feed)[0] for feed in feeds])


def sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    assert reference.shape == other.shape
    return float(10 * np.log10((reference**2).sum() / max(((reference - other) ** 2).sum(), 1e-30)))


def prove(name: str, profile: str, opset: int) -> None:
    """The product loads and computes what it says, in both modes."""
    made = model(VARIANTS[name], opset)
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.normal(size=(1, 3, 6, 8)).astype(np.float32)} for _ in range(6)]
    expected = run(made, feeds, "ORT_DISABLE_ALL")
    product = onnxq.quantize(made, feeds, profile=profile, qdq=True, threads=1).model
    plain = sqnr(expected, run(product, feeds, "ORT_DISABLE_ALL"))
    default = sqnr(expected, run(product, feeds, "ORT_ENABLE_ALL"))
    assert plain > 22, f"unoptimized {plain:.1f} dB"
    assert default > plain - 4, f"unoptimized {plain:.1f} dB, default optimization {default:.1f} dB"


# Found broken in onnxruntime at its default optimization, or next to what was.
OFTEN = [n for n in VARIANTS if n.startswith(("Pad", "CenterCropPad", "Resize", "AveragePool", "MaxPool", "Split"))]


@pytest.mark.parametrize("name", OFTEN)
def test_what_onnxruntime_moves_and_fuses(name: str) -> None:
    if VARIANTS[name].last >= 19:
        prove(name, "onnxruntime-cpu", max(19, VARIANTS[name].opset))


@pytest.mark.parametrize("profile", ["tvm", "tensorrt", "onnxruntime-cuda"])
@pytest.mark.parametrize("name", ["MatMul batched", "MaxPool unpool", "Resize cubic shrinks", "Transpose channels"])
def test_signed_activations_that_are_moved(name: str, profile: str) -> None:
    prove(name, profile, 21)


# AveragePool with dilations that no Conv can take the place of. x: [1, 3, 9, 8], or [1, 3, 5, 6, 7].
DILATED = {
    "unknown channels": ("float[1,3,9,8] x, int64[4] s", "q = Reshape(r, s)", "kernel_shape=[2,2], dilations=[2,2]"),
    "unknown sizes": ("float[N,3,H,W] x", "q = Identity(r)", "kernel_shape=[2,2], dilations=[2,1], pads=[1,1,0,1]"),
    "as large as before": (
        "float[N,3,H,W] x", "q = Identity(r)", 'kernel_shape=[2,3], dilations=[2,2], auto_pad="SAME_UPPER"',
    ),
    "three axes": ("float[1,3,5,6,7] x", "q = Identity(r)", "kernel_shape=[2,2,2], dilations=[2,1,2]"),
    "three axes, padded": (
        "float[1,3,5,6,7] x", "q = Identity(r)", "kernel_shape=[2,2,2], dilations=[2,2,2], pads=[1,1,1,1,1,1]",
    ),
    "read by another layer": ("float[N,3,H,W] x", "q = Identity(r) z = Conv(r, w3)",
                              "kernel_shape=[2,2], dilations=[2,1], pads=[1,1,0,1]"),
    "towards what only moves": (
        "float[1,3,9,8] x, int64[4] s", "q = Reshape(r, s)",
        "kernel_shape=[2,2], dilations=[2,2]>(q) u = Transpose<perm=[0,1,3,2]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("profile", ["onnxruntime-cpu", "tvm", "tensorrt", "onnxq"])
@pytest.mark.parametrize("case", DILATED)
def test_pools_with_gaps_that_stay_in_float(case: str, profile: str) -> None:
    inputs, steps, attributes = DILATED[case]
    spatial = (5, 6, 7) if "5,6,7" in inputs else (9, 8)
    letters = ",".join("ABCDE"[: len(spatial) + 2])
    pool, source = f"p = AveragePool<{attributes}>(q)", "p"
    if "(q) u" in attributes:
        pool, source = f"p = AveragePool<{attributes}>(p)", "u"
    more = f", float[{letters}] z" if "z =" in steps else ""
    text = f"""<ir_version: 10, opset_import: ["": 19]> g ({inputs}) => (float[{letters}] y{more})
        {{ c = Conv(x, w) r = Relu(c) {steps} {pool} y = Conv({source}, w2) }}"""
    made, rng = onnx.parser.parse_model(text), np.random.default_rng(0)
    for name, shape in {"w": (4, 3), "w2": (2, 4), "w3": (2, 4)}.items():
        values = rng.normal(size=(*shape, *[1] * len(spatial))).astype(np.float32)
        made.graph.initializer.append(numpy_helper.from_array(values, name))
    feeds: list[dict[str, np.ndarray]] = [{"x": rng.normal(size=(1, 3, *spatial)).astype(np.float32)} for _ in range(6)]
    for feed in feeds if "s" in [i.name for i in made.graph.input] else ():
        feed["s"] = np.array([1, 4, *spatial])
    expected = run(made, feeds, "ORT_DISABLE_ALL")
    product = onnxq.quantize(made, feeds, profile=profile, qdq=True, threads=1).model
    assert any(n.op_type == "AveragePool" for n in product.graph.node)
    for what in (product, onnxq.lower(product).model):
        for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
            assert sqnr(expected, run(what, feeds, level)) > 22, level


@pytest.mark.parametrize("profile", ["onnxruntime-cpu", "tensorrt", "onnxq"])
@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_pools_with_gaps_that_are_as_large_as_before_keep_their_sizes(op: str, mode: str, profile: str) -> None:
    """onnxruntime and ONNX disagree about these sizes: the lowered model has those of the float one in onnxruntime."""
    variant = Variant(f'e = {op}<kernel_shape=[3, 2], dilations=[2, 1], strides=[2, 1], auto_pad="{mode}">(c)')
    made, rng = model(variant, 19), np.random.default_rng(1)
    feeds = [{"x": rng.normal(size=(1, 3, 6, 8)).astype(np.float32)} for _ in range(6)]
    expected = run(made, feeds, "ORT_DISABLE_ALL")
    product = onnxq.quantize(made, feeds, profile=profile, qdq=True, threads=1).model
    integer = onnxq.session(onnxq.lower(product).model)
    assert sqnr(expected, run(product, feeds, "ORT_ENABLE_ALL")) > 22
    assert sqnr(expected, np.stack([integer.run(None, feed)[0] for feed in feeds])) > 22


OUTPUTS = {
    "LayerNormalization": ("l, m, s = LayerNormalization(c, w8) y = Conv(l, w2)", "float[A,B,C,D] m, float[A,B,C,D] s"),
    "its last alone": ('l, "", s = LayerNormalization(c, w8) y = Conv(l, w2)', "float[A,B,C,D] s"),
    "Dropout": ("l, m = Dropout(c) y = Conv(l, w2)", "bool[A,B,C,D] m"),
    "Dropout at the end": ("d = Conv(c, w5) y, m = Dropout(d)", "bool[A,B,C,D] m"),
    "MaxPool": ("l, m = MaxPool<kernel_shape=[2,2]>(c) y = Conv(l, w2)", "int64[A,B,C,D] m"),
    "BatchNormalization": (
        "l, m, s = BatchNormalization<training_mode=1>(c, w4, w4, w4, w4) y = Conv(l, w2)", "float[A] m, float[A] s",
    ),
    "Split": ("l, m = Split<axis=2>(c) y = Conv(m, w2)", "float[A,B,C,D] l, float[A,B,C,D] m"),
    "TopK": ("l, m = TopK<axis=3>(c, n) y = Conv(l, w2)", "int64[A,B,C,D] m"),
}  # fmt: skip


@pytest.mark.parametrize("integers", [False, True], ids=["qdq", "as the profile has it"])
@pytest.mark.parametrize("profile", builtin_names())
@pytest.mark.parametrize("case", OUTPUTS)
def test_further_outputs_that_the_model_returns(case: str, profile: str, integers: bool) -> None:
    steps, outputs = OUTPUTS[case]
    text = f"""<ir_version: 8, opset_import: ["": 17]> g (float[1,3,6,8] x) => (float[A,B,C,D] y, {outputs})
        {"<int64[1] n = {5}>" if "n)" in steps else ""} {{ c = Conv(x, w) {steps} }}"""
    made = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    read = {name for node in made.graph.node for name in node.input}
    shapes = {"w": (4, 3, 1, 1), "w2": (2, 4, 1, 1), "w5": (5, 4, 1, 1), "w8": (8,), "w4": (4,)}
    for name in sorted(read & set(shapes)):
        values = np.abs(rng.normal(size=shapes[name]).astype(np.float32)) + np.float32(0.5)
        made.graph.initializer.append(numpy_helper.from_array(values, name))
    feeds = [{"x": rng.normal(size=(1, 3, 6, 8)).astype(np.float32)} for _ in range(4)]
    product = onnxq.quantize(made, feeds, profile=profile, qdq=not integers, threads=1).model
    real = every_output(made, feeds[0], "ORT_DISABLE_ALL")
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        for old, new in zip(real, every_output(product, feeds[0], level), strict=True):
            assert (old.shape, old.dtype) == (new.shape, new.dtype)
            assert old.dtype != np.float32 or sqnr(old, new) > 20


def every_output(made: onnx.ModelProto, feed: dict[str, np.ndarray], level: str) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    return ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feed)


@pytest.mark.slow
@pytest.mark.parametrize("profile", builtin_names())
@pytest.mark.parametrize("name", VARIANTS)
def test_every_operator(name: str, profile: str) -> None:
    variant = VARIANTS[name]
    for opset in OPSETS:
        if variant.opset <= opset <= variant.last:
            prove(name, profile, opset)
