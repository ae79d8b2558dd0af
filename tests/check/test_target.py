"""The pre-flight check as a whole: own models pass, opset and domains, and the order and text of findings."""

import numpy as np
import onnx
import pytest

from onnxq.check.target import check
from onnxq.profiles.schema import builtin_names
from support.build import copy_of, qdq
from support.findings import BLOCKS, CONV, RESIDUAL, of, only, problems, quantized
from support.insertion import profile_of
from support.prove.nodes import node_of, nodes_of

# What onnxq makes for a profile passes the check of that profile


@pytest.mark.parametrize("text", [CONV, RESIDUAL, BLOCKS], ids=["conv", "residual", "blocks"])
@pytest.mark.parametrize("profile", builtin_names())
def test_own_models_pass(profile, text):
    findings = check(copy_of(quantized(profile, text)), profile)
    allowed = (" in float", "runs in float on", "adds in float")
    assert [p for p in problems(findings) if not p.startswith("remark") or not any(a in p for a in allowed)] == []
    if profile in ("onnxruntime-cpu", "onnxq", "qnn", "fbgemm", "snpe", "tvm"):
        assert problems(findings) == []


@pytest.mark.parametrize("bits", [{"activation_bits": 4, "first_last_bits": None}, {"weight_bits": 4}])
def test_own_models_of_fewer_bits_pass(bits):
    assert problems(check(quantized("onnxruntime-cpu", BLOCKS, 21, **bits), "onnxruntime-cpu")) == []


def test_onnxruntimes_quantizer(tmp_path):
    """A u8/s8 per-channel model of quantize_static: fine for onnxruntime, rejected by TensorRT for three reasons."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = qdq.feeds(qdq.model(BLOCKS))

        def get_next(self):
            return self.left.pop(0) if self.left else None

    onnx.save(qdq.proto(BLOCKS), tmp_path / "f.onnx")
    quantize_static(
        tmp_path / "f.onnx",
        tmp_path / "q.onnx",
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    assert problems(check(tmp_path / "q.onnx", "onnxruntime-cpu")) == []
    tensorrt = check(tmp_path / "q.onnx", "tensorrt")
    only(tensorrt, "reject", "x_QuantizeLinear", "is uint8; tensorrt wants signed")
    only(tensorrt, "reject", "x_QuantizeLinear", "zero point of its activation is not 0")
    only(tensorrt, "reject", "c1", "DequantizeLinear on its bias")
    assert of(tensorrt, "add")[0].severity == "remark"


# The model as a whole


def test_opset():
    profile = profile_of(
        '[graph]\nscheme = 3\n[limits]\nopset_min = 17\nopset_max = 19\n[ops]\nConv = { output = "always" }'
    )
    low = check(quantized("onnxruntime-cpu"), profile)
    assert only(low, "reject", "", "opset 13 is below 17").fix == "onnxq opt -p 'convert-opset{version=17}'"
    assert "opset 13 will be raised to 17" in check(qdq.model(CONV), profile)[-1].problem
    only(check(qdq.model(CONV, 21), profile), "reject", "", "opset 21 is above 19")
    assert not [f for f in check(qdq.model(CONV, 18), profile) if "opset" in f.problem]


def test_qdq_of_onnxruntimes_domain():
    model = quantized("onnxruntime-cpu")
    for node in nodes_of(model, "QuantizeLinear"):
        node.domain = "com.microsoft"
    only(check(model, "snpe"), "reject", "x_QuantizeLinear", "domain com.microsoft")
    assert problems(check(model, "onnxruntime-cpu")) == []


INTEGER = """g (float[2,4] x) => (int32[2,3] y) <uint8[4,3] w>
    { [dyn] q, s, z = DynamicQuantizeLinear(x) [mm] y = MatMulInteger(q, w, z) }"""


def test_operators_with_integers_inside():
    model = qdq.model(INTEGER, w=np.ones((4, 3), np.uint8))
    for node in ("dyn", "mm"):
        only(check(model, "tensorrt"), "reject", node, "takes QuantizeLinear/DequantizeLinear only")
        only(check(model, "onnxruntime-cpu"), "remark", node, "takes no part in Q/DQ fusion")


def test_operators_of_other_domains():
    model = qdq.model(CONV)
    node = node_of(model, "r")
    node.op, node.domain = "Blur", "acme"
    model.graph.import_domains = [*(model.graph.import_domains or []), onnx.helper.make_opsetid("acme", 1)]
    found = check(model, "tensorrt")
    only(found, "remark", "r", "domain acme")
    assert len(of(found, "r")) == 1


def test_notes_of_the_profile_never_fail():
    notes = [f for f in check(qdq.model(CONV), "onnxruntime-cpu") if f.severity == "note"]
    assert any("Conv: without a QuantizeLinear on its output" in f.problem for f in notes)


def test_findings_print_on_one_line():
    finding = check(quantized("onnxruntime-cpu"), "tensorrt")[0]
    assert str(finding).startswith("reject: ")
    assert "(fix: onnxq quantize --requantize --profile tensorrt)" in str(finding)
    assert set(finding.to_dict()) == {"severity", "node", "problem", "fix"}


def test_rejections_come_first():
    order = [f.severity for f in check(quantized("snpe", BLOCKS), "tensorrt")]
    assert order == sorted(order, key=["reject", "remark", "note"].index)
