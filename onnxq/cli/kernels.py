"""`onnxq kernels`."""

from __future__ import annotations

import os
from typing import Any

import click

from onnxq.cli.common import table
from onnxq.cli.guard import Command
from onnxq.cli.output import json_flag, json_text
from onnxq.cli.terminal import out, out_text

CEILING_SECONDS = 0.1


@click.command("kernels", cls=Command)
@click.option(
    "--ceiling", is_flag=True, help="Also measure the inner loop of the selected tier, for a tenth of a second."
)
@json_flag
def command(ceiling: bool, as_json: bool) -> None:
    """Show the kernel tiers in this build, the features of this CPU, and which kernels a session would use.

    The environment variable ONNXQ_ISA selects a tier other than the best.
    """
    from onnxq.execution import library
    from onnxq.execution.benchmark import cpu_name

    if not library.has_library():
        if as_json:
            out_text(json_text({"cpu": cpu_name(), "library": None, "features": [], "tiers": [], "chosen": None}))
            return
        out(
            f"CPU      {cpu_name()}",
            "library  none: onnxq was installed without a working C++17 compiler",
            "",
            "Integer-only models run on their function bodies, with the same results but slower. For the kernels,",
            "install g++ 11 or clang 14 (or later), then: pip install -v --force-reinstall --no-deps",
        )
        return
    features, built, chosen = library.cpu_features(), library.kernel_tiers(), library.kernel_isa()
    tiers = sorted(library.tier_table(), key=lambda tier: tier.name not in built)  # tiers not in this build last
    if as_json:
        report: dict[str, Any] = {
            "cpu": cpu_name(),
            "library": str(library.library_path()),
            "features": list(features),
            "tiers": [
                {
                    "name": tier.name,
                    "built": tier.name in built,
                    "runs_here": set(tier.needs) <= set(features),
                    "inner_loop": tier.inner_loop,
                }
                for tier in tiers
            ],
            "chosen": chosen,
        }
        if ceiling:
            report["macs_per_second"] = library.peak_macs(CEILING_SECONDS)
        out_text(json_text(report))
        return
    out(f"CPU      {cpu_name()}")
    out(f"has      {', '.join(features) or 'no instruction set for which there are kernels'}")
    out(f"library  {library.library_path()}", "")
    rows = []
    for tier in tiers:
        can, is_chosen = set(tier.needs) <= set(features), tier.name == chosen
        rows.append([tier.name, _yes(tier.name in built), _yes(can), "chosen" if is_chosen else "", tier.inner_loop])
    table("", [(h, "left") for h in ("tier", "built", "this CPU", "", "inner loop")], rows)
    asked = os.environ.get(library.ISA_VARIABLE)
    out(
        "",
        f"ONNXQ_ISA={asked} selects {chosen}"
        if asked
        else f"the best available tier is selected; ONNXQ_ISA=TIER selects another, such as {built[-1]}",
    )
    if ceiling:
        peak = library.peak_macs(CEILING_SECONDS)
        out(f"inner loop of {chosen}, one thread: {2e-9 * peak:.0f} GOP/s (two operations per multiply-accumulate)")


def _yes(value: bool) -> str:
    return "yes" if value else "no"
