"""State of a graph being lowered: the integers of each float tensor, and why a node stays float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxq.graph import marks
from onnxq.graph.identity import IdentityMap, IdentitySet
from onnxq.graph.match import consumers, producer, sole_consumer
from onnxq.graph.refusal import RefusedError
from onnxq.lowering.emitter import Emitter
from onnxq.lowering.integers import EIGHT_BIT, Integers
from onnxq.numeric.dyadic import Form


@dataclass(frozen=True)
class Function:
    """A real function of one 8-bit tensor: reals[i] belongs to code type_min + i, float64 [256]."""

    source: Integers
    reals: NDArray[np.float64]


class Work(Emitter):
    """State of one run over a graph.

    form: of the multipliers. values: float tensor → the integers that represent it. functions: likewise for deferred
    tables. limits: integer tensor → smallest and largest code. reasons: node → why it stays float. weights: id of the
    source and layout → stored constant. tensors: the original ones. float_biases: the largest error of each bias that
    was stored as floats, in steps of the layer's result.
    """

    def __init__(self, graph: gs.Graph, form: Form = "auto") -> None:
        super().__init__(graph)
        self.form: Form = form
        self.values: IdentityMap[gs.Tensor, Integers] = IdentityMap()
        self.functions: IdentityMap[gs.Tensor, Function] = IdentityMap()
        self.limits: IdentityMap[gs.Tensor, tuple[int, int]] = IdentityMap()
        self.reasons: IdentityMap[gs.Node, str] = IdentityMap()
        self.float_biases: list[float] = []
        self.weights: dict[tuple[int, str], gs.Constant] = {}
        self.tensors = list(IdentitySet(t for n in graph.nodes for t in (*n.inputs, *n.outputs)))
        self._made: IdentitySet[gs.Tensor] = IdentitySet()
        self._top = IdentitySet(graph.nodes)

    def variable(self, base: str, dtype: str, shape: Sequence | None) -> gs.Variable:
        """A new tensor whose name may still change."""
        made = super().variable(base, dtype, shape)
        self._made.add(made)
        return made

    def sole_reader(self, tensor: gs.Tensor) -> gs.Node | None:
        """The only node that reads the tensor, if there is one directly in this graph, not in a subgraph."""
        node = sole_consumer(tensor, self.outputs)
        return node if node is not None and self.at_top(node) else None

    def at_top(self, node: gs.Node) -> bool:
        """Whether a node of the model is directly in this graph, not in a subgraph."""
        return node in self._top

    def integers(self, tensor: gs.Tensor, what: str = "its input") -> Integers:
        """The integers of an operand, of 8 bits or wide. Raises RefusedError."""
        found = self.values.get(tensor)
        if found is None:
            if tensor in self.functions:
                raise RefusedError(f"{what} {tensor.name} has no QuantizeLinear after the function that produces it")
            raise RefusedError(f"{what} {tensor.name} is not quantized")
        if found.tensor.shape is None and tensor.shape is None:
            raise RefusedError(f"the rank of {what} {tensor.name} is unknown")  # onnxruntime would assume 0
        return found

    def codes(self, tensor: gs.Tensor, what: str = "its input") -> Integers:
        """The integers of an operand that must be 8-bit codes with one scale. Raises RefusedError."""
        found = self.integers(tensor, what)
        if found.type not in EIGHT_BIT:
            raise RefusedError(f"{what} {tensor.name} is not quantized to 8 bits: no QuantizeLinear precedes it")
        if found.axis is not None:
            raise RefusedError(f"{what} {tensor.name} has per-channel scales")
        return found

    def define(self, tensor: gs.Tensor, value: Integers) -> None:
        """Record that these integers represent the float tensor."""
        self.values[tensor] = value
        self.limits[value.tensor] = (int(np.min(value.low)), int(np.max(value.high)))

    def adopt(self, value: Integers, result: gs.Tensor) -> None:
        """Make the producer of value.tensor produce `result` instead, which keeps its name; readers follow."""
        old = value.tensor
        maker = producer(old)
        assert maker is not None
        slot = next(i for i, t in enumerate(maker.outputs) if t is old)
        for reader in consumers(old):
            for i, t in enumerate(reader.inputs):
                if t is old:
                    reader.inputs[i] = result
        maker.outputs[slot] = result
        if old.name in self.results:
            marks.STANDS_FOR.set(self.results[old.name], result.name)
        if old in self.images:
            self.images[result] = self.images.pop(old)
        if result.shape is None:
            result.shape = old.shape
        self._made.discard(old)
        for other in self.values.values():
            if other.tensor is old:
                other.tensor = result

    def anonymous(self, tensor: gs.Tensor) -> bool:
        """Whether the tensor was created here and may be renamed."""
        return tensor in self._made

    def forms(self) -> Counter[str]:
        """Number of new nodes with multipliers of each form."""
        found = (marks.RESCALE.get(n) for n in self.graph.nodes)
        return Counter(form for form in found if form)
