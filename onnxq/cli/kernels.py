"""`onnxq kernels`."""

from __future__ import annotations

import os

import click

from onnxq.cli.common import table

# Tier → the feature of the CPU that it needs, as cpu_features names it; what its inner loop is made of.
TIERS = {
    "amx": ("amx_int8", "tile products of 16×64 bytes"),
    "avx512vnni": ("avx512vnni", "vpdpbusd, 64 bytes at a time"),
    "avxvnni": ("avxvnni", "vpdpbusd, 32 bytes at a time"),
    "avx2": ("avx2", "16-bit products, 32 bytes at a time"),
    "portable": ("", "what the compiler makes of plain C++"),
}
CEILING_SECONDS = 0.1


@click.command("kernels")
@click.option("--ceiling", is_flag=True, help="Also measure the chosen tier's inner loop, for a tenth of a second.")
def command(ceiling: bool) -> None:
    """What is built into the kernel library, what this CPU has, and which kernels a session would use.

    The environment variable ONNXQ_ISA makes sessions use another tier than the best.
    """
    from onnxq.execution import runtime
    from onnxq.execution.benchmark import cpu_name

    if not runtime.has_library():
        click.echo(
            f"CPU      {cpu_name()}\n"
            "library  none: there was no working C++17 compiler when onnxq was installed\n\n"
            "Integer-only models run on their function bodies: the same results, only slower. For the kernels install\n"
            "g++ 11 or clang 14 (or later), then: pip install -v --force-reinstall --no-deps"
        )
        return
    features, built, chosen = runtime.cpu_features(), runtime.kernel_tiers(), runtime.kernel_isa()
    click.echo(f"CPU      {cpu_name()}")
    click.echo(f"has      {', '.join(features) or 'none of the instruction sets that kernels are written for'}")
    click.echo(f"library  {runtime.library_path()}\n")
    rows = []
    for tier in (*built, *(t for t in TIERS if t not in built)):
        needs, loop = TIERS.get(tier, ("", ""))
        can = not needs or needs in features
        rows.append([tier, _yes(tier in built), _yes(can), "chosen" if tier == chosen else "", loop])
    table("", [(h, "left") for h in ("tier", "built", "this CPU", "", "inner loop")], rows)
    asked = os.environ.get(runtime.ISA_VARIABLE)
    click.echo(
        f"\nONNXQ_ISA={asked} asks for {chosen}"
        if asked
        else f"\nthe best that is built and can run is chosen; ONNXQ_ISA=TIER chooses another, such as {built[-1]}"
    )
    if ceiling:
        peak = runtime.peak_macs(CEILING_SECONDS)
        click.echo(
            f"inner loop of {chosen}, one thread: {2e-9 * peak:.0f} GOP/s (two operations a multiply-accumulate)"
        )


def _yes(value: bool) -> str:
    return "yes" if value else "no"
