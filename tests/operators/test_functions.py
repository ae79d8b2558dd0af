"""Models that carry function bodies: attached, brought up to date, kept by load and save, read by onnx's tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import TensorProto

from onnxq.errors import ModelError
from onnxq.execution.save import save
from onnxq.graph.model import load, to_proto
from onnxq.graph.shapes import static_shape
from onnxq.operators import DOMAIN, SCHEMAS, attach_functions, function, function_text
from support.cases.operators import Case, Draw, small_nodes
from support.cases.operators.conv import conv
from support.prove.operator_bodies import activations, evaluations, model, static

REQUANTIZE = "com.onnxq.Requantize<qmin=0, qmax=255, y_type=2>"
TWO = f"""<ir_version: 10, opset_import: ["": 21, "com.onnxq": 1]>
g (int32[n,3] x, bool flag) => (uint8[n,3] y) <int32[1] b = {{3}}, int32[1] c = {{2}}> {{
    y = If (flag) <
        then_branch = t () => (uint8[n,3] p) {{ p = {REQUANTIZE}(x, b, c) }},
        else_branch = e () => (uint8[n,3] q) {{ q = com.onnxq.Add<qmin=0, qmax=9, y_type=2, axis=0>(x, x, b, b, c) }}
    >
}}"""


def text(proto: onnx.ModelProto) -> bytes:
    return proto.SerializeToString(deterministic=True)


def names(proto: onnx.ModelProto) -> list[str]:
    return [f.name for f in proto.functions]


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_function_has_the_signature_of_its_schema(name: str) -> None:
    schema, made = SCHEMAS[name], function(name)
    assert (made.domain, made.name, made.doc_string) == (DOMAIN, name, schema.summary)
    assert list(made.input) == [i.name for i in schema.inputs] and list(made.output) == [schema.output.name]
    assert list(made.attribute) == [a.name for a in schema.attributes if a.default is None]
    defaults = {a.name: onnx.helper.get_attribute_value(a) for a in made.attribute_proto}
    given = {a.name: a.default for a in schema.attributes if a.default is not None}
    assert defaults == {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
    # Every value is used, and every attribute: nothing in the text is idle.
    used = {i for n in made.node for i in n.input} | set(made.output)
    assert {o for n in made.node for o in n.output} <= used and set(made.input) <= used
    references = {a.ref_attr_name for n in made.node for a in n.attribute if a.ref_attr_name}
    assert references == {a.name for a in schema.attributes}


def test_a_function_is_a_copy() -> None:
    function("Conv").node[0].op_type = "Nonsense"
    assert function("Conv").node[0].op_type == "Constant"
    with pytest.raises(KeyError):
        function("Nonsense")


def test_function_text_spells_out_constants_and_attributes() -> None:
    lines = function_text(SCHEMAS["Requantize"]).splitlines()
    assert lines[0] == '<domain: "com.onnxq", opset_import: ["": 21]>'
    assert lines[1].startswith(
        "Requantize <x_zero_point: int = 0, axis: int = -1, y_zero_point: int = 0, qmin, qmax, y_"
    )
    assert "  qmin = Constant <value_int: int = @qmin> ()" in lines
    assert "  int64_2 = Constant <value_int = 2> ()" in lines
    assert "  y_type = Constant <value_int: int = @y_type> ()" not in lines  # an attribute of Cast, no operand
    assert function_text(SCHEMAS["Requantize"], 24).startswith('<domain: "com.onnxq", opset_import: ["": 24]>')


def test_attach_adds_what_is_used_in_subgraphs_too_and_removes_the_rest() -> None:
    proto = onnx.parser.parse_model(TWO)
    proto.functions.append(function("Conv"))
    attach_functions(proto)
    assert names(proto) == ["Add", "Requantize"]
    onnx.checker.check_model(proto, full_check=True)
    before = text(proto)
    attach_functions(proto)
    assert text(proto) == before
    x = np.array([[-1, 1, 500]], np.int32)
    for flag, expected in ((True, [[0, 1, 255]]), (False, [[0, 2, 9]])):
        for name, found in evaluations(proto, {"x": x, "flag": np.array(flag)}):
            assert found.tolist() == expected, name


def test_attach_imports_the_domain_and_writes_defaults_into_nodes() -> None:
    source = TWO.replace(', "com.onnxq": 1', "")
    proto = onnx.parser.parse_model(source)
    attach_functions(proto)
    assert {o.domain: o.version for o in proto.opset_import} == {"": 21, DOMAIN: 1}
    (node,) = proto.graph.node[0].attribute[0].g.node
    attributes = {a.name: a.i for a in node.attribute}
    assert attributes == {"qmin": 0, "qmax": 255, "y_type": 2, "x_zero_point": 0, "axis": -1, "y_zero_point": 0}


def test_attach_leaves_a_model_without_operators_of_ours_alone() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) { y = Abs(x) }'
    )
    before = text(proto)
    attach_functions(proto)
    assert text(proto) == before


def test_attach_keeps_functions_that_it_does_not_know() -> None:
    proto = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 21, "com.onnxq": 1, "other": 1]>
        g (int32[n] x) => (uint8[n] y) <int32[1] b = {{1}}, int32[1] c = {{1}}> {{
            h = com.onnxq.Later(x, b, c)
            y = other.Same(h)
        }}
        <opset_import: ["": 21, "com.onnxq": 1], domain: "com.onnxq">
        Later (x, b, c) => (y) {{ y = {REQUANTIZE}(x, b, c) }}
        <opset_import: ["": 21], domain: "com.onnxq"> Idle (x) => (y) {{ y = Identity(x) }}
        <opset_import: ["": 21], domain: "other"> Same (x) => (y) {{ y = Identity(x) }}"""
    )
    attach_functions(proto)
    assert names(proto) == ["Requantize", "Later", "Same"]
    for _, found in evaluations(proto, {"x": np.array([3, 4], np.int32)}):
        assert found.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"": 21', '"": 17', "operators of com.onnxq (Add, Requantize) need opset 21, the model has 17: onnxq opt -p"),
        ('"com.onnxq": 1', '"com.onnxq": 2', "has version 2 of com.onnxq, this onnxq supports version 1: update onnxq"),
    ],
)
def test_attach_refuses_versions_that_do_not_fit(old: str, new: str, message: str) -> None:
    proto = onnx.parser.parse_model(TWO.replace(old, new))
    with pytest.raises(ModelError) as refusal:
        attach_functions(proto)
    assert message in str(refusal.value)


CASES = small_nodes()
IDS = [case.op for case in CASES]


def test_there_is_a_case_of_every_operator() -> None:
    assert {SCHEMAS[op].page or op for op in IDS} == {schema.page or op for op, schema in SCHEMAS.items()}


def of(case: Case, opset: int = 21) -> tuple[onnx.ModelProto, dict[str, np.ndarray], np.ndarray]:
    expected = case.expected()
    proto = model(case.op, case.arrays, case.attributes, expected, opset=opset)
    return proto, {name: case.arrays[name] for name in activations(case.op)}, expected


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_type_and_shape_follow_through_the_body(case: Case) -> None:
    proto, feeds, expected = of(case)
    inferred = onnx.shape_inference.infer_shapes(static(proto, feeds), strict_mode=True, data_prop=True)
    kind = inferred.graph.output[0].type.tensor_type
    assert kind.elem_type == onnx.helper.np_dtype_to_tensor_dtype(expected.dtype)
    assert tuple(d.dim_value for d in kind.shape.dim) == expected.shape


@pytest.mark.parametrize("opset", [22, 23, 24, 25, 26])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_later_opsets(case: Case, opset: int) -> None:
    proto, feeds, expected = of(case, opset)
    assert [(o.domain, o.version) for o in proto.functions[0].opset_import] == [("", opset)]
    onnx.checker.check_model(proto, full_check=True)
    for name, found in evaluations(proto, feeds):
        np.testing.assert_array_equal(found, expected, err_msg=name)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_onnxruntime_knows_the_defaults(case: Case) -> None:
    proto, feeds, expected = of(case)
    (node,) = proto.graph.node
    kept = [a for a in node.attribute if a.name in case.attributes]
    del node.attribute[:]
    node.attribute.extend(kept)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, feeds)[0], expected)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_load_and_save_bring_bodies_up_to_date(case: Case, tmp_path: Path) -> None:
    proto, feeds, expected = of(case)
    current = text(proto)
    stale = onnx.ModelProto.FromString(current)
    stale.functions[0].node[0].op_type = "Stale"
    stale.functions.append(function("Softmax" if case.op != "Softmax" else "Conv"))
    source = load(stale)
    assert [f.SerializeToString() for f in to_proto(source).functions] == [
        f.SerializeToString() for f in proto.functions
    ]
    del source.functions[:]  # as a pass would leave it that makes such nodes
    save(source, tmp_path / "m.onnx")
    saved = onnx.load(tmp_path / "m.onnx")
    assert names(saved) == [case.op]
    for name, found in evaluations(saved, feeds):
        np.testing.assert_array_equal(found, expected, err_msg=name)


def test_a_saved_model_names_the_file_when_its_opset_is_too_old() -> None:
    source = load(onnx.parser.parse_model(TWO.replace('"": 21', '"": 17')))
    source.path = Path("old.onnx")
    with pytest.raises(ModelError, match=r"^old\.onnx: operators of com\.onnxq"):
        to_proto(source)


def test_loading_infers_shapes_through_our_operators() -> None:
    case = conv(Draw(21), (2, 7, 6, 8), (12, 3, 2, 4), pads=(1, 1, 1, 1))
    proto, feeds, expected = of(case)
    fixed = static(proto, feeds)
    del fixed.functions[:]
    fixed.graph.node[0].output[0] = "h"
    fixed.graph.node.append(onnx.helper.make_node("Identity", ["h"], ["y"]))
    fixed.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", TensorProto.UINT8, ["n", "h", "w", "c"]))
    source = load(fixed)
    (tensor,) = source.graph.nodes[0].outputs
    assert (tensor.dtype, static_shape(tensor)) == (np.uint8, expected.shape)
    assert not source.notes
