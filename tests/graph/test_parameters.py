"""Parameters of nodes in models from outside: what no runtime runs is refused when the model is read."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from onnxq.errors import ModelError
from onnxq.graph.model import load, to_proto


def parsed(body: str, data: str = "float[2, 4, 6] x", opset: int = 21) -> onnx.ModelProto:
    """A model with this body, not checked."""
    domains = f'"": {opset}, "com.microsoft": 1, "vendor": 1'
    return onnx.parser.parse_model(f"<ir_version: 10, opset_import: [{domains}]> g ({data}) => (y) {{ {body} }}")


def with_constants(body: str, data: str = "float[2, 4, 6] x", opset: int = 21, **constants: object) -> onnx.ModelProto:
    """The model, with constants by name: lists of int64, arrays, or a tuple (the shape of float32 ones)."""
    model = parsed(body, data, opset)
    for name, value in constants.items():
        array = np.ones(value, np.float32) if isinstance(value, tuple) else np.asarray(value)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


REFUSED = [
    ("y = Slice(x, a, b)", {"a": 0, "b": [1]}, r"input 1 \(a\) has shape \[\]; it must be of rank 1"),
    ("y = Slice(x, a, b)", {"a": [0], "b": [[1]]}, r"input 2 \(b\) has shape \[1, 1\]; it must be of rank 1"),
    ("y = Slice(x, a, b)", {"a": [0.5], "b": [1]}, r"input 1 \(a\) is of type float64; it must be integers"),
    ("y = Slice(x, a, b)", {"a": [0, 0], "b": [1]}, "2 starts, 1 ends: there must be as many of each"),
    ("y = Slice(x, a, b, c, d)", {"a": [0], "b": [1], "c": [1], "d": [0]}, r"its steps \[0\] must not be 0"),
    ("y = Slice(x, a, b, c)", {"a": [0], "b": [1], "c": [3]}, r"its axes \[3\] are not all of the 3 axes"),
    ("y = Reshape(x, a)", {"a": [[4, 12]]}, r"input 1 \(a\) has shape \[1, 2\]"),
    ("y = Reshape(x, a)", {"a": [-1, -1]}, r"at most one -1"),
    ("y = Reshape(x, a)", {"a": [-2, 4]}, r"no other negative length"),
    ("y = Expand(x, a)", {"a": [2, -4, 6]}, "must not be negative"),
    ("y = Tile(x, a)", {"a": [1, -1, 1]}, "must not be negative"),
    ("y = ConstantOfShape(a)", {"a": [2, -3]}, r"its lengths \[2, -3\] must not be negative"),
    ("y = Unsqueeze(x, a)", {"a": [[0]]}, r"input 1 \(a\) has shape \[1, 1\]; it must be of rank 0 or 1"),
    ("y = ReduceMean(x, a)", {"a": [-4]}, r"its axes \[-4\] are not all of the 3 axes"),
    ("y = Pad(x, a)", {"a": [0, 0, 1, 1]}, "it has 4 pads; two are needed for each axis of 3"),
    ("y = Pad(x, a, , c)", {"a": [0, 1, 1], "c": [1]}, "it has 3 pads; two are needed for each axis of 1"),
    ("y = Transpose<perm=[0, 2, 2]>(x)", {}, r"its perm \[0, 2, 2\] must name each of the 3 axes once"),
    ("y = Transpose<perm=[1, 0]>(x)", {}, r"its perm \[1, 0\] must name each of the 3 axes once"),
    ("z = Neg(x) y = Transpose<perm=[0, 3, 1]>(z)", {}, r"its perm \[0, 3, 1\] must name each of the axes once"),
    ("y = Softmax<axis=3>(x)", {}, "its axis 3 is none of the 3 axes"),
    ("y = Flatten<axis=4>(x)", {}, "its axis 4 is none of the 3 axes"),
    ("y = MatMul(x, a)", {"a": 3.0}, "its operands must not be scalars"),
    ("y = Gemm(x, a)", {"a": (6, 2)}, r"input 0 has shape \[2, 4, 6\]; it must be of rank 2"),
    ("z = Flatten(x) y = Gemm(z, a)", {"a": (24,)}, r"input 1 has shape \[24\]; it must be of rank 2"),
    ("y = GRU<hidden_size=3>(x, a, b)", {"a": (1, 9), "b": (1, 9, 3)}, r"input 1 has shape \[1, 9\]"),
    ("y = BatchNormalization(x, a, b, b, b)", {"a": (4, 1), "b": (4,)}, r"input 1 \(a\) has shape \[4, 1\]"),
    ("y = Conv(x, a)", {"a": (8, 4, 3, 3)}, r"an input of shape \[2, 4, 6\] and a weight of shape .* do not fit"),
    ("z = Neg(x) y = Conv(z, a)", {"a": (8, 4)}, "has no axis that a window could move on"),
    ("y = Conv(x, a)", {"a": (8, 3, 3)}, "is for 3 input channels, its input has 4"),
    ("y = Conv<group=3>(x, a)", {"a": (8, 4, 3)}, "cannot be divided into 3 groups"),
    ("y = Conv<group=0>(x, a)", {"a": (8, 4, 3)}, "its group 0 must be positive"),
    ("y = Conv(x, a, b)", {"a": (8, 4, 3), "b": (4,)}, r"its bias of shape \[4\] must have one number for each of 8"),
    ("y = ConvTranspose<group=2>(x, a, b)", {"a": (4, 5, 3), "b": (5,)}, "one number for each of 10 output"),
    ("y = Conv<strides=[0]>(x, a)", {"a": (8, 4, 3)}, r"its strides \[0\] must be positive"),
    ("y = Conv<pads=[1, 1, 1]>(x, a)", {"a": (8, 4, 3)}, r"its pads \[1, 1, 1\] must be 2 numbers"),
    ("z = Neg(x) y = Conv<dilations=[1, 1]>(z, a)", {"a": (8, 4, 3)}, r"its dilations \[1, 1\] must be 1 numbers"),
    ("y = MaxPool<kernel_shape=[2, 2]>(x)", {}, "2 kernel lengths and an input of shape"),
    ("y = AveragePool<kernel_shape=[0]>(x)", {}, r"its kernel_shape \[0\] must be positive"),
    ("y = QuantizeLinear(x, a)", {"a": 2}, "its scale is of type int64; it must be a floating-point type"),
    ("y = QuantizeLinear<axis=3>(x, a)", {"a": (4,)}, "its axis 3 is none of the 3 axes"),
    ("y = QuantizeLinear(x, a)", {"a": (4, 1)}, r"its scale has shape \[4, 1\]"),
    ("y = QuantizeLinear(x, a, b)", {"a": (4,), "b": np.zeros(3, np.uint8)},
     r"its zero point has shape \[3\], its scale \[4\]"),
    ("y = com.microsoft.QuantizeLinear<axis=-4>(x, a, b)", {"a": (4,), "b": np.zeros(4, np.uint16)},
     "its axis -4 is none of the 3 axes"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "constants", "message"), REFUSED)
def test_parameters_that_no_runtime_takes(body: str, constants: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load(with_constants(body, **constants))
    assert "node y (" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("body", "constants"), [row[:2] for row in REFUSED])
def test_onnxruntime_does_not_run_them_either(body: str, constants: dict[str, object]) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    raw = with_constants(body, **constants).SerializeToString()
    with pytest.raises(Exception, match=r"ONNXRuntimeError|Fatal error"):
        ort.InferenceSession(raw, options, providers=["CPUExecutionProvider"]).run(
            None, {"x": np.ones((2, 4, 6), np.float32)}
        )


@pytest.mark.parametrize(
    ("body", "data", "constants"),
    [
        ("y = Slice(x, a, b, c, d)", "float[N, 4, 6] x", {"a": [9], "b": [-99], "c": [-1], "d": [-2]}),
        ("y = Slice(x, a, b)", "float[2, 4, 6] x", {"a": np.zeros(2, np.int32), "b": np.ones(2, np.int32)}),
        ("y = Reshape(x, a)", "float[2, 4, 6] x", {"a": [0, -1]}),
        ("y = Reshape(x, a)", "float[1] x", {"a": np.zeros(0, np.int64)}),
        ("y = Squeeze(x, a)", "float[1, 4] x", {"a": 0}),
        ("y = Unsqueeze(x, a)", "float[4] x", {"a": [1, 2]}),
        ("y = Pad(x, a, , c)", "float[2, 4, 6] x", {"a": [1, -1], "c": [2]}),
        ("y = Pad(x, a, , c)", "float[2, 4, 6] x, int64[K] c", {"a": [1, 1]}),
        ("y = Transpose(x)", "float[2, 4, 6] x", {}),
        ("y = Flatten<axis=3>(x)", "float[2, 4, 6] x", {}),
        ("y = Softmax<axis=-1>(x)", "float x", {}),
        ("y = MatMul(x, a)", "float[2, 4, 6] x", {"a": (6,)}),
        ("y = Conv<group=2>(x, a, b)", "float[N, C, L] x", {"a": (8, 2, 3), "b": (8,)}),
        ("y = Conv(x, w)", "float[2, 4, 6] x, float[M, 4, K] w", {}),
        ("y = ConvTranspose<group=2>(x, a, b)", "float[2, 4, 6] x", {"a": (4, 5, 3), "b": (10,)}),
        ("y = MaxPool<kernel_shape=[2], pads=[1, 0]>(x)", "float[2, 4, 6] x", {}),
        ("y = QuantizeLinear(x, a, b)", "float[4] x", {"a": (1,), "b": np.uint8(0)}),
        ("y = QuantizeLinear<axis=-1>(x, a)", "float[2, 4, 6] x", {"a": (6,)}),
        ("y = QuantizeLinear<axis=2, block_size=3>(x, a)", "float[2, 4, 6] x", {"a": (2, 4, 2)}),
        ("y = QuantizeLinear(x, a)", "float[2, 4, 6] x", {"a": np.float32(0)}),  # check and lowering say what it does
        ("y = vendor.Slice(x, a)", "float[2, 4, 6] x", {"a": [[0]]}),
    ],
)
def test_parameters_that_are_only_unusual(body: str, data: str, constants: dict[str, object]) -> None:
    load(with_constants(body, data, **constants))


def test_declared_shapes_of_intermediate_values_are_not_believed() -> None:
    model = with_constants("z = Relu(x) y = Conv(z, a)", a=(8, 4, 3))
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [2, 4]))
    load(model)


def test_parameters_of_subgraphs() -> None:
    branch = "g () => (float[a] p) {{ [m] p = {} }}"
    body = "y = If(c) <then_branch = " + branch.format("Softmax<axis=1>(x)")
    body += ", else_branch = " + branch.format("Neg(x)") + ">"
    with pytest.raises(ModelError, match=r"node m \(Softmax\): its axis 1 is none of the 1 axes"):
        load(parsed(body, "float[3] x, bool c"))


def test_empty_lists_are_left_out_wherever_a_graph_is_written() -> None:
    model = parsed("z = MaxPool<kernel_shape=[2]>(x) y = Relu(z)")
    model.graph.node[0].attribute.append(onnx.AttributeProto(name="strides", type=onnx.AttributeProto.INTS))
    read = load(model)
    assert not any("inference failed" in note for note in read.notes)
    assert read.graph.nodes[0].outputs[0].shape == [2, 4, 5]
    assert read.graph.nodes[0].attrs["strides"] == []
    to_proto(read)


def test_starts_without_ends() -> None:
    for starts, opset in (([], 13), ([0, 1], 13)):
        with pytest.raises(ModelError, match=f"{len(starts)} starts, 1 ends"):
            load(with_constants("y = Slice(x, a, b)", opset=opset, a=np.asarray(starts, np.int64), b=[1]))
    with pytest.raises(ModelError, match="2 starts, 1 ends"):  # attributes, in old versions
        load(parsed("y = Slice<starts=[0, 0], ends=[1]>(x)", opset=9))
