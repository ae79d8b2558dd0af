"""Evaluation against figures computed with NumPy from the same numbers."""

import json
import math

import numpy as np
import onnx
import pytest

from onnxq.errors import ConfigError, DataError
from onnxq.measure.accuracy import evaluate
from onnxq.measure.evaluation import NO_SIGNAL_DB
from onnxq.numeric.metrics import sqnr_db
from support.build import qdq
from support.insertion import context, insert
from support.prove.nodes import reads
from support.runs import run

# y = x, so that the scores of every sample are the test's own.
SCORES = "g (float[N,6] x) => (float[N,6] y) <float[6,6] w> { [fc] y = MatMul(x, w) }"
FIXED = SCORES.replace("N,", "4,")
SOFTMAX = """g (float[N,6] x) => (float[N,6] p) <float[6,6] w>
    { [fc] y = MatMul(x, w) [soft] p = Softmax(y) }"""


def identity(text: str = SCORES, scale: float = 1.0) -> onnx.ModelProto:
    return qdq.proto(text, w=np.eye(6, dtype=np.float32) * np.float32(scale))


@pytest.fixture
def samples() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {"x": rng.integers(-3, 4, (10, 6)).astype(np.float32), "labels": rng.integers(0, 6, 10)}


def ranks(data: dict[str, np.ndarray]) -> np.ndarray:
    order = [sorted(range(6), key=lambda c, row=row: (-row[c], c)) for row in data["x"]]
    return np.array([o.index(label) for o, label in zip(order, data["labels"], strict=True)])


@pytest.mark.parametrize("batch_size", [None, 1, 3, 10, 64])
@pytest.mark.parametrize("text", [SCORES, FIXED], ids=["free batch", "batch of 4"])
def test_top1_and_top5_with_their_standard_errors(samples, text, batch_size):
    """Ties go to the smaller class; padded rows of a fixed batch do not count."""
    found = evaluate(identity(text), samples, batch_size=batch_size)
    expected = float(np.mean(ranks(samples) < 1))
    assert (found.samples, found.labelled, found.output) == (10, 10, "y")
    assert found.top1 == expected
    assert found.top5 == float(np.mean(ranks(samples) < 5))
    assert found.top1_error == pytest.approx(math.sqrt(expected * (1 - expected) / 10))
    assert found.samples_per_second > 0
    assert found.ms_per_sample == pytest.approx(1000 / found.samples_per_second)
    assert found.data["samples"] == 10


def test_few_classes_have_no_top5(samples):
    text = "g (float[N,6] x) => (float[N,5] y) <float[6,5] w> { y = MatMul(x, w) }"
    samples["labels"] = samples["labels"] % 5
    found = evaluate(qdq.proto(text), samples)
    assert found.top1 is not None
    assert found.top5 is None


def test_without_labels_there_is_speed_only(samples):
    found = evaluate(identity(), {"x": samples["x"]})
    assert (found.samples, found.labelled, found.top1, found.top1_error) == (10, 0, None, None)
    assert found.against is None


def test_distance_from_the_float_model(samples):
    """The tested model mirrors the scores: what was right is wrong and the other way round."""
    found = evaluate(identity(scale=-1.0), samples, against=identity(), batch_size=4).against
    right, mirrored = ranks(samples) < 1, ranks({**samples, "x": -samples["x"]}) < 1
    agree = [
        max(range(6), key=lambda c, r=r: (r[c], -c)) == max(range(6), key=lambda c, r=r: (-r[c], -c))
        for r in samples["x"]
    ]
    assert found.top1 == float(np.mean(right))
    assert found.agreement == float(np.mean(agree))
    assert found.lost == int((right & ~mirrored).sum())
    assert found.gained == int((~right & mirrored).sum())
    output = found.outputs["y"]
    assert output.sqnr_db == pytest.approx(sqnr_db(samples["x"], -samples["x"]))
    assert output.cosine == pytest.approx(-1.0)
    assert output.max_abs_error == 2 * np.abs(samples["x"]).max()


def test_the_same_model_is_equal_and_agrees(samples):
    found = evaluate(identity(), samples, against=identity()).against
    assert (found.agreement, found.kl, found.lost, found.gained) == (1.0, 0.0, 0, 0)
    assert found.outputs["y"].sqnr_db is None


def test_kl_is_the_same_on_logits_and_on_probabilities(samples):
    on_logits = evaluate(identity(scale=0.5), samples, against=identity()).against
    on_softmax = evaluate(identity(SOFTMAX, 0.5), samples, against=identity(SOFTMAX)).against
    logits = samples["x"].astype(np.float64)
    p, q = (np.exp(v) / np.exp(v).sum(axis=1, keepdims=True) for v in (logits, logits / 2))
    assert on_logits.kl == pytest.approx(float(np.mean((p * np.log(p / q)).sum(axis=1))), rel=1e-5)
    assert on_softmax.kl == pytest.approx(on_logits.kl, rel=1e-4)


def test_an_inner_tensor_can_be_looked_at(samples):
    """The softmax input of both models, and in a QDQ model what the DequantizeLinear on it makes."""
    found = evaluate(identity(SOFTMAX, 0.5), samples, against=identity(SOFTMAX), output="y")
    assert found.output == "y"
    assert found.against.outputs["y"].sqnr_db == pytest.approx(sqnr_db(samples["x"], samples["x"] / 2))
    quantized = qdq.model(SOFTMAX, w=np.eye(6, dtype=np.float32))
    insert(quantized, context(quantized, "qnn", feeds=[{"x": samples["x"]}]))
    assert reads(quantized, "soft") == ["DQ"]
    found = evaluate(quantized, samples, against=identity(SOFTMAX), output="y").against
    assert 20 < found.outputs["y"].sqnr_db < 60


def test_the_output_of_a_qdq_model_is_compared_as_it_leaves(samples):
    quantized = qdq.model(SCORES, w=np.eye(6, dtype=np.float32))
    insert(quantized, context(quantized, "qnn", feeds=[{"x": samples["x"]}]))
    found = evaluate(quantized, samples, against=identity())
    made = run(quantized, {"x": samples["x"]}, optimize=True)["y"]
    assert found.against.outputs["y"].sqnr_db == pytest.approx(sqnr_db(samples["x"], made))


def test_scores_with_nan_are_wrong(samples):
    broken = np.eye(6, dtype=np.float32)
    broken[2, 2] = np.nan
    found = evaluate(qdq.proto(SCORES, w=broken), samples, against=identity())
    assert (found.top1, found.against.agreement) == (0.0, 0.0)
    assert found.against.outputs["y"].sqnr_db == NO_SIGNAL_DB  # not None, which says equal
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_model_without_classes_is_compared_all_the_same():
    text = """g (float[N,3,8,8] x) => (float[N,3,8,8] y, float[N,3] z) <float[3,3,1,1] w>
        { y = Conv(x, w) p = GlobalAveragePool(y) z = Flatten(p) }"""
    single = "g (float[N,3,8,8] x) => (float[N,3,8,8] y) <float[3,3,1,1] w> { y = Conv(x, w) }"
    x = {"x": np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)}
    found = evaluate(qdq.proto(single, seed=1), x, against=qdq.proto(single, seed=2))
    assert (found.output, found.against.agreement, found.against.kl) == (None, None, None)
    assert list(found.against.outputs) == ["y"]
    both = evaluate(qdq.proto(text, seed=1), x, against=qdq.proto(text, seed=2))
    assert both.output == "z"
    assert list(both.against.outputs) == ["y", "z"]


def test_json_holds_no_infinity(samples):
    told = evaluate(identity(), samples, against=identity()).to_dict()
    again = json.loads(json.dumps(told, allow_nan=False))
    assert again["against"]["outputs"]["y"] == {"sqnr_db": None, "cosine": 1.0, "max_abs_error": 0.0}


def test_progress_counts_samples(samples):
    seen = []
    evaluate(identity(), samples, batch_size=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 10), (8, 10), (10, 10)]


# Refusals: one sentence that names the culprit


def test_a_tensor_that_one_model_lacks(samples):
    with pytest.raises(ConfigError, match=r"has no tensor 'p'.*outputs are y"):
        evaluate(identity(SOFTMAX), samples, against=identity(), output="p")


def test_models_with_other_inputs(samples):
    other = qdq.proto(SCORES.replace("x", "image"))
    with pytest.raises(ConfigError, match="do not have the same inputs"):
        evaluate(identity(), samples, against=other)


def test_outputs_that_do_not_match(samples):
    text = SCORES.replace("[N,6] y", "[N,6] other").replace("y =", "other =")
    with pytest.raises(ConfigError, match=r"has no output y, as .* has"):
        evaluate(identity(), samples, against=qdq.proto(text))


def test_labels_for_two_candidate_outputs(samples):
    text = """g (float[N,6] x) => (float[N,6] y, float[N,4] z) <float[6,6] w, float[6,4] v>
        { y = MatMul(x, w) z = MatMul(x, v) }"""
    with pytest.raises(ConfigError, match=r"one score for each class \(y .*, z .*\); choose one with --output"):
        evaluate(qdq.proto(text), samples)
    assert evaluate(qdq.proto(text), samples, output="y").output == "y"


def test_a_label_beyond_the_classes(samples):
    samples["labels"][7] = 6
    with pytest.raises(DataError, match=r"\b7\b.*label 6, but the model has 6 classes"):
        evaluate(identity(), samples, batch_size=4)


def test_a_model_without_float_outputs(samples):
    text = "g (float[N,6] x) => (int64[N,1] y) { y = ArgMax<axis=1>(x) }"
    with pytest.raises(ConfigError, match="no floating-point output"):
        evaluate(qdq.proto(text), samples)


# The shared models


def test_squeezenet_can_be_compared_before_its_softmax(shared):
    model = shared / "models" / "squeezenet_imagenet.onnx"
    found = evaluate(
        model,
        shared / "data" / "imagenet_val",
        against=model,
        preprocess="caffe",
        limit=6,
        threads=2,
        output="pool10_1",
    )
    assert (found.samples, found.labelled, found.output) == (6, 6, "pool10_1")
    assert found.against.outputs["pool10_1"].sqnr_db is None
    assert found.top1 == found.against.top1 > 0


def test_resnet_has_the_accuracy_that_is_known(shared):
    found = evaluate(
        shared / "models" / "resnet20_cifar10.onnx",
        shared / "data" / "cifar10_val.npz",
        preprocess="cifar10",
        batch_size=50,
        threads=2,
    )
    assert found.labelled == 2000
    assert found.top1 == pytest.approx(0.865, abs=1e-9)
