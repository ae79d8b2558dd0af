"""Helpers of the tests of value-preserving passes: models from ONNX text, and the proof that a pass kept the values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.graph.model import Model, load, to_proto
from onnxq.graph.walk import all_graphs
from onnxq.pipeline import Pass, PassReport

Feed = dict[str, NDArray]


def proto(text: str, opset: int = 17, ir: int = 8, seed: int = 0, **values: Any) -> onnx.ModelProto:
    """A ModelProto from the text of its graph.

    A constant declared behind the signature without a value, `<float[8,3] w>`, gets that of the keyword argument of the
    same name, else a normal random one.
    """
    parsed = onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["": {opset}, "custom": 1]>\n{text}')
    rng = np.random.default_rng(seed)
    for info in parsed.graph.value_info:
        kind = info.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        shape = [d.dim_value for d in kind.shape.dim]
        given = values.pop(info.name, None)
        array = rng.normal(0, 0.5, shape) if given is None else np.broadcast_to(np.asarray(given), shape)
        parsed.graph.initializer.append(numpy_helper.from_array(np.array(array).astype(dtype), info.name))
    assert not values, f"no constant is called {list(values)}"
    del parsed.graph.value_info[:]
    return parsed


def model(text: str, opset: int = 17, ir: int = 8, seed: int = 0, **values: Any) -> Model:
    """`proto` as a Model."""
    return load(proto(text, opset, ir, seed, **values))


def feeds(source: Model, count: int = 2, seed: int = 1, free: int = 2) -> list[Feed]:
    """Random feeds: floats normal, integers 0 or 1; unknown dimensions are `free`."""
    rng = np.random.default_rng(seed)
    return [{t.name: _random(rng, t, free) for t in source.graph.inputs} for _ in range(count)]


def _random(rng: np.random.Generator, tensor: gs.Variable, free: int) -> NDArray:
    shape = [d if isinstance(d, int) else free for d in tensor.shape]
    dtype = np.dtype(tensor.dtype)
    return (rng.normal(size=shape) if dtype.kind == "f" else rng.integers(0, 2, shape)).astype(dtype)


def run(source: Model | onnx.ModelProto, feed: Feed) -> Feed:
    """Outputs by name, without onnxruntime's own optimizations."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    made = to_proto(source) if isinstance(source, Model) else source
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))


@dataclass(frozen=True)
class Proof:
    """A model after a pass, and the pass's report."""

    model: Model
    report: PassReport

    @property
    def graph(self) -> gs.Graph:
        return self.model.graph

    @property
    def changed(self) -> int:
        return self.report.changed

    @property
    def ops(self) -> dict[str, int]:
        """Operators, those of subgraphs too, and how many of each."""
        return dict(Counter(n.op for g in all_graphs(self.graph) for n in g.nodes))

    @property
    def reasons(self) -> dict[str, str]:
        """Why nodes were skipped, by node."""
        return {failure.node: failure.reason for failure in self.report.skipped}

    def node(self, name: str) -> gs.Node:
        """The node of that name, at any depth."""
        return next(n for g in all_graphs(self.graph) for n in g.nodes if n.name == name)


def prove(
    source: Model | onnx.ModelProto | str,
    rewrite: Pass,
    inputs: Sequence[Feed] | None = None,
    tolerance: float = 1e-5,
    **how: Any,
) -> Proof:
    """Run a pass, show that the outputs stay what they were and that a second run changes nothing.

    tolerance: of the largest difference of an output, relative to its largest magnitude. how: see `proto`.
    """
    source = model(source, **how) if isinstance(source, str) else load(source)
    given = list(inputs) if inputs is not None else feeds(source)
    before = [run(source, feed) for feed in given]
    report = pipeline.run(source, [rewrite], PassContext(source))[0]
    written = to_proto(source)
    onnx.checker.check_model(written, full_check=True)
    for feed, old in zip(given, before, strict=True):
        new = run(written, feed)
        assert list(new) == list(old)
        for name, value in old.items():
            assert_close(value, new[name], tolerance)
    again = pipeline.run(source, [rewrite], PassContext(source))[0]
    assert again.changed == 0, f"the second run changed {again.changed}"
    return Proof(source, report)


def assert_close(old: NDArray, new: NDArray, tolerance: float) -> None:
    """Same shape and type, and a difference of at most tolerance x the largest magnitude."""
    assert (old.shape, old.dtype) == (new.shape, new.dtype)
    if old.size == 0:
        return
    difference = np.max(np.abs(old.astype(np.float64) - new.astype(np.float64)))
    limit = tolerance * np.max(np.abs(old.astype(np.float64)))
    assert difference <= limit, f"differs by {difference:.3g}, more than {limit:.3g}"


def constant(tensor: gs.Tensor) -> NDArray:
    """Values of a tensor that must be a constant."""
    assert isinstance(tensor, gs.Constant), f"{tensor.name} is computed"
    return np.asarray(tensor.values)
