"""Speed and accuracy of a text encoder of BERT-base's shape: onnxq, onnxruntime and OpenVINO.

    python tools/bench/bench_encoder.py                            # 12 layers, 128 words, one and two threads
    python tools/bench/bench_encoder.py --layers 4 --words 32,128 --json encoder.json

Peers: onnxruntime's quantize_static (Q/DQ, per channel) and quantize_dynamic, onnxq's Q/DQ for onnxruntime and for
OpenVINO, each in its own runtime, and the float model in onnxruntime. All take turns in one process on the same
sentence. SQNR is measured against the float model on the words that are not padding, over --sentences sentences.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import onnxq
from bench_support.encoder import VOCABULARY, encoder, sentences
from bench_support.report import environment, show
from onnxq.check.integer_only import check_integer
from onnxq.numeric.metrics import sqnr_db

CALIBRATION = 16
LABELS = {
    "onnxq": "onnxq, integer-only",
    "onnxruntime-cpu": "onnxq's Q/DQ, onnxruntime",
    "openvino": "onnxq's Q/DQ, OpenVINO",
    "static": "quantize_static, onnxruntime",
    "dynamic": "quantize_dynamic, onnxruntime",
    "float": "float32, onnxruntime",
}


def main() -> None:
    """Measure and print a table for each sentence length and number of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12, help="[default: %(default)s]")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--words", default="128", help="sentence lengths [default: %(default)s]")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=3.0, help="per version and setting [default: %(default)s]")
    parser.add_argument("--sentences", type=int, default=8)
    parser.add_argument("--workdir", type=Path, default=Path("build/encoder"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    files = prepare(args.workdir, args.layers, args.width)
    found: dict[str, Any] = {"environment": environment(), "layers": args.layers, "rows": []}
    found["float_operators"] = [str(f) for f in check_integer(files["onnxq"])]
    found["sqnr_db"] = quality(files, args.sentences)
    for words in map(int, args.words.split(",")):
        for threads in map(int, args.threads.split(",")):
            row = {"words": words, "threads": threads, "ms": bench(files, words, threads, args.seconds)}
            found["rows"].append(row)
            report(row, found)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


def prepare(workdir: Path, layers: int, width: int) -> dict[str, Path]:
    """Write the float model and its quantized versions; returns their paths."""
    files = {name: workdir / f"{name}.onnx" for name in LABELS}
    vocabulary = VOCABULARY if width >= 768 else 1000
    onnx.save(encoder(layers, width, vocabulary), str(files["float"]))
    data = list(sentences(CALIBRATION, vocabulary=vocabulary))
    for profile in ("onnxq", "onnxruntime-cpu", "openvino"):
        print(f"quantizing for {profile}", file=sys.stderr)
        onnxq.quantize(files["float"], data, profile=profile).save(files[profile])
    print("quantizing with onnxruntime", file=sys.stderr)
    _quantize_with_onnxruntime(files, data)
    return files


def _quantize_with_onnxruntime(files: Mapping[str, Path], data: list[dict[str, Any]]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static

    from bench_support.feed_reader import FeedReader

    types = {"per_channel": True, "weight_type": QuantType.QInt8}
    quantize_static(files["float"], files["static"], FeedReader(data), activation_type=QuantType.QUInt8, **types)
    quantize_dynamic(files["float"], files["dynamic"], **types)


def quality(files: Mapping[str, Path], count: int) -> dict[str, float]:
    """SQNR in dB of each version, of the words that are not padding."""
    feeds = list(sentences(count, vocabulary=_vocabulary(files), seed=1))
    words = [feed["mask"] == 1 for feed in feeds]

    def outputs(path: Path) -> np.ndarray:
        session = onnxq.session(path)
        return np.concatenate([session.run(None, f)[0][w] for f, w in zip(feeds, words, strict=True)])

    want = outputs(files["float"])
    return {name: float(sqnr_db(want, outputs(path))) for name, path in files.items() if name != "float"}


def _vocabulary(files: Mapping[str, Path]) -> int:
    table = next(t for t in onnx.load(str(files["float"])).graph.initializer if t.name == "words.table")
    return int(table.dims[0])


def bench(files: Mapping[str, Path], words: int, threads: int, seconds: float) -> dict[str, float]:
    """Median milliseconds of each version for one sentence."""
    others = [name for name in LABELS if name != "onnxq"]
    against = [f"openvino:{files[n]}" if n == "openvino" else files[n] for n in others]
    data = list(sentences(1, words, _vocabulary(files)))
    found = onnxq.bench(files["onnxq"], against, data=data, threads=threads, seconds=seconds).to_dict()
    return {n: t["median_ms"] for n, t in zip(["onnxq", *others], found["timings"], strict=True)}


def report(row: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Print a table."""
    own = row["ms"]["onnxq"]
    cells = [
        [LABELS[n], f"{ms:.1f}", f"{ms / own:.2f}×", f"{found['sqnr_db'][n]:.1f}" if n in found["sqnr_db"] else ""]
        for n, ms in row["ms"].items()
    ]
    title = f"{found['layers']} layers, {row['words']} words, {row['threads']} thread(s)"
    show(title, ("", "ms", "relative", "SQNR dB"), cells)


if __name__ == "__main__":
    main()
