"""What 4-bit weights save: file size, memory and time of matrix-vector products with int8 and int4 weights.

    python tools/bench/bench_int4.py [--threads 1] [--seconds 4]

Each model holds four products, so that weights come from memory and not from the first cache. Resident memory is the
growth of a process from before the session is created to after its first run: the initializers, which onnxruntime
keeps, and the kernels' packed weights. Times are medians; the two models take turns.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

import onnxq
from bench_support.kernel_models import COPIES, GEMV, X_ZERO_POINT, Layer, ours, values

WIDTHS = (8, 4)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0, help="per size and width [default: %(default)s]")
    parser.add_argument("--resident", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.resident:
        print(json.dumps(resident(args.resident)))
        return
    table = Table(
        f"{COPIES} products of", "file MB, int8", "int4", "resident MB, int8", "int4", "µs each, int8", "int4", "gain"
    )
    with tempfile.TemporaryDirectory() as folder:
        for layer in GEMV:
            cells = row(layer, Path(folder), args)
            table.add_row(str(layer), *cells)
            print(layer, *cells, flush=True)
    Console(width=130).print(table)


def row(layer: Layer, folder: Path, args: argparse.Namespace) -> list[str]:
    """One line of the table."""
    paths = {bits: folder / f"int{bits}.onnx" for bits in WIDTHS}
    for bits, path in paths.items():
        onnx.save(ours(layer, values(layer, 1, bits), bits), path)
    files = [paths[bits].stat().st_size / 1e6 for bits in WIDTHS]
    grown = []
    for bits in WIDTHS:
        done = subprocess.run(
            [sys.executable, __file__, "--resident", str(paths[bits])], check=True, capture_output=True, text=True
        )
        grown.append(json.loads(done.stdout) / 1e6)
    timing = onnxq.bench(str(paths[8]), [str(paths[4])], threads=args.threads, seconds=args.seconds).timings
    each = [t.median_ms * 1e3 / COPIES for t in timing]
    numbers = [f"{v:.2f}" for v in (*files, *grown)] + [f"{v:.1f}" for v in each]
    return [*numbers, f"{1 / timing[1].ratio:.2f}×"]


def resident(path: Path) -> int:
    """Bytes that a session of the model and its first run add to this process."""
    warm = onnxq.session(ours(GEMV[0], values(GEMV[0], 1, 8), 8), threads=1)  # loads onnxruntime and the kernel library
    before = resident_bytes()
    session = onnxq.session(path, threads=1)
    (x,) = session.get_inputs()
    session.run(None, {x.name: np.full([1, x.shape[-1]], X_ZERO_POINT, np.uint8)})
    grown = resident_bytes() - before
    del warm
    return grown


def resident_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


if __name__ == "__main__":
    main()
