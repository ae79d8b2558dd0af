"""`onnxq kernels`."""

from __future__ import annotations

import os

import click

from onnxq.cli.common import table

CEILING_SECONDS = 0.1


@click.command("kernels")
@click.option(
    "--ceiling", is_flag=True, help="Also measure the inner loop of the selected tier, for a tenth of a second."
)
def command(ceiling: bool) -> None:
    """Show the kernel tiers in this build, the features of this CPU, and which kernels a session would use.

    The environment variable ONNXQ_ISA selects a tier other than the best.
    """
    from onnxq.execution import library
    from onnxq.execution.benchmark import cpu_name

    if not library.has_library():
        click.echo(
            f"CPU      {cpu_name()}\n"
            "library  none: onnxq was installed without a working C++17 compiler\n\n"
            "Integer-only models run on their function bodies, with the same results but slower. For the kernels,\n"
            "install g++ 11 or clang 14 (or later), then: pip install -v --force-reinstall --no-deps"
        )
        return
    features, built, chosen = library.cpu_features(), library.kernel_tiers(), library.kernel_isa()
    tiers = sorted(library.tier_table(), key=lambda tier: tier.name not in built)  # tiers not in this build last
    click.echo(f"CPU      {cpu_name()}")
    click.echo(f"has      {', '.join(features) or 'no instruction set for which there are kernels'}")
    click.echo(f"library  {library.library_path()}\n")
    rows = []
    for tier in tiers:
        can, is_chosen = set(tier.needs) <= set(features), tier.name == chosen
        rows.append([tier.name, _yes(tier.name in built), _yes(can), "chosen" if is_chosen else "", tier.inner_loop])
    table("", [(h, "left") for h in ("tier", "built", "this CPU", "", "inner loop")], rows)
    asked = os.environ.get(library.ISA_VARIABLE)
    click.echo(
        f"\nONNXQ_ISA={asked} selects {chosen}"
        if asked
        else f"\nthe best available tier is selected; ONNXQ_ISA=TIER selects another, such as {built[-1]}"
    )
    if ceiling:
        peak = library.peak_macs(CEILING_SECONDS)
        click.echo(
            f"inner loop of {chosen}, one thread: {2e-9 * peak:.0f} GOP/s (two operations per multiply-accumulate)"
        )


def _yes(value: bool) -> str:
    return "yes" if value else "no"
