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
from onnxq.graph import contents
from onnxq.graph.contents import MOST_CALLS, MOST_NODES, check_contents
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
        (TensorProto(data_type=TensorProto.FLOAT, dims=[2**32, 2**32]), "too many elements"),
        (TensorProto(data_type=TensorProto.INT64, dims=[3], int64_data=[1, 2]), "needs 3 numbers, the file holds 2"),
        (TensorProto(data_type=TensorProto.INT4, dims=[3], int32_data=[1]), "needs 2 numbers, the file holds 1"),
        (TensorProto(data_type=TensorProto.STRING, dims=[2], string_data=[b"a"]), "needs 2 texts, the file holds 1"),
        (TensorProto(data_type=TensorProto.FLOAT, dims=[-1], float_data=[1]), r"negative dimension: \[-1\]"),
        (TensorProto(data_type=TensorProto.FLOAT, dims=[-4, -1], raw_data=bytes(16)), "negative dimension"),
        (TensorProto(data_type=TensorProto.FLOAT, dims=[2**62] * 64), "too many elements"),
        (TensorProto(data_type=TensorProto.FLOAT, dims=[2**62] * 65), "has 65 dimensions"),
        (TensorProto(data_type=TensorProto.FLOAT, dims=[2**62] * 100_000), "has 100000 dimensions"),
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
    with pytest.raises(ModelError, match=f"function f.F2 takes more than {MOST_NODES} nodes to inline"):
        load(functions([8] * 8))
    with pytest.raises(ModelError, match="takes more than"):
        load(functions([2] * 99))
    assert len(load(functions([3, 4])).graph.nodes) == 12


def in_domain(proto: onnx.ModelProto, domain: str) -> onnx.ModelProto:
    """The model of `functions` with its functions in another domain."""
    for function in proto.functions:
        function.domain = domain
    for node in [n for f in (proto.graph, *proto.functions) for n in f.node]:
        node.domain = node.domain and domain
    proto.opset_import.add(domain=domain, version=1)
    return proto


def test_functions_of_our_own_domain_count_although_they_stay() -> None:
    check_contents(in_domain(functions([8] * 5), "com.onnxq"), "m")
    with pytest.raises(ModelError, match=r"function com\.onnxq\.F2 takes more than"):
        check_contents(in_domain(functions([8] * 8), "com.onnxq"), "m")


def test_all_calls_of_the_graph_count_together() -> None:
    """Each function is within the bound, three calls of it are not."""
    proto = functions([8] * 5)
    load(proto)
    proto.graph.node.extend(helper.make_node("F0", ["x"], [f"z{i}"], domain="f") for i in range(2))
    with pytest.raises(ModelError, match=f"m: its functions take more than {MOST_NODES} nodes to inline"):
        check_contents(proto, "m")


def test_calls_in_subgraphs_count() -> None:
    proto = functions([8] * 5)
    outer = onnx.parser.parse_graph("""g (float[2] x, bool c) => (float[2] y) {
        y = If(c) <then_branch = t () => (float[2] u) { p = f.F0(x) q = f.F0(p) u = f.F0(q) },
                   else_branch = e () => (float[2] v) { v = Abs(x) }> }""")
    proto.graph.CopyFrom(outer)
    with pytest.raises(ModelError, match="its functions take more than"):
        check_contents(proto, "m")


def test_a_large_file_may_expand_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MOST_NODES", 0)
    load(functions([10] * 2))  # 22 nodes, 211 to inline
    with pytest.raises(ModelError, match="more than 380 nodes"):
        load(functions([12] * 3))


def test_calls_nested_deeply_are_refused() -> None:
    load(functions([1] * (MOST_CALLS - 1)))
    with pytest.raises(ModelError, match=f"function f.F0 are nested more than {MOST_CALLS} deep"):
        load(functions([1] * MOST_CALLS))
    with pytest.raises(ModelError, match=f"nested more than {MOST_CALLS} deep"):
        check_contents(functions([1] * 3000), "m")  # no RecursionError


@pytest.mark.parametrize("domain", ["f", "com.onnxq"])
@pytest.mark.parametrize(
    ("calls", "shown"),
    [
        ({0: 0}, "f.F0 → f.F0"),
        ({1: 0}, "f.F0 → f.F1 → f.F0"),
        ({3: 2}, "f.F2 → f.F3 → f.F2"),
        ({9: 1}, "f.F1 → f.F2 → f.F3 → f.F4 → … → f.F1"),
    ],
)
def test_functions_that_call_themselves_are_refused(domain: str, calls: dict[int, int], shown: str) -> None:
    proto = functions([1] * 9)
    for caller, called in calls.items():
        proto.functions[caller].node[0].op_type, proto.functions[caller].node[0].domain = f"F{called}", "f"
    in_domain(proto, domain)
    shown = shown.replace("f.", f"{domain}.")
    with pytest.raises(ModelError, match=f"function {shown.split()[0]} is recursive: {shown}$"):
        load(proto)


def test_functions_that_nothing_calls_are_checked_as_well() -> None:
    proto = functions([1])
    proto.functions[1].node[0].op_type, proto.functions[1].node[0].domain = "F1", "f"
    proto.graph.node[0].op_type, proto.graph.node[0].domain = "Relu", ""
    with pytest.raises(ModelError, match=r"f\.F1 is recursive"):
        load(proto)


def test_functions_are_defined_once() -> None:
    proto = functions([1])
    proto.functions.append(proto.functions[0])
    with pytest.raises(ModelError, match=r"function f\.F0 is defined twice"):
        load(proto)
    proto.functions[2].overload = "other"
    check_contents(proto, "m")


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            "(float[1099511627776] x) => (float[a] y) { y = Neg(x) }",
            r"x \(1099511627776\) is declared with 4398046511104",
        ),
        ("(float[n,4611686018427387904,4] x) => (float[a,b,c] y) { y = Neg(x) }", r"x \(n, 4611686018427387904, 4\)"),
        ("(float[2] x) => (double[100000,1000000] y) { y = Neg(x) }", r"y \(100000, 1000000\)"),
        ("(float[2] x) => (float[2] y) <float[100000,1000000] m> { m = Neg(x) y = Neg(m) }", r"m \(100000, 1000000\)"),
        (
            "(float[10000000000] x, float[10000000000] z) => (float[a] y) { y = Add(x, z) }",
            "the inputs are declared with",
        ),
        (
            """(float[2] x, bool c) => (float[2] y) { y = If(c) <
                then_branch = t () => (float[100000,1000000] u) { u = Relu(x) },
                else_branch = e () => (float[2] v) { v = Abs(x) }> }""",
            r"u \(100000, 1000000\)",
        ),
    ],
)
def test_values_declared_too_large_are_refused(graph: str, message: str) -> None:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {graph}')
    with pytest.raises(ModelError, match=message):
        load(proto)


def test_values_up_to_the_limit_are_read() -> None:
    half = contents.MOST_BYTES // 8
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[{half}] x, float[1,{half}] z, bool c) => (float[a,b] y) '
        "{ y = Add(x, z) }"
    )
    with pytest.raises(ModelError, match="the inputs"):  # one byte too much
        check_contents(proto, "m")
    del proto.graph.input[2]
    check_contents(proto, "m")


@pytest.mark.parametrize("size", [1, 2**62])
def test_shapes_declared_with_too_many_dimensions_are_refused(size: int) -> None:
    proto = functions([1])
    for count, message in (
        (64, "64 dimensions|bytes"),
        (65, "x is declared with 65 dimensions"),
        (100_000, "100000 dim"),
    ):
        proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, [size] * count))
        if (size, count) == (1, 64):
            check_contents(proto, "m")
            continue
        with pytest.raises(ModelError, match=message):
            check_contents(proto, "m")
