"""`onnxq inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxq.cli.guard import Command
from onnxq.cli.output import first_of, json_text, print_table
from onnxq.cli.terminal import out, out_text
from onnxq.cli.values import parse_shapes

if TYPE_CHECKING:
    from onnxq.inspection import Inspection


@click.command("inspect", cls=Command)
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print every figure as JSON.")
@click.option("--input-shape", "shapes", multiple=True, metavar="NAME:1x3x224x224", help="Shape of an input.")
def command(model: str, as_json: bool, shapes: tuple[str, ...]) -> None:
    """Show the layers of MODEL with their costs and bits, and which operators run in integers."""
    from onnxq.graph.model import load
    from onnxq.inspection import inspect_model

    found = inspect_model(load(model), parse_shapes(shapes))
    if as_json:
        out_text(json_text(found.to_dict()))
        return
    _head(found)
    _layers(found)
    _operators(found)


def _head(found: Inspection) -> None:
    from onnxq.card import units

    made_by = f", made by {found.producer}" if found.producer else ""
    kind = "quantized" if found.quantized else "float"
    profile = f" for {found.profile}" if found.profile else ""
    out(
        f"{found.name}: {kind}{profile}, {found.nodes} nodes, {units.size(found.file_bytes)}, opset {found.opset}, "
        f"IR {found.ir_version}{made_by}"
    )
    others = [f"{domain} {version}" for domain, version in found.domains.items() if domain != "ai.onnx"]
    if others:
        out(f"other domains: {', '.join(others)}")
    for label, values in (("input ", found.inputs), ("output", found.outputs)):
        for value in values:
            out(f"{label}  {value.name}  {value.dtype} {value.shape}")
    for body in found.bodies:
        out(f"body    {body}, counted as executed once")
    for note in (*found.notes, *found.assumed):
        out(f"note    {note}")
    out()


def _layers(found: Inspection) -> None:
    from onnxq.card import units

    rows = [
        [
            f"{c.name} (in {c.body})" if c.body else c.name,
            c.op,
            "×".join(map(str, c.weight_shape)) if c.weight_shape is not None else "–",
            units.number(c.macs),
            units.number(c.parameters),
            units.bits(c.weight_bits),
            units.bits(c.activation_bits),
            units.size(c.size),
            units.number(c.bops),
        ]
        for c in found.layers
    ]
    total = found.totals
    figures = (units.number(total.macs), units.number(total.parameters), "", "", units.size(total.size))
    rows.append([f"total of {len(rows)} layers", "", "", *figures, units.number(total.bops)])
    print_table(("layer", "op", "weight", "MACs", "params", "w bits", "a bits", "size", "BOPS"), rows, left=3)
    if total.unknown:
        shown = first_of(total.unknown)
        out("", f"unknown and excluded from the totals: MACs of {len(total.unknown)} layer(s), {shown}")
        if any("?" in v.shape or not v.shape.replace("×", "").isdecimal() for v in found.inputs):
            out("give the shapes that the model leaves open: --input-shape NAME:1x3x224x224")
    maps = found.feature_maps
    if maps is not None:
        which = 1 if found.quantized else 0
        saved = f" (in float {units.size(maps.peak[0])})" if found.quantized else ""
        out(
            "",
            f"feature maps: largest {units.size(maps.largest[which])}, peak {units.size(maps.peak[which])}{saved}, "
            f"{maps.count} maps",
        )


def _operators(found: Inspection) -> None:
    out()
    kinds = [("in integers", "integer"), ("fused", "fused"), ("in float", "in_float"), ("on indices", "index")]
    kinds += [("on constants", "constant"), ("Q/DQ", "qdq")]
    used = [(head, name) for head, name in kinds if any(getattr(o, name) for o in found.operators)]
    shown = used if found.quantized else []
    rows = [[o.op, str(o.total), *(str(getattr(o, name) or "–") for _, name in shown)] for o in found.operators]
    print_table(("operator", "nodes", *(head for head, _ in shown)), rows)
