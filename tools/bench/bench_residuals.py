"""What wide residuals gain and cost below 8 bits: profile onnxq with every residual_kept, side by side.

    python tools/bench/bench_residuals.py                        # ResNet-20 of ../shared (or $ONNXQ_SHARED)
    python tools/bench/bench_residuals.py --models resnet20,mobilenetv2 --widths 4:4,8:4,4:8,8:8

SQNR and agreement are those of the integer-only models against the float model, on the validation images; times are of
the models taking turns in one process, the median and paired ratios to it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Literal

from rich.console import Console
from rich.table import Table

import onnxq
from bench_support.references import REFERENCES, Reference
from onnxq.execution.benchmark import bench
from onnxq.profiles.schema import Profile, load_profile

Kept = Literal["int8", "int16", "int32"]
KEPT: tuple[Kept, ...] = ("int8", "int16", "int32")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="resnet20")
    parser.add_argument("--widths", default="4:4,8:4,4:8", help="weights:activations [default: %(default)s]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=4.0, help="of timing per model [default: %(default)s]")
    args = parser.parse_args()
    table = Table("model", "W", "A", *(f"{how}: {what}" for how in KEPT for what in ("dB", "agree", "time")))
    for name in args.models.split(","):
        for text in args.widths.split(","):
            weights, activations = (int(v) for v in text.split(":"))
            cells = row(REFERENCES[name], weights, activations, args)
            table.add_row(name, str(weights), str(activations), *cells)
            print(name, weights, activations, *cells, flush=True)
    Console(width=130).print(table)


def row(ref: Reference, weights: int, activations: int, args: argparse.Namespace) -> list[str]:
    """One line of the table."""
    models, quality = [], []
    for how in KEPT:
        made = onnxq.quantize(
            ref.path,
            ref.data.calibration,
            preprocess=ref.data.preprocess,
            profile=kept(how),
            weight_bits=weights,
            activation_bits=activations,
            threads=args.threads,
            proof="none",
        )
        found = made.evaluate(
            ref.path,
            ref.data.validation,
            preprocess=ref.data.preprocess,
            output=ref.output,
            batch_size=ref.batch,
            threads=args.threads,
        )
        assert found.against is not None
        assert found.against.agreement is not None
        sqnr = next(iter(found.against.outputs.values())).sqnr_db or 0.0
        models.append(made.model)
        quality.append((f"{sqnr:.2f}", f"{100 * found.against.agreement:.1f}"))
    timed = bench(
        models[0],
        models[1:],
        threads=args.threads,
        batch_size=args.batch if ref.batch > 1 else None,
        seconds=args.seconds,
    )
    times = [f"{timed.timings[0].median_ms:.2f} ms", *(f"{t.ratio:.2f} ×" for t in timed.timings[1:])]
    return [cell for found, time in zip(quality, times, strict=True) for cell in (*found, time)]


def kept(how: Kept) -> Profile:
    """Profile onnxq with sums kept this way."""
    profile = load_profile("onnxq")
    return replace(profile, graph=replace(profile.graph, residual_kept=how))


if __name__ == "__main__":
    main()
