"""Passes read the list of nodes a fixed number of times, not once for each node that they remove."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx_graphsurgeon as gs
import pytest

from onnxq import pipeline
from onnxq.context import PassContext
from onnxq.passes.eliminate_identity import EliminateIdentity
from onnxq.passes.fold_batchnorm import FoldBatchNorm
from onnxq.passes.fold_channel_affine import FoldChannelAffine
from onnxq.passes.fold_constants import FoldConstants
from onnxq.passes.strip_qdq import StripQdq
from onnxq.pipeline import Pass
from support.build import floating

AFFINE = "float[2] one = {1, 2}, float[2] zero = {0, 1}"
CHAINS = {
    "eliminate-identity": (EliminateIdentity(), "", "v{j} = Identity(v{i}) w{j} = Relu(v{j})", 1),
    "in a body": (EliminateIdentity(), "", "v{j} = Identity(v{i}) w{j} = Relu(v{j})", 1),
    "fold-constants": (FoldConstants(), "int64[1] k = {1}", "s{j} = Shape(v{i}) v{j} = Reshape(v{i}, s{j})", 1),
    "constants alone": (FoldConstants(), "float[1,2] k = {1, 2}", "s{j} = Neg(k) v{j} = Add(v{i}, s{j})", 1),
    "fold-batchnorm": (
        FoldBatchNorm(),
        AFFINE,
        "r{j} = Relu(v{i}) v{j} = BatchNormalization(r{j}, one, zero, zero, one)",
        1,
    ),
    "fold-channel-affine": (FoldChannelAffine(), AFFINE, "a{j} = Mul(v{i}, one) b{j} = Add(a{j}, zero) "
        "c{j} = Mul(b{j}, one) d{j} = Add(c{j}, zero) v{j} = Relu(d{j})", 2),
    "strip-qdq": (StripQdq(), "float s = {0.1}, uint8 z = {3}",
        "q{j} = QuantizeLinear(v{i}, s, z) v{j} = DequantizeLinear(q{j}, s, z)", 1),
}  # fmt: skip


class Counted(list[gs.Node]):
    """A list of nodes that counts how often it is read from its start."""

    reads = 0

    def __iter__(self) -> Iterator[Any]:
        self.reads += 1
        return super().__iter__()


def reads(name: str, length: int) -> int:
    """How often the pass reads the nodes of a chain of so many links; it must change each."""
    step, constants, link, changes = CHAINS[name]
    links = " ".join(link.format(i=i, j=i + 1) for i in range(length))
    if name == "in a body":
        body = f"b () => (float[1,2] o) {{ v0 = Relu(x) {links} o = Neg(v{length}) }}"
        other = "e () => (float[1,2] p) { p = Neg(x) }"
        text = (
            f"g (float[1,2] x, bool c) => (float[1,2] y) {{ y = If(c) <then_branch = {body}, else_branch = {other}> }}"
        )
    else:
        values = f"<{constants}>" if constants else ""
        text = f"g (float[1,2] v0) => (float[1,2] y) {values} {{ {links} y = Neg(v{length}) }}"
    model = floating.model(text)
    graph = model.graph.nodes[0].attrs["then_branch"] if name == "in a body" else model.graph
    graph.nodes = nodes = Counted(graph.nodes)
    (report,) = pipeline.run(model, (step,), PassContext(model))
    assert isinstance(step, Pass)
    assert report.changed >= changes * length
    assert graph.nodes is nodes
    return nodes.reads


@pytest.mark.parametrize("name", CHAINS)
def test_reads_do_not_grow_with_the_nodes(name: str) -> None:
    assert reads(name, 60) <= reads(name, 6) + 5
