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

A quantized model is measured at the widths that it has, lowered first if it is a QDQ model.
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
from onnxq.cost.layer_costs import FLOAT_BITS
from onnxq.cost.prepared import Source, check_bits
from onnxq.cost.width_costs import BASE_BITS, Pair
from onnxq.errors import ConfigError, InterruptedRun, ModelError
from onnxq.execution import benchmark, library
from onnxq.execution.competitors import Run, open_competitor
from onnxq.graph.match import is_own
from onnxq.graph.model import Libraries, Model, load
from onnxq.graph.qdq import is_dequantize
from onnxq.graph.walk import all_graphs
from onnxq.inspection import inspect_model
from onnxq.lowered import lower
from onnxq.profiles.schema import Profile, load_profile
from onnxq.reporting import Progress
from onnxq.search.layer_operators import (
    LAYER_OPS,
    LoweredForm,
    description,
    form_as_it_is,
    lower_all,
    operator_model,
    stored_bits,
)
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
    custom_ops: Libraries = (),
    progress: Progress | None = None,
) -> Latencies:
    """Measure every layer of a float model at these widths of weights and activations, and the whole model.

    Activations of 8 bits are always measured, as the reference. Of a QDQ or integer-only model, which is not changed,
    every layer is measured at the widths that it has (`fixed` in the result), whatever the widths and the profile.

    profile: must lower to com.onnxq operators. threads: intra-op; 0 is onnxruntime's choice. shapes: {input: dims}
    where the model leaves them open (an open batch is 1). seconds: of timed runs of one operator at one width,
    WHOLE times as many for the model. cache: folder of measurements; None is the user's (`cache_folder`). An
    interrupted run continues from there. custom_ops: libraries of operators that the model needs.
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
    model = load(source, custom_ops)
    name, sha256 = model.name, model.sha256
    own = _own_widths(model)
    forms = _forms(model, own, widths, others, target, shapes)
    machine = {
        "cpu": benchmark.cpu_name(),
        "isa": library.kernel_isa(),
        "threads": threads,
        "library": hashlib.sha256(library.library_path().read_bytes()).hexdigest(),
    }
    store = TimingCache(Path(cache) if cache is not None else cache_folder(), machine)
    call = _empty_call(threads, seconds, store)
    base, form = next(iter(forms.items()))
    measured: dict[str, bool] = {}
    try:
        for layer in form.layers:
            measured[layer] = _measured(layer, forms, threads, seconds, store)
            if progress:
                progress(len(measured), len(form.layers))
    except KeyboardInterrupt:
        raise InterruptedRun(
            f"interrupted: {len(measured)} of {len(form.layers)} layers are measured and saved in {store.folder}; the "
            "same command continues from there"
        ) from None
    whole = _whole(forms, threads, WHOLE * seconds)
    # Only now: a layer's operator may have been timed again beside another layer's.
    times = {layer: _times(layer, forms, store) for layer in form.layers}
    pairs = {layer: [own[layer]] if own else list(product(widths, others)) for layer in form.layers}
    at_base = [max(t[base].median - call.median, 0.0) for layer, t in times.items() if layer in form.operators]
    return Latencies(
        sha256,
        name,
        "" if own else target.name,
        _distinct(w for w, _ in own.values()) if own else widths,
        tuple(_layer(layer, form, pairs[layer], times[layer], call.median, measured[layer]) for layer in form.layers),
        whole if own else {(w, a): whole[stored_bits(w), a] for w, a in product(widths, others)},
        whole[base] - sum(at_base),
        call.median,
        machine,
        {k: "x".join(map(str, v.shape)) for k, v in form.feeds.items()},
        _distinct(a for _, a in own.values()) if own else others,
        fixed=bool(own),
    )


def _distinct(widths: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(widths), reverse=True))


def _own_widths(model: Model) -> dict[str, Pair]:
    """Layer → its widths, of a quantized model, which is lowered in place; empty for a float model.

    Raises ModelError for a quantized model without layers in integers.
    """
    if not any(is_own(n) or is_dequantize(n) for g in all_graphs(model.graph) for n in g.nodes):
        return {}
    if not any(is_own(n) and n.op in LAYER_OPS for n in model.graph.nodes):
        lower(model, proof="none")
    ours = {n.name for n in model.graph.nodes if is_own(n) and n.op in LAYER_OPS}
    if not ours:
        raise ModelError(
            f"{model.name} is quantized, but none of its layers is in integers; `onnxq bench --per-layer` measures it"
        )
    return {
        layer.name: (layer.weight_bits or layer.activation_bits or FLOAT_BITS, layer.activation_bits or FLOAT_BITS)
        for layer in inspect_model(model).layers
        if layer.name in ours or layer.weight_bits is not None
    }


def _forms(
    model: Model,
    own: Mapping[str, Pair],
    widths: Sequence[int],
    others: Sequence[int],
    target: Profile,
    shapes: Mapping[str, Sequence[int]] | None,
) -> dict[Pair, LoweredForm]:
    """The lowered models by their widths, that of 8 bits first; the only one of a quantized model, by its largest."""
    if own:
        largest = max(w for w, _ in own.values()), max(a for _, a in own.values())
        return {largest: form_as_it_is(model, list(own), shapes)}
    storages = tuple(dict.fromkeys([BASE_BITS, *(stored_bits(b) for b in widths)]))
    return lower_all(model, target, tuple((s, a) for a in sorted(others, reverse=True) for s in storages), shapes)


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
    layer: str, form: LoweredForm, pairs: Iterable[Pair], times: Mapping[Pair, Timed], call: float, measured: bool
) -> LayerLatency:
    """times: by the widths of a form; in that of a quantized model, the only one, the layer has its own widths."""
    node = form.operators.get(layer)
    of = {(w, a): next(iter(times.values())) if len(times) == 1 else times[stored_bits(w), a] for w, a in pairs}
    return LayerLatency(
        layer,
        node.op_type if node is not None else "",
        {pair: max(t.median - call, 0.0) if node is not None else 0.0 for pair, t in of.items()},
        {pair: t.error for pair, t in of.items()},
        measured,
    )


def _keys(layer: str, forms: Mapping[Pair, LoweredForm], store: TimingCache) -> dict[Pair, str]:
    """The layer's operator in every form, as the cache knows it; "" where it has none."""
    return {
        pair: store.key(description(form, form.operators[layer])) if layer in form.operators else ""
        for pair, form in forms.items()
    }


def _measured(layer: str, forms: Mapping[Pair, LoweredForm], threads: int, seconds: float, store: TimingCache) -> bool:
    """Time a layer in every form if it is not known in each, all in alternation; returns whether it was timed."""
    distinct = {
        key: pair for pair, key in reversed(_keys(layer, forms, store).items()) if key
    }  # the first form of each
    if all(store.read(key) is not None for key in distinct):
        return False
    runs = []
    for pair in distinct.values():
        proto, feeds = operator_model(forms[pair], forms[pair].operators[layer])
        libraries = forms[pair].model.custom_ops
        runs.append(open_competitor(proto, feeds, threads=threads, name=layer, custom_ops=libraries).run)
    for key, timed in zip(distinct, _time(runs, seconds, threads), strict=True):
        store.write(key, timed)
    return True


def _times(layer: str, forms: Mapping[Pair, LoweredForm], store: TimingCache) -> dict[Pair, Timed]:
    """The layer's times in every form; none where it has no operator."""
    keys = _keys(layer, forms, store)
    return {pair: (store.read(key) if key else None) or Timed(0.0, 0.0, 0) for pair, key in keys.items()}


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
    runs = [open_competitor(f.model, f.feeds, threads=threads, name=f"W{w}A{a}").run for (w, a), f in forms.items()]
    return dict(zip(forms, (t.median for t in _time(runs, seconds, threads)), strict=True))


__all__ = ["measure_latency"]
