"""Hessian sensitivities of a reference model: seconds, standard errors, agreement between seeds, exact traces by torch.

    python tools/bench/bench_sensitivity.py mobilenetv2 --seeds 3              # a budget of 120 s per run, the default
    python tools/bench/bench_sensitivity.py mobilenetv2 --budget none --tolerance 0.05
    python tools/bench/bench_sensitivity.py resnet20 --exact 16                # vᵀHv by double backward, 16 probes

Seeds are compared by the order of their 4-bit values (Spearman's rank correlation of each pair). Exact values come from
torch, which onnxq does not depend on: pip install torch.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from bench_support.references import REFERENCES, require_shared
from onnxq.cost.prepared import prepare
from onnxq.data.source import batches, input_specs, open_data
from onnxq.graph.model import to_proto
from onnxq.search.hessian import HutchinsonOptions
from onnxq.search.measure import measure_sensitivity
from onnxq.search.objective import find_objective
from onnxq.search.sensitivity import Sensitivity


def main() -> None:
    """Measure each seed and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(REFERENCES))
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--budget", default="120", help="seconds per run, or none [default: %(default)s]")
    parser.add_argument("--tolerance", type=float, default=0.05)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument(
        "--exact", type=int, metavar="PROBES", help="compare with this many probes of vᵀHv by double backward (torch)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    args = parser.parse_args()
    require_shared()
    figures: dict[str, Any] = {"model": args.model, "runs": []}
    found = []
    for seed in range(args.seeds):
        started = time.perf_counter()
        found.append(_measure(args, seed))
        figures["runs"].append(_summary(found[-1], time.perf_counter() - started))
        print(f"seed {seed}: {figures['runs'][-1]}", flush=True)
    orders = [spearman(_values(a), _values(b)) for a, b in itertools.combinations(found, 2)]
    if orders:
        figures["spearman"] = orders
        print(f"Spearman over seeds: {', '.join(f'{r:.4f}' for r in orders)}")
    if args.exact:
        figures["exact"] = _exact(args, found[0])
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _data(name: str, inputs: Any, samples: int) -> Any:
    data = REFERENCES[name].data
    return open_data(data.calibration, inputs, preprocess=data.preprocess, limit=samples)


def _measure(args: argparse.Namespace, seed: int) -> Sensitivity:
    budget = None if args.budget == "none" else float(args.budget)
    options = HutchinsonOptions(tolerance=args.tolerance, seed=seed, budget=budget)
    reference = REFERENCES[args.model]
    return measure_sensitivity(
        reference.path,
        reference.data.calibration,
        preprocess=reference.data.preprocess,
        limit=args.samples,
        options=options,
        threads=args.threads,
        say=print,
    )


def _values(found: Sensitivity) -> NDArray[np.float64]:
    return np.array(list(found.weights(4).values()))


def _summary(found: Sensitivity, seconds: float) -> dict[str, Any]:
    errors = [e.extra["trace_standard_error"] / e.extra["trace"] for e in found.layers if e.extra["trace"]]
    probes = [e.extra["probes"] for e in found.layers]
    return {
        "seconds": round(seconds, 1),
        "samples": found.created["samples"],
        "layers": len(found.layers),
        "probes": [min(probes), int(np.median(probes)), max(probes)],
        "median_standard_error": round(float(np.median(errors)), 4),
        "largest_standard_error": round(float(np.max(errors)), 4),
    }


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Rank correlation of values without ties."""
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


def _exact(args: argparse.Namespace, found: Sensitivity) -> dict[str, Any]:
    """Relative differences to the Hessian's trace by double backward; the loss is on the model's own outputs."""
    import torch

    torch.set_num_threads(args.threads or torch.get_num_threads())
    ready = prepare(REFERENCES[args.model].path, "onnxruntime-cpu")
    proto, objective = to_proto(ready.model), find_objective(ready.model)
    feeds = list(
        batches(_data(args.model, input_specs(ready.model.graph), args.samples), input_specs(ready.model.graph), 16)
    )
    image = np.concatenate([next(iter(b.feeds.values())) for b in feeds])
    constants = {t.name: torch.tensor(numpy_helper.to_array(t)) for t in proto.graph.initializer}
    weights = {x.node.name: constants[x.weight.name] for x in ready.layers}
    for w in weights.values():
        if w.is_floating_point():
            w.requires_grad_()
    sums: dict[str, list[float]] = {name: [] for name in weights}
    generator = torch.Generator().manual_seed(1)
    for _ in range(args.exact):
        total = dict.fromkeys(weights, 0.0)
        for part in np.array_split(image, -(-len(image) // 4)):  # a new probe for every four images
            z = _forward(proto, constants, torch.tensor(part), objective.tensors[0])
            target = torch.softmax(z, 1).detach()
            loss = -(target * torch.log_softmax(z, 1)).sum() / len(image)
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            for (name, w), g in zip(weights.items(), gradients, strict=True):
                v = torch.randint(0, 2, w.shape, generator=generator).float() * 2 - 1
                (hv,) = torch.autograd.grad(g, w, v, retain_graph=True)
                total[name] += float((hv * v).sum())
        for name, value in total.items():
            sums[name].append(value)
    differences = {}
    for entry in found.layers:
        exact, error = float(np.mean(sums[entry.node])), float(np.std(sums[entry.node], ddof=1) / args.exact**0.5)
        differences[entry.node] = entry.extra["trace"] / exact - 1
        estimate = f"{entry.extra['trace']:.4g} ± {entry.extra['trace_standard_error']:.2g}"
        share = 100 * differences[entry.node]
        print(f"{entry.node}: {estimate}, by double backward {exact:.4g} ± {error:.2g}, {share:+.1f} %")
    size = np.abs(list(differences.values()))
    print(f"difference: median {np.median(size):.3f}, largest {size.max():.3f}")
    return differences


def _forward(proto: onnx.ModelProto, constants: dict[str, Any], x: Any, wanted: str) -> Any:
    """The tensor `wanted` computed by torch, for networks of the operators below."""
    import torch
    import torch.nn.functional as f

    values = dict(constants) | {proto.graph.input[0].name: x}
    for node in proto.graph.node:
        v: list[Any] = [values[n] if n else None for n in node.input]
        a = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Conv":
            pads = a.get("pads", [0, 0, 0, 0])
            padded = f.pad(v[0], (pads[1], pads[3], pads[0], pads[2]))
            y = f.conv2d(padded, v[1], v[2] if len(v) > 2 else None, a.get("strides", [1, 1]), 0, 1, a.get("group", 1))
        elif node.op_type == "Gemm":
            y = v[0] @ (v[1].T if a.get("transB") else v[1]) + v[2]
        elif node.op_type == "Clip":
            y = torch.clamp(v[0], float(v[1]), float(v[2]))
        else:
            simple = {
                "Relu": torch.relu,
                "Add": torch.add,
                "GlobalAveragePool": lambda t: t.mean((2, 3), keepdim=True),
                "Flatten": lambda t: t.flatten(1),
            }
            y = simple[node.op_type](*v)
        values[node.output[0]] = y
        if node.output[0] == wanted:
            return y
    raise ValueError(f"no node makes {wanted}")


if __name__ == "__main__":
    main()
