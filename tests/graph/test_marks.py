"""Marks in the metadata of nodes: the texts in files, and what they mean."""

from __future__ import annotations

import math

import onnx_graphsurgeon as gs
import pytest

from onnxq.errors import ModelError
from onnxq.graph import marks
from onnxq.graph.clamps import Clamp
from onnxq.graph.marks import Flattened

TEXTS = [
    (marks.BITS, "onnxq.bits", 4, "4"),
    (marks.MADE_BY, "onnxq.pass", "insert-qdq", "insert-qdq"),
    (marks.ABSORBED, "onnxq.absorbed", Clamp(0.0, math.inf), "Relu"),
    (marks.ABSORBED, "onnxq.absorbed", Clamp(-1.0, 6.0), "Clip -1.0 6.0"),
    (marks.SOURCES, "onnxq.source", ("conv", "act"), "conv\nact"),
    (marks.STANDS_FOR, "onnxq.tensor", "y", "y"),
    (marks.RESCALE, "onnxq.rescale", "fixed", "fixed"),
    (marks.LAYOUT, "onnxq.layout", (0, 2, 3, 1), "0,2,3,1"),
    (marks.FLATTENED, "onnxq.flattened", Flattened((8, 6, 6), (1, 2, 0)), "8,6,6|1,2,0"),
]


@pytest.mark.parametrize(("mark", "key", "value", "text"), TEXTS)
def test_keys_and_texts_of_the_file_format(mark, key, value, text):
    node = gs.Node("Relu", "r")
    assert not mark.on(node) and mark.get(node) is None
    mark.set(node, value)
    assert node.metadata == {key: text}
    assert mark.on(node) and mark.get(node) == value


def test_every_mark_is_in_the_list_once():
    assert {mark.key for mark in marks.MARKS} == {key for _, key, _, _ in TEXTS}
    assert len({mark.key for mark in marks.MARKS}) == len(marks.MARKS) == 8


def test_other_metadata_stay_and_shared_ones_are_not_edited():
    first, second = gs.Node("Relu", "a"), gs.Node("Relu", "b")
    first.metadata = second.metadata = {"origin": "layer 3"}
    marks.LAYOUT.set(first, (1, 0))
    assert first.metadata == {"origin": "layer 3", "onnxq.layout": "1,0"} and second.metadata == {"origin": "layer 3"}
    marks.LAYOUT.drop(first)
    assert first.metadata == {"origin": "layer 3"}
    assert not marks.LAYOUT.on(None) and marks.LAYOUT.get(None) is None


@pytest.mark.parametrize(
    ("mark", "text"), [(marks.LAYOUT, "0,2"), (marks.FLATTENED, "8,6"), (marks.ABSORBED, "Clip 1")]
)
def test_texts_that_do_not_parse(mark, text):
    node = gs.Node("Relu", "r")
    node.metadata = {mark.key: text}
    with pytest.raises(ModelError, match="is damaged"):
        mark.get(node)
