"""Kernels one by one: convolutions and matrix products as a model of their own, beside onnxruntime's and OpenVINO's.

    python tools/bench/bench_kernels.py                                     # every layer, one thread
    python tools/bench/bench_kernels.py --nets resnet50,bert --threads 1,2 --batch 8 --isa best,portable --json k.json
    python tools/bench/bench_kernels.py --nets gemv --bits 8,4              # int4 weights against int8

The ceiling is the machine's own: the inner instruction loop of the chosen tier, timed before and after each layer (the
larger counts) on one thread, times the number of threads. Ours and onnxruntime's times are those of whole runs divided
by the number of nodes (kernel_models.COPIES), onnxruntime's operators on channels-last tensors as its optimizer makes
them. OpenVINO adds transposes at the borders, so there its own counters of the nodes are taken (whole microseconds,
rounded down); behind them stands the precision where it is not int8: it computes strided 1×1 convolutions in bf16 or
float32. Candidates take turns; figures are medians of rounds and, for counters, means of the middle half.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench_report import BEST, each_tier, environment, markdown, show, without
from kernel_models import COPIES, LAYERS, Layer, feed, integer_products, onnxruntimes, ours, qdq, values

import onnxq
from onnxq.execution import library
from onnxq.execution.benchmark import measure, paired_ratio, settle
from onnxq.execution.competitors import Competitor, open_competitor, openvino_times

PRODUCTS = ("Convolution", "GroupConvolution", "FullyConnected", "MatMul")
PEERS = ("onnxruntime", "matmulinteger", "openvino")
HEADS = ("layer", "bits", "batch", "threads", "tier", "MMAC", "µs", "GOP/s", "of ceiling", "KB", "GB/s", *PEERS)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(LAYERS))
    parser.add_argument("--layers", default="", help="only layers whose name contains this, such as '3×3'")
    parser.add_argument("--bits", default="8", help="8, 4 or 8,4")
    parser.add_argument("--batch", default="1")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--peers", default=",".join(PEERS), help="or none")
    parser.add_argument("--isa", default="", help=f"tiers, each in a process of its own: {BEST},portable")
    parser.add_argument("--seconds", type=float, default=0.5, help="a candidate and layer")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    if not library.has_library():
        sys.exit("there is no kernel library to measure (see `onnxq kernels`)")
    if args.isa:
        options = without(sys.argv[1:], "--isa", "--json", "--markdown")
        results = list(each_tier(__file__, args.isa.split(","), options))
    else:
        results = [{"environment": environment(), "copies": COPIES, "rows": run(args)}]
        report(results[0])
    if args.json:
        args.json.write_text(json.dumps(results if args.isa else results[0], indent=1) + "\n")
    if args.markdown:
        tables = [markdown("Kernels", HEADS, cells(r), r["environment"]) for r in results]
        args.markdown.write_text("\n".join(tables))


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every layer with every setting."""
    chosen = [layer for net in args.nets.split(",") for layer in LAYERS[net]]
    settings = [
        (layer, int(bits), int(batch), int(threads))
        for layer in chosen
        if args.layers in str(layer)
        for bits in args.bits.split(",")
        for batch in args.batch.split(",")
        for threads in args.threads.split(",")
    ]
    rows = []
    for i, setting in enumerate(settings, 1):
        print(f"{i}/{len(settings)} {setting[0].net} {setting[0]}", file=sys.stderr)
        rows.append(bench(*setting, args.peers.split(","), args.seconds))
    return rows


def bench(layer: Layer, bits: int, batch: int, threads: int, peers: list[str], seconds: float) -> dict[str, Any]:
    """One layer: ours, its share of the ceiling, and the peers."""
    v = values(layer, batch, bits)
    given = feed(layer, v)
    candidates = {"ours": open_competitor(ours(layer, v, bits), given, threads=threads)}
    if "onnxruntime" in peers:
        candidates["onnxruntime"] = open_competitor(onnxruntimes(layer, v), given, threads=threads)
    if "matmulinteger" in peers and not layer.size:
        candidates["matmulinteger"] = open_competitor(integer_products(v), given, threads=threads)
    runs = [c.run for c in candidates.values()]
    counted: list[float] = []
    implementations: set[str] = set()
    if "openvino" in peers:
        turned = feed(layer, v, channels_first=True)
        peer = open_competitor(qdq(layer, v), turned, threads=threads, openvino=True, profile=True)
        runs.append(_counting(peer, counted, implementations))
    before = library.peak_macs()
    rounds = measure(runs, seconds=seconds, settle=settle(threads))
    ceiling = max(before, library.peak_macs()) * threads
    times = {
        name: statistics.median(statistics.median(turn) for turn in mine) / COPIES
        for name, mine in zip(candidates, rounds, strict=False)
    }
    ratios = {name: paired_ratio(mine, rounds[0]) for name, mine in zip(candidates, rounds, strict=False)}
    if counted:
        times["openvino"] = _middle(counted) / COPIES
        ratios["openvino"] = times["openvino"] / times["ours"]
    macs = layer.macs(batch)
    return {
        "net": layer.net,
        "layer": str(layer),
        "bits": bits,
        "batch": batch,
        "threads": threads,
        "macs": macs,
        "bytes_moved": layer.bytes_moved(batch, bits),
        "seconds": times,
        "ratios": ratios,
        "ops_per_second": 2 * macs / times["ours"],
        "ceiling_ops_per_second": 2 * ceiling,
        "share_of_ceiling": macs / times["ours"] / ceiling if ceiling else None,
        "openvino_implementations": sorted(implementations),
        "max_lsb": _difference(layer, v, bits),
    }


def _counting(competitor: Competitor, counted: list[float], implementations: set[str]) -> Callable[[], None]:
    """A run that also notes what OpenVINO says its products took, and what they were computed by."""

    def run() -> None:
        competitor.run()
        nodes = [node for node in openvino_times(competitor) if node[0] in PRODUCTS]
        counted.append(sum(seconds for _, _, seconds in nodes))
        implementations.update(implementation for _, implementation, _ in nodes)

    return run


def _middle(found: list[float]) -> float:
    ordered = sorted(found)
    cut = len(ordered) // 4
    return statistics.fmean(ordered[cut : len(ordered) - cut])


def _difference(layer: Layer, v: Any, bits: int) -> int:
    """Largest difference to the Q/DQ model in onnxruntime without optimization: 1 where a rescale meets a tie, or 0."""
    mine = onnxq.session(ours(layer, v, bits)).run(None, feed(layer, v))
    expected = onnxq.session(qdq(layer, v), optimize="none").run(None, feed(layer, v, channels_first=True))
    moved = [y.transpose(0, 2, 3, 1) if layer.size else y for y in expected]
    largest = max(int(np.abs(a.astype(np.int64) - b).max(initial=0)) for a, b in zip(mine, moved, strict=True))
    if largest > 1:
        print(f"WRONG: {layer} differs from the Q/DQ model by {largest}", file=sys.stderr)
    return largest


def report(result: dict[str, Any]) -> None:
    """Print the table."""
    found = result["environment"]
    show(f"{found['cpu']}, kernels: {found['isa']}; peers: µs (multiple of ours)", HEADS, cells(result))


def cells(result: dict[str, Any]) -> list[list[str]]:
    """The table's cells."""
    out = []
    for row in result["rows"]:
        seconds = row["seconds"]
        share = row["share_of_ceiling"]
        out.append(
            [
                f"{row['net']} {row['layer']}",
                *(str(row[key]) for key in ("bits", "batch", "threads")),
                str(result["environment"]["isa"]),
                f"{1e-6 * row['macs']:.1f}",
                f"{1e6 * seconds['ours']:.1f}",
                f"{1e-9 * row['ops_per_second']:.0f}",
                "" if share is None else f"{100 * share:.0f} %",
                f"{1e-3 * row['bytes_moved']:.0f}",
                f"{1e-9 * row['bytes_moved'] / seconds['ours']:.1f}",
                *(
                    f"{1e6 * seconds[peer]:.1f} ({row['ratios'][peer]:.2f}×)" if peer in seconds else ""
                    for peer in PEERS[:-1]
                ),
                _openvino_cell(row),
            ]
        )
    return out


def _openvino_cell(row: dict[str, Any]) -> str:
    if "openvino" not in row["seconds"]:
        return ""
    said = f"{1e6 * row['seconds']['openvino']:.1f} ({row['ratios']['openvino']:.2f}×)"
    floating = {i.rpartition("_")[2] for i in row["openvino_implementations"] if not i.endswith("_I8")}
    return f"{said} {' '.join(sorted(floating))}".strip()


if __name__ == "__main__":
    main()
