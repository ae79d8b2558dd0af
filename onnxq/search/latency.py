"""Latency of every layer at every width, measured on this machine with our own kernels, and what a whole model takes.

The model is quantized and lowered at each width (its ranges do not matter for time). Each layer's operator is cut out
as a model of its own, with its real shapes, and the widths take turns on it; the time of an empty call is subtracted.
What a run takes beyond its layers (other operators, transposes, dispatch, caches that hold less than a layer alone has
to itself) is the whole model's latency at 8 bits less the sum of its layers there. The latency of an assignment is
predicted as that overhead plus the sum of its layers.

Widths that are stored alike run alike: 2 to 4 bits are INT4, 5 to 8 bits INT8. Measurements are kept in a folder, by
operator, shapes, types, instruction set, threads, CPU and kernel library, so that a layer is measured once.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxq import api
from onnxq.cost.latency_table import Latencies, LayerLatency
from onnxq.cost.prepared import Source, check_bits
from onnxq.errors import ConfigError, InterruptedRun
from onnxq.execution import benchmark, library, runtime
from onnxq.execution.competitors import Run, open_competitor
from onnxq.execution.feeds import feeds_for
from onnxq.graph import marks
from onnxq.graph.files import write_text
from onnxq.graph.model import Model, load, to_proto
from onnxq.operators import DOMAIN, OPERATORS
from onnxq.profiles.schema import Profile, load_profile
from onnxq.reporting import Progress

LAYER_OPS = frozenset(name for name, spec in OPERATORS.items() if spec.is_layer)
SECONDS = 0.3  # of timed runs of one operator
WHOLE = 7  # times as long for the whole model


@dataclass(frozen=True)
class Timed:
    """Seconds of one run: the median, and the standard error of it that rounds differ by."""

    median: float
    error: float
    runs: int


def measure_latency(
    source: Source,
    bits: Sequence[int] = (4, 8),
    *,
    profile: str | Path | Profile = "onnxq",
    threads: int = 0,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seconds: float = SECONDS,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Latencies:
    """Measure every layer of a float model at these weight widths, and the whole model.

    profile: must lower to our operators. threads: of one operator; 0 is onnxruntime's choice. shapes: {input: dims}
    where the model leaves them open (an open batch is 1). seconds: of timed runs of one operator at one width,
    WHOLE times as many of the model. cache: folder of measurements; None is the user's (`cache_folder`). An interrupted
    run goes on from what is there.
    Raises ConfigError for widths or a profile that do not serve, ModelError for a model that cannot be lowered.
    """
    target = load_profile(profile)
    if not target.graph.lowered:
        raise ConfigError(
            f"profile {target.name} has no integer-only form; latencies are of our kernels (profile onnxq)"
        )
    widths = check_bits(bits, target, "weights", "--bits")
    library.kernel_isa()  # without the kernels there is nothing to measure: says how to get them
    model = load(source)
    name, sha256 = model.name, model.sha256
    proto = to_proto(model)
    storages = tuple(dict.fromkeys([8, *(_storage(b) for b in widths)]))
    forms = _lower_all(proto, target, storages, shapes)
    machine = {
        "cpu": benchmark.cpu_name(),
        "isa": library.kernel_isa(),
        "threads": threads,
        "library": hashlib.sha256(library.library_path().read_bytes()).hexdigest(),
    }
    store = _Store(Path(cache) if cache is not None else cache_folder(), machine)
    call = _empty_call(threads, seconds, store)
    found: list[LayerLatency] = []
    names = forms[8].layers
    try:
        for done, layer in enumerate(names):
            found.append(_layer(layer, forms, storages, widths, call.median, threads, seconds, store))
            if progress:
                progress(done + 1, len(names))
    except KeyboardInterrupt:
        raise InterruptedRun(
            f"interrupted: {len(found)} of {len(names)} layers are measured and kept in {store.folder}; the same "
            "command goes on from there"
        ) from None
    whole = _whole(forms, threads, WHOLE * seconds)
    at_8 = [_seconds_at(layer, forms, 8, threads, seconds, store)[0].median for layer in names]
    return Latencies(
        sha256,
        name,
        target.name,
        widths,
        tuple(found),
        {b: whole[_storage(b)] for b in widths},
        whole[8] - sum(max(t - call.median, 0.0) for t in at_8 if t),
        call.median,
        machine,
        {k: "x".join(map(str, v.shape)) for k, v in forms[8].feeds.items()},
    )


def cache_folder() -> Path:
    """Where measurements are kept: $XDG_CACHE_HOME/onnxq/latency, by default ~/.cache/onnxq/latency."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "onnxq" / "latency"


def _storage(bits: int) -> int:
    """Weights are stored, and computed with, in 4 or in 8 bits."""
    return 4 if bits <= 4 else 8


@dataclass(frozen=True)
class _Form:
    """The model lowered at one storage width. layers: names; operators: those of them that were lowered, by layer.

    values: shape and type of what the operators read and write.
    """

    proto: onnx.ModelProto
    layers: tuple[str, ...]
    operators: Mapping[str, onnx.NodeProto]
    values: Mapping[str, NDArray]
    feeds: Mapping[str, NDArray]


def _lower_all(
    proto: onnx.ModelProto, target: Profile, storages: Sequence[int], shapes: Mapping[str, Sequence[int]] | None
) -> dict[int, _Form]:
    forms: dict[int, _Form] = {}
    known: Any = None
    for storage in storages:
        made = api.quantize(
            proto,
            profile=target,
            calibration="max",
            weight_range="max",
            weight_bits=storage,
            first_last_bits=None,
            shapes=shapes,
            **({"statistics": known} if known is not None else {"random_data": 1}),
        )
        known = made.statistics
        forms[storage] = _form(made.graph_model, [r.name for r in made.card.layers if r.weight_bits == storage], shapes)
    return forms


def _form(model: Model, layers: Sequence[str], shapes: Mapping[str, Sequence[int]] | None) -> _Form:
    by_source: dict[str, str] = {}
    for node in model.graph.nodes:
        if node.domain == DOMAIN and node.op in LAYER_OPS:
            for source in marks.SOURCES.get(node) or ():
                by_source.setdefault(source, node.name)
    proto = to_proto(model)
    nodes = {n.name: n for n in proto.graph.node}
    operators = {layer: nodes[by_source[layer]] for layer in layers if layer in by_source}
    feeds = feeds_for(model, shapes=shapes)
    return _Form(proto, tuple(layers), operators, _values(proto, operators.values(), feeds), feeds)


def _values(
    proto: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], feeds: Mapping[str, NDArray]
) -> dict[str, NDArray]:
    """What the nodes read that is no constant, from a run of the model."""
    constants = {t.name for t in proto.graph.initializer}
    wanted = dict.fromkeys(i for n in nodes for i in n.input if i and i not in constants and i not in feeds)
    work = onnx.ModelProto()
    work.CopyFrom(proto)
    there = {o.name for o in work.graph.output}
    work.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in there)
    session = runtime.session(work)
    names = list(wanted)
    return dict(zip(names, session.run(names, dict(feeds)), strict=True)) if names else {}


def _operator_model(form: _Form, node: onnx.NodeProto) -> tuple[onnx.ModelProto, dict[str, NDArray]]:
    """The node as a model of its own, and what to feed it."""
    constants = {t.name: t for t in form.proto.graph.initializer}
    inputs, feeds = [], {}
    for name in dict.fromkeys(i for i in node.input if i and i not in constants):
        array = form.values[name] if name in form.values else form.feeds[name]
        feeds[name] = array
        inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape))
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    kind = next((a.i for a in node.attribute if a.name == "y_type"), TensorProto.UINT8)
    for value in outputs:
        value.type.tensor_type.elem_type = kind
    graph = helper.make_graph(
        [node], "layer", inputs, outputs, [constants[n] for n in dict.fromkeys(node.input) if n in constants]
    )
    made = helper.make_model(graph, opset_imports=form.proto.opset_import, ir_version=form.proto.ir_version)
    made.functions.extend(form.proto.functions)
    return made, feeds


def _empty_call(threads: int, seconds: float, store: _Store) -> Timed:
    """What a run takes in which there is nothing to compute."""
    text = '<ir_version: 10, opset_import: ["": 21]> g (uint8[1] x) => (uint8[1] y) { y = Identity(x) }'
    key = store.key({"empty": True})
    known = store.read(key)
    if known is None:
        feeds = {"x": np.zeros(1, np.uint8)}
        known = _time([open_competitor(onnx.parser.parse_model(text), feeds, threads=threads).run], SECONDS, 1)[0]
        store.write(key, known)
    return known


def _layer(
    layer: str,
    forms: Mapping[int, _Form],
    storages: Sequence[int],
    widths: Sequence[int],
    call: float,
    threads: int,
    seconds: float,
    store: _Store,
) -> LayerLatency:
    timed = {s: _seconds_at(layer, forms, s, threads, seconds, store, storages) for s in storages}
    node = forms[8].operators.get(layer)
    return LayerLatency(
        layer,
        node.op_type if node is not None else "",
        {b: max(timed[_storage(b)][0].median - call, 0.0) if node is not None else 0.0 for b in widths},
        {b: timed[_storage(b)][0].error for b in widths},
        any(t[1] for t in timed.values()),
    )


def _seconds_at(
    layer: str,
    forms: Mapping[int, _Form],
    storage: int,
    threads: int,
    seconds: float,
    store: _Store,
    storages: Sequence[int] = (),
) -> tuple[Timed, bool]:
    """The time of a layer at one storage width, and whether it was measured now, together with the others."""
    if layer not in forms[storage].operators:
        return Timed(0.0, 0.0, 0), False
    keys = {s: store.key(_description(forms[s], forms[s].operators[layer])) for s in storages or (storage,)}
    known = store.read(keys[storage])
    if known is not None:
        return known, False
    competitors = []
    for s in keys:
        proto, feeds = _operator_model(forms[s], forms[s].operators[layer])
        competitors.append(open_competitor(proto, feeds, threads=threads, name=layer))
    for key, timed in zip(keys.values(), _time([c.run for c in competitors], seconds, threads), strict=True):
        store.write(key, timed)
    found = store.read(keys[storage])
    assert found is not None
    return found, True


def _description(form: _Form, node: onnx.NodeProto) -> dict[str, Any]:
    """What a time depends on: operator, attributes other than numbers of the arithmetic, shapes and types."""
    constants = {t.name: t for t in form.proto.graph.initializer}
    inputs = []
    for name in node.input:
        if name in constants:
            inputs.append([int(constants[name].data_type), list(constants[name].dims)])
        else:
            array = form.values[name] if name in form.values else form.feeds[name]
            inputs.append([str(array.dtype), list(array.shape)])
    shape = ("strides", "pads", "dilations", "group", "y_type", "axis")
    attributes = {a.name: _plain(helper.get_attribute_value(a)) for a in node.attribute if a.name in shape}
    return {"op": node.op_type, "inputs": inputs, "attributes": attributes}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _time(runs: Sequence[Run], seconds: float, threads: int) -> list[Timed]:
    """Median and its error for each candidate; they take turns."""
    found = []
    for rounds in benchmark.measure(runs, seconds=seconds, settle=benchmark.settle(threads)):
        medians = [statistics.median(r) for r in rounds if r]
        times = [t for r in rounds for t in r]
        spread = benchmark.quantile(medians, 0.75) - benchmark.quantile(medians, 0.25)
        # Half the interquartile range is 0.67 σ; the median of n has 1.25 σ/√n.
        found.append(Timed(statistics.median(times), 0.93 * spread / math.sqrt(len(medians)), len(times)))
    return found


def _whole(forms: Mapping[int, _Form], threads: int, seconds: float) -> dict[int, float]:
    """Seconds of a run of the whole model in each form, taking turns."""
    runs = [open_competitor(f.proto, f.feeds, threads=threads, name=f"{s} bits").run for s, f in forms.items()]
    return dict(zip(forms, (t.median for t in _time(runs, seconds, threads)), strict=True))


@dataclass(frozen=True)
class _Store:
    """A folder with one small file a measurement."""

    folder: Path
    machine: Mapping[str, Any]

    def key(self, description: Mapping[str, Any]) -> str:
        """Name of a measurement: what was timed, where, and with what."""
        text = json.dumps({"machine": dict(self.machine), "timed": dict(description)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def read(self, key: str) -> Timed | None:
        """The measurement, None where there is none that can be read."""
        try:
            table = json.loads((self.folder / f"{key}.json").read_text())
            return Timed(float(table["median"]), float(table["error"]), int(table["runs"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, key: str, timed: Timed) -> None:
        """Keep a measurement."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise ConfigError(
                f"{self.folder}: measurements cannot be kept there: {err.strerror}; give --cache"
            ) from None
        write_text(self.folder / f"{key}.json", json.dumps(asdict(timed)))


__all__ = ["cache_folder", "measure_latency"]
