"""Two models on the same batches: tensors of the float model paired with their counterparts, group by group."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from onnxq.data.source import Batch
from onnxq.execution.cuts import cut_model
from onnxq.execution.inner_tensors import Fetcher, known_bytes, output_info, real_part, run_batch
from onnxq.execution.sessions import observed_session, variant_session
from onnxq.graph.model import Model
from onnxq.graph.randomness import draws
from onnxq.measure.counterparts import Counterpart

# {tensor of the float model: (its values, those of its counterpart)}: as many tensors as fit in memory.
Group = dict[str, tuple[NDArray, NDArray]]
Run = Callable[[Batch], Iterator[Group]]


@contextlib.contextmanager
def lockstep_run(reference: Model, tested: Model, matched: Mapping[str, Counterpart], threads: int) -> Iterator[Run]:
    """Both models run end to end on the same inputs, without onnxruntime's optimizations."""
    fed = {t.name for t in reference.graph.inputs}
    inner = [n for n in matched if n not in fed]
    how = {"threads": threads, "optimize": False}
    random = draws(reference.graph)  # then all values of a batch must come from one run
    with (
        observed_session(reference, inner, **how) as first,
        observed_session(tested, [t.tensor for t in matched.values()], **how) as second,
    ):
        fetcher = Fetcher(first, inner, known=known_bytes(reference, inner))

        def run(batch: Batch) -> Iterator[Group]:
            inputs = [n for n in matched if n in fed]
            if random:
                values = {n: batch.feeds[n] for n in inputs} | fetcher.fetch(inner, batch)
                yield _pairs(values, second, {n: t.tensor for n, t in matched.items()}, batch, batch)
                return
            for group in [*([inputs] if inputs else []), *fetcher.groups(batch.count)]:
                expected = {n: batch.feeds[n] for n in group} if group is inputs else fetcher.fetch(group, batch)
                yield _pairs(expected, second, {n: matched[n].tensor for n in group}, batch, batch)

        yield run


@contextlib.contextmanager
def isolated_run(
    reference: Model,
    tested: Model,
    matched: Mapping[str, Counterpart],
    threads: int,
    only: Collection[str] | None = None,
) -> Iterator[Run]:
    """The quantized model is fed the float model's values at every matched QuantizeLinear: isolates layers' errors.

    only: the tensors of the float model to yield; None for all.
    """
    proto, cuts = cut_model(tested, {t.quantize.name for t in matched.values() if t.quantize is not None})
    by_node = {id(c.quantize): c for c in cuts}
    fed = {n: by_node[id(t.quantize)].fed for n, t in matched.items() if t.quantize is not None}
    measured = {
        n: by_node[id(t.quantize)].measured if t.quantize is not None else t.tensor
        for n, t in matched.items()
        if only is None or n in only
    }
    present = {o.name for o in proto.graph.output}
    tensors = tested.graph.tensors()
    proto.graph.output.extend(
        output_info(tensors[name]) for name in dict.fromkeys(measured.values()) if name not in present
    )
    inputs = {t.name for t in reference.graph.inputs}
    names = [n for n in measured if n not in inputs]
    feed_names = [n for n in fed if n not in inputs]
    how = {"threads": threads, "optimize": False}
    random = draws(reference.graph)
    seen = list(dict.fromkeys([*names, *feed_names]))
    with observed_session(reference, seen, **how) as first, variant_session(proto, tested, **how) as second:
        fetcher = Fetcher(first, names, known=known_bytes(reference, names))

        def run(batch: Batch) -> Iterator[Group]:
            wanted = seen if random else feed_names
            values = dict(zip(wanted, run_batch(first, wanted, batch), strict=True)) if wanted else {}
            feeds = {**batch.feeds, **{fed[n]: values[n] for n in feed_names}}
            forced = Batch(feeds, batch.labels, batch.count, batch.names)
            for group in [names] if random else fetcher.groups(batch.count):
                more = [n for n in group if n not in values]
                expected = values | (fetcher.fetch(more, batch) if more else {})
                yield _pairs(expected, second, {n: measured[n] for n in group}, forced, batch)

        yield run


def _pairs(
    expected: Mapping[str, NDArray], session: Any, tensors: Mapping[str, str], feeds: Batch, batch: Batch
) -> Group:
    """Expected values paired with the session's. tensors: {name in `expected`: the session's tensor}."""
    found = run_batch(session, list(tensors.values()), feeds)
    return {n: (real_part(expected[n], batch), real_part(v, batch)) for n, v in zip(tensors, found, strict=True)}
