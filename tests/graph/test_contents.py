"""Texts, stored tensors and functions of models from outside."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxq.errors import ModelError
from onnxq.graph.contents import MOST_NODES, check_contents
from onnxq.graph.model import load
from onnxq.graph.protos import ELEMENT_BITS

TYPES = sorted(t for t in ELEMENT_BITS if t not in (TensorProto.COMPLEX64, TensorProto.COMPLEX128))


def holding(tensor: TensorProto) -> onnx.ModelProto:
    """A model that adds this constant to its input."""
    tensor.name = "w"
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[2] x) => (float[2] y) { y = Neg(x) c = Identity(w) }'
    )
    proto.graph.initializer.append(tensor)
    return proto


@given(st.sampled_from(TYPES), st.lists(st.integers(0, 5), max_size=3), st.booleans())
def test_what_onnx_itself_writes_is_accepted(kind: int, shape: list[int], raw: bool) -> None:
    count = int(np.prod(shape))
    if raw:
        tensor = numpy_helper.from_array(np.zeros(shape, helper.tensor_dtype_to_np_dtype(kind)))
    else:
        tensor = helper.make_tensor("w", kind, shape, np.zeros(count))
    check_contents(holding(tensor), "m")


@given(st.sampled_from(TYPES), st.lists(st.integers(0, 5), max_size=3), st.integers(-9, 9).filter(bool))
def test_values_that_do_not_fit_the_shape_are_refused(kind: int, shape: list[int], more: int) -> None:
    size = (int(np.prod(shape)) * ELEMENT_BITS[kind] + 7) // 8
    tensor = TensorProto(data_type=kind, dims=shape, raw_data=bytes(max(size + more, 0)))
    if len(tensor.raw_data) == size:
        return
    with pytest.raises(ModelError, match=rf"m: tensor w .* needs {size} bytes, the file holds {len(tensor.raw_data)}"):
        check_contents(holding(tensor), "m")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (TensorProto(data_type=TensorProto.FLOAT, dims=[2**31 - 1]), "needs 2147483647 numbers, the file holds 0"),
        (TensorProto(data_type=TensorProto.FLOAT, dims=[2**32, 2**32]), "needs 18446744073709551616 numbers"),
        (TensorProto(data_type=TensorProto.INT64, dims=[3], int64_data=[1, 2]), "needs 3 numbers, the file holds 2"),
        (TensorProto(data_type=TensorProto.INT4, dims=[3], int32_data=[1]), "needs 2 numbers, the file holds 1"),
        (TensorProto(data_type=TensorProto.STRING, dims=[2], string_data=[b"a"]), "needs 2 texts, the file holds 1"),
        (TensorProto(data_type=TensorProto.FLOAT, dims=[-1], float_data=[1]), r"negative dimension: \[-1\]"),
        (TensorProto(data_type=TensorProto.FLOAT, dims=[-4, -1], raw_data=bytes(16)), "negative dimension"),
        (TensorProto(data_type=99, dims=[1]), "element type 99"),
        (TensorProto(data_type=0, dims=[1]), "element type 0"),
    ],
)
def test_tensors_that_cannot_be(tensor: TensorProto, message: str) -> None:
    with pytest.raises(ModelError, match=f"tensor w .*{message}"):
        load(holding(tensor))
    constant = holding(numpy_helper.from_array(np.zeros(1, np.float32)))
    constant.graph.node[0].attribute.append(helper.make_attribute("value", tensor))
    with pytest.raises(ModelError, match=message):
        load(constant)


@pytest.mark.parametrize("text", ["Neg", "the-graph", "doc string", "meta key", "dimension", "attribute"])
def test_text_that_is_not_utf8_is_refused_wherever_it_is(text: str) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[dimension] x) => (float[2] y) { y = Neg<attribute=1>(x) }'
    )
    proto.graph.name = "the-graph"
    proto.graph.node[0].doc_string = "doc string"
    proto.metadata_props.add(key="meta key", value="v")
    raw = proto.SerializeToString()
    assert text.encode() in raw
    with pytest.raises(ModelError, match="not UTF-8"):
        load(raw.replace(text.encode(), b"\xe1\xff\xfe" + b"x" * (len(text) - 3)))


def functions(widths: list[int]) -> onnx.ModelProto:
    """A model whose functions call the next one so many times each; the last one has one node."""
    text = '<ir_version: 8, opset_import: ["": 17, "f": 1]> g (float[2] x) => (float[2] y) { y = f.F0(x) }'
    for level, width in enumerate(widths):
        names = ["x", *(f"t{i}" for i in range(width - 1)), "y"]
        body = " ".join(f"{b} = f.F{level + 1}({a})" for a, b in itertools.pairwise(names))
        text += f' <opset_import: ["": 17, "f": 1], domain: "f"> F{level} (x) => (y) {{ {body} }}'
    text += f' <opset_import: ["": 17], domain: "f"> F{len(widths)} (x) => (y) {{ y = Relu(x) }}'
    return onnx.parser.parse_model(text)


def test_functions_that_expand_without_bound_are_refused() -> None:
    with pytest.raises(ModelError, match=f"function f.F1 would be more than {MOST_NODES} nodes"):
        load(functions([8] * 8))
    with pytest.raises(ModelError, match="more than"):
        load(functions([2] * 200))
    assert len(load(functions([3, 4])).graph.nodes) == 12


def test_functions_that_call_themselves_are_refused() -> None:
    proto = functions([1, 1])
    proto.functions[2].node[0].op_type, proto.functions[2].node[0].domain = "F0", "f"
    with pytest.raises(ModelError, match="recursive"):
        load(proto)
