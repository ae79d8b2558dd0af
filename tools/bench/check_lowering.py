"""Check that whole networks lower completely and compute the integers of their Q/DQ models.

    python tools/bench/check_lowering.py [--models resnet20,mobilenetv2] [--sources onnxq,tensorrt,quantize_static]

Each network is quantized by each source of Q/DQ and lowered. Remaining float operators are listed (`onnxq check
--integer-only`), layers are compared (`onnxq verify`: each layer is fed the Q/DQ model's own integers), and so is
top-1 accuracy, or agreement where there are no labels. A source is a hardware profile or `quantize_static`: the QDQ
file of onnxruntime.quantization (uint8 activations, int8 weights per channel), made without onnxq's quantizer. Exit
code 1 when a model is not integer-only, a layer differs by more than 1 LSB in 0.1 % of its elements, or top-1 changes
by more than 0.5 points.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx
import onnx.version_converter
from rich.console import Console
from rich.table import Table

import onnxq
from bench_support import networks
from bench_support.feed_reader import FeedReader
from bench_support.references import Dataset, require_shared
from onnxq.check.integer_only import check_integer
from onnxq.data.source import batches, input_specs, open_data

LABELLED = ("mobilenetv2", "squeezenet", "resnet20")
MOST_POINTS = 0.5
PER_CHANNEL_OPSET = 13  # of QuantizeLinear with an axis


def main() -> int:
    """Print a table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="resnet20,mobilenetv2,squeezenet,resnet18,resnet50")
    parser.add_argument("--sources", default="onnxq,onnxruntime-cpu,quantize_static")
    parser.add_argument("--samples", type=int, default=16, help="to compare layers on [default: %(default)s]")
    parser.add_argument("--calibration", type=int, default=32, help="samples to calibrate on [default: %(default)s]")
    parser.add_argument("--evaluation", type=int, help="samples for top-1 [default: all]")
    args = parser.parse_args()
    require_shared()
    table = Table("model", "Q/DQ of", "integer ops", "float ops", "worst layer", "drift LSB", "top-1 / agreement", "")
    failures = 0
    for name in args.models.split(","):
        for source in args.sources.split(","):
            row, good = check(name, source, args)
            table.add_row(name, source, *row, "" if good else "[red]beyond")
            failures += not good
            print(name, source, *row, flush=True)
    Console(width=140).print(table)
    return 1 if failures else 0


def check(name: str, source: str, args: argparse.Namespace) -> tuple[list[str], bool]:
    """One row of the table, and whether its figures are within the limits."""
    data = networks.DATA[name]
    floating = networks.build(name)
    qdq = quantized(floating, source, data, args.calibration)
    lowered = onnxq.lower(qdq)
    integer = lowered.model
    left = check_integer(integer)
    found = onnxq.verify(qdq, integer, data.validation, preprocess=data.preprocess, limit=args.samples, threads=2)
    worst = max(found.layers, key=lambda layer: (layer.max_lsb, layer.share))
    drift = max(layer.drift_lsb for layer in found.layers if layer.quantized)

    limit = args.evaluation if name in LABELLED else args.evaluation or 64
    options: dict[str, Any] = {"preprocess": data.preprocess, "limit": limit, "batch_size": 8, "threads": 2}
    ours = onnxq.evaluate(integer, data.validation, against=qdq, **options)
    assert ours.against is not None
    points = 0.0
    accuracy = f"agreement {ours.against.agreement:.1%}"
    if name in LABELLED and ours.top1 is not None and ours.against.top1 is not None:
        points = abs(ours.top1 - ours.against.top1) * 100
        accuracy = f"{ours.against.top1:.2%} → {ours.top1:.2%}, {accuracy}"
    ops = sum(1 for node in integer.graph.node if node.domain == "com.onnxq")
    row = [str(ops), str(len(left)), f"{worst.max_lsb:g} LSB in {worst.share:.2g}", f"{drift:g}", accuracy]
    return row, not left and found.ok and points <= MOST_POINTS


def quantized(floating: onnx.ModelProto, source: str, data: Dataset, count: int) -> onnx.ModelProto:
    """The Q/DQ model for a profile, or by onnxruntime's own quantizer."""
    if source != "quantize_static":
        options: dict[str, Any] = {"preprocess": data.preprocess, "limit": count, "profile": source, "qdq": True}
        return onnxq.quantize(floating, data.calibration, **options).model
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    specs = input_specs(onnxq.load(floating).graph)
    images = open_data(data.calibration, specs, preprocess=data.preprocess, limit=count)
    reader = FeedReader(batch.feeds for batch in batches(images, specs, 1))

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "float.onnx"), Path(folder, "qdq.onnx")
        opset = next(o.version for o in floating.opset_import if not o.domain)
        if opset < PER_CHANNEL_OPSET:  # otherwise quantize_static writes a model that onnxruntime refuses
            floating = onnx.version_converter.convert_version(floating, PER_CHANNEL_OPSET)
        onnx.save(floating, before)
        quantize_static(
            before, after, reader, quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        return onnx.load(after)


if __name__ == "__main__":
    sys.exit(main())
