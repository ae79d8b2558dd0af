"""`onnxq demo`."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from onnxq.cli.common import progress
from onnxq.cli.guard import Command
from onnxq.cli.output import json_flag, json_text, print_table
from onnxq.cli.terminal import out, out_text, say

if TYPE_CHECKING:
    from onnxq.measure.evaluation import Evaluation

# (heading, weight bits); first and last layers keep 8 bits, the default.
VARIANTS = (("int8", 8), ("int4 weights", 4))


@click.command("demo", cls=Command)
@click.option(
    "-o", "--output", "folder", help="Save models, cards and data in this folder, for trying the other commands."
)
@click.option("--profile", default="onnxruntime-cpu", show_default=True, help="Hardware profile.")
@json_flag
def command(folder: str | None, profile: str, as_json: bool) -> None:
    """Quantize a bundled handwritten-digit network to int8 and to int4 weights, and show the loss of accuracy.

    The network (batch normalization, residuals, depthwise convolution) and the UCI digits come with onnxq.
    """
    from onnxq import api, demo
    from onnxq.measure.accuracy import evaluate

    with contextlib.ExitStack() as stack:
        where = Path(folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxq-demo-")))
        if folder:
            _keep_inputs(where)
        float_model = demo.model_path()
        calibration, validation = demo.calibration_data(), demo.validation_data()
        say(
            f"profile {profile}: calibrating on {len(calibration['labels'])} digits, "
            f"evaluating on {len(validation['labels'])}"
        )
        baseline = evaluate(float_model, validation, batch_size=1, threads=1)
        rows = [_figures("float32", float_model, baseline)]
        results = []
        for heading, bits in VARIANTS:
            with progress(f"{heading}: calibrating") as bar:
                result = api.quantize(
                    float_model, calibration, profile=profile, weight_bits=bits, threads=1, progress=bar
                )
            with progress(f"{heading}: evaluating") as bar:
                found = result.evaluate(float_model, validation, batch_size=1, threads=1, progress=bar)
            path = where / f"digits.{heading.split()[0]}.onnx"
            result.save(path)
            rows.append(_figures(heading, path, found))
            results.append(result)
        if as_json:
            out_text(json_text({"profile": profile, "models": rows}))
        else:
            columns = ("model", "top-1", "same as float", "logit SQNR", "file", "latency")
            print_table(columns, [_row(**figures) for figures in rows])
            out("", *results[0].card.summary().split("\n"))
        if folder:
            say(f"models, cards and data are in {folder}; to view a card: onnxq card {where / 'digits.int8.onnx'}")


def _keep_inputs(folder: Path) -> None:
    """The float model and the data as files: digits.onnx, calibration.npz, validation.npz."""
    from onnxq import demo
    from onnxq.graph.files import write_bytes

    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "digits.onnx", demo.model_path().read_bytes())
    for name, arrays in (("calibration", demo.calibration_data()), ("validation", demo.validation_data())):
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]  # numpy's stub mistakes the names for flags
        write_bytes(folder / f"{name}.npz", content.getvalue())


def _figures(heading: str, path: Path, found: Evaluation) -> dict[str, Any]:
    """The figures of one model, JSON types only; None where the float model is itself."""
    against = found.against
    sqnr = next(iter(against.outputs.values())).sqnr_db if against and against.outputs else None
    return {
        "model": heading,
        "top1": found.top1,
        "agreement": against.agreement if against else None,
        "sqnr_db": sqnr,
        "size": path.stat().st_size,
        "ms_per_sample": found.ms_per_sample,
    }


def _row(model: str, top1: Any, agreement: Any, sqnr_db: Any, size: int, ms_per_sample: float) -> list[str]:
    sqnr = f"{sqnr_db:.1f} dB" if sqnr_db is not None else ""
    return [model, _percent(top1), _percent(agreement), sqnr, f"{size / 1024:.0f} KiB", f"{ms_per_sample:.2f} ms"]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
