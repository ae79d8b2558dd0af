"""New nodes and tensors in a graph under rewriting, each inserted at the position of the node it is lowered from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.graph import marks
from onnxq.graph.identity import IdentityMap, IdentitySet
from onnxq.graph.match import Names, output_ids, unlink
from onnxq.lowering.rescale import Rescale
from onnxq.operators import DOMAIN


class Emitter:
    """Collects new nodes at the position of `current`; `finish` inserts them into the graph.

    names: source of fresh names. outputs: match.output_ids. taken: nodes to be removed. lowered: number of new nodes.
    images: tensor → its channels-last copy.
    """

    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph
        self.names = Names(graph)
        self.outputs = output_ids(graph)
        self.current: gs.Node | None = None
        self.taken: IdentitySet[gs.Node] = IdentitySet()
        self.images: IdentityMap[gs.Tensor, gs.Tensor] = IdentityMap()
        self.lowered = 0
        self.results: dict[str, gs.Node] = {}  # by the tensor that they compute
        self._new: IdentityMap[gs.Node | None, list[gs.Node]] = IdentityMap()
        self._released: set[str] = set()

    def take(self, *nodes: gs.Node) -> None:
        """Mark these nodes as covered by the nodes being emitted: they are removed from the graph."""
        for node in nodes:
            self.taken.add(node)
            unlink(node)

    def variable(self, base: str, dtype: str, shape: Sequence | None) -> gs.Variable:
        """A new tensor."""
        return gs.Variable(self.names.fresh(base), np.dtype(dtype), None if shape is None else list(shape))

    def constant(self, base: str, values: NDArray) -> gs.Constant:
        """A new constant."""
        return gs.Constant(self.names.fresh(base), np.asarray(values))

    def node(
        self,
        op: str,
        inputs: Sequence[gs.Tensor],
        outputs: Sequence[gs.Tensor],
        attrs: Mapping[str, object] | None = None,
        *,
        name: str = "",
        domain: str | None = None,
    ) -> gs.Node:
        """A new node at the position of the one being lowered."""
        made = gs.Node(
            op, self.names.fresh(name or f"{outputs[0].name}_{op}"), dict(attrs or {}), list(inputs), list(outputs)
        )
        made.domain = domain
        made.metadata = {}
        made.doc_string = ""
        self._new.setdefault(self.current, []).append(made)
        return made

    def own(
        self,
        op: str,
        inputs: Sequence[gs.Tensor],
        output: gs.Tensor,
        attrs: Mapping[str, object],
        sources: Iterable[gs.Node | str],
        rescale: Rescale | None = None,
        result: gs.Tensor | None = None,
        name: str = "",
    ) -> gs.Node:
        """A new operator of com.onnxq, named after the first of its source nodes, or `name`.

        result: the tensor whose values it computes, where that is not `output` (another layout).
        """
        names = tuple(dict.fromkeys(s if isinstance(s, str) else s.name for s in sources))
        if not name:
            self._release(names[0])
        made = self.node(op, inputs, [output], attrs, name=name or names[0], domain=DOMAIN)
        self._mark(made, names, output if result is None else result)
        if rescale is not None:
            marks.RESCALE.set(made, rescale.form)
        return made

    def vectors(self, base: str, rescale: Rescale, prefixes: Sequence[str] = ("",)) -> list[gs.Constant]:
        """The multipliers (one per prefix) and the shift of a rescale, as constants."""
        found = [
            self.constant(f"{base}_{prefix}multiplier", values)
            for prefix, values in zip(prefixes, rescale.multipliers, strict=True)
        ]
        return [*found, self.constant(f"{base}_shift", rescale.shift)]

    def replacement(
        self, op: str, inputs: Sequence[gs.Tensor], outputs: Sequence[gs.Tensor], attrs: Mapping[str, object], name: str
    ) -> gs.Node:
        """A standard operator on integers that replaces the one of this name on floats."""
        self._release(name)
        made = self.node(op, inputs, outputs, attrs, name=name)
        self._mark(made, (name,), outputs[0])
        return made

    def _mark(self, node: gs.Node, sources: tuple[str, ...], result: gs.Tensor) -> None:
        """Record on an integer operator its source nodes and the tensor that it computes."""
        marks.SOURCES.set(node, sources)
        marks.STANDS_FOR.set(node, result.name)
        self.results[result.name] = node
        self.lowered += 1

    def _release(self, name: str) -> None:
        """The first new node inherits the name of its source node."""
        if name not in self._released:
            self._released.add(name)
            self.names.taken.discard(name)

    def finish(self) -> None:
        """Insert the new nodes into the graph, each at the position of its source node."""
        nodes: list[gs.Node] = []
        for node in self.graph.nodes:
            nodes += self._new.pop(node, [])
            if node not in self.taken:
                nodes.append(node)
        for rest in self._new.values():
            nodes += rest
        self.graph.nodes[:] = nodes
