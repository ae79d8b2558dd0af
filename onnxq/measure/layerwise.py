"""Verify that the integer model computes what the QDQ model specifies, layer by layer and as a whole.

The reference is the QDQ model without onnxruntime's optimizations: the codes that every QuantizeLinear produces. The
integer model's tensors with the same names are compared with them twice:

fed    each layer computes from the QDQ model's own codes (the integer model is cut at every such tensor), so that
       errors do not propagate. Bound: at most 1 LSB in at most 0.1 % of the elements.
drift  the integer model runs by itself. Reported, not bounded: one LSB early on shifts everything downstream.

A tensor may have a different dimension order than in the QDQ model (pass layout-nhwc): metadata of its producer records
the order, and the reference is converted to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxq.data.source import Batch, InputSpec, batches, input_specs
from onnxq.errors import ConfigError, DataError
from onnxq.execution import library
from onnxq.execution.cuts import cut_tensors
from onnxq.execution.inner_tensors import dimensions, real_part, run_batch
from onnxq.execution.known_ops import lost_tensors
from onnxq.execution.sessions import observed_session, variant_session
from onnxq.graph.match import producer
from onnxq.graph.model import Libraries, Model, load
from onnxq.measure.code_steps import StepTally
from onnxq.measure.compared_tensors import ComparedTensor, compared_codes, is_dequantized, is_float_output
from onnxq.measure.evaluation import distance
from onnxq.measure.inputs import different_inputs, open_samples
from onnxq.measure.verification import LayerDifference, OutputDifference, Verification
from onnxq.numeric.classification import Scores, top_classes
from onnxq.numeric.metrics import ErrorSums
from onnxq.reporting import Progress

Values = Mapping[str, NDArray]


def verify(
    qdq: str | Path | bytes | onnx.ModelProto | Model,
    integer: str | Path | bytes | onnx.ModelProto | Model,
    data: Any,
    *,
    preprocess: Any = None,
    limit: int | None = None,
    batch_size: int | None = None,
    threads: int = 0,
    bodies: bool = False,
    custom_ops: Libraries = (),
    progress: Progress | None = None,
) -> Verification:
    """Compare an integer model with the QDQ model that it was lowered from.

    data: an open DataSource, or anything open_data accepts (with preprocess and limit). batch_size: samples per run;
    None is chosen from the model. threads: 0 is onnxruntime's default. bodies: run the integer model on its function
    bodies even if the kernel library is installed. custom_ops: libraries of operators that the models need; what
    depends on operators in none of them is left out. progress: called with (samples done, total samples or None) after
    every batch. Memory: the codes of one batch, three times.
    Raises ConfigError if the models do not belong together, DataError for samples that do not fit.
    """
    reference, tested = load(qdq, custom_ops), load(integer, custom_ops)
    inputs = _inputs(reference, tested)
    lost = lost_tensors(reference, tested)
    points, missing = compared_codes(reference, tested)
    points = [p for p in points if p.expected not in lost and p.found not in lost]
    source = open_samples(data, inputs, preprocess, limit)
    layers = [_Layer(p, tested) for p in points]
    outputs = {t.name: _Output(t.name) for t in tested.graph.outputs if is_float_output(t) and t.name not in lost}
    layers += [_Layer(ComparedTensor(n, n, None), tested) for n in outputs if not is_dequantized(reference, n, points)]
    done, total = 0, source.count()
    with _opened(reference, tested, points, list(outputs), threads, bodies) as run:
        for batch in batches(source, inputs, batch_size):
            expected, fed, free = run(batch)
            for layer in layers:
                layer.add(expected, fed, free, batch)
            for name, output in outputs.items():
                output.add(real_part(expected[name], batch), real_part(free[name], batch), batch.count)
            done += batch.count
            if progress:
                progress(done, total)
    if not done:
        raise DataError("the data for the verification has no samples")
    rows = sorted((layer.result() for layer in layers), key=lambda r: (r.within, -r.max_lsb, -r.share, -r.drift_lsb))
    tier = library.kernel_isa() if not bodies and library.has_library() else None
    return Verification(
        reference.name,
        tested.name,
        done,
        tier,
        tuple(rows),
        {name: output.result() for name, output in outputs.items()},
        missing,
    )


def _inputs(reference: Model, tested: Model) -> tuple[InputSpec, ...]:
    own, other = input_specs(reference.graph), input_specs(tested.graph)
    if {s.name: (s.shape, s.dtype) for s in own} != {s.name: (s.shape, s.dtype) for s in other}:
        raise different_inputs(reference, tested, (own, other))
    return own


@contextlib.contextmanager
def _opened(
    reference: Model,
    tested: Model,
    points: Sequence[ComparedTensor],
    outputs: Sequence[str],
    threads: int,
    bodies: bool,
) -> Iterator[Callable[[Batch], tuple[Values, Values, Values]]]:
    """A function from a batch to three sets of tensors, by name.

    Of the QDQ model, in the integer model's dimension order; of the integer model fed with them; of the integer model
    run by itself.
    """
    missing = [n for n in outputs if n not in {t.name for t in reference.graph.outputs}]
    if missing:
        raise ConfigError(f"output {missing[0]} of {tested.name} is not an output of {reference.name}")
    names = [*(p.expected for p in points), *outputs]
    found = [*(p.found for p in points), *outputs]
    proto, fed_names = cut_tensors(tested, [p.found for p in points])
    how = {"threads": threads, "kernels": not bodies}
    with (
        observed_session(reference, names, threads=threads, optimize=False) as plain,
        variant_session(proto, tested, **how) as cut,
        observed_session(tested, found, **how) as whole,
    ):
        own = {i.name for i in cut.get_inputs()}

        def run(batch: Batch) -> tuple[Values, Values, Values]:
            expected = dict(zip(names, run_batch(plain, names, batch), strict=True))
            for p in points:
                assert p.order is not None
                expected[p.expected] = np.asarray(p.order(expected[p.expected]), order="C")
            free = dict(zip(found, run_batch(whole, found, batch), strict=True))
            for name, other in zip(names, found, strict=True):
                if dimensions(expected[name]) != dimensions(free[other]):
                    raise ConfigError(
                        f"tensor {name} is {dimensions(expected[name])} in {reference.name} and "
                        f"{dimensions(free[other])} in {tested.name}: was one lowered from the other?"
                    )
            feeds = {**batch.feeds, **{fed_names[p.found]: expected[p.expected] for p in points}}
            forced = Batch({n: v for n, v in feeds.items() if n in own}, batch.labels, batch.count, batch.names)
            return expected, dict(zip(found, run_batch(cut, found, forced), strict=True)), free

        yield run


class _Layer:
    """Differences of one layer, summed over batches."""

    def __init__(self, point: ComparedTensor, tested: Model) -> None:
        self.point = point
        self.node = producer(tested.graph.tensors()[point.found])
        scale = None if point.order is None else 1.0
        self.fed, self.free = StepTally(scale), StepTally(scale)

    def add(self, expected: Values, fed: Values, free: Values, batch: Batch) -> None:
        """Add one batch."""
        known = real_part(expected[self.point.expected], batch)
        self.fed.add(known, real_part(fed[self.point.found], batch))
        self.free.add(known, real_part(free[self.point.found], batch))

    def result(self) -> LayerDifference:
        """The layer's row."""
        name, op = (self.node.name, self.node.op) if self.node is not None else ("", "input")
        return LayerDifference(
            name,
            op,
            self.point.expected,
            self.point.order is not None,
            self.fed.max_lsb,
            self.fed.differ,
            self.fed.elements,
            self.free.max_lsb,
            self.free.share,
        )


class _Output:
    """Distance of one float output, summed over batches."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sums = ErrorSums()
        self.samples = self.agree = 0
        self.scores: Scores | None = None

    def add(self, expected: NDArray, found: NDArray, count: int) -> None:
        """Add one batch of `count` samples."""
        self.sums.add(expected, found)
        if not self.samples:
            self.scores = Scores.choose({self.name: expected.shape}, count)
        self.samples += count
        if self.scores is not None:
            tops = [top_classes(self.scores.rows(v, count)) for v in (expected, found)]
            self.agree += int(np.count_nonzero(tops[0] == tops[1]))

    def result(self) -> OutputDifference:
        """The output's row."""
        found = distance(self.sums)
        agreement = self.agree / self.samples if self.scores is not None else None
        return OutputDifference(found.sqnr_db, found.max_abs_error, agreement)
