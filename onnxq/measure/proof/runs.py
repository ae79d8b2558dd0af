"""The ways to run a product for its proof: onnxruntime at a level, with kernels or function bodies, or OpenVINO."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx

from onnxq.data.source import Batch
from onnxq.errors import OnnxqError, first_line
from onnxq.execution import library
from onnxq.execution.inner_tensors import run_session
from onnxq.execution.runtime import ORIGIN
from onnxq.execution.save import model_dir, runnable
from onnxq.execution.sessions import variant_session
from onnxq.graph.model import Model
from onnxq.graph.protos import OWN_DOMAIN
from onnxq.measure.proof.outputs import Ran

UNOPTIMIZED, OPTIMIZED, BASIC = "unoptimized", "onnxruntime", "onnxruntime, basic"
FALLBACK = "onnxruntime, left to the CPU"
KERNELS, BODIES, OPENVINO = "kernels", "function bodies", "OpenVINO"
GPU = "onnxruntime-gpu"  # a runtime of profiles
# onnxruntime's mode in which int8 products are exact on every CPU. It refuses some models whose layers share a weight.
EXACT = {"session.x64quantprecision": "1"}

Runner = Callable[[onnx.ModelProto, Sequence[Batch]], Ran]


@dataclass(frozen=True)
class Way:
    """A way to run a model. level, kernels: of runtime.session. disabled: optimizers that are switched off.

    entries: session entries of onnxruntime. openvino: OpenVINO runs it instead. most: batches to run, None for all.
    judged: what it computes is compared; else it only has to run.
    """

    name: str
    level: str = "all"
    kernels: bool = True
    disabled: tuple[str, ...] = ()
    entries: Mapping[str, str] | None = None
    openvino: bool = False
    most: int | None = None
    judged: bool = True

    @property
    def optimizes(self) -> bool:
        """Whether onnxruntime's optimizers change a QDQ model on this way."""
        return self.name in (OPTIMIZED, BASIC)

    @property
    def words(self) -> str:
        """For messages."""
        return {
            OPTIMIZED: "default optimization",
            BASIC: "basic optimization",
            FALLBACK: "left to its CPU provider",
        }.get(self.name, self.name)

    @property
    def runtime(self) -> str:
        """What runs the model, for messages."""
        if self.openvino:
            return "OpenVINO"
        return "onnxruntime, without optimizations," if self.level == "none" else f"onnxruntime ({self.words})"

    def without(self, optimizers: Sequence[str]) -> Way:
        """The same way without these optimizers."""
        return replace(self, disabled=(*self.disabled, *optimizers))


PLAIN = Way(UNOPTIMIZED, "none")


def ways(product: Model, runtime_name: str, full: bool) -> tuple[Way, ...]:
    """How a target runs this product, as far as this machine can.

    runtime_name: of the profile. GPUs do not saturate where this CPU does. QNN gets what onnxruntime's basic
    optimizations leave, and what it does not take runs, optimized, on the CPU. full: also the runtimes that are not
    the target's.
    """
    if any(n.domain == OWN_DOMAIN for n in product.graph.nodes):
        bodies = Way(BODIES, kernels=False, most=None if full else 1)  # slow, and equal or wrong
        return (*([Way(KERNELS)] if library.has_library() else []), bodies)
    found = []
    if runtime_name == "onnxruntime-qnn":
        found += [Way(BASIC, "basic"), Way(FALLBACK, most=1, judged=False)]
    if runtime_name == GPU:
        found.append(Way(OPTIMIZED, entries=EXACT))
    elif runtime_name in ("onnxruntime", "openvino") or full:
        found.append(Way(OPTIMIZED))
    if (runtime_name == "openvino" or full) and importlib.util.find_spec("openvino") is not None:
        found.append(Way(OPENVINO, openvino=True))
    return tuple(found)


def run(proto: onnx.ModelProto, of: Model, batches: Sequence[Batch], way: Way) -> Ran:
    """The outputs of a model, or of a part of it, on some batches. of: the model whose folder has the weights.

    One thread, so that the figures are the same on every machine of a kind.
    """
    batches = batches[: way.most]
    try:
        return _openvino(proto, of, batches) if way.openvino else _onnxruntime(proto, of, batches, way)
    except OnnxqError as err:
        return Ran(failed=str(err).removeprefix("model: "))
    except Exception as err:  # the runtimes' own classes derive straight from Exception
        return Ran(failed=ORIGIN.sub("", first_line(err)))


def _onnxruntime(proto: onnx.ModelProto, of: Model, batches: Sequence[Batch], way: Way) -> Ran:
    how = {"optimize": way.level, "kernels": way.kernels, "disabled": way.disabled, "entries": way.entries}
    with variant_session(proto, of, threads=1, **how) as session:
        inputs = {i.name for i in session.get_inputs()}
        names = [o.name for o in session.get_outputs()]
        found: dict[str, list[Any]] = {name: [] for name in names}
        for batch in batches:
            feeds = {name: array for name, array in batch.feeds.items() if name in inputs}
            for name, value in zip(names, run_session(session, names, feeds), strict=True):
                found[name].append(value)
    return Ran(found)


def _openvino(proto: onnx.ModelProto, of: Model, batches: Sequence[Batch]) -> Ran:
    import openvino

    core = openvino.Core()
    config = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    with runnable(proto, model_dir(of)) as opened:
        model = core.read_model(opened)
        request = core.compile_model(model, "CPU", config).create_infer_request()
    inputs = {name for i in model.inputs for name in i.names}
    names = [o.name for o in proto.graph.output]
    found: dict[str, list[Any]] = {name: [] for name in names}
    for batch in batches:
        result = request.infer({name: array for name, array in batch.feeds.items() if name in inputs})
        for index, name in enumerate(names):
            found[name].append(result[index].copy())
    return Ran(found)
