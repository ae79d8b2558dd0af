"""Write one of the networks that the benchmarks run, as an ONNX file of float32.

    python tools/bench/write_network.py resnet50 build/resnet50.onnx
    python tools/bench/write_network.py encoder build/encoder.onnx --layers 12

resnet18, resnet50 and encoder (BERT's shape) have generated weights; the other names are models of ../shared (or
$ONNXQ_SHARED) with a free batch dimension.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import onnx

from bench_support import networks
from bench_support.encoder import encoder


def main() -> None:
    """Write the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=(*networks.NAMES, "encoder"))
    parser.add_argument("output", type=Path)
    parser.add_argument("--layers", type=int, default=12, help="of the encoder [default: %(default)s]")
    parser.add_argument("--width", type=int, default=768, help="of the encoder [default: %(default)s]")
    args = parser.parse_args()
    model = encoder(args.layers, args.width) if args.name == "encoder" else networks.build(args.name)
    onnx.save(model, str(args.output))


if __name__ == "__main__":
    main()
