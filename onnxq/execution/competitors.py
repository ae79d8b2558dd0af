"""Models with inputs bound, ready to be timed in onnxruntime or OpenVINO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from onnxq.errors import ConfigError, DataError, MissingDependencyError, ModelError, OnnxqError
from onnxq.execution import runtime
from onnxq.execution.feeds import Feeds
from onnxq.execution.inner_tensors import to_value
from onnxq.execution.layer_times import Source
from onnxq.execution.save import openable
from onnxq.graph.external import check_source
from onnxq.graph.model import Libraries

OPENVINO = "openvino"
ONNXRUNTIME = "onnxruntime"
Run = Callable[[], Any]


@dataclass(frozen=True)
class Competitor:
    """A loaded model with bound inputs: `run()` is one inference.

    runtime: onnxruntime or openvino; version: of the runtime. request: OpenVINO's inference request, for
    openvino_times.
    """

    name: str
    runtime: str
    version: str
    run: Run
    request: Any = None


def open_competitor(
    model: Source,
    feeds: Feeds,
    *,
    threads: int = 0,
    name: str = "model",
    openvino: bool = False,
    profile: bool = False,
    custom_ops: Libraries = (),
) -> Competitor:
    """Load a model, bind its inputs and run it once.

    threads: 0 is the runtime's default. openvino: use OpenVINO (CPU, hint LATENCY, one stream) instead of onnxruntime.
    custom_ops: libraries of operators for onnxruntime. profile: make OpenVINO record times per node. Raises ModelError
    if the runtime rejects the model, ConfigError for inputs other than `feeds`, DataError if the model cannot run on
    them, MissingDependencyError without OpenVINO.
    """
    if openvino:
        opened = _openvino(model, feeds, threads, name, profile)
    else:
        opened = _onnxruntime(model, feeds, threads, name, custom_ops)
    try:
        opened.run()
    except Exception as err:  # the runtimes' own classes derive straight from Exception
        raise DataError(f"{name}: {opened.runtime} cannot run it on these inputs: {_first_line(err)}") from err
    return opened


def openvino_times(competitor: Competitor) -> list[tuple[str, str, float]]:
    """(node type, implementation, seconds) of every node that the last run of an OpenVINO competitor executed.

    The competitor must be opened with `profile`. implementation: OpenVINO's name, with the precision it computed in:
    "brgconv_avx512_I8".
    """
    nodes = [(n.node_type, n.exec_type, n.real_time.total_seconds()) for n in competitor.request.get_profiling_info()]
    return [node for node in nodes if node[2]]


def _onnxruntime(model: Source, feeds: Feeds, threads: int, name: str, custom_ops: Libraries) -> Competitor:
    import onnxruntime

    with openable(model) as opened:
        session = runtime.session(opened, threads=threads, custom_ops=runtime.libraries_of(model, custom_ops))
    _same_inputs(name, [i.name for i in session.get_inputs()], feeds)
    if any(array.dtype.kind in "OUS" for array in feeds.values()):  # onnxruntime cannot bind texts
        return Competitor(name, ONNXRUNTIME, onnxruntime.__version__, lambda: session.run(None, dict(feeds)))
    binding = session.io_binding()
    for key, array in feeds.items():
        binding.bind_ortvalue_input(key, to_value(array))
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return Competitor(name, ONNXRUNTIME, onnxruntime.__version__, lambda: session.run_with_iobinding(binding))


def _openvino(model: Source, feeds: Feeds, threads: int, name: str, profile: bool) -> Competitor:
    try:
        import openvino
    except ImportError as err:
        raise MissingDependencyError(
            "openvino is not installed: pip install openvino (or the extra 'onnxq[dev]')"
        ) from err
    config = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
    config |= {"INFERENCE_NUM_THREADS": str(threads)} if threads else {}
    config |= {"PERF_COUNT": "YES"} if profile else {}
    core = openvino.Core()
    try:
        with openable(model) as opened:
            if isinstance(opened, (str, Path)) and not Path(opened).is_file():
                raise ModelError(f"{opened}: no such file")
            check_source(opened, name)
            read = core.read_model(opened.SerializeToString() if isinstance(opened, onnx.ModelProto) else opened)
            _same_inputs(name, [i.any_name for i in read.inputs], feeds)
            if read.is_dynamic():
                read.reshape({key: list(array.shape) for key, array in feeds.items()})
            request = core.compile_model(read, "CPU", config).create_infer_request()
        for key, array in feeds.items():
            request.set_tensor(key, openvino.Tensor(array))
    except OnnxqError:
        raise
    except Exception as err:  # RuntimeError and others, depending on the C++ exception
        raise ModelError(f"{name}: OpenVINO rejects the model: {_first_line(err)}") from err
    return Competitor(name, OPENVINO, openvino.__version__.split("-")[0], request.infer, request)


def _same_inputs(name: str, inputs: Sequence[str], feeds: Feeds) -> None:
    if set(inputs) != set(feeds):
        raise ConfigError(
            f"{name} has inputs {', '.join(inputs)}, the first model {', '.join(feeds)}: they cannot be compared"
        )


def _first_line(err: BaseException) -> str:
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    # OpenVINO reports the source location first, then the reason.
    reasons = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return runtime.ORIGIN.sub("", (reasons or lines or [type(err).__name__])[0])
