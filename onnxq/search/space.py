"""The search space of a model: widths of every layer and activation group, ties, and costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from onnxq.cost.activation_groups import weight_ties
from onnxq.cost.feature_maps import planned_maps
from onnxq.cost.prepared import Prepared, Source, check_bits, check_layers, prepare
from onnxq.cost.width_costs import BASE_BITS, ModelCosts, model_costs
from onnxq.errors import ConfigError
from onnxq.graph.name_patterns import full_match
from onnxq.placement.facts import end_nodes
from onnxq.placement.planner import plan
from onnxq.placement.residual import FULL, WIDE
from onnxq.placement.settings import Override, QuantSettings
from onnxq.profiles.schema import Profile
from onnxq.search.limits import COSTS, parse_limit
from onnxq.search.linear_program import Choice, Limit, Option, Pair, Problem

if TYPE_CHECKING:
    from onnxq.cost.latency_table import Latencies
    from onnxq.search.sensitivity import Sensitivity

Activations = Sequence[int] | Literal["same"]


@dataclass(frozen=True)
class Assignment:
    """Widths of one candidate. weights: {layer: bits}. activations: {group: bits}."""

    weights: Mapping[str, int]
    activations: Mapping[str, int]


@dataclass(frozen=True)
class Space:
    """A prepared model, its costs, and the widths to choose from.

    weight_bits, activation_bits: widths to choose from, descending. same: both are equal in every layer.
    fixed: {layer: weight bits} and fixed_groups: {group: activation bits} that are not chosen. ties: {layer: the first
    layer that shares its weight width}.
    """

    prepared: Prepared
    costs: ModelCosts
    weight_bits: tuple[int, ...]
    activation_bits: tuple[int, ...]
    same: bool
    fixed: Mapping[str, int]
    fixed_groups: Mapping[str, int]
    ties: Mapping[str, str]

    @property
    def searches_activations(self) -> bool:
        """Whether activation widths are chosen, or set to something other than 8 bits."""
        return self.same or self.activation_bits != (BASE_BITS,)

    def weight_widths(self, layer: str) -> tuple[int, ...]:
        """Widths allowed for a layer."""
        return (self.fixed[layer],) if layer in self.fixed else self.weight_bits

    def group_widths(self, group: str) -> tuple[int, ...]:
        """Activation widths allowed for a group; 8 for layers without a group."""
        if group == "":
            return (BASE_BITS,)
        return (self.fixed_groups[group],) if group in self.fixed_groups else self.activation_bits

    def totals(self, found: Assignment) -> dict[str, float]:
        """The costs of an assignment: ModelCosts.of, with the feature maps that its residuals have (rule T8)."""
        totals = self.costs.of(found.weights, found.activations)
        keeps_wide = self.prepared.profile.graph.residual_kept in WIDE
        if not keeps_wide or min((*found.weights.values(), *found.activations.values()), default=FULL) >= FULL:
            return totals
        if self.costs.maps is None or self.costs.shapes is None:
            return totals
        graph, settings = self.prepared.model.graph, QuantSettings(overrides=self.overrides(found))
        maps = planned_maps(graph, self.costs.shapes, plan(graph, self.prepared.profile, settings))
        if maps is None:
            return totals
        maps = dataclasses.replace(maps, groups=self.costs.maps.groups)
        widths = found.activations
        exact = {"peak": maps.peak(widths), "largest": maps.largest(widths), "average": maps.average(widths)}
        return totals | exact

    def limits(self, wanted: Mapping[str, str | float | Sequence[str | float] | None]) -> list[Limit]:
        """Limits from {cost: text, or several texts}; costs are those of limits.COSTS. Raises ConfigError."""
        base = self.costs.baseline()
        found = []
        for cost, texts in wanted.items():
            if cost not in COSTS:
                raise ConfigError(f"limit on {cost!r}: choose from {', '.join(COSTS)}")
            each = [texts] if isinstance(texts, (str, int, float)) else list(texts or ())
            found += [parse_limit(cost, text, base) for text in each]
        return found

    def overrides(self, found: Assignment) -> dict[str, Override]:
        """The assignment for `quantize --config`: every layer, and every node whose activation width matters."""
        result = {name: Override(weight_bits=bits) for name, bits in found.weights.items()} | self.prepared.left_out()
        if not self.searches_activations:
            return result
        for group in self.costs.groups:
            for node in group.nodes:
                weight = result[node].weight_bits if node in result else None
                result[node] = Override(weight, found.activations[group.name])
        return result

    def assignment(self, weights: Mapping[str, int], activations: Mapping[str, int] | None = None) -> Assignment:
        """An assignment; omitted activation widths are the widest available."""
        widths = {g.name: max(self.group_widths(g.name)) for g in self.costs.groups}
        return Assignment(dict(weights), widths | dict(activations or {}))

    def problem(self, sensitivity: Sensitivity, memory: Sequence[str] = ()) -> Problem:
        """The integer program. memory: those of MAP_COSTS that are limited.

        Raises ConfigError if the sensitivities lack a layer or a width.
        """
        weights, activations = self._values(sensitivity)
        extra = self._memory_costs(memory)
        choices = []
        for cost in self.costs.layers:
            options: dict[Pair, Option] = {}
            for w in self.weight_widths(cost.node):
                for a in self.group_widths(cost.group):
                    if self.same and w != a and not (cost.node in self.fixed or cost.group in ("", *self.fixed_groups)):
                        continue
                    amounts: dict[str, float] = {"size": cost.weight_bytes(w)}
                    if not self.costs.unknown:
                        amounts["bops"] = cost.bops(w, a) or 0
                    if self.costs.overhead is not None:
                        amounts["latency"] = cost.seconds[w, a]
                    options[w, a] = Option(weights[cost.node][w], amounts)
            choices.append(Choice(cost.node, options, self.ties[cost.node], cost.group))
        groups = {
            g.name: {
                a: Option(activations.get(g.name, {}).get(a, 0.0), extra.get((g.name, a), {}))
                for a in self.group_widths(g.name)
            }
            for g in self.costs.groups
        }
        if any(c.group == "" for c in self.costs.layers):
            groups[""] = {BASE_BITS: Option(0.0)}
        fixed = {"size": float(self.costs.other_bytes), "bops": float(self.costs.other_bops)}
        fixed |= {"latency": self.costs.overhead or 0.0} | dict(extra.get(("", 0), {}))
        return Problem(tuple(choices), groups, fixed)

    def expand(self, limits: Iterable[Limit]) -> list[Limit]:
        """Limits as the program needs them: a peak becomes one per step of a run, the largest map one per map."""
        found = []
        for limit in limits:
            maps = self.costs.maps
            parts = {"peak": maps.steps, "largest": maps.maps}.get(limit.cost) if maps is not None else None
            if parts is not None:
                found += [dataclasses.replace(limit, cost=f"{limit.cost} {k}") for k in range(len(parts))]
            else:
                found.append(limit)
        return found

    def _memory_costs(self, memory: Sequence[str]) -> dict[tuple[str, int], dict[str, float]]:
        """{(group, bits): amounts} of feature maps; ("", 0) has the amounts that no group changes."""
        maps = self.costs.maps
        found: dict[tuple[str, int], dict[str, float]] = {}
        if maps is None or not memory:
            return found

        def add(key: tuple[str, int], cost: str, amount: float) -> None:
            table = found.setdefault(key, {})
            table[cost] = table.get(cost, 0.0) + amount

        shares: list[tuple[str, Sequence[int], float]] = []
        if "peak" in memory:
            shares += [(f"peak {k}", step, 1.0) for k, step in enumerate(maps.steps)]
        if "largest" in memory:
            shares += [(f"largest {k}", (k,), 1.0) for k in range(len(maps.maps))]
        if "average" in memory:
            shares.append(("average", range(len(maps.maps)), 1.0 / len(maps.maps)))
        for cost, members, share in shares:
            for i in members:
                group = maps.group_of(i)
                if group == "":
                    add(("", 0), cost, share * maps.maps[i].bytes(BASE_BITS))
                    continue
                for a in self.group_widths(group):
                    add((group, a), cost, share * maps.maps[i].bytes(a))
        return found

    def _values(self, sensitivity: Sensitivity) -> tuple[dict[str, dict[int, float]], dict[str, dict[int, float]]]:
        """Values of every layer's weights, and of every activation group, by width."""
        known = sensitivity.by_layer
        if sensitivity.with_inputs and self.searches_activations:
            raise ConfigError(
                "the sensitivities are of whole layers, whose inputs have the profile's width: choose only the widths "
                "of weights (--activation-bits 8), or measure weights and activations apart (onnxq sensitivity "
                "--kind weights --activation-bits)"
            )
        weights: dict[str, dict[int, float]] = {}
        for cost in self.costs.layers:
            widths = self.weight_widths(cost.node)
            if len(widths) == 1 and cost.node not in known:
                weights[cost.node] = {widths[0]: 0.0}  # nothing to choose
                continue
            _require(known.get(cost.node), widths, f"layer {cost.node}", sensitivity, "")
            weights[cost.node] = {b: known[cost.node][b] for b in widths if b in known[cost.node]} | (
                {widths[0]: known[cost.node].get(widths[0], 0.0)} if len(widths) == 1 else {}
            )
        activations: dict[str, dict[int, float]] = {}
        entries = sensitivity.of("activations")
        if self.same and not entries:
            return weights, activations
        for group in self.costs.groups:
            widths = self.group_widths(group.name)
            mine = [e for e in entries if set(e.tensors) & set(group.tensors)]
            if len(widths) == 1 and not mine:
                continue
            if not mine:
                hint = "measure them (onnxq sensitivity --activation-bits), give --activation-bits 8, or `same`"
                raise ConfigError(f"the sensitivities have no activations of {group.name}; {hint}")
            for e in mine:
                _require(e.bits, widths, f"the activations of {group.name}", sensitivity, " --activation-bits")
            activations[group.name] = {a: sum(e.bits.get(a, 0.0) for e in mine) for a in widths}
        return weights, activations


def _require(
    known: Mapping[int, float] | None, widths: Sequence[int], what: str, sensitivity: Sensitivity, option: str
) -> None:
    if known is None:
        raise ConfigError(
            f"the sensitivities ({sensitivity.method}) have no {what}; run `onnxq sensitivity`{option} again"
        )
    missing = [b for b in widths if b not in known] if len(widths) > 1 else []
    if missing:
        there, not_there = (", ".join(map(str, sorted(b))) for b in (known, missing))
        raise ConfigError(
            f"the sensitivities ({sensitivity.method}) have {what} at {there} bits, not at {not_there}; run "
            "`onnxq sensitivity --bits` with those, or choose other widths"
        )


def make_space(
    source: Source | Prepared,
    *,
    profile: str | Path | Profile = "onnxruntime-cpu",
    bits: Sequence[int] = (4, 8),
    activation_bits: Activations = (BASE_BITS,),
    first_last_bits: int | None = None,
    fixed: Mapping[str, int] | None = None,
    ties: Iterable[Sequence[str]] = (),
    tie_blocks: bool = False,
    exclude: Sequence[str] = (),
    latency: Latencies | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Space:
    """The space of a model.

    bits: weight widths to choose from. activation_bits: activation widths, or "same" for those of the weights.
    first_last_bits: of the first and last layers; None chooses them like the others. fixed: {node or regular
    expression: weight bits}. ties: sets of layers that must share a width; tie_blocks: HAWQ-V3's
    (activation_groups.weight_ties). exclude: nodes left in float. latency: of `onnxq latency`. shapes: {input: dims}
    where the model leaves them open.
    Raises ConfigError for unknown layers, widths the profile does not support, latencies of another model, and
    fixed widths that contradict each other or the ties.
    """
    prepared = source if isinstance(source, Prepared) else prepare(source, profile, exclude)
    target = prepared.profile
    widths = check_bits(bits, target, "weights", "--bits")
    same = activation_bits == "same"
    asked = widths if activation_bits == "same" else activation_bits
    activations = check_bits(asked, target, "activations", "--activation-bits")
    costs = model_costs(prepared, shapes)
    if latency is not None:
        ends = () if first_last_bits is None else (first_last_bits,)
        pinned_widths = {*(fixed or {}).values(), *ends, BASE_BITS}
        others = {*activations, *(pinned_widths if same else ends), BASE_BITS}
        costs = latency.join(costs, prepared, {*widths, *pinned_widths}, others)
    pinned, groups = _fixed(prepared, costs, fixed or {}, first_last_bits, same)
    tied = weight_ties(prepared.placement, costs.groups, blocks=tie_blocks, same=same, ties=ties)
    _check_ties(pinned, tied)
    return Space(prepared, costs, widths, activations, same, _spread(pinned, tied), groups, tied)


def _fixed(
    prepared: Prepared, costs: ModelCosts, asked: Mapping[str, int], first_last: int | None, same: bool
) -> tuple[dict[str, int], dict[str, int]]:
    names = prepared.layer_names()
    check_layers(asked, prepared, "--fix")
    pinned: dict[str, int] = {}
    groups: dict[str, int] = {}
    group_of = {c.node: c.group for c in costs.layers}
    for pattern, bits in asked.items():
        prepared.profile.check_bits("weights", bits, f"--fix {pattern}")
        for name in [pattern] if pattern in names else [n for n in names if full_match(pattern, n)]:
            if pinned.setdefault(name, bits) != bits:
                raise ConfigError(f"--fix: {name} is fixed to {pinned[name]} bits and to {bits}")
    if first_last is not None:
        prepared.profile.check_bits("weights", first_last, "--first-last-bits")
        ends = end_nodes(prepared.model.graph)
        for layer in prepared.layers:
            if layer.node in ends:
                pinned.setdefault(layer.node.name, first_last)
                if group_of[layer.node.name]:
                    groups[group_of[layer.node.name]] = first_last
    if same:
        groups |= {group_of[n]: bits for n, bits in pinned.items() if group_of[n]}
    return pinned, groups


def _check_ties(pinned: Mapping[str, int], ties: Mapping[str, str]) -> None:
    widths: dict[str, tuple[str, int]] = {}
    for name, bits in pinned.items():
        other, known = widths.setdefault(ties[name], (name, bits))
        if known != bits:
            raise ConfigError(f"{other} is fixed to {known} bits and {name} to {bits}, but the two must share a width")


def _spread(pinned: Mapping[str, int], ties: Mapping[str, str]) -> dict[str, int]:
    """Extend fixed widths to tied layers."""
    of_tie = {ties[name]: bits for name, bits in pinned.items()}
    return {name: of_tie[tie] for name, tie in ties.items() if tie in of_tie}


__all__ = ["Activations", "Assignment", "Space", "make_space"]
