"""The sentences of a card, from what was done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from onnxq.card.schema import LayerRecord

POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool", "ReduceMean")


def scale_form(power_of_two: bool) -> str:
    """What scales may be."""
    return "power of two" if power_of_two else "float32"


def residual(scheme: int, adds: int) -> str:
    """How sums of two activations are treated (MQBench's graph schemes)."""
    if not adds:
        return "none in the model"
    return {
        1: "sums stay in float (graph scheme 1)",
        2: "one input of each sum is quantized, the shortcut; the layer's output enters wide (graph scheme 2)",
        3: "every input of each sum is quantized (graph scheme 3)",
    }[scheme]


def concat(rule: str, counts: Mapping[str, Counter[str]]) -> str:
    """How concatenations are treated."""
    count = counts.get("Concat", Counter())
    if not count.total():
        return "none in the model"
    how = {
        "float": "no Q/DQ is placed for them",
        "per-input": "each input has a scale of its own",
        "shared": "inputs and output share one scale",
    }[rule]
    return f"{count['quantized']} of {count.total()} in integers; {how}"


def pooling(counts: Mapping[str, Counter[str]]) -> str:
    """Which pooling operators run in integers."""
    parts = [
        f"{op}: {c['quantized'] + c['passthrough']} of {c.total()} in integers"
        for op in POOLS
        if (c := counts.get(op)) is not None
    ]
    return "; ".join(parts) or "none in the model"


def embeddings(counts: Mapping[str, Counter[str]], tables: Sequence[LayerRecord]) -> str:
    """What happens to embedding tables (Gather of a constant)."""
    if not tables:
        return "none in the model"
    quantized = sum(t.weight_bits is not None and t.weight_bits < 16 for t in tables)
    return f"{quantized} of {len(tables)} tables in integers"


def batchnorm(before: int, left: int) -> str:
    """What became of batch normalization."""
    if not before:
        return "none in the float model"
    return f"{before} in the float model, {before - left} folded, {left} left"
