"""Latency of every layer at every width and of the whole model, measured on this machine with our own kernels.

The model is quantized and lowered at each width (ranges do not affect time). Each layer's operator is extracted as a
separate model, with its real shapes, and timed at the widths in alternation; the time of an empty call is subtracted.
The overhead of a run (other operators, transposes, dispatch, shared caches) is the whole model's latency at 8 bits
minus the sum of its layers at 8 bits. The latency of an assignment is predicted as that overhead plus the sum of its
layers.

Weights of 2 to 4 bits are INT4, of 5 to 8 bits INT8: those with the same storage type are measured once. The model is
lowered at every width of activations too; where that gives the same operator on the same types and shapes (our kernels
keep an activation of 2 to 8 bits in a byte), the measurement is shared. Measurements are cached
in a folder, by operator, shapes, types, instruction set, threads, CPU and kernel library, so that each layer is
measured once.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import onnx

from onnxq.cost.latency_table import Latencies, LayerLatency
from onnxq.cost.prepared import Source, check_bits
from onnxq.cost.width_costs import BASE_BITS, Pair
from onnxq.errors import ConfigError, InterruptedRun
from onnxq.execution import benchmark, library
from onnxq.execution.competitors import Run, open_competitor
from onnxq.graph.model import load, to_proto
from onnxq.profiles.schema import Profile, load_profile
from onnxq.reporting import Progress
from onnxq.search.layer_operators import LoweredForm, description, lower_all, operator_model, stored_bits
from onnxq.search.timing_cache import Timed, TimingCache, cache_folder

SECONDS = 0.3  # timed runs of one operator
BASE: Pair = (BASE_BITS, BASE_BITS)
WHOLE = 7  # times as long for the whole model


def measure_latency(
    source: Source,
    bits: Sequence[int] = (4, 8),
    *,
    activation_bits: Sequence[int] = (BASE_BITS,),
    profile: str | Path | Profile = "onnxq",
    threads: int = 0,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seconds: float = SECONDS,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Latencies:
    """Measure every layer of a float model at these widths of weights and activations, and the whole model.

    Activations of 8 bits are always measured, as the reference.

    profile: must lower to com.onnxq operators. threads: intra-op; 0 is onnxruntime's choice. shapes: {input: dims}
    where the model leaves them open (an open batch is 1). seconds: of timed runs of one operator at one width,
    WHOLE times as many for the model. cache: folder of measurements; None is the user's (`cache_folder`). An
    interrupted run continues from there.
    Raises ConfigError for widths or a profile that cannot be lowered, ModelError for a model that cannot, and
    OnnxqError without the kernel library.
    """
    target = load_profile(profile)
    if not target.graph.lowered:
        raise ConfigError(
            f"profile {target.name} has no integer-only form; latencies are of our kernels (profile onnxq)"
        )
    widths = check_bits(bits, target, "weights", "--bits")
    others = check_bits([BASE_BITS, *activation_bits], target, "activations", "--activation-bits")
    library.kernel_isa()  # raises without the kernels: there is nothing to measure
    model = load(source)
    name, sha256 = model.name, model.sha256
    proto = to_proto(model)
    storages = tuple(dict.fromkeys([BASE_BITS, *(stored_bits(b) for b in widths)]))
    pairs = tuple((s, a) for a in sorted(others, reverse=True) for s in storages)
    forms = lower_all(proto, target, pairs, shapes)
    machine = {
        "cpu": benchmark.cpu_name(),
        "isa": library.kernel_isa(),
        "threads": threads,
        "library": hashlib.sha256(library.library_path().read_bytes()).hexdigest(),
    }
    store = TimingCache(Path(cache) if cache is not None else cache_folder(), machine)
    call = _empty_call(threads, seconds, store)
    found: list[LayerLatency] = []
    names = forms[BASE].layers
    try:
        for done, layer in enumerate(names):
            found.append(_layer(layer, forms, product(widths, others), call.median, threads, seconds, store))
            if progress:
                progress(done + 1, len(names))
    except KeyboardInterrupt:
        raise InterruptedRun(
            f"interrupted: {len(found)} of {len(names)} layers are measured and saved in {store.folder}; the same "
            "command continues from there"
        ) from None
    whole = _whole(forms, threads, WHOLE * seconds)
    at_8 = [_timed(layer, forms, threads, seconds, store)[0][BASE].median for layer in names]
    return Latencies(
        sha256,
        name,
        target.name,
        widths,
        tuple(found),
        {(w, a): whole[stored_bits(w), a] for w, a in product(widths, others)},
        whole[BASE] - sum(max(t - call.median, 0.0) for t in at_8 if t),
        call.median,
        machine,
        {k: "x".join(map(str, v.shape)) for k, v in forms[BASE].feeds.items()},
        others,
    )


def _empty_call(threads: int, seconds: float, store: TimingCache) -> Timed:
    """The time of an empty run."""
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
    forms: Mapping[Pair, LoweredForm],
    widths: Iterable[Pair],
    call: float,
    threads: int,
    seconds: float,
    store: TimingCache,
) -> LayerLatency:
    timed, measured = _timed(layer, forms, threads, seconds, store)
    node = forms[BASE].operators.get(layer)
    of = {(w, a): timed[stored_bits(w), a] for w, a in widths}
    return LayerLatency(
        layer,
        node.op_type if node is not None else "",
        {pair: max(t.median - call, 0.0) if node is not None else 0.0 for pair, t in of.items()},
        {pair: t.error for pair, t in of.items()},
        measured,
    )


def _timed(
    layer: str, forms: Mapping[Pair, LoweredForm], threads: int, seconds: float, store: TimingCache
) -> tuple[dict[Pair, Timed], bool]:
    """The times of a layer in every form, and whether any was measured now: then in alternation with the others."""
    keys = {
        pair: store.key(description(form, form.operators[layer])) if layer in form.operators else ""
        for pair, form in forms.items()
    }
    distinct = {key: pair for pair, key in reversed(keys.items()) if key}  # the first form with each key
    measured = any(store.read(key) is None for key in distinct)
    if measured:
        runs = []
        for pair in distinct.values():
            proto, feeds = operator_model(forms[pair], forms[pair].operators[layer])
            runs.append(open_competitor(proto, feeds, threads=threads, name=layer).run)
        for key, timed in zip(distinct, _time(runs, seconds, threads), strict=True):
            store.write(key, timed)
    known = {key: store.read(key) for key in distinct}
    return {pair: known.get(key) or Timed(0.0, 0.0, 0) for pair, key in keys.items()}, measured


def _time(runs: Sequence[Run], seconds: float, threads: int) -> list[Timed]:
    """Median and its standard error per candidate, timed in alternation."""
    found = []
    for rounds in benchmark.measure(runs, seconds=seconds, settle=benchmark.settle(threads)):
        medians = [statistics.median(r) for r in rounds if r]
        times = [t for r in rounds for t in r]
        spread = benchmark.quantile(medians, 0.75) - benchmark.quantile(medians, 0.25)
        # Half the interquartile range is 0.67 σ; the median of n has 1.25 σ/√n.
        found.append(Timed(statistics.median(times), 0.93 * spread / math.sqrt(len(medians)), len(times)))
    return found


def _whole(forms: Mapping[Pair, LoweredForm], threads: int, seconds: float) -> dict[Pair, float]:
    """Seconds of a run of the whole model in each form, timed in alternation."""
    runs = [open_competitor(f.proto, f.feeds, threads=threads, name=f"W{w}A{a}").run for (w, a), f in forms.items()]
    return dict(zip(forms, (t.median for t in _time(runs, seconds, threads)), strict=True))


__all__ = ["measure_latency"]
