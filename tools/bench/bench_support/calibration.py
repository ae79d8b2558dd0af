"""onnxq's calibration of a reference model, timed."""

from __future__ import annotations

import time

import onnxq
from bench_support.references import Reference
from onnxq import pipeline, recipes
from onnxq.calibrate.runner import collect, observable
from onnxq.calibrate.statistics import Statistics
from onnxq.context import PassContext
from onnxq.data.options import RunOptions
from onnxq.data.source import input_specs, open_data


def calibrate(reference: Reference, threads: int) -> tuple[Statistics, float]:
    """Statistics of every activation of the prepared float model, and the seconds that collecting them took."""
    model = onnxq.load(reference.path)
    pipeline.run(model, recipes.prepare_pipeline(13), PassContext(model))
    source = open_data(reference.data.calibration, input_specs(model.graph), preprocess=reference.data.preprocess)
    started = time.perf_counter()
    statistics = collect(model, observable(model), source, RunOptions(threads, reference.batch))
    return statistics, time.perf_counter() - started
