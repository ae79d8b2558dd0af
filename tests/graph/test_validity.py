"""Nodes and names of models from outside: what passes and readers rely on is refused when it does not hold."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
import pytest
from onnx import AttributeProto, helper

from onnxq.errors import ModelError
from onnxq.graph import marks
from onnxq.graph.model import load
from onnxq.graph.qdq import constant_reals


def parsed(body: str, opset: int = 17) -> onnx.ModelProto:
    """A model with this body, not checked."""
    domains = f'"": {opset}, "com.microsoft": 1, "vendor": 1'
    return onnx.parser.parse_model(f"<ir_version: 8, opset_import: [{domains}]> g (float[2, 3] x) => (y) {{ {body} }}")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("[n] y = Conv(x)", r"node n \(Conv\) has 1 inputs instead of 2 to 3"),
        ("[n] y = Neg(x, x)", r"node n \(Neg\) has 2 inputs instead of 1"),
        ("[n] y = Neg()", r"node n \(Neg\) has 0 inputs instead of 1"),
        ("[n] y = Concat<axis=0>()", r"node n \(Concat\) has 0 inputs instead of 1 or more"),
        ("[n] y, z = Neg(x)", r"node n \(Neg\) has 2 outputs instead of 1"),
        ("[n] y = Concat(x, x)", r"node n \(Concat\) has no attribute axis"),
        ("[n] y = Concat<axis=0.5>(x, x)", r"node n \(Concat\): its attribute axis is not of type INT"),
        ('[n] y = Transpose<perm="a">(x)', r"its attribute perm is not of type INTS"),
        ("[n] y = com.microsoft.QuantizeLinear(x)", r"\(QuantizeLinear\) has 1 inputs and needs 2"),
        ("[n] y = Neg(z)", r"node n \(Neg\) reads z, which nothing makes"),
        ("y = Neg(x) [n] y = Abs(x)", r"node n \(Abs\) makes y, which is made elsewhere as well"),
        ("y = Neg(x) [n] x = RandomNormal<shape=[2]>()", r"makes x, which is made elsewhere as well"),
        ("z = Neg(x)", r"nothing makes the output y"),
        ("[n] y = If(x) <then_branch = t () => (float p) { [m] p = Neg(q) }, else_branch = e () => (float r) {"
         " r = Neg(x) }>", r"node m \(Neg\) reads q, which nothing makes"),
        ("[n] y = If(x) <then_branch = t () => (float p) { z = Neg(x) }, else_branch = e () => (float r) {"
         " r = Neg(x) }>", r"nothing makes the output p"),
    ],
)  # fmt: skip
def test_nodes_that_no_operator_allows(body: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(parsed(body))


@pytest.mark.parametrize(
    "body",
    [
        "y = Clip(x, , z) z = Sqrt(s) s = Size(x)",  # an optional input left out, and nodes in another order
        "y = Neg(x, , )",
        "y, m = Dropout(x)",
        "y = vendor.Anything()",
        "y = NotYetKnown(x)",
        "y = Neg<unknown=1>(x)",
        "y = If(c) <then_branch = t () => (float p) { p = Neg(x) }, else_branch = e () => (float p) { p = Abs(q) }>"
        " q = Sqrt(x) c = IsNaN(x)",
    ],
)
def test_what_is_only_unusual_is_read(body: str) -> None:
    load(parsed(body))


def test_attributes_whose_value_is_of_another_type() -> None:
    def altered(**fields: object) -> onnx.ModelProto:
        proto = parsed("y = Concat<axis=0>(x, x)")
        (attribute,) = proto.graph.node[0].attribute
        attribute.CopyFrom(helper.make_attribute("axis", 0))
        for name, value in fields.items():
            setattr(attribute, name, value)
        return proto

    with pytest.raises(ModelError, match="refers to an attribute of a function"):
        load(altered(ref_attr_name="a"))
    for kind in (AttributeProto.UNDEFINED, 99):
        with pytest.raises(ModelError, match="no type that ONNX knows"):
            load(altered(type=kind) if kind != 99 else _unknown_type(altered()))
    with pytest.raises(ModelError, match="another value than its type says"):
        load(altered(type=AttributeProto.GRAPH))
    with pytest.raises(ModelError, match="another value than its type says"):
        proto = altered()
        proto.graph.node[0].attribute[0].g.name = "g"
        load(proto)


def _unknown_type(proto: onnx.ModelProto) -> bytes:
    raw = proto.graph.node[0].attribute[0].SerializeToString()
    assert raw.endswith(b"\xa0\x01\x02")  # type: INT
    return proto.SerializeToString().replace(raw, raw[:-1] + b"\x63")


def test_a_node_without_outputs_is_refused() -> None:
    proto = parsed("y = Neg(x)")
    proto.graph.node.append(helper.make_node("Anything", ["x"], [], "n", domain="vendor"))
    with pytest.raises(ModelError, match=r"node n \(Anything\) has no output"):
        load(proto)


@pytest.mark.parametrize("version", [-(2**31), 0, 2**31, 2**62])
def test_a_version_of_the_operators_that_there_is_not(version: int) -> None:
    """Its operators have no schema, so that nothing would be known of their inputs."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 13]> g (float[N] x) => (float[N] y) { y = Softmax(x) }'
    )
    model.opset_import[0].version = version
    del model.graph.node[0].input[:]
    with pytest.raises(ModelError, match=f"it uses version {version} of ONNX's operators"):
        load(model)


@pytest.mark.parametrize(
    ("scale", "axis", "block"), [((5,), 0, 0), ((8,), 3, 0), ((8,), -4, 0), ((2, 2), 0, 4), ((2,), 1, 2)]
)
def test_scales_that_do_not_fit_their_codes(scale: tuple[int, ...], axis: int, block: int) -> None:
    codes, values = gs.Constant("w", np.ones((8, 4), np.int8)), gs.Constant("s", np.ones(scale, np.float32))
    attributes = {"axis": axis} | ({"block_size": block} if block else {})
    node = gs.Node("DequantizeLinear", "d", attributes, [codes, values], [gs.Variable("r", np.float32)])
    with pytest.raises(ModelError, match=r"DequantizeLinear\): a scale or zero point of shape .* does not fit"):
        constant_reals(node.outputs[0])


@pytest.mark.parametrize("where", ["input", "output", "value_info"])
def test_element_types_that_onnx_does_not_have(where: str) -> None:
    model = parsed("h = Neg(x) y = Neg(h)")
    value = helper.make_tensor_value_info("h", 1, [2])
    value.type.tensor_type.elem_type = 77
    value.name = {"input": "z", "output": "y", "value_info": "h"}[where]
    getattr(model.graph, where).append(value)
    with pytest.raises(ModelError, match=f"{value.name} is declared with element type 77, which ONNX does not have"):
        load(model)


@pytest.mark.parametrize("mark", marks.MARKS, ids=lambda mark: mark.key)
def test_marks_that_are_damaged(mark: marks.Mark) -> None:
    """Those of any text are read as they are."""
    model = parsed("[n] y = Neg(x)")
    model.graph.node[0].metadata_props.add(key=mark.key, value=";")
    (node,) = load(model).graph.nodes
    if mark.parse is str or mark in (marks.SOURCES, marks.BITS):
        mark.get(node)
        return
    with pytest.raises(ModelError, match=rf"node n \(Neg\): its metadata {mark.key} is damaged"):
        mark.get(node)
