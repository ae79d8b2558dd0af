"""The proof that a pass kept what a model computes and that a second run changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.graph.model import Model, load, to_proto
from onnxq.graph.walk import all_graphs
from onnxq.layout.copies import perm_of
from onnxq.pipeline import Pass, PassReport
from support.build import Feed, floating, integers
from support.prove.values import assert_close, constant
from support.runs import run


@dataclass(frozen=True)
class Proof:
    """A model after a pass, and the pass's report."""

    model: Model
    report: PassReport

    @property
    def graph(self) -> gs.Graph:
        return self.model.graph

    @property
    def changed(self) -> int:
        return self.report.changed

    @property
    def ops(self) -> dict[str, int]:
        """Operators, those of subgraphs too, and how many of each."""
        return dict(Counter(n.op for g in all_graphs(self.graph) for n in g.nodes))

    @property
    def transposes(self) -> list[list[int]]:
        """The permutations that are left, in order, ChannelsLast's too."""
        return [list(perm) for n in self.graph.nodes if (perm := perm_of(n)) is not None]

    @property
    def reasons(self) -> dict[str, str]:
        """Why nodes were skipped, by node."""
        return {failure.node: failure.reason for failure in self.report.skipped}

    def node(self, name: str) -> gs.Node:
        """The node of that name, at any depth."""
        return next(n for g in all_graphs(self.graph) for n in g.nodes if n.name == name)

    def values(self, name: str, index: int) -> list[Any]:
        """The values of a node's constant input."""
        return constant(self.node(name).inputs[index]).tolist()


def prove(
    source: Model | onnx.ModelProto | str,
    rewrite: Pass,
    inputs: Sequence[Feed] | None = None,
    tolerance: float = 1e-5,
    **how: Any,
) -> Proof:
    """Of a float model: run the pass in place, show that the outputs stay what they were.

    tolerance: of the largest difference of an output, relative to its largest magnitude. how: see `Kit.proto`.
    """
    tested = floating.model(source, **how) if isinstance(source, str) else load(source)
    given = inputs if inputs is not None else floating.feeds(tested)
    return _proof(tested, rewrite, given, lambda old, new: assert_close(old, new, tolerance))


def prove_exact(source: Model | str, rewrite: Pass, inputs: Sequence[Feed] | None = None, **how: Any) -> Proof:
    """Of an integer graph: run the pass in place, show that every output keeps every bit.

    Names, types and shapes of inputs and outputs must stay, too. how: constants, see `Kit.proto`.
    """
    tested = integers.model(source, **how) if isinstance(source, str) else source
    borders = _borders(tested)
    given = inputs if inputs is not None else integers.feeds(tested)
    proof = _proof(tested, rewrite, given, _assert_equal)
    assert _borders(tested) == borders
    return proof


def _proof(
    tested: Model, rewrite: Pass, inputs: Sequence[Feed], same: Callable[[NDArray[Any], NDArray[Any]], None]
) -> Proof:
    before = [run(tested, feed) for feed in inputs]
    report = pipeline.run(tested, [rewrite], PassContext(tested))[0]
    written = to_proto(tested)
    onnx.checker.check_model(written, full_check=True)
    for feed, old in zip(inputs, before, strict=True):
        new = run(written, feed)
        assert list(new) == list(old)
        for name, value in old.items():
            same(value, new[name])
    again = pipeline.run(tested, [rewrite], PassContext(tested))[0]
    assert again.changed == 0, f"the second run changed {again.changed}"
    return Proof(tested, report)


def _assert_equal(old: NDArray[Any], new: NDArray[Any]) -> None:
    np.testing.assert_array_equal(new, old)
    assert new.dtype == old.dtype


def _borders(model: Model) -> list[tuple[Any, ...]]:
    return [(t.name, t.dtype, t.shape) for t in (*model.graph.inputs, *model.graph.outputs)]
