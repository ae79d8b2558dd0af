"""What shape inference does not know is seen by running the model; layers behind it are lowered all the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxq
from onnxq.calibrate.ranks import observe_ranks
from onnxq.calibrate.statistics import Statistics
from onnxq.data.source import input_specs, open_data
from onnxq.graph.model import load
from support.build import Feed, qdq

# Operators of onnxruntime whose rank is known only once they have run. They read a and x, and make g.
FOREIGN = {
    "attention": "g = com.microsoft.Attention<num_heads = 2>(a, u, c)",
    "transposed products": "p = com.microsoft.FusedMatMul<transB = 1>(a, x) g = com.microsoft.FusedMatMul(p, x)",
}
RESHAPED = "g (float[N,3,4] x, int64[k] s) => (float y) { r = Reshape(x, s) y = Relu(r) }"


def model(kind: str) -> onnx.ModelProto:
    proto = qdq.proto(
        "g (float[N,5,8] x) => (float[N,5,8] y) <float[8,8] w1, float[8,8] w2, float[8,8] w3, float[8,24] u, "
        f"float[24] c> {{ a = MatMul(x, w1) {FOREIGN[kind]} b = MatMul(g, w2) r = Relu(b) y = MatMul(r, w3) }}",
        17,
    )
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return proto


def layers(proto: onnx.ModelProto) -> tuple[int, int]:
    """Products in integers and in float."""
    ops = [(n.domain, n.op_type) for n in proto.graph.node]
    return sum(o == ("com.onnxq", "Gemm") for o in ops), sum(o in (("", "MatMul"), ("", "Relu")) for o in ops)


@pytest.mark.parametrize("kind", FOREIGN)
def test_layers_behind_an_unknown_rank_are_lowered(kind: str) -> None:
    source = model(kind)
    feeds = qdq.feeds(source, 4)
    made = onnxq.quantize(source, feeds, profile="onnxq", threads=1)
    assert layers(made.model) == (3, 0)
    outputs = onnxq.evaluate(made.model, feeds, against=source, threads=1).against.outputs
    assert outputs["y"].sqnr_db > 20
    seen = load(onnxq.quantize(source, feeds, profile="onnxq", qdq=True).model).graph.tensors()["g"]
    assert len(seen.shape) == 3 and not isinstance(seen.shape[0], int)  # the rank of the samples, not their number


@pytest.mark.parametrize("kind", FOREIGN)
def test_statistics_serve_without_data(kind: str) -> None:
    source = model(kind)
    first = onnxq.quantize(source, qdq.feeds(source, 4), profile="onnxq", threads=1)
    assert isinstance(first.statistics, Statistics)
    again = onnxq.quantize(source, statistics=first.statistics, profile="onnxq")
    assert layers(again.model) == (3, 0)


def reshaped(*shapes: list[int]) -> list[Feed]:
    return [{"x": np.ones((1, 3, 4), np.float32), "s": np.array(shape)} for shape in shapes]


@pytest.mark.parametrize(
    ("feeds", "found", "rank"),
    [(reshaped([3, 4], [4, 3]), 1, 2), (reshaped([2, 2, 3], [12]), 0, None), (reshaped([7, 7]), 0, None)],
)
def test_only_what_the_samples_agree_on(feeds: list[Feed], found: int, rank: int | None) -> None:
    """A rank that changes from sample to sample stays unknown, and so does that of a model that does not run."""
    source = load(qdq.proto(RESHAPED, 17))
    assert observe_ranks(source, open_data(feeds, input_specs(source.graph))) == found
    shape = source.graph.tensors()["r"].shape
    assert (None if shape is None else len(shape)) == rank


def test_nothing_is_run_when_all_ranks_are_known() -> None:
    source = load(qdq.proto("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }", 17))
    assert observe_ranks(source, open_data(iter(()), input_specs(source.graph))) == 0
