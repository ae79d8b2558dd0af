"""Accuracy of every profile and calibration method on the reference models of ../shared (or $ONNXQ_SHARED).

Each model is calibrated once; its statistics serve every profile and method. Logit SQNR is measured against the float
model, for SqueezeNet on the input of its Softmax.

    python tools/bench/bench_accuracy.py                       # all models, profiles and methods
    python tools/bench/bench_accuracy.py --models resnet20 --profiles tensorrt --methods max,mse --json out.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import onnxq
from bench_support.calibration import calibrate
from bench_support.references import REFERENCES, Reference, require_shared
from onnxq.calibrate.ranges import available
from onnxq.profiles.schema import builtin_names

METHODS = (*(str(chooser()) for chooser in available().values()), "percentile:99.999")


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(REFERENCES))
    parser.add_argument("--profiles", default=",".join(builtin_names()))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--weight-bits", type=int)
    parser.add_argument("--activation-bits", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    require_shared()
    results = []
    for name in args.models.split(","):
        results += bench(name, REFERENCES[name], args)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


def bench(name: str, ref: Reference, args: argparse.Namespace) -> list[dict]:
    """Every profile and method on one model; a row each."""
    statistics, seconds = calibrate(ref, args.threads)
    print(f"\n{name}: one calibration pass over {statistics.provenance['samples']} samples, {seconds:.1f} s")
    print(f"{'profile':17} {'calibration':18} {'top-1 %':>8} {'agree %':>8} {'SQNR dB':>8} {'KL':>9}")
    rows: list[dict] = []
    for profile in args.profiles.split(","):
        for method in args.methods.split(","):
            quantized = onnxq.quantize(
                ref.path,
                profile=profile,
                calibration=method,
                statistics=statistics,
                weight_bits=args.weight_bits,
                activation_bits=args.activation_bits,
                qdq=True,
            )
            found = quantized.evaluate(
                ref.path,
                ref.data.validation,
                preprocess=ref.data.preprocess,
                output=ref.output,
                batch_size=ref.batch,
                threads=args.threads,
            )
            against = found.against
            assert against is not None
            assert against.agreement is not None
            assert against.top1 is not None
            assert found.top1 is not None
            sqnr = next(iter(against.outputs.values())).sqnr_db
            if not rows:
                print(f"{'float':17} {'':18} {100 * against.top1:8.2f}")
            rows.append(
                {
                    "model": name,
                    "profile": profile,
                    "calibration": method,
                    "top1": 100 * found.top1,
                    "float_top1": 100 * against.top1,
                    "agreement": 100 * against.agreement,
                    "sqnr_db": sqnr,
                    "kl": against.kl,
                }
            )
            row = rows[-1]
            print(
                f"{profile:17} {method:18} {row['top1']:8.2f} {row['agreement']:8.1f} {sqnr or 0:8.2f} "
                f"{against.kl or 0:9.5f}",
                flush=True,
            )
    return rows


if __name__ == "__main__":
    main()
