"""Where a profile wants Q/DQ in a graph, and in which format: analysis only, nothing is edited.

`plan` is used by the calibrate pass (which tensors to observe), insert-qdq (what to insert), check and inspect (what
stays float, and why).

Rules, cited by number in the code:
 1. Every data input of a quantized operator is a quantized edge (its tensor gets Q/DQ, this reader reads the result).
 2. An elementwise sum of two activations follows the profile's graph scheme: 1 none, 2 exactly one input, 3 all.
    Under scheme 2 the residual layer's output enters directly: of the inputs that come straight from a Conv, Gemm or
    MatMul nothing else reads, the one behind most layers (the last in node order if that does not tell). The other
    input, the shortcut, is quantized.
 3. An operator with output = "always" has Q/DQ after it, behind its fused activation, and every reader reads that —
    but not where its only reader is a sum that takes it directly (rule 2).
 4. A passthrough operator whose output must be quantized passes the demand to its inputs, with one scale for both
    sides, if the profile ties passthroughs. Concat likewise: "shared" ties, "per-input" does not.
 5. A tensor is quantized once: the widest width among its readers, one scale, one Q/DQ.
 6. What lies before the first or behind the last layer has the width of the ends, like the inputs of those layers.
 7. What only feeds a Softmax stays float where the target computes that in float; masks and positions computed from
    integers always do (onnxq/patterns/attention.py).
 8. A normalization spelled out in elementary operators is one operator (onnxq/patterns/normalization.py); where the
    target looks codes up, a function of one tensor is too (onnxq/patterns/activations.py).
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxq.graph.axes import LINEAR_OPS
from onnxq.graph.element_types import fill_types
from onnxq.graph.match import (
    STANDARD_DOMAINS,
    MatchFailure,
    constant_values,
    consumers,
    input_at,
    is_constant,
    is_float,
    output_ids,
    producer,
    sole_consumer,
)
from onnxq.graph.walk import all_graphs
from onnxq.patterns.attention import feeds_softmax, float_softmax, from_integers, nan_guard
from onnxq.patterns.composites import Unit, find_units
from onnxq.patterns.nonnegative import is_nonnegative
from onnxq.placement.fitness import BINARY, SUMS, may_stay_float, unfit, unfit_mover
from onnxq.placement.plan import LayerPlan, Placement, Point
from onnxq.placement.settings import QuantSettings
from onnxq.profiles.schema import OpRule, Profile

NO_LAYER_BEHIND = "no layer is behind it, it stays float"


def plan(graph: gs.Graph, profile: Profile, settings: QuantSettings) -> Placement:
    """Decide Q/DQ placement for a graph whose nodes are sorted.

    The graph stays as it is, but for element types that shape inference could not tell.
    Raises ConfigError for bits the profile does not take.
    """
    fill_types(graph)
    return _Planner(graph, profile, settings).run()


def end_nodes(graph: gs.Graph) -> set[int]:
    """ids of the nodes at the ends of the model: no layer lies before them, or none behind."""
    return _without_layer_behind(graph) | {key for key, depth in _layers_before(graph).items() if depth == 0}


class _Planner:
    def __init__(self, graph: gs.Graph, profile: Profile, settings: QuantSettings) -> None:
        self.graph, self.profile, self.settings = graph, profile, settings
        self.outputs = output_ids(graph)
        self.order = {id(n): i for i, n in enumerate(graph.nodes)}
        self.result = Placement(profile)
        self.quantized: set[int] = set()
        self.edges: dict[int, list[tuple[gs.Node, int]]] = {}
        self.tensors: dict[int, gs.Tensor] = {}
        self.whole: set[int] = set()
        self.direct: set[int] = set()  # sums' inputs that enter wide (rule 2)
        self.bias_adds: dict[int, tuple[gs.Node, int]] = {}  # MatMul → the Add of its bias, and which input that is
        self.parent: dict[int, int] = {}  # union-find over tensors that share one scale
        self.derived: set[int] = set()  # tied outputs: their values are among those of their sources
        self.scores = feeds_softmax(graph)
        self.counted = from_integers(graph)
        self.units = find_units(graph, profile, self.counted)
        self.depth = _layers_before(graph)
        self.tail = _without_layer_behind(graph)
        self.ends = end_nodes(graph)

    def run(self) -> Placement:
        for node in self.graph.nodes:
            self._classify(node)
        for node in self.graph.nodes:
            if id(node) in self.quantized:
                self._behind_fused(node.outputs[0])  # known before any demand passes through an activation
        for node in self.graph.nodes:
            if id(node) in self.quantized:
                self._demand_inputs(node)
        for node in self.graph.nodes:
            if id(node) in self.quantized and self._rule(node).output == "always":
                self._demand_output(node)
        self._settle_movers()
        self._finish_points()
        self._note_subgraphs()
        return self.result

    # Which nodes are quantized

    def _classify(self, node: gs.Node) -> None:
        if id(node) in self.units:
            self._classify_unit(node, self.units[id(node)])
            return
        name = node.name
        rule = self.profile.rule(node.op) if node.domain in STANDARD_DOMAINS else None
        if rule is None or rule.action == "float":
            self.result.actions[name] = "float"
            if node.op not in ("QuantizeLinear", "DequantizeLinear"):
                self._skip(node, f"profile {self.profile.name} runs {node.op} in float")
            return
        if self.settings.override_for(name).keep_float or self.settings.excluded(name):
            self._leave_float(node, "left float by the user")
            return
        if self.settings.op_types is not None and node.op not in self.settings.op_types:
            self._leave_float(node, f"{node.op} is not among the op_types asked for")
            return
        if rule.inner and id(node) in self.tail:
            self._leave_float(node, NO_LAYER_BEHIND)
            return
        if rule.action == "passthrough":
            refused = unfit_mover(node)
            self.result.actions[name] = "passthrough" if refused is None else "float"
            if refused is not None:
                self._skip(node, refused.reason)
            return
        if self.profile.graph.matmul_bias and self._is_bias_add(node):
            self.result.actions[name] = "fused"
            return
        reason = self._kept_exact(node) or str(unfit(node, self.profile, id(node) in self.scores) or "")  # rule 7
        if reason:
            self._leave_float(node, reason)
            return
        self.result.actions[name] = "quantized"
        self.quantized.add(id(node))

    def _classify_unit(self, node: gs.Node, unit: Unit) -> None:
        """Rule 8. The last of the nodes stands for all."""
        reason = self._why_float(unit)
        if reason:
            self._leave_float(node, reason)
            return
        self.result.actions[node.name] = "quantized" if node is unit.root else "fused"
        if node is unit.root:
            self.quantized.add(id(node))

    def _why_float(self, unit: Unit) -> str:
        rule = self._rule(unit.root)
        if any(self.settings.override_for(n.name).keep_float or self.settings.excluded(n.name) for n in unit.nodes):
            return "left float by the user"
        asked = self.settings.op_types
        if asked is not None and unit.rule_op not in asked and any(n.op not in asked for n in unit.nodes):
            return f"it is part of a {unit.rule_op}, which is not among the op_types asked for"
        if rule.action == "float" or not is_float(unit.x) or is_constant(unit.x):
            return f"it is part of a {unit.rule_op}, which profile {self.profile.name} runs in float"
        return NO_LAYER_BEHIND if rule.inner and id(unit.root) in self.tail else ""

    def _rule(self, node: gs.Node) -> OpRule:
        """What the profile does with the node, or with what it ends."""
        unit = self.units.get(id(node))
        return self.profile.rule(node.op if unit is None else unit.rule_op)

    def _kept_exact(self, node: gs.Node) -> str:
        if id(node) in self.counted:
            return "it computes a mask or positions from integers"
        if id(node) in self.scores and float_softmax(self.profile):
            return f"it only feeds a Softmax, which profile {self.profile.name} runs in float"
        return ""

    def _is_bias_add(self, node: gs.Node) -> bool:
        """Whether the node adds one constant a channel to a MatMul that is a layer and that nothing else reads."""
        if node.op != "Add":
            return False
        for index in (0, 1):
            values, product = constant_values(node.inputs[index]), producer(node.inputs[1 - index])
            if values is None or product is None or product.op != "MatMul" or id(product) not in self.quantized:
                continue
            weight, reader = constant_values(product.inputs[1]), sole_consumer(product.outputs[0], self.outputs)
            if weight is None or weight.ndim < 2 or reader is None or reader is not node:
                continue
            if is_float(node.inputs[index]) and values.shape[-1:] == weight.shape[-1:] == (values.size,):
                self.bias_adds[id(product)] = (node, index)
                return True
        return False

    # Which tensors those nodes need quantized

    def _demand_inputs(self, node: gs.Node) -> None:
        if id(node) in self.units:
            for reader, index in self.units[id(node)].reads:
                self._demand(reader, index)
            return
        if node.op in LINEAR_OPS:
            for index in (0, 1):
                if not is_constant(node.inputs[index]):
                    self._demand(node, index)  # rule 1
            if is_constant(node.inputs[0]) or is_constant(node.inputs[1]):
                self._add_layer(node)
            return
        indices = [i for i, t in enumerate(node.inputs) if not t.is_empty() and is_float(t)]
        if node.op == "Concat":
            return  # rule 4: only when its output is quantized
        if node.op in SUMS and self.profile.graph.scheme == 2:
            indices = self._shortcut(node, indices)  # rule 2
        if node.op not in BINARY:
            indices = indices[:1]
        for i in indices:
            if is_constant(node.inputs[i]):
                self._add_constant(node, i)
            else:
                self._demand(node, i)

    def _add_constant(self, node: gs.Node, index: int) -> None:
        """A constant operand, in the format of an activation."""
        if self.profile.rule(node.op).float_constants and may_stay_float(node, index):
            return
        fmt = self.profile.activations.format(self._activation_bits(node), is_nonnegative(node.inputs[index]))
        self.result.constants.append((node, index, fmt))

    def _shortcut(self, node: gs.Node, indices: list[int]) -> list[int]:
        dynamic = [i for i in indices if not is_constant(node.inputs[i])]
        if len(dynamic) < 2:
            return indices
        if node.inputs[dynamic[0]] is node.inputs[dynamic[1]]:
            return indices  # x + x: there is no shortcut to tell apart
        residual = [i for i in dynamic if self._is_direct_layer(node.inputs[i])]
        if not residual and self.profile.graph.residual_kept != "float":
            return indices  # in integers only a layer's accumulators can enter wide
        makers = {i: id(producer(node.inputs[i])) for i in dynamic}
        wide = max(residual or dynamic, key=lambda i: (self.depth.get(makers[i], -1), self.order.get(makers[i], -1), i))
        self.direct.add(id(node.inputs[wide]))
        return [i for i in dynamic if i != wide]

    def _is_direct_layer(self, tensor: gs.Tensor) -> bool:
        made_by = producer(tensor)
        return (
            made_by is not None
            and ((id(made_by) in self.quantized and made_by.op in LINEAR_OPS) or self._adds_bias(made_by))
            and sole_consumer(tensor, self.outputs) is not None
        )

    def _adds_bias(self, node: gs.Node) -> bool:
        return any(add is node for add, _ in self.bias_adds.values())

    def _demand(self, node: gs.Node, index: int) -> None:
        tensor = node.inputs[index]
        known = self.edges.get(id(tensor), [])
        if not any(n is node and i == index for n, i in known):
            self.edges.setdefault(id(tensor), []).append((node, index))
        self._mark(tensor)

    def _mark(self, tensor: gs.Tensor) -> None:
        """The tensor will be quantized: pass that on through what only moves values (rule 4)."""
        if id(tensor) in self.tensors:
            return
        self.tensors[id(tensor)] = tensor
        self.parent.setdefault(id(tensor), id(tensor))
        node = producer(tensor)
        if node is None or id(node) not in self.order:
            return
        action = self.result.actions.get(node.name)
        concat = self.profile.graph.concat
        if node.op == "Concat" and action == "quantized":
            for i, t in enumerate(node.inputs):
                if is_constant(t):
                    self._add_constant(node, i)
                    continue
                self._demand(node, i)
                if concat == "shared":
                    self._tie(t, tensor)
        elif action == "passthrough" and self.profile.graph.tie_passthrough:
            source = node.inputs[0]
            if is_float(source) and not is_constant(source):
                self._demand(node, 0)
                self._tie(source, tensor)

    def _demand_output(self, node: gs.Node) -> None:
        for tensor in node.outputs[:1]:
            behind = self._behind_fused(tensor)
            if id(behind) in self.direct:
                continue  # rule 3
            if not is_float(behind):
                continue
            if node.op == "Concat" and id(behind) not in self.tensors:
                continue
            self._mark(behind)
            self.whole.add(id(behind))

    def _behind_fused(self, tensor: gs.Tensor) -> gs.Tensor:
        """The tensor after the activation that runs inside the layer, or the tensor itself."""
        rule = self.profile.graph
        node = producer(tensor)
        if id(node) in self.bias_adds:
            return self._behind_fused(self.bias_adds[id(node)][0].outputs[0])
        guard = nan_guard(tensor) if node is not None and node.op == "Softmax" else None
        if guard is not None and id(guard[1]) in self.order:
            for part in guard:  # what is quantized is never NaN
                self._fuse(part)
            return guard[1].outputs[0]
        if node is None or node.op not in rule.fused_after:
            return tensor
        follower = sole_consumer(tensor, self.outputs)
        if follower is None or follower.op not in rule.fused_activations or follower.domain not in STANDARD_DOMAINS:
            return tensor
        if id(follower) not in self.order:
            return tensor  # inside the body of an If or Loop
        if any(not is_constant(t) for t in follower.inputs[1:] if not t.is_empty()):
            return tensor
        self._fuse(follower)
        return follower.outputs[0]

    def _fuse(self, node: gs.Node) -> None:
        self.result.actions[node.name] = "fused"
        self.result.skipped = [s for s in self.result.skipped if s.node != node.name]

    def _settle_movers(self) -> None:
        """Concats and passthroughs run in integers only where what is behind them asked for it."""
        wanted: set[int] = set()
        for node in reversed(self.graph.nodes):
            action = self.result.actions[node.name]
            if action != "passthrough" and not (node.op == "Concat" and action == "quantized"):
                continue
            # Where passthroughs are not tied, only the last of several in a row has Q/DQ behind it.
            chain = any(id(c) in wanted for t in node.outputs for c in consumers(t)) and action == "passthrough"
            if chain or any(id(t) in self.tensors for t in node.outputs):
                wanted.add(id(node))
                continue
            self._leave_float(node, "nothing behind it is quantized")

    # Formats

    def _add_layer(self, node: gs.Node) -> None:
        index = 1 if is_constant(node.inputs[1]) else 0
        bits = self._weight_bits(node)
        self.profile.check_bits("weights", bits, f"node {node.name}")
        rule = self.profile.weights
        reader, at = self.bias_adds.get(id(node), (node, 2))
        bias = input_at(reader, at)
        # A stack of matrices has one scale: onnxruntime 1.31 fuses scales a column with it and then fails to run.
        stacked = node.op == "MatMul" and len(node.inputs[index].shape) > 2
        per_channel = rule.granularity == "per-channel" and index == 1 and not stacked
        if stacked and rule.granularity == "per-channel":
            self.result.notes.append(f"{node.name}: its weight is a stack of matrices, which gets one scale")
        self.result.layers.append(
            LayerPlan(node, node.inputs[index], index, rule.format(bits), per_channel, bias, (reader, at))
        )

    def _weight_bits(self, node: gs.Node) -> int:
        override = self.settings.override_for(node.name).weight_bits
        return override or self._width(self.settings.weight_bits, self.profile.weights.bits, id(node) in self.ends)

    def _activation_bits(self, node: gs.Node) -> int:
        override = self.settings.override_for(node.name).activation_bits
        allowed = self.profile.activations.bits
        return override or self._width(self.settings.activation_bits, allowed, id(node) in self.ends)

    def _width(self, asked: int | None, allowed: tuple[int, ...], at_end: bool) -> int:
        """The width asked for, or the target's default; at the ends of the model theirs, if the target takes it."""
        ends = self.settings.first_last_bits
        return ends if at_end and ends is not None and ends in allowed else asked or allowed[0]

    def _finish_points(self) -> None:
        groups: dict[int, list[int]] = {}
        for key in self.tensors:
            groups.setdefault(self._root(key), []).append(key)
        for root, members in groups.items():
            # A source that is only read float elsewhere is still quantized here: every member is a point.
            bits = self._bits_of(members)
            nonnegative = all(is_nonnegative(self.tensors[key]) for key in members)
            fmt = self.profile.activations.format(bits, nonnegative)
            sources = tuple(self.tensors[k].name for k in members if k not in self.derived)
            name = self.tensors[root].name if len(members) > 1 else ""
            for key in members:
                point = Point(self.tensors[key], fmt, nonnegative, self.edges.get(key, []), key in self.whole)
                point.group = name
                point.sources = sources or (self.tensors[key].name,)
                self.result.points.append(point)
        position = {t.name: i for i, t in enumerate(self._graph_tensors())}
        self.result.points.sort(key=lambda p: position.get(p.tensor.name, -1))
        for point in self.result.points:
            self._note_mixed_width(point)

    def _bits_of(self, members: list[int]) -> int:
        """Rule 5 for tensors that share a scale; rule 6 for what no quantized operator reads."""
        edges = [node for key in members for node, _ in self.edges.get(key, [])]
        readers = [n for n in map(self._end_of_unit, edges) if id(n) in self.quantized]
        widths = [self._activation_bits(node) for node in readers]
        if not widths:
            makers = (producer(self.tensors[key]) for key in members)
            at_end = any(id(node) in self.tail for node in makers if node is not None)
            widths = [self._width(self.settings.activation_bits, self.profile.activations.bits, at_end)]
        bits = max(widths)
        self.profile.check_bits("activations", bits, f"tensor {self.tensors[members[0]].name}")
        return bits

    def _note_mixed_width(self, point: Point) -> None:
        widths = {n.name: self._activation_bits(n) for n, _ in point.edges if id(n) in self.quantized}
        if len(set(widths.values())) > 1:
            told = ", ".join(f"{name} asks for {bits}" for name, bits in widths.items())
            self.result.notes.append(
                f"tensor {point.tensor.name} is quantized once, to {point.format.bits} bits: {told}"
            )

    def _graph_tensors(self) -> list[gs.Tensor]:
        return [*self.graph.inputs, *(t for n in self.graph.nodes for t in n.outputs)]

    def _end_of_unit(self, node: gs.Node) -> gs.Node:
        return self.units[id(node)].root if id(node) in self.units else node

    # Small things

    def _tie(self, source: gs.Tensor, derived: gs.Tensor) -> None:
        for t in (source, derived):
            self.parent.setdefault(id(t), id(t))
        self.parent[self._root(id(source))] = self._root(id(derived))
        self.derived.add(id(derived))

    def _root(self, key: int) -> int:
        while self.parent[key] != key:
            key = self.parent[key]
        return key

    def _leave_float(self, node: gs.Node, reason: str) -> None:
        self.result.actions[node.name] = "float"
        self._skip(node, reason)

    def _skip(self, node: gs.Node, reason: str) -> None:
        self.result.skipped.append(MatchFailure(reason, node.name))

    def _note_subgraphs(self) -> None:
        for node in self.graph.nodes:
            for attr in node.attrs.values():
                if isinstance(attr, gs.Graph):
                    for inner in (n for g in all_graphs(attr) for n in g.nodes):
                        self.result.actions[inner.name] = "float"
                        if self.profile.rule(inner.op).action == "quantized":
                            where = f"inside the body of {node.op} {node.name}"
                            self._skip(inner, f"{where}, whose tensors cannot be observed")


def _layers_before(graph: gs.Graph) -> dict[int, int]:
    """How many layers lie before each node, by its id, on the path with most of them."""
    before: dict[int, int] = {}
    for node in graph.nodes:
        makers = [p for t in node.inputs for p in t.inputs]
        before[id(node)] = max((before.get(id(p), 0) + (p.op in LINEAR_OPS) for p in makers), default=0)
    return before


def _without_layer_behind(graph: gs.Graph) -> set[int]:
    """ids of the nodes with no layer behind them."""
    found: set[int] = set()
    for node in reversed(graph.nodes):
        if all(c.op not in LINEAR_OPS and id(c) in found for t in node.outputs for c in consumers(t)):
            found.add(id(node))
    return found
