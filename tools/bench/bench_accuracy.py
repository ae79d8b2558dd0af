"""Accuracy of every profile and calibration method on the reference models in ../shared (or $ONNXQ_SHARED).

Each model is calibrated once; that one statistics file serves every profile and method. Logit SQNR is against the float
model; for SqueezeNet on the Softmax input. Run from anywhere:

    python tools/bench/bench_accuracy.py                       # all models, profiles and methods
    python tools/bench/bench_accuracy.py --models resnet20 --profiles tensorrt --methods max,mse --json out.json
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import onnxq
from onnxq import pipeline, recipes
from onnxq.calibrate.ranges import available
from onnxq.calibrate.runner import collect, observable
from onnxq.context import PassContext
from onnxq.data.options import RunOptions
from onnxq.data.preprocess import Preprocess
from onnxq.data.source import input_specs, open_data
from onnxq.profiles.schema import builtin_names

SHARED = Path(os.environ.get("ONNXQ_SHARED", Path(__file__).resolve().parents[3] / "shared"))
METHODS = (*(str(chooser()) for chooser in available().values()), "percentile:99.999")


@dataclass(frozen=True)
class Reference:
    """A model, its data, and the tensor that is compared. batch: samples a run, where the model allows it."""

    model: str
    calibration: str
    validation: str
    preprocess: str | Preprocess
    output: str | None = None
    batch: int = 1


REFERENCES = {
    "mobilenetv2": Reference("mobilenetv2_imagenet.onnx", "imagenet_calib", "imagenet_val", "imagenet-tf"),
    "squeezenet": Reference("squeezenet_imagenet.onnx", "imagenet_calib", "imagenet_val", "caffe", output="pool10_1"),
    "resnet20": Reference("resnet20_cifar10.onnx", "cifar10_calib.npz", "cifar10_val.npz", "cifar10", batch=32),
}


def main() -> None:
    """Print one table a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(REFERENCES))
    parser.add_argument("--profiles", default=",".join(builtin_names()))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--weight-bits", type=int)
    parser.add_argument("--activation-bits", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not SHARED.is_dir():
        raise SystemExit(f"the reference models are not there ({SHARED.name}); set ONNXQ_SHARED")
    results = []
    for name in args.models.split(","):
        results += bench(name, REFERENCES[name], args)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


def bench(name: str, ref: Reference, args: argparse.Namespace) -> list[dict]:
    """All profiles and methods of one model."""
    path = SHARED / "models" / ref.model
    statistics, seconds = calibrate(path, ref, args.threads)
    print(f"\n{name}: one calibration pass over {statistics.provenance['samples']} samples, {seconds:.1f} s")
    print(f"{'profile':17} {'calibration':18} {'top-1 %':>8} {'agree %':>8} {'SQNR dB':>8} {'KL':>9}")
    rows: list[dict] = []
    for profile in args.profiles.split(","):
        for method in args.methods.split(","):
            quantized = onnxq.quantize(
                path,
                profile=profile,
                calibration=method,
                statistics=statistics,
                weight_bits=args.weight_bits,
                activation_bits=args.activation_bits,
                qdq=True,
            )
            found = quantized.evaluate(
                path,
                SHARED / "data" / ref.validation,
                preprocess=ref.preprocess,
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


def calibrate(path: Path, ref: Reference, threads: int) -> tuple[onnxq.calibrate.statistics.Statistics, float]:
    """Statistics of every activation of the prepared float model, and the seconds they took."""
    model = onnxq.load(path)
    pipeline.run(model, recipes.prepare_pipeline(13), PassContext(model))
    source = open_data(SHARED / "data" / ref.calibration, input_specs(model.graph), preprocess=ref.preprocess)
    started = time.perf_counter()
    statistics = collect(model, observable(model), source, RunOptions(threads, ref.batch))
    return statistics, time.perf_counter() - started


if __name__ == "__main__":
    main()
