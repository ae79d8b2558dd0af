"""The graph while it is lowered: what each float tensor is in integers, the new nodes, and why a node stays float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.lowering.rescale import Rescale
from onnxq.lowering.values import EIGHT_BIT, Integers, RefusedError
from onnxq.match import Names, consumers, output_ids, producer, unlink
from onnxq.numeric.dyadic import Form
from onnxq.ops import DOMAIN

SOURCE = "onnxq.source"  # metadata: the nodes of the QDQ model that a node comes from, separated by spaces
RESULT = "onnxq.tensor"  # metadata: the tensor of the QDQ model that the node's result stands for
RESCALE = "onnxq.rescale"  # metadata: the form of its multipliers, "fixed" or "general"


@dataclass(frozen=True)
class Function:
    """A real function of one 8-bit tensor: reals[i] belongs to code type_min + i, float64 [256]."""

    source: Integers
    reals: NDArray[np.float64]


@dataclass
class Work:
    """State of one run over a graph.

    values: float tensor (by id) → the integers that stand for it. functions: likewise, where a table will.
    limits: integer tensor (by id) → smallest and largest code.
    taken: ids of nodes that went into new ones. reasons: node (by id) → why it stays float.
    """

    graph: gs.Graph
    form: Form = "auto"
    values: dict[int, Integers] = field(default_factory=dict)
    functions: dict[int, Function] = field(default_factory=dict)
    limits: dict[int, tuple[int, int]] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)
    reasons: dict[int, str] = field(default_factory=dict)
    forms: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    lowered: int = 0

    def __post_init__(self) -> None:
        self.names = Names(self.graph)
        self.outputs = output_ids(self.graph)
        self.current: gs.Node | None = None
        self._new: dict[int, list[gs.Node]] = {}
        self._released: set[str] = set()
        self._made: dict[int, gs.Tensor] = {}  # by id; held, so that ids stay theirs
        self._results: dict[str, gs.Node] = {}
        self.images: dict[int, gs.Tensor] = {}  # tensor (by id) → its channels-last twin
        self.weights: dict[tuple[int, str], gs.Constant] = {}  # source and layout → what is stored
        # Tensors that were there before, by id: they live as long as this, so ids stay theirs.
        self.tensors = [t for n in self.graph.nodes for t in (*n.inputs, *n.outputs)]

    # What a node reads

    def integers(self, tensor: gs.Tensor, what: str = "its input") -> Integers:
        """The integers of an operand, of 8 bits or wide. Raises RefusedError."""
        found = self.values.get(id(tensor))
        if found is None:
            if id(tensor) in self.functions:
                raise RefusedError(f"{what} {tensor.name} has no QuantizeLinear behind the function that makes it")
            raise RefusedError(f"{what} {tensor.name} is not quantized")
        return found

    def codes(self, tensor: gs.Tensor, what: str = "its input") -> Integers:
        """The integers of an operand that must be 8-bit codes of one scale. Raises RefusedError."""
        found = self.integers(tensor, what)
        if found.type not in EIGHT_BIT:
            raise RefusedError(f"{what} {tensor.name} is not quantized to 8 bits: it has no QuantizeLinear of its own")
        if found.axis is not None:
            raise RefusedError(f"{what} {tensor.name} has a scale for each channel")
        return found

    # What is made

    def take(self, *nodes: gs.Node) -> None:
        """These nodes are part of what is emitted now: they leave the graph."""
        for node in nodes:
            self.taken.add(id(node))
            unlink(node)

    def variable(self, base: str, dtype: str, shape: Sequence | None) -> gs.Variable:
        """A new tensor."""
        made = gs.Variable(self.names.fresh(base), np.dtype(dtype), None if shape is None else list(shape))
        self._made[id(made)] = made
        return made

    def constant(self, base: str, values: NDArray) -> gs.Constant:
        """A new constant."""
        return gs.Constant(self.names.fresh(base), values)

    def node(
        self,
        op: str,
        inputs: Sequence[gs.Tensor],
        outputs: Sequence[gs.Tensor],
        attrs: Mapping[str, object] | None = None,
        *,
        name: str = "",
        domain: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> gs.Node:
        """A new node at the place of the one that is being lowered."""
        made = gs.Node(
            op, self.names.fresh(name or f"{outputs[0].name}_{op}"), dict(attrs or {}), list(inputs), list(outputs)
        )
        made.domain = domain
        made.metadata = dict(metadata or {})
        made.doc_string = ""
        self._new.setdefault(id(self.current), []).append(made)
        if RESULT in made.metadata:
            self._results[made.metadata[RESULT]] = made
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
    ) -> gs.Node:
        """A new operator of com.onnxq, called like the first of the nodes it comes from.

        result: the tensor whose values it computes, where that is not `output` (another layout).
        """
        names = list(dict.fromkeys(s if isinstance(s, str) else s.name for s in sources))
        metadata = {SOURCE: " ".join(names), RESULT: (result if result is not None else output).name}
        if rescale is not None:
            metadata[RESCALE] = rescale.form
            self.forms[rescale.form] += 1
        self.lowered += 1
        self._release(names[0])
        return self.node(op, inputs, [output], attrs, name=names[0], domain=DOMAIN, metadata=metadata)

    def vectors(self, base: str, rescale: Rescale, prefixes: Sequence[str] = ("",)) -> list[gs.Constant]:
        """The multipliers, one for each prefix, and the shift of a rescale as constants."""
        found = [
            self.constant(f"{base}_{prefix}multiplier", values)
            for prefix, values in zip(prefixes, rescale.multipliers, strict=True)
        ]
        return [*found, self.constant(f"{base}_shift", rescale.shift)]

    def replacement(
        self, op: str, inputs: Sequence[gs.Tensor], outputs: Sequence[gs.Tensor], attrs: Mapping[str, object], name: str
    ) -> gs.Node:
        """A standard operator on integers in place of the one of this name on floats."""
        self._release(name)
        self.lowered += 1
        return self.node(op, inputs, outputs, attrs, name=name, metadata={SOURCE: name, RESULT: outputs[0].name})

    def _release(self, name: str) -> None:
        """The first new node takes over the name of the one that it comes from."""
        if name not in self._released:
            self._released.add(name)
            self.names.taken.discard(name)

    # Who is what

    def define(self, tensor: gs.Tensor, value: Integers) -> None:
        """From now on the float tensor is these integers."""
        self.values[id(tensor)] = value
        self.limits[id(value.tensor)] = (int(np.min(value.low)), int(np.max(value.high)))

    def adopt(self, value: Integers, result: gs.Tensor) -> None:
        """Let the node that makes value.tensor make `result` instead, which keeps its name; readers follow."""
        old = value.tensor
        maker = producer(old)
        assert maker is not None
        slot = next(i for i, t in enumerate(maker.outputs) if t is old)
        for reader in consumers(old):
            for i, t in enumerate(reader.inputs):
                if t is old:
                    reader.inputs[i] = result
        maker.outputs[slot] = result
        if old.name in self._results:
            self._results[old.name].metadata[RESULT] = result.name
        if id(old) in self.images:
            self.images[id(result)] = self.images.pop(id(old))
        if result.shape is None:
            result.shape = old.shape
        self._made.pop(id(old))
        for other in self.values.values():
            if other.tensor is old:
                other.tensor = result

    def anonymous(self, tensor: gs.Tensor) -> bool:
        """Whether the tensor was made here and may change its name."""
        return id(tensor) in self._made

    def finish(self) -> None:
        """Write the new nodes into the graph, each at the place of the node it comes from."""
        nodes: list[gs.Node] = []
        for node in self.graph.nodes:
            nodes += self._new.pop(id(node), [])
            if id(node) not in self.taken:
                nodes.append(node)
        for rest in self._new.values():
            nodes += rest
        self.graph.nodes[:] = nodes
