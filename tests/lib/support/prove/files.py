"""Model files: written and read again, with external data, refused."""

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx.parser
import pytest

from onnxq.errors import ModelError
from onnxq.graph.model import Model, load, to_proto
from support.build import floating
from support.prove.values import assert_close
from support.runs import run

NET = "g (float[N,64] x) => (float[N,64] y) <float[64,64] w, float[64] b> { h = MatMul(x, w) y = Add(h, b) }"


def again(source: Model) -> onnx.ModelProto:
    """The model written, serialized and parsed; it must be valid."""
    written = onnx.ModelProto.FromString(to_proto(source).SerializeToString())
    onnx.checker.check_model(written, full_check=True)
    return written


def same_values(a: onnx.ModelProto | Model, b: onnx.ModelProto | Model) -> None:
    """Assert that both compute the same bits."""
    for feed in floating.feeds(load(a), 1):
        old, new = run(a, feed), run(b, feed)
        for name, value in old.items():
            assert_close(value, new[name], 0)


def names(folder: Path) -> list[str]:
    """The names of what a folder contains, sorted."""
    return sorted(p.name for p in folder.iterdir())


def all_protos(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and the bodies in it, at any depth."""
    yield graph
    for node in graph.node:
        for attr in node.attribute:
            if attr.HasField("g"):
                yield from all_protos(attr.g)


def external(folder: Path, name: str = "m.onnx", text: str = NET, data: str = "m.bin") -> Path:
    """Save the float model of a text with every weight in the file `data` next to it; returns its path."""
    onnx.save(floating.proto(text), folder / name, save_as_external_data=True, location=data, size_threshold=0)
    return folder / name


def message(source: Path | bytes | onnx.ModelProto) -> str:
    """The one line with which a model is refused."""
    with pytest.raises(ModelError) as caught:
        load(source)
    text = str(caught.value)
    assert "\n" not in text
    return text
