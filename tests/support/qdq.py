"""Helpers of the quantization tests: models from ONNX text, statistics by onnxruntime, runs, looking at the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxq import pipeline
from onnxq.calibrate.statistics import Statistics
from onnxq.context import PassContext
from onnxq.graph.match import is_float
from onnxq.graph.model import Model, from_proto, to_proto
from onnxq.passes.fuse_activation_clips import FuseActivationClips
from onnxq.passes.insert_qdq import InsertQdq
from onnxq.pipeline import Pass, PassReport
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import Profile, load_profile, parse_profile

Feed = dict[str, NDArray]


def proto(text: str, opset: int = 13, seed: int = 0, **values: NDArray) -> onnx.ModelProto:
    """A ModelProto from the text of its graph.

    Constants are declared behind the signature, `<float[8,3] w, float six = {6.0}>`. Those without a value get that
    of the keyword argument of the same name, else normal random ones.
    """
    parsed = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]>\n{text}')
    rng = np.random.default_rng(seed)
    for info in parsed.graph.value_info:
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
        array = values.pop(info.name, None)
        if array is None:
            array = rng.normal(0, 0.3, shape).astype(np.float32)
        assert list(array.shape) == shape, (info.name, array.shape, shape)
        parsed.graph.initializer.append(numpy_helper.from_array(np.asarray(array), info.name))
    assert not values, f"no constant is called {list(values)}"
    del parsed.graph.value_info[:]
    return parsed


def model(text: str, opset: int = 13, seed: int = 0, **values: NDArray) -> Model:
    """`proto` as a Model."""
    return from_proto(proto(text, opset, seed, **values))


def copy_of(source: Model) -> Model:
    """The model written and read again."""
    return from_proto(onnx.ModelProto.FromString(to_proto(source).SerializeToString()))


def samples(source: Model, count: int = 3, seed: int = 1, low: float = -1.0, high: float = 1.0) -> list[Feed]:
    """Uniform random feeds; unknown dimensions are 2."""
    rng = np.random.default_rng(seed)
    return [
        {
            t.name: rng.uniform(low, high, [d if isinstance(d, int) else 2 for d in t.shape]).astype(np.float32)
            for t in source.graph.inputs
        }
        for _ in range(count)
    ]


def session(source: Model | onnx.ModelProto, optimize: bool = True) -> ort.InferenceSession:
    """An onnxruntime session on one thread."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    found = to_proto(source) if isinstance(source, Model) else source
    return ort.InferenceSession(found.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(source: Model | onnx.ModelProto, feed: Mapping[str, NDArray], optimize: bool = False) -> Feed:
    """Outputs by name."""
    opened = session(source, optimize)
    return dict(zip([o.name for o in opened.get_outputs()], opened.run(None, dict(feed)), strict=True))


def observe(source: Model, feeds: Iterable[Feed]) -> Statistics:
    """Statistics of every float activation of the top-level graph."""
    observed = to_proto(source)
    names = [t.name for n in source.graph.nodes for t in n.outputs if is_float(t)]
    present = {o.name for o in observed.graph.output}
    observed.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in present)
    opened = session(observed, optimize=False)
    stats = Statistics()
    for feed in feeds:
        for name, value in feed.items():
            stats.tensor(name).update(value)
        for name, value in zip(names, opened.run(names, feed), strict=True):
            stats.tensor(name).update(value)
    return stats


def context(
    source: Model,
    profile: str | Profile = "onnxruntime-cpu",
    feeds: Sequence[Feed] | None = None,
    statistics: Statistics | None = None,
    **settings: Any,
) -> PassContext:
    """A context with statistics of the model on `feeds` (random ones if there are none)."""
    stats = statistics if statistics is not None else observe(source, feeds if feeds is not None else samples(source))
    return PassContext(source, load_profile(profile), QuantSettings(**settings), statistics=stats)


def insert(source: Model, ctx: PassContext | None = None, calibration: str = "max", fuse: bool = False) -> PassReport:
    """Run insert-qdq (and fuse-activation-clips) in place; the report of insert-qdq."""
    passes: tuple[Pass, ...] = (InsertQdq(calibration=calibration), *([FuseActivationClips()] if fuse else []))
    return pipeline.run(source, passes, ctx or context(source))[0]


def reasons(report: PassReport) -> dict[str, str]:
    """Why nodes were skipped, by node."""
    return {failure.node: failure.reason for failure in report.skipped}


def profile(text: str) -> Profile:
    """A profile from TOML; `name`, `summary` and `source` are filled in."""
    return parse_profile(f'name = "test"\nsummary = "s"\nsource = "s"\n{text}', "test.toml")


def nodes(source: Model, op: str) -> list[gs.Node]:
    """The nodes of an operator, in order."""
    return [n for n in source.graph.nodes if n.op == op]


def node(source: Model, name: str) -> gs.Node:
    """The node of a name."""
    return next(n for n in source.graph.nodes if n.name == name)


def reads(source: Model, name: str) -> list[str]:
    """Where a node's inputs come from: "DQ" behind a DequantizeLinear, "const", else the name of the tensor."""
    found = []
    for tensor in node(source, name).inputs:
        made_by = tensor.inputs[0] if tensor.inputs else None
        if made_by is not None and made_by.op == "DequantizeLinear":
            found.append("DQ")
        else:
            found.append("const" if isinstance(tensor, gs.Constant) else tensor.name)
    return found


def dequantize_of(source: Model, name: str, index: int) -> gs.Node:
    """The DequantizeLinear that a node reads at an input."""
    made_by = node(source, name).inputs[index].inputs[0]
    assert made_by.op == "DequantizeLinear"
    return made_by


def dequantized(source: Model, name: str, index: int = 1) -> NDArray:
    """The constant that a node reads through a DequantizeLinear, as onnxruntime computes it."""
    made_by = dequantize_of(source, name, index)
    sub = gs.Graph([gs.Node("DequantizeLinear", "dq", dict(made_by.attrs), [], [])], opset=source.opset)
    sub.metadata = {}
    out = gs.Variable("out", np.float32)
    sub.nodes[0].inputs = [gs.Constant(t.name, t.values) for t in made_by.inputs]
    sub.nodes[0].outputs = [out]
    sub.outputs = [out]
    return run(Model(sub), {})["out"]


def sqnr(reference: NDArray, test: NDArray) -> float:
    """Signal to noise in dB."""
    noise = float(((reference.astype(np.float64) - test) ** 2).sum())
    return 10 * np.log10(float((reference.astype(np.float64) ** 2).sum()) / noise) if noise else np.inf
