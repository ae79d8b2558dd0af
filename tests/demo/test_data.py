"""The bundled model and digits: what the demo, and every test that quantizes it, relies on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from onnxq import demo


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(demo.model_path())


def test_model_is_valid_and_dynamic_in_the_batch_alone(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (8, [("", 17)])
    (image,), (logits,) = model.graph.input, model.graph.output
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (image, logits)}
    assert shapes == {"image": ["N", 1, 8, 8], "logits": ["N", 10]}
    assert {v.type.tensor_type.elem_type for v in (image, logits)} == {onnx.TensorProto.FLOAT}


def test_model_has_what_a_quantizer_must_handle(model: onnx.ModelProto) -> None:
    nodes = {n.name: n for n in model.graph.node}
    assert len(nodes) == len(model.graph.node), "every node has a name of its own"
    producer = {n.output[0]: n for n in model.graph.node}
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    convs = [n for n in model.graph.node if n.op_type == "Conv"]

    normalized = [n for n in model.graph.node if n.op_type == "BatchNormalization"]
    assert len(normalized) == len(convs), "BatchNormalization stays unfolded behind every Conv"
    assert {producer[n.input[0]].op_type for n in normalized} == {"Conv"}
    groups = {n.name: onnx.helper.get_node_attr_value(n, "group") for n in convs}
    assert {name: g for name, g in groups.items() if g > 1} == {"block3/depthwise_conv": 96}
    assert weights["block3/depthwise_conv.weight"].shape == (96, 1, 3, 3)

    # Identity shortcut with a ReLU behind, convolution shortcut, identity shortcut around a linear bottleneck.
    branches = {n.name: {producer[i].op_type for i in n.input} for n in model.graph.node if n.op_type == "Add"}
    assert branches == {
        "block1/add": {"BatchNormalization", "Relu"},
        "block2/add": {"BatchNormalization"},
        "block3/add": {"BatchNormalization", "Relu"},
    }
    clips = [n for n in model.graph.node if n.op_type == "Clip"]
    assert [[weights[i].tolist() for i in n.input[1:]] for n in clips] == [[0.0, 6.0]] * 2, "bounds are scalars"
    assert [producer[i].op_type for i in nodes["block4/concat"].input] == ["Relu", "Relu", "MaxPool"]
    assert [producer[nodes[n].input[0]].op_type for n in ("head/flatten", "head/gemm")] == [
        "GlobalAveragePool",
        "Flatten",
    ]


def test_model_says_where_it_comes_from(model: onnx.ModelProto) -> None:
    metadata = {p.key: p.value for p in model.metadata_props}
    assert "10.24432/C50P49" in metadata["dataset"] and "CC BY 4.0" in metadata["dataset_licence"]
    assert "16" in metadata["preprocessing"] and model.doc_string


def test_files_are_small() -> None:
    sizes = [p.stat().st_size for p in (demo.model_path(), demo.data_path())]
    assert min(sizes) > 0 and sum(sizes) < 1_000_000


@pytest.mark.parametrize(("part", "count"), [(demo.calibration_data, 512), (demo.validation_data, 500)])
def test_data_is_ready_to_feed(part: Callable[[], dict[str, np.ndarray]], count: int) -> None:
    data = part()
    assert set(data) == {"image", "labels"}
    assert data["image"].shape == (count, 1, 8, 8) and data["image"].dtype == np.float32
    assert data["labels"].shape == (count,) and data["labels"].dtype == np.int64
    grey = data["image"] * 16
    assert np.array_equal(grey, np.rint(grey)) and (grey.min(), grey.max()) == (0, 16)
    # Every digit is there about equally often, so that neither ranges nor accuracy hang on a few classes.
    assert np.bincount(data["labels"], minlength=10).min() >= count // 13


def test_no_validation_image_was_used_for_calibration() -> None:
    seen = {image.tobytes() for image in demo.calibration_data()["image"]}
    assert not any(image.tobytes() in seen for image in demo.validation_data()["image"])


def test_float_accuracy() -> None:
    data = demo.validation_data()
    session = onnxruntime.InferenceSession(demo.model_path(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": data["image"]})
    assert logits.shape == (500, 10)
    accuracy = float((logits.argmax(1) == data["labels"]).mean())
    assert accuracy >= 0.985
    recorded = {p.key: p.value for p in onnx.load(demo.model_path()).metadata_props}["validation_accuracy"]
    # One image may tip over on another CPU's arithmetic.
    assert abs(accuracy - float(recorded.split()[0])) <= 1 / 500
