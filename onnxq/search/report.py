"""Tables and pictures of a search: every layer as in HAWQ-V3's figure 5, and the front of size against sensitivity."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

from onnxq.graph.files import write_text
from onnxq.plots import check_plot, new_figure, write_figure
from onnxq.search.least_sensitivity import Front
from onnxq.search.limits import format_cost
from onnxq.search.result import LayerChoice, SearchResult

BLUE, ORANGE, GREY = "#1f5a96", "#d98c1f", "#9a9a9a"
AXES = {
    "size": (1e-6, "size (MB)"),
    "bops": (1e-9, "bit operations (G)"),
    "latency": (1e3, "latency (ms)"),
    "peak": (1e-3, "peak feature-map memory (kB)"),
    "largest": (1e-3, "largest feature map (kB)"),
    "average": (1e-3, "average feature map (kB)"),
}


def differences(layer: LayerChoice) -> tuple[float | None, float | None]:
    """(sensitivity of the narrowest minus the widest width, seconds that the narrowest saves), None if unknown."""
    omega = _span(layer.sensitivity)
    saved = _span(layer.seconds)
    return omega, None if saved is None else -saved


def _span(values: Any) -> float | None:
    return values[min(values)] - values[max(values)] if len(values) > 1 else None


def rows(result: SearchResult) -> tuple[list[str], list[list[str]]]:
    """(headings, one row per layer) as text."""
    known = [differences(layer) for layer in result.layers]
    heads = ["layer", "op", "weight", "parameters", "MMAC", "bits w", "bits a"]
    heads += ["Δ sensitivity"] if any(d[0] is not None for d in known) else []
    heads += ["saves µs"] if any(d[1] is not None for d in known) else []
    table = []
    for layer, (omega, saved) in zip(result.layers, known, strict=True):
        cells = [
            layer.node,
            layer.op,
            "×".join(map(str, layer.shape)),
            str(layer.parameters),
            "?" if layer.macs is None else f"{1e-6 * layer.macs:.2f}",
            "float" if layer.weight_bits is None else str(layer.weight_bits),
            "float" if layer.activation_bits is None else str(layer.activation_bits),
        ]
        cells += ["" if omega is None else f"{omega:.3g}"] if "Δ sensitivity" in heads else []
        cells += ["" if saved is None else f"{1e6 * saved:.1f}"] if "saves µs" in heads else []
        table.append(cells)
    return heads, table


def plot_layers(result: SearchResult, path: str | Path) -> None:
    """Sensitivity difference, latency gain where measured, and chosen bits of every layer, as .png, .svg or .pdf.

    Raises ConfigError for another suffix, MissingDependencyError without matplotlib, OutputError if not writable.
    """
    kind = check_plot(path)
    known = [differences(layer) for layer in result.layers]
    parts: list[tuple[str, list[float | None], bool]] = []
    if any(d[0] is not None for d in known):
        parts.append(("sensitivity difference", [d[0] for d in known], True))
    if any(d[1] is not None for d in known):
        parts.append(("latency gain (µs)", [None if d[1] is None else 1e6 * d[1] for d in known], False))
    count = len(result.layers)
    width = min(max(7.0, 0.16 * count), 18.0)
    fig = new_figure(figsize=(width, 2.1 + 1.7 * len(parts)), layout="constrained")
    axes = fig.subplots(len(parts) + 1, 1, sharex=True, squeeze=False)[:, 0]
    lowered = [_narrowed(layer, result) for layer in result.layers]
    colors = [ORANGE if low else BLUE for low in lowered]
    for ax, (label, values, log) in zip(axes, parts, strict=False):
        heights = [v if v is not None and math.isfinite(v) else 0.0 for v in values]
        ax.bar(range(count), heights, color=colors)
        if log and any(h > 0 for h in heights):
            ax.set_yscale("log")
        ax.set_ylabel(label, fontsize=9)
        ax.grid(alpha=0.3, axis="y")
    bits = [layer.weight_bits or 32 for layer in result.layers]
    axes[-1].bar(range(count), bits, color=colors)
    axes[-1].set_yticks(sorted(set(bits)))
    axes[-1].set_ylabel("weight bits", fontsize=9)
    axes[-1].set_xlabel("layer, in the order of the model (orange: below its widest)")
    axes[-1].set_xlim(-0.7, count - 0.3)
    title = f"{result.model_name}, {result.method}" + (f" on {result.sensitivity}" if result.sensitivity else "")
    axes[0].set_title("; ".join([title, *result.limits]), fontsize=9)
    write_figure(fig, path, kind)


def _narrowed(layer: LayerChoice, result: SearchResult) -> bool:
    widest = max((c.weight_bits or 32 for c in result.layers), default=32)
    return (layer.weight_bits or 32) < widest


def plot_front(front: Front, path: str | Path) -> None:
    """Sensitivity over cost of every point, as .png, .svg or .pdf. Raises as plot_layers does."""
    kind = check_plot(path)
    factor, label = AXES[front.cost]
    fig = new_figure(figsize=(7.0, 4.6), layout="constrained")
    ax = fig.subplots()
    xs = [factor * r.predicted[front.cost] for r in front.results]
    values = [r.value or 0.0 for r in front.results]
    ax.plot(xs, values, "-o", ms=4, lw=1, color=BLUE)
    if values and min(values) > 0:
        ax.set_yscale("log")
    ax.set_xlabel(label)
    ax.set_ylabel("predicted loss increase (sum of sensitivities)", fontsize=9)
    ax.grid(alpha=0.3)
    if front.results:
        base = front.results[0].baseline[front.cost]
        upper = ax.secondary_xaxis(
            "top", functions=(lambda x: 100 * x / factor / base, lambda p: p * factor * base / 100)
        )
        upper.set_xlabel("% of int8", fontsize=9)
        ax.set_title(f"{front.results[0].model_name}, {front.results[0].sensitivity} sensitivities", fontsize=10)
    write_figure(fig, path, kind)


def front_csv(front: Front) -> str:
    """One line per point: its costs, share of int8, value, number of layers per width, and every layer's bits."""
    out = io.StringIO()
    costs = [
        c
        for c in ("size", "stored", "bops", "latency", "peak", "largest", "average")
        if all(c in r.predicted for r in front.results)
    ]
    names = [layer.node for layer in front.results[0].layers] if front.results else []
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([f"{front.cost}_share", *costs, "value", "widths", *names])
    for r in front.results:
        counts = " ".join(f"{bits}:{n}" for bits, n in r.counts().items())
        share = r.predicted[front.cost] / r.baseline[front.cost]
        bits = [layer.weight_bits for layer in r.layers]
        writer.writerow([f"{share:.4f}", *(r.predicted[c] for c in costs), r.value, counts, *bits])
    return out.getvalue()


def save_front(front: Front, path: str | Path) -> Path:
    """Write the plot, and its points next to it as .csv; returns the path of the points. Raises as plot_front does."""
    plot_front(front, path)
    beside = Path(path).with_suffix(".csv")
    write_text(beside, front_csv(front))
    return beside


def front_rows(front: Front) -> list[list[str]]:
    """One row per point as text: cost, share of int8, value, widths."""
    return [
        [
            format_cost(front.cost, r.predicted[front.cost]),
            f"{100 * r.predicted[front.cost] / r.baseline[front.cost]:.1f} %",
            f"{r.value or 0.0:.4g}",
            ", ".join(f"{n} at {bits}" for bits, n in r.counts().items()),
        ]
        for r in front.results
    ]


__all__ = ["differences", "front_csv", "front_rows", "plot_front", "plot_layers", "rows", "save_front"]
