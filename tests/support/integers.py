"""Integer graphs from ONNX text, and the proof that a pass changed nothing but their form."""

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
from onnxq.graph.protos import OWN_DOMAIN
from onnxq.layout.values import perm_of
from onnxq.pipeline import Pass, PassReport

Feed = dict[str, NDArray[Any]]


def proto(text: str, seed: int = 0, **values: Any) -> onnx.ModelProto:
    """A ModelProto of opset 21 from the text of its graph, in which `own.` stands for `com.onnxq.`.

    Constants declared without a value get that of the keyword argument of the same name, else random ones of their
    type: int32 names that begin with `mul` and `sh` are multipliers and shifts of rescales of about 1/8, `exp` is the
    table of a Softmax.
    """
    header = '<ir_version: 10, opset_import: ["": 21, "com.onnxq": 1]>\n'
    parsed = onnx.parser.parse_model(header + text.replace("own.", f"{OWN_DOMAIN}."))
    rng = np.random.default_rng(seed)
    for info in parsed.graph.value_info:
        kind = info.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        shape = [d.dim_value for d in kind.shape.dim]
        given = values.pop(info.name, None)
        array = _constant(rng, info.name, dtype, shape) if given is None else np.broadcast_to(np.asarray(given), shape)
        parsed.graph.initializer.append(numpy_helper.from_array(np.array(array).astype(dtype), info.name))
    assert not values, f"no constant is called {list(values)}"
    del parsed.graph.value_info[:]
    return parsed


def _constant(rng: np.random.Generator, name: str, dtype: np.dtype, shape: list[int]) -> NDArray[Any]:
    if dtype.kind == "f":
        return rng.uniform(0.01, 0.1, shape)
    if dtype == np.int32 and name.startswith("mul"):
        return rng.integers(1 << 28, 1 << 30, shape)
    if dtype == np.int32 and name.startswith("sh"):
        return np.full(shape, 32)
    if dtype == np.int32 and name.startswith("exp"):
        return np.rint(np.exp(-np.arange(shape[0]) / 16) * 2**20)
    if dtype == np.int32:
        return rng.integers(-1000, 1000, shape)
    if dtype.name == "int4":
        return rng.integers(-8, 8, shape)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return rng.integers(low, high + 1, shape)


def model(text: str, seed: int = 0, **values: Any) -> Model:
    """`proto` as a Model. Operators that make t_nhwc stand for t of the QDQ model, as lowering says it."""
    made = load(proto(text, seed, **values))
    for node in made.graph.nodes:
        stem, found, _ = node.outputs[0].name.rpartition("_nhwc")
        if found and node.domain == OWN_DOMAIN:
            node.metadata = {"onnxq.tensor": stem}
    return made


def feeds(source: Model, count: int = 2, seed: int = 1, free: int = 2) -> list[Feed]:
    """Random feeds over the whole range of their types; unknown dimensions are `free`."""
    rng = np.random.default_rng(seed)
    return [{t.name: _random(rng, t, free) for t in source.graph.inputs} for _ in range(count)]


def _random(rng: np.random.Generator, tensor: gs.Variable, free: int) -> NDArray[Any]:
    shape = [d if isinstance(d, int) else free for d in tensor.shape]
    dtype = np.dtype(tensor.dtype)
    if dtype.kind == "f":
        return rng.normal(0, 2, shape).astype(dtype)
    reach = (-1000, 1000) if dtype.itemsize > 1 else (np.iinfo(dtype).min, np.iinfo(dtype).max + 1)
    return rng.integers(*reach, shape).astype(dtype)


def run(source: Model | onnx.ModelProto, feed: Feed, optimize: bool = False) -> Feed:
    """Outputs by name, on function bodies alone: the kernel library is not registered."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    made = to_proto(source) if isinstance(source, Model) else source
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))


@dataclass(frozen=True)
class Proof:
    """A model after a pass, and the pass's report."""

    model: Model
    report: PassReport

    @property
    def changed(self) -> int:
        return self.report.changed

    @property
    def ops(self) -> dict[str, int]:
        """Operators and how many of each."""
        return dict(Counter(n.op for n in self.model.graph.nodes))

    @property
    def transposes(self) -> list[list[int]]:
        """The permutations that are left, in order, ChannelsLast's too."""
        return [list(perm) for n in self.model.graph.nodes if (perm := perm_of(n)) is not None]

    @property
    def reasons(self) -> dict[str, str]:
        """Why nodes were skipped, by node."""
        return {failure.node: failure.reason for failure in self.report.skipped}

    def node(self, name: str) -> gs.Node:
        """The node of that name."""
        return next(n for n in self.model.graph.nodes if n.name == name)

    def values(self, name: str, index: int) -> list[Any]:
        """The values of a node's constant input."""
        found = self.node(name).inputs[index]
        assert isinstance(found, gs.Constant), f"{found.name} is computed"
        return np.asarray(found.values).tolist()


def prove(source: Model | str, rewrite: Pass, inputs: Sequence[Feed] | None = None, **how: Any) -> Proof:
    """Run a pass, show that every output keeps every bit and that a second run changes nothing.

    how: constants, see `proto`.
    """
    tested = model(source, **how) if isinstance(source, str) else source
    given = list(inputs) if inputs is not None else feeds(tested)
    before = [run(tested, feed) for feed in given]
    borders = [(t.name, t.dtype, t.shape) for t in (*tested.graph.inputs, *tested.graph.outputs)]
    report = pipeline.run(tested, [rewrite], PassContext(tested))[0]
    written = to_proto(tested)
    onnx.checker.check_model(written, full_check=True)
    assert [(t.name, t.dtype, t.shape) for t in (*tested.graph.inputs, *tested.graph.outputs)] == borders
    for feed, old in zip(given, before, strict=True):
        new = run(written, feed)
        assert list(new) == list(old)
        for name, value in old.items():
            np.testing.assert_array_equal(new[name], value, err_msg=name)
            assert new[name].dtype == value.dtype
    again = pipeline.run(tested, [rewrite], PassContext(tested))[0]
    assert again.changed == 0, f"the second run changed {again.changed}"
    return Proof(tested, report)
