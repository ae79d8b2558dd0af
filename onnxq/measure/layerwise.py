"""Does the integer model compute what the QDQ model says? Layer by layer, then as a whole.

The reference is the QDQ model without onnxruntime's optimizations: the codes that every QuantizeLinear makes. Tensors
of those names in the integer model are compared with them twice:

fed    each layer computes from the QDQ model's own codes (the integer model is cut at every such tensor), so that no
       error travels. Bound: at most 1 step in at most 0.1 % of the elements.
drift  the integer model runs on its own. Reported, not bounded: a step more or less early on moves all behind it.

A tensor may be kept in another order of dimensions than its name says (pass layout-nhwc): metadata of the node that
makes it tells, and the reference is put in that order.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.data.source import Batch, DataSource, InputSpec, batches, input_specs, open_data
from onnxq.errors import ConfigError, DataError
from onnxq.execution import runtime
from onnxq.execution.inner_tensors import observed_model, real_part, run_batch
from onnxq.execution.isolate import cut_tensors
from onnxq.execution.save import model_dir, runnable
from onnxq.graph.match import is_constant, producer
from onnxq.graph.model import Model, load
from onnxq.graph.protos import OWN_DOMAIN
from onnxq.graph.qdq import dequantizer, entry, is_quantize
from onnxq.layout.perms import from_text
from onnxq.layout.reshape import FLATTENED, LAYOUT
from onnxq.measure.accuracy import distance, plain
from onnxq.measure.code_steps import StepTally
from onnxq.numeric.classification import Scores, top_classes
from onnxq.numeric.metrics import ErrorSums

MAX_LSB, MAX_SHARE = 1, 1e-3  # design.md, section 3
CODES = ("uint8", "int8", "uint16", "int16")

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class LayerDifference:
    """One layer of the integer model: what ends at a quantized tensor of the QDQ model, or at a float output.

    layer, op: the node that makes it. max_lsb: largest difference in steps when fed the QDQ model's codes; differ: of
    how many of the `elements`. drift_lsb, drift_share: likewise when the model runs on its own. Steps of a float output
    (quantized is False) are 1/127 of its largest magnitude.
    """

    layer: str
    op: str
    tensor: str
    quantized: bool
    max_lsb: float
    differ: int
    elements: int
    drift_lsb: float
    drift_share: float

    @property
    def share(self) -> float:
        """Elements that differ when fed, of all."""
        return self.differ / self.elements if self.elements else 0.0

    @property
    def within(self) -> bool:
        """Whether the layer keeps the bound. Below 1000 elements one may differ: 0.1 % of them is less than one."""
        return self.max_lsb <= MAX_LSB and self.differ <= math.ceil(MAX_SHARE * self.elements)


@dataclass(frozen=True)
class OutputDifference:
    """A float output of the two models, each on its own. sqnr_db: as in accuracy.OutputDistance, None when equal.

    agreement: share of samples with the same top class; None where there is no one score for each class.
    """

    sqnr_db: float | None
    max_abs_error: float
    agreement: float | None


@dataclass(frozen=True)
class Verification:
    """layers: worst first. missing: quantized tensors that the integer model does not have. kernels: the tier that ran,
    None for function bodies."""

    qdq_model: str
    integer_model: str
    samples: int
    kernels: str | None
    layers: tuple[LayerDifference, ...]
    outputs: Mapping[str, OutputDifference]
    missing: tuple[str, ...]

    @property
    def beyond(self) -> tuple[LayerDifference, ...]:
        """Layers that do not keep the bound."""
        return tuple(layer for layer in self.layers if not layer.within)

    @property
    def ok(self) -> bool:
        """Whether every layer keeps the bound."""
        return not self.beyond

    def to_dict(self) -> dict[str, Any]:
        """JSON types only; numbers that JSON has no word for (infinite, not a number) are None."""
        rows = [asdict(layer) | {"share": layer.share, "within": layer.within} for layer in self.layers]
        return plain(asdict(self) | {"ok": self.ok, "layers": rows, "missing": list(self.missing)})

    def to_csv(self) -> str:
        """The layers as CSV, worst first, with a heading."""
        out = io.StringIO()
        rows = self.to_dict()["layers"]
        writer = csv.DictWriter(out, list(rows[0]) if rows else ["layer"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()


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
    progress: Progress | None = None,
) -> Verification:
    """Compare an integer model with the QDQ model that it was lowered from.

    data: an open DataSource, or whatever open_data takes (with preprocess and limit). bodies: run the integer model on
    its function bodies even when the kernel library is there. Memory: the codes of one batch, three times.
    Raises ConfigError when the models do not belong together, DataError for samples that do not fit.
    """
    reference, tested = load(qdq), load(integer)
    inputs = _inputs(reference, tested)
    points, missing = _points(reference, tested)
    source = data if isinstance(data, DataSource) else open_data(data, inputs, preprocess=preprocess, limit=limit)
    layers = [_Layer(p, tested) for p in points]
    outputs = {t.name: _Output(t.name) for t in tested.graph.outputs if _is_float(t)}
    layers += [_Layer(_Point(n, n, None), tested) for n in outputs if not _is_dequantized(reference, n, points)]
    done, total = 0, source.count()
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(_opened(reference, tested, points, list(outputs), threads, bodies))
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
        raise DataError("the data to verify on has no samples")
    rows = sorted((layer.result() for layer in layers), key=lambda r: (r.within, -r.max_lsb, -r.share, -r.drift_lsb))
    tier = runtime.kernel_isa() if not bodies and runtime.has_library() else None
    return Verification(
        reference.name,
        tested.name,
        done,
        tier,
        tuple(rows),
        {name: output.result() for name, output in outputs.items()},
        missing,
    )


@dataclass(frozen=True)
class _Point:
    """A tensor to compare. expected: its name in the QDQ model, found: in the integer model.

    order: puts the QDQ model's tensor in the order that the integer model keeps it in; None for a float output, which
    is not fed.
    """

    expected: str
    found: str
    order: Callable[[NDArray], NDArray] | None


def _inputs(reference: Model, tested: Model) -> tuple[InputSpec, ...]:
    own, other = input_specs(reference.graph), input_specs(tested.graph)
    if {s.name: (s.shape, s.dtype) for s in own} != {s.name: (s.shape, s.dtype) for s in other}:
        told = " and ".join(", ".join(f"{s.name}: {s}" for s in specs) for specs in (own, other))
        raise ConfigError(f"{reference.name} and {tested.name} do not take the same inputs ({told})")
    return own


def _points(reference: Model, tested: Model) -> tuple[list[_Point], tuple[str, ...]]:
    """Every quantized activation of the QDQ model that the integer model has under its name, and those it lacks."""
    if any(n.domain == OWN_DOMAIN for n in reference.graph.nodes):
        raise ConfigError(
            f"{reference.name} is an integer model already; the QDQ model comes first, the one lowered from it second"
        )
    makers = {t.name: n for n in tested.graph.nodes for t in n.outputs}
    points, missing = [], []
    for node in reference.graph.nodes:
        if not is_quantize(node) or is_constant(entry(node)):
            continue
        tensor = node.outputs[0]
        maker = makers.get(tensor.name)
        if maker is None or _type(tensor) not in CODES:
            missing.append(tensor.name)
            continue
        found = next(t for t in maker.outputs if t.name == tensor.name)
        if _type(found) != _type(tensor):
            raise ConfigError(
                f"tensor {tensor.name} is {_type(tensor)} in {reference.name} and {_type(found)} in {tested.name}: was "
                "the one lowered from the other?"
            )
        points.append(_Point(tensor.name, tensor.name, _order(maker)))
    if not points:
        raise ConfigError(
            f"{tested.name} has no quantized tensor of {reference.name}: was it lowered from this file (onnxq lower)?"
        )
    return points, tuple(missing)


def _type(tensor: gs.Tensor) -> str:
    return "" if tensor.dtype is None or isinstance(tensor.dtype, int) else np.dtype(tensor.dtype).name


def _order(maker: gs.Node) -> Callable[[NDArray], NDArray]:
    """From the order that the tensor's name stands for to the one that the node makes it in."""
    metadata = getattr(maker, "metadata", {})
    if LAYOUT in metadata:
        perm = from_text(metadata[LAYOUT])
        return lambda values: values.transpose(perm)
    if FLATTENED in metadata:
        sizes, order = (tuple(map(int, part.split(","))) for part in metadata[FLATTENED].split("|"))
        return lambda values: _reordered(values, sizes, order)
    return lambda values: values


def _reordered(values: NDArray, sizes: tuple[int, ...], order: tuple[int, ...]) -> NDArray:
    lead = values.shape[:-1]
    axes = (*range(len(lead)), *(len(lead) + axis for axis in order))
    return values.reshape(*lead, *sizes).transpose(axes).reshape(values.shape)


def _is_float(tensor: gs.Tensor) -> bool:
    return _type(tensor).startswith(("float", "bfloat"))


def _is_dequantized(reference: Model, name: str, points: list[_Point]) -> bool:
    """Whether an output is only the codes of a tensor that is compared already."""
    tensor = next((t for t in reference.graph.outputs if t.name == name), None)
    node = None if tensor is None else dequantizer(tensor)
    return node is not None and any(p.expected == node.inputs[0].name for p in points)


Values = Mapping[str, NDArray]


@contextlib.contextmanager
def _opened(
    reference: Model, tested: Model, points: list[_Point], outputs: list[str], threads: int, bodies: bool
) -> Iterator[Callable[[Batch], tuple[Values, Values, Values]]]:
    """A function from a batch to three sets of tensors, by name: of the QDQ model, of the integer model fed with those,
    and of the integer model on its own. The first are in the order of the other two."""
    missing = [n for n in outputs if n not in {t.name for t in reference.graph.outputs}]
    if missing:
        raise ConfigError(f"output {missing[0]} of {tested.name} is no output of {reference.name}")
    names = [*(p.expected for p in points), *outputs]
    found = [*(p.found for p in points), *outputs]
    with contextlib.ExitStack() as stack:

        def session(proto: onnx.ModelProto, model: Model, **how: Any) -> Any:
            return runtime.session(stack.enter_context(runnable(proto, model_dir(model))), threads=threads, **how)

        plain = session(observed_model(reference, names), reference, optimize=False)
        proto, fed_names = cut_tensors(tested, [p.found for p in points])
        cut = session(proto, tested, kernels=not bodies)
        whole = session(observed_model(tested, found), tested, kernels=not bodies)
        own = {i.name for i in cut.get_inputs()}

        def run(batch: Batch) -> tuple[Values, Values, Values]:
            expected = dict(zip(names, run_batch(plain, names, batch), strict=True))
            for p in points:
                assert p.order is not None
                expected[p.expected] = np.ascontiguousarray(p.order(expected[p.expected]))
            free = dict(zip(found, run_batch(whole, found, batch), strict=True))
            for name, other in zip(names, found, strict=True):
                if expected[name].shape != free[other].shape:
                    raise ConfigError(
                        f"tensor {name} is {list(expected[name].shape)} in {reference.name} and "
                        f"{list(free[other].shape)} in {tested.name}: was the one lowered from the other?"
                    )
            feeds = {**batch.feeds, **{fed_names[p.found]: expected[p.expected] for p in points}}
            forced = Batch({n: v for n, v in feeds.items() if n in own}, batch.labels, batch.count, batch.names)
            return expected, dict(zip(found, run_batch(cut, found, forced), strict=True)), free

        yield run


class _Layer:
    """Differences of one layer, summed over batches."""

    def __init__(self, point: _Point, tested: Model) -> None:
        self.point = point
        self.node = producer(tested.graph.tensors()[point.found])
        scale = None if point.order is None else 1.0
        self.fed, self.free = StepTally(scale), StepTally(scale)

    def add(self, expected: Values, fed: Values, free: Values, batch: Batch) -> None:
        """One batch."""
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
        """One batch of `count` samples."""
        self.sums.add(expected, found)
        if not self.samples:
            self.scores = Scores.choose({self.name: expected.shape}, count)
        self.samples += count
        if self.scores is not None:
            tops = [top_classes(self.scores.rows(v, count)) for v in (expected, found)]
            self.agree += int(np.count_nonzero(tops[0] == tops[1]))

    def result(self) -> OutputDifference:
        """The output's figures."""
        found = distance(self.sums)
        agreement = self.agree / self.samples if self.scores is not None else None
        return OutputDifference(found.sqnr_db, found.max_abs_error, agreement)
