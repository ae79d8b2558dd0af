"""Check that onnxruntime computes the same integers at ORT_ENABLE_ALL and ORT_DISABLE_ALL, layer by layer.

    python tools/bench/check_opt_levels.py MODEL --data IMAGES --preprocess imagenet-tf [--profile P]… [--samples N]

Quantizes MODEL for every profile (or the given ones), feeds every layer the same integers at both levels, and prints
the largest difference in steps of the output (LSB) and the share of differing elements. Exit code 1 above --limit.
"""

from __future__ import annotations

import argparse
import sys

from onnxq import quantize
from onnxq.measure.consistency import optimization_consistency
from onnxq.profiles.schema import builtin_names


def main() -> int:
    """Print a row for each profile; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True, help="samples to calibrate and compare on")
    parser.add_argument("--preprocess")
    parser.add_argument("--profile", action="append", help="may be given several times [default: all]")
    parser.add_argument("--calibration-samples", type=int, default=32)
    parser.add_argument("--samples", type=int, default=4, help="to compare on [default: %(default)s]")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--worst", type=int, default=1, help="how many of the worst layers to name [default: %(default)s]"
    )
    parser.add_argument(
        "--limit", type=float, default=1.0, help="largest accepted difference, in LSB [default: %(default)s]"
    )
    args = parser.parse_args()

    failed = False
    print(f"{'profile':<18} {'layers':>6} {'max LSB':>8} {'mean share':>11} {'max share':>10}  worst layer")
    for name in args.profile or builtin_names():
        made = quantize(
            args.model,
            args.data,
            profile=name,
            preprocess=args.preprocess,
            limit=args.calibration_samples,
            threads=args.threads,
        )
        rows = optimization_consistency(
            made.model, args.data, args.samples, preprocess=args.preprocess, threads=args.threads
        )
        largest, share = max(r.max_lsb for r in rows), max(r.share for r in rows)
        mean = sum(r.share * r.elements for r in rows) / sum(r.elements for r in rows)
        named = ", ".join(f"{r.layer} ({r.op}) {r.max_lsb:g}" for r in rows[: args.worst])
        print(f"{name:<18} {len(rows):>6} {largest:>8.3g} {mean:>11.2e} {share:>10.2e}  {named}", flush=True)
        failed |= largest > args.limit
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
