"""Plots of results. matplotlib is loaded on first use."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxq.errors import ConfigError, MissingDependencyError
from onnxq.graph.files import write_bytes

if TYPE_CHECKING:
    from onnxq.measure.comparison import Comparison

FORMATS = ("png", "svg", "pdf")
WORST = 5  # activations labelled in the plot
RED = "#a02020"


def plot_comparison(comparison: Comparison, path: str | Path) -> None:
    """SQNR and cosine of every activation over the depth of the network, written as .png, .svg or .pdf.

    Raises ConfigError for another suffix, MissingDependencyError without matplotlib, OutputError if it cannot be
    written.
    """
    kind = check_plot(path)
    figure = _figure()
    rows = sorted(comparison.rows, key=lambda r: r.position)
    width = min(max(7.0, 0.09 * len(rows)), 16.0)
    fig = figure(figsize=(width, 6.4), layout="constrained")
    top, bottom, below = fig.subplots(3, 1, height_ratios=(2.2, 1, 0.55))
    top.sharex(bottom)
    top.tick_params(labelbottom=False)
    series: tuple[tuple[str, str, str, list[float | None]], ...] = (
        ("activation, error accumulated so far", "o", "#1f5a96", [r.sqnr_db for r in rows]),
        ("activation, error of the layer alone", "^", "#d98c1f", [r.isolated_sqnr_db for r in rows]),
        ("weight", "x", "#7a7a7a", [r.weight_sqnr_db for r in rows]),
    )
    for label, marker, color, values in series:
        points = [(i, v) for i, v in enumerate(values) if v is not None and math.isfinite(v)]
        if points:
            line = "-" if marker == "o" else ""
            top.plot(*zip(*points, strict=True), marker + line, ms=4, lw=1, color=color, label=label)
    _name_worst(top, below, rows)
    top.set_ylabel("SQNR (dB)")
    top.set_title(
        f"{comparison.quantized_model} against {comparison.float_model}, {comparison.samples} samples", fontsize=10
    )
    top.grid(alpha=0.3)
    if top.lines:
        fig.legend(fontsize=8, loc="outside upper center", ncols=len(series), frameon=False)
    apart = [max(1.0 - r.cosine, 1e-9) if math.isfinite(r.cosine) else math.nan for r in rows]
    bottom.plot(range(len(rows)), apart, "-o", ms=3, lw=1, color="#1f5a96")
    bottom.set_yscale("log")
    bottom.set_ylabel("1 − cosine")
    bottom.set_xlabel("activation, in the order of the float model")
    bottom.grid(alpha=0.3)
    bottom.set_xlim(-0.5, max(len(rows) - 0.5, 0.5))
    write_figure(fig, path, kind)


def write_figure(figure: Any, path: str | Path, kind: str) -> None:
    """Write a figure: equal figures give equal files, without date and random identifiers. Raises OutputError."""
    from matplotlib import rc_context

    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    out = io.BytesIO()
    with rc_context({"svg.hashsalt": "onnxq"}):
        figure.savefig(out, format=kind, dpi=150, metadata=undated.get(kind))
    write_bytes(path, out.getvalue())


def check_plot(path: str | Path) -> str:
    """The format given by a plot's file name; call it to fail early, before long work. Raises as plot_comparison."""
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise ConfigError(f"{path}: a plot is written as {', '.join('.' + f for f in FORMATS)}")
    _figure()
    return kind


def new_figure(**options: Any) -> Any:
    """An empty matplotlib Figure. Raises MissingDependencyError without matplotlib."""
    return _figure()(**options)


def _figure() -> Any:
    try:
        from matplotlib.figure import Figure  # no pyplot: no window system, no state
    except ImportError:
        raise MissingDependencyError("plots need matplotlib: pip install 'onnxq[plots]'") from None
    return Figure


def _name_worst(axes: Any, below: Any, rows: list[Any]) -> None:
    """Number the worst points and list their names below: in the plot the names would overlap."""
    finite = [(i, r) for i, r in enumerate(rows) if math.isfinite(r.sqnr_db)]
    lines = []
    for place, (i, row) in enumerate(sorted(finite, key=lambda item: item[1].sqnr_db)[:WORST], 1):
        axes.annotate(
            str(place),
            (i, row.sqnr_db),
            xytext=(0, -13),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=RED,
        )
        lines.append(f"{place}  {row.sqnr_db:6.2f} dB  {row.node or row.tensor} ({row.op})")
    axes.margins(y=0.1)
    below.axis("off")
    below.text(0, 1, "\n".join(["worst:", *lines]), va="top", fontsize=8, family="monospace", color=RED)
