"""float16 and bfloat16 models computed in float32.

Every tensor, constant and type attribute of the two types becomes float32. These keep their type, with a Cast between:

1. The model's inputs and outputs, unless keep_io is false.
2. Inputs and outputs of operators of other domains: their kernels may exist for that type only.

An existing Cast at such a border is left unchanged. Values change because float32 rounds less.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from onnxq.context import PassContext
from onnxq.graph.identity import IdentityMap, IdentitySet
from onnxq.graph.match import STANDARD_DOMAINS, Names, consumers, is_op, producer, replace_input
from onnxq.graph.shapes import element_type, graph_type, named_type
from onnxq.graph.walk import all_graphs
from onnxq.pipeline import Pass, PassResult

NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
# Attributes that name the type of a result.
TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "output_datatype", "softmax_precision", "stash_type")


@dataclass(frozen=True)
class ConvertFloat32(Pass):
    """Compute a float16 or bfloat16 model in float32.

    keep_io: inputs and outputs keep their types, with a Cast after and before them.
    """

    name: ClassVar[str] = "convert-float32"
    preserves_values: ClassVar[bool] = True
    keep_io: bool = True

    def __post_init__(self) -> None:
        if not self.keep_io:  # the outputs then have another type and cannot be compared
            object.__setattr__(self, "preserves_values", False)

    def apply(self, graph: gs.Graph, ctx: PassContext) -> PassResult:
        narrow = IdentitySet(
            t
            for g in all_graphs(graph)
            for t in (*g.tensors().values(), *g.inputs, *g.outputs)
            if element_type(t) in NARROW
        )
        run = _Run(graph, self.keep_io)
        for tensor in narrow:
            if isinstance(tensor, gs.Constant):
                run.constant(tensor)
            else:
                run.variable(tensor)
        for g in all_graphs(graph):
            for node in g.nodes:
                run.attributes(node)
        return PassResult(run.changed)


class _Run:
    """State of one application."""

    def __init__(self, graph: gs.Graph, keep_io: bool) -> None:
        self.names = Names(graph)
        self.inputs = IdentitySet(graph.inputs if keep_io else ())
        self.outputs = IdentitySet(graph.outputs if keep_io else ())
        made = ((t, g) for g in all_graphs(graph) for t in (*g.inputs, *(t for n in g.nodes for t in n.outputs)))
        self.home = IdentityMap(made)
        self.bodies = [g for g in all_graphs(graph) if g is not graph]
        self.casts: IdentitySet[gs.Node] = IdentitySet()
        self.changed = 0

    def constant(self, tensor: gs.Constant) -> None:
        values = np.asarray(tensor.values)
        free = [n for n in consumers(tensor) if not _foreign(n)]
        if not free:
            return
        wide = gs.Constant(tensor.name, values.astype(np.float32))
        if len(free) < len(consumers(tensor)):
            wide.name = self.names.fresh(f"{tensor.name}_float32")
        for node in free:
            replace_input(node, tensor, wide)
        self.changed += 1

    def variable(self, tensor: gs.Variable) -> None:
        maker, readers = producer(tensor), consumers(tensor)
        fixed = [n for n in readers if _foreign(n)]
        # A Cast reads any type: one that is at the border already needs no other upstream.
        free = [n for n in readers if not _foreign(n) and not is_op(n, "Cast")]
        handed_on = [g for g in self.bodies if any(t is tensor for t in g.outputs)]
        if tensor in self.inputs if maker is None else _foreign(maker):
            if free or handed_on:
                wide = self.cast(tensor, f"{tensor.name}_float32", TensorProto.FLOAT, free)
                for body in handed_on:
                    body.outputs = [wide if t is tensor else t for t in body.outputs]
        elif maker is not None and is_op(maker, "Cast") and not free and (fixed or tensor in self.outputs):
            return  # the border itself
        elif tensor in self.outputs:
            self.cast_to_output(tensor, free)
        else:
            kind = element_type(tensor)
            tensor.dtype = np.dtype(np.float32)
            self.changed += 1
            if fixed:
                self.cast(tensor, f"{tensor.name}_{TensorProto.DataType.Name(kind).lower()}", kind, fixed)

    def cast(self, tensor: gs.Variable, name: str, kind: int, readers: Iterable[gs.Node]) -> gs.Variable:
        """A copy of the tensor in another type, for these readers."""
        copy = gs.Variable(self.names.fresh(name), graph_type(kind), tensor.shape)
        for node in readers:
            replace_input(node, tensor, copy)
        self.add_cast(self.home[tensor], tensor, copy, kind)
        return copy

    def cast_to_output(self, tensor: gs.Variable, free: Iterable[gs.Node]) -> None:
        """Let the producer of an output return a float32 tensor, read by `free`; a Cast computes the output from it."""
        maker, home = tensor.inputs[0], self.home[tensor]
        wide = gs.Variable(self.names.fresh(f"{tensor.name}_float32"), np.dtype(np.float32), tensor.shape)
        for node in free:
            replace_input(node, tensor, wide)
        maker.outputs[next(i for i, t in enumerate(maker.outputs) if t is tensor)] = wide
        self.add_cast(home, wide, tensor, element_type(tensor))

    def add_cast(self, home: gs.Graph, source: gs.Tensor, result: gs.Variable, kind: int) -> None:
        node = gs.Node("Cast", self.names.fresh(f"{source.name}_cast"), {"to": kind}, [source], [result])
        home.nodes.append(node)
        self.home[source] = self.home[result] = home
        self.casts.add(node)
        self.changed += 1

    def attributes(self, node: gs.Node) -> None:
        if _foreign(node) or node in self.casts:
            return
        made = {element_type(t) for t in node.outputs}
        for key, value in node.attrs.items():
            if isinstance(value, gs.Constant) and element_type(value) in NARROW:
                node.attrs[key] = gs.Constant(value.name, np.asarray(value.values).astype(np.float32))
                self.changed += 1
            elif key in TYPE_ATTRIBUTES and named_type(value) in NARROW and not made & set(NARROW):
                node.attrs[key] = TensorProto.FLOAT
                self.changed += 1


def _foreign(node: gs.Node) -> bool:
    """Whether the node's inputs and outputs must keep their types."""
    return node.domain not in STANDARD_DOMAINS
