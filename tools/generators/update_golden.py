"""Write tests/golden: where each profile puts Q/DQ in small blocks. Read the diff before committing it.

    python tools/generators/update_golden.py

integer/*.txt: the same blocks, and some more, as integer models: lowered, fused, channels-last.
check/*.txt: what `onnxq check` finds in two networks, in float and with the Q/DQ of several profiles.
Ranges are invented (each tensor has a different one), so nothing is run and the text is the same on every machine. One
line per node; weights and other large constants are shown by type, scalars by value.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from onnxq import pipeline
from onnxq.calibrate.statistics import Statistics
from onnxq.check.findings import Finding
from onnxq.check.target import check
from onnxq.context import PassContext
from onnxq.graph import marks
from onnxq.graph.model import Model, from_proto, to_proto
from onnxq.passes.fuse_activation_clips import FuseActivationClips
from onnxq.passes.insert_qdq import InsertQdq
from onnxq.patterns.nonnegative import is_nonnegative
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import builtin_names, load_profile

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
HEADER = '<ir_version: 8, opset_import: ["": 13]>\n'

BLOCKS = {
    "residual block, identity shortcut": """
residual_identity (float[1,8,6,6] image) => (float[1,8,6,6] y)
<float[8,8,3,3] ws, float[8] bs, float[8,8,3,3] w1, float[8] b1, float[8,8,3,3] w2, float[8] b2, float[8,8,1,1] we>
{
    [stem] s = Conv<pads=[1,1,1,1]>(image, ws, bs)
    [stem_relu] x = Relu(s)
    [conv1] c1 = Conv<pads=[1,1,1,1]>(x, w1, b1)
    [relu1] r1 = Relu(c1)
    [conv2] c2 = Conv<pads=[1,1,1,1]>(r1, w2, b2)
    [add] a = Add(c2, x)
    [relu2] r2 = Relu(a)
    [next] y = Conv(r2, we)
}""",
    "residual block, convolution downsample": """
residual_downsample (float[1,8,6,6] x) => (float[1,16,3,3] y)
<float[16,8,3,3] w1, float[16] b1, float[16,16,3,3] w2, float[16] b2,
 float[16,8,1,1] wd, float[16] bd, float[16,16,1,1] we>
{
    [conv1] c1 = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1, b1)
    [relu1] r1 = Relu(c1)
    [conv2] c2 = Conv<pads=[1,1,1,1]>(r1, w2, b2)
    [downsample] d = Conv<strides=[2,2]>(x, wd, bd)
    [add] a = Add(c2, d)
    [relu2] r2 = Relu(a)
    [next] y = Conv(r2, we)
}""",
    "inverted residual": """
inverted_residual (float[1,8,6,6] x) => (float[1,8,6,6] y)
<float six = {6.0}, float zero = {0.0}, float[24,8,1,1] w1, float[24] b1, float[24,1,3,3] w2, float[24] b2,
 float[8,24,1,1] w3, float[8] b3, float[8,8,1,1] we>
{
    [expand] e = Conv(x, w1, b1)
    [expand_clip] e6 = Clip(e, zero, six)
    [depthwise] d = Conv<group=24, pads=[1,1,1,1]>(e6, w2, b2)
    [depthwise_clip] d6 = Clip(d, zero, six)
    [project] p = Conv(d6, w3, b3)
    [add] a = Add(x, p)
    [next] y = Conv(a, we)
}""",
    "concat block (fire)": """
fire (float[1,16,6,6] x) => (float[1,8,3,3] y)
<float[4,16,1,1] ws, float[4] bs, float[8,4,1,1] w1, float[8] b1, float[8,4,3,3] w3, float[8] b3, float[8,16,1,1] we>
{
    [squeeze] s = Conv(x, ws, bs)
    [squeeze_relu] sr = Relu(s)
    [expand1] e1 = Conv(sr, w1, b1)
    [expand1_relu] r1 = Relu(e1)
    [expand3] e3 = Conv<pads=[1,1,1,1]>(sr, w3, b3)
    [expand3_relu] r3 = Relu(e3)
    [concat] c = Concat<axis=1>(r1, r3)
    [pool] m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c)
    [next] y = Conv(m, we)
}""",
    "Gemm head": """
head (float[1,8,6,6] x) => (float[1,10] logits)
<float[16,8,1,1] wc, float[16] bc, float[10,16] wg, float[10] bg>
{
    [conv] c = Conv(x, wc, bc)
    [relu] r = Relu(c)
    [pool] g = GlobalAveragePool(r)
    [flatten] f = Flatten(g)
    [fc] logits = Gemm<transB=1>(f, wg, bg)
}""",
}

# Blocks of interest only as integers: those that layouts move through.
INTEGER_BLOCKS = BLOCKS | {
    "squeeze and excite": """
squeeze_excite (float[1,8,6,6] x) => (float[1,8,6,6] y)
<float[16,8,1,1] w1, float[16] b1, float[4,16,1,1] w2, float[4] b2, float[16,4,1,1] w3, float[16] b3,
 float[8,16,1,1] we>
{
    [expand] e = Conv(x, w1, b1)
    [expand_gate] s = Sigmoid(e)
    [swish] h = Mul(e, s)
    [pool] p = GlobalAveragePool(h)
    [reduce] r = Conv(p, w2, b2)
    [reduce_relu] rr = Relu(r)
    [excite] t = Conv(rr, w3, b3)
    [gate] g = HardSigmoid(t)
    [scale] m = Mul(h, g)
    [next] y = Conv(m, we)
}""",
    "flatten head": """
flatten_head (float[1,8,6,6] x) => (float[1,10] logits)
<float[16,8,3,3] wc, float[16] bc, float[10,144] wg, float[10] bg>
{
    [conv] c = Conv<pads=[1,1,1,1]>(x, wc, bc)
    [relu] r = Relu(c)
    [pool] p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
    [flatten] f = Flatten(p)
    [fc] logits = Gemm<transB=1>(f, wg, bg)
}""",
    "upsample and concat": """
upsample (float[1,8,6,6] x) => (float[1,4,6,6] y)
<float[8,8,3,3] w1, float[8] b1, float[8,8,3,3] w2, float[8] b2, float[4,16,3,3] w3, float[4] b3,
 float[4] scales = {1, 1, 2, 2}>
{
    [down] d = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1, b1)
    [down_relu] dr = Relu(d)
    [up] u = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(dr, , scales)
    [side] s = Conv<pads=[1,1,1,1]>(x, w2, b2)
    [cat] c = Concat<axis=1>(u, s)
    [out] y = Conv<pads=[1,1,1,1]>(c, w3, b3)
}""",
}
# What `check` is asked about: convolutions with every kind of neighbor, and attention with a mask.
CHECKED = {
    "convolutions": """
convolutions (float[1,4,6,6] x) => (float[1,5] y)
<float[8,4,1,1] w1, float[8] b1, float[8,1,3,3] w2, float[8] b2, float[8,8,1,1] w3, float[8] b3, float[5,24] w4,
 float[5] b4, float half = {0.5}>
{
    [first] a = Conv(x, w1, b1)
    [first_relu] r = Relu(a)
    [depthwise] c = Conv<group=8, pads=[1,1,1,1]>(r, w2, b2)
    [depthwise_relu] d = Relu(c)
    [project] e = Conv(d, w3, b3)
    [add] s = Add(e, r)
    [add_relu] t = Relu(s)
    [gate] g = Sigmoid(t)
    [swish] h = Mul(t, g)
    [half] i = Mul(h, half)
    [join] u = Concat<axis=1>(t, d, i)
    [pool] m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(u)
    [mean] p = GlobalAveragePool(m)
    [flat] q = Flatten(p)
    [fc] z = Gemm<transB=1>(q, w4, b4)
    [soft] y = Softmax(z)
}""",
    "attention": """
attention (float[2,4,8] x, int64[2,1,4] mask) => (float[2,4,8] y)
<float[8,8] wq, float[8,8] wk, float[8,8] wv, float[8] bq, float[8,8] wo, float[8] gain, float two = {2},
 float eps = {0.00001}, float one = {1}, float deep = {-10000}>
{
    [query] q0 = MatMul(x, wq)
    [query_bias] q = Add(q0, bq)
    [key] k0 = MatMul(x, wk)
    [value] v = MatMul(x, wv)
    [turn] k = Transpose<perm=[0,2,1]>(k0)
    [scores] s0 = MatMul(q, k)
    [ones] o = Cast<to=1>(mask)
    [zeros] n = Sub(one, o)
    [deep] m = Mul(n, deep)
    [masked] s1 = Add(s0, m)
    [soft] p = Softmax(s1)
    [mix] h = MatMul(p, v)
    [center] c = ReduceMean<axes=[-1]>(h)
    [deviation] d = Sub(h, c)
    [square] d2 = Pow(d, two)
    [variance] var = ReduceMean<axes=[-1]>(d2)
    [safe] e = Add(var, eps)
    [root] r = Sqrt(e)
    [divide] z = Div(d, r)
    [norm] g = Mul(z, gain)
    [out] w = MatMul(g, wo)
    [skip] y = Add(x, w)
}""",
}
CHECKED_SOURCES = ("onnxruntime-cpu", "openvino", "snpe", "tensorrt")
BYPASSED = 3  # in the damaged products, every third reader of a dequantized activation reads the float tensor

# One with unsigned and one with signed activations, one with wide residuals and one with residuals in float.
INTEGER_PROFILES = ("onnxq", "tensorrt")
INTEGER = "convert-opset{version=21},lower-dyadic,fuse-residual,layout-nhwc"
SHOWN = (marks.LAYOUT.key, marks.FLATTENED.key)  # metadata that the text shows


def block(name: str) -> Model:
    """One of the blocks as a model; constants without a value in the text are random, from a fixed seed."""
    proto = onnx.parser.parse_model(HEADER + (INTEGER_BLOCKS | CHECKED)[name])
    rng = np.random.default_rng(0)
    for value in proto.graph.value_info:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        proto.graph.initializer.append(
            numpy_helper.from_array(rng.normal(0, 0.2, shape).astype(np.float32), value.name)
        )
    del proto.graph.value_info[:]
    return from_proto(proto)


def made_up_statistics(model: Model) -> Statistics:
    """A different range for every activation: −k … k, or 0 … k where it cannot be negative."""
    stats = Statistics()
    tensors = [*model.graph.inputs, *(t for n in model.graph.nodes for t in n.outputs)]
    for k, tensor in enumerate(tensors, 1):
        low = 0.0 if is_nonnegative(tensor) else -float(k)
        stats.tensor(tensor.name).update(np.array([low, k], np.float32))
    return stats


def quantized(name: str, profile: str) -> Model:
    """A block with the Q/DQ of a profile."""
    model = block(name)
    ctx = PassContext(model, load_profile(profile), QuantSettings(), statistics=made_up_statistics(model))
    pipeline.run(model, (InsertQdq(calibration="max"), FuseActivationClips()), ctx)
    return model


def integer(name: str, profile: str) -> Model:
    """A block as an integer model."""
    model = quantized(name, profile)
    pipeline.run(model, pipeline.parse(INTEGER), PassContext(model))
    return model


def damaged(name: str, profile: str) -> Model:
    """A block with part of the Q/DQ of a profile."""
    model = quantized(name, profile)
    edges = [
        (node, i, made_by.inputs[0].inputs[0])
        for node in model.graph.nodes
        for i, tensor in enumerate(node.inputs)
        for made_by in tensor.inputs
        if made_by.op == "DequantizeLinear" and made_by.inputs[0].inputs
    ]
    for node, i, quantize in edges[::BYPASSED]:
        node.inputs[i] = quantize.inputs[0]
    return model


def render(proto: onnx.ModelProto) -> str:
    """A graph with one line per node: scalar constants by value, larger ones by type."""
    graph = proto.graph
    constants = {t.name: _constant(t) for t in graph.initializer}
    inputs, outputs = (", ".join(f"{v.name} {_type(v)}" for v in values) for values in (graph.input, graph.output))
    lines = [f"{graph.name}({inputs}) -> {outputs}"]
    for node in graph.node:
        arguments = ", ".join(constants.get(name, name) for name in node.input)
        attributes = "".join(f" {a.name}={onnx.helper.get_attribute_value(a)}" for a in node.attribute)
        marks = "".join(f"  # {p.key} {p.value}" for p in node.metadata_props if p.key in SHOWN)
        lines.append(
            f"    {', '.join(node.output)} = {node.op_type}({arguments}){attributes.replace(', ', ',')}{marks}"
        )
    return "\n".join(lines)


def _constant(tensor: onnx.TensorProto) -> str:
    kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
    values = numpy_helper.to_array(tensor)
    if tensor.dims:
        zero = "" if values.any() else "=0"
        return f"{tensor.name}:{kind}[{','.join(map(str, tensor.dims))}]{zero}"
    value = values.item()
    return f"{value:.6g}" if isinstance(value, float) else f"{kind} {value}"


def _type(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    dims = ",".join(str(d.dim_value or d.dim_param) for d in kind.shape.dim)
    return f"{onnx.TensorProto.DataType.Name(kind.elem_type).lower()}[{dims}]"


def golden(profile: str) -> str:
    """The golden text of a profile."""
    parts = [f"# {name}\n{render(to_proto(quantized(name, profile)))}\n" for name in BLOCKS]
    return f"Profile {profile}; written by tools/generators/update_golden.py.\n\n" + "\n".join(parts)


def golden_integer(profile: str) -> str:
    """The golden text of a profile's integer models."""
    parts = [f"# {name}\n{render(to_proto(integer(name, profile)))}\n" for name in INTEGER_BLOCKS]
    return f"Profile {profile}, {INTEGER}; written by tools/generators/update_golden.py.\n\n" + "\n".join(parts)


def golden_check(profile: str) -> str:
    """The golden file of a profile's findings."""
    parts = []
    for name in CHECKED:
        models = {"float": block(name)}
        models |= {f"Q/DQ of {source}": quantized(name, source) for source in CHECKED_SOURCES}
        models[f"part of the Q/DQ of {profile}"] = damaged(name, profile)
        for title, model in models.items():
            findings = check(from_proto(to_proto(model)), profile)
            parts.append(f"# {name}, {title}\n{_grouped(findings)}")
    return f"Profile {profile}; written by tools/generators/update_golden.py.\n\n" + "\n".join(parts)


def _grouped(findings: list[Finding]) -> str:
    """A line for each finding, with all nodes that it holds for."""
    nodes: dict[Finding, list[str]] = {}
    for finding in findings:
        nodes.setdefault(dataclasses.replace(finding, node=""), []).append(finding.node)
    return "".join(f"    {dataclasses.replace(f, node=', '.join(names))}\n" for f, names in nodes.items())


def main() -> None:
    """Write every file."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for profile in INTEGER_PROFILES:
        file = GOLDEN / "integer" / f"{profile}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(golden_integer(profile), encoding="utf-8")
        print(file)
    (GOLDEN / "check").mkdir(exist_ok=True)
    for profile in builtin_names():
        (GOLDEN / "check" / f"{profile}.txt").write_text(golden_check(profile), encoding="utf-8")
        (GOLDEN / f"{profile}.txt").write_text(golden(profile), encoding="utf-8")
        print(GOLDEN / f"{profile}.txt")


if __name__ == "__main__":
    main()
