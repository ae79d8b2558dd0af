"""A card as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from onnxq.card import units
from onnxq.card.render.phrases import bit_operations_text, change, counts, widths
from onnxq.card.render.sections import sections
from onnxq.card.schema import CardData
from onnxq.errors import printable

RANDOM_WARNING = (
    "> **⚠ RANDOM DATA.** This model was calibrated on random numbers. Its ranges are meaningless for real inputs: "
    "use it for tests only."
)


def render(card: CardData) -> str:
    """The whole card."""
    done, of = counts(card)
    weights, activations = widths(card)
    parts = [f"# Quantization card: {_cell(card.pretrained.name)}", ""]
    if card.random_data:
        parts += [RANDOM_WARNING, ""]
    parts += [
        f"**{done} of {of}** layers in integers for **{_cell(card.profile.name)}**, weights {weights} bits, "
        f"activations {activations} bits. File {change(card.cost.file_bytes)}, "
        f"bit operations {bit_operations_text(card)}.",
        "",
    ]
    for section in sections(card):
        rows = [
            [f"**{k}**" if k in section.marked else k, f"**{v}**" if k in section.marked else v]
            for k, v in section.rows
        ]
        parts += [f"## {section.title}", "", *_table(["", ""], [[_cell(c) for c in row] for row in rows]), ""]
    parts += ["## Operators", "", *_operators(card), "", "## Layers", "", *_layers(card), ""]
    parts += ["## Left in float", "", *_float_nodes(card), "", "## Passes", "", *_passes(card), ""]
    if card.remarks:
        parts += ["## Remarks", "", *(f"- {_remark(card, i)}" for i in range(len(card.remarks))), ""]
    return "\n".join(parts)


def _operators(card: CardData) -> list[str]:
    heads = ["operator", "nodes", "in integers", "passed through", "fused", "in float"]
    rows = [[c.op, c.total, c.quantized, c.passthrough, c.fused, c.left_float] for c in card.operations.by_op]
    return _table(heads, [[_cell(v) for v in row] for row in rows], right=range(1, 6))


def _layers(card: CardData) -> list[str]:
    heads = ["layer", "operator", "weight", "w bits", "a bits", "weight scale", "MACs", "size before", "size after"]
    rows = []
    for r in card.layers:
        scale = "" if r.weight_scale is None else f"{r.weight_scale[0]:.3g} … {r.weight_scale[1]:.3g}"
        if r.weight_scale is not None and not r.per_channel:
            scale = f"{r.weight_scale[0]:.3g}"
        rows.append(
            [
                r.name,
                r.op,
                "×".join(map(str, r.weight_shape or ())),
                units.bits(r.weight_bits),
                units.bits(r.activation_bits),
                scale,
                units.number(r.macs),
                units.size(r.size.before),
                units.size(r.size.after),
            ]
        )
    return _table(heads, [[_cell(v) for v in row] for row in rows], right=range(3, 9))


def _float_nodes(card: CardData) -> list[str]:
    if not card.float_nodes:
        return ["Nothing."]
    return _table(
        ["node", "operator", "reason"], [[_cell(v) for v in (n.name, n.op, n.reason)] for n in card.float_nodes]
    )


def _passes(card: CardData) -> list[str]:
    rows = [[f"`{p.text}`", p.changed, units.seconds(p.seconds)] for p in card.resources.passes]
    return _table(["pass", "changes", "time"], [[_cell(v) for v in row] for row in rows], right=(1, 2))


def _remark(card: CardData, index: int) -> str:
    r = card.remarks[index]
    return f"{_cell(r.source)}: {f'`{_cell(r.node)}`: ' if r.node else ''}{_cell(r.text)}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    aligned = set(right)
    rule = ["---:" if i in aligned else "---" for i in range(len(heads))]
    return [f"| {' | '.join(line)} |" for line in (heads, rule, *rows)]


def _cell(value: object) -> str:
    """Text escaped for a table cell."""
    return printable(re.sub(r"\s+", " ", str(value))).replace("|", "\\|").replace("<", "\\<")
