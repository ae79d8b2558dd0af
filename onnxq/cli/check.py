"""`onnxq check`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from onnxq.cli.common import custom_ops_option
from onnxq.cli.guard import Command
from onnxq.cli.output import first_of, json_text, print_table
from onnxq.cli.terminal import out, out_text

if TYPE_CHECKING:
    from onnxq.check.findings import Finding

NAMED = 2  # nodes named per row


@click.command("check", cls=Command)
@click.argument("model")
@click.option("--profile", help="Hardware profile: a name or a .toml file.")
@click.option(
    "--integer-only", is_flag=True, help="Check that there is no float operator between the first Q and the last DQ."
)
@click.option("--strict", is_flag=True, help="Also exit with code 1 for remarks.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON, one per node.")
@custom_ops_option
def command(model: str, profile: str | None, integer_only: bool, strict: bool, as_json: bool) -> None:
    """Check whether a target accepts MODEL (float or QDQ): what it rejects, leaves in float or unfused, and the fix.

    Exit code 1 if the target would reject something or, with --integer-only, if there is a float operator between the
    first QuantizeLinear and the last DequantizeLinear.
    """
    if integer_only == (profile is not None):
        raise click.UsageError("give --profile NAME or --integer-only")
    if integer_only:
        _integer_only(model, as_json)
        return
    from onnxq.check.target import check
    from onnxq.graph.model import load
    from onnxq.profiles.schema import load_profile

    assert profile is not None
    target, loaded = load_profile(profile), load(model)
    findings = check(loaded, target)
    rejected = sum(f.severity == "reject" for f in findings)
    remarks = sum(f.severity == "remark" for f in findings)
    if as_json:
        report = {
            "model": loaded.name,
            "profile": target.name,
            "rejected": rejected,
            "remarks": remarks,
            "findings": [f.to_dict() for f in findings],
        }
        out_text(json_text(report))
    else:
        if findings:
            print_table(("", "node", "problem", "fix"), _rows(findings), left=4)
            out()
        verdict = "would reject it" if rejected else "accepts it"
        out(f"{loaded.name}: {target.name} {verdict}; {rejected} rejected, {remarks} remark(s)")
    if rejected or (strict and remarks):
        sys.exit(1)


def _integer_only(model: str, as_json: bool) -> None:
    """Print the float operators between integers, each with its reason; exit with 1 if there are any."""
    from onnxq.check.integer_only import check_integer
    from onnxq.graph.model import load
    from onnxq.graph.qdq import has_qdq

    loaded = load(model)
    found = check_integer(loaded)
    quantized = has_qdq(loaded.graph)
    if as_json:
        report = {
            "model": loaded.name,
            "quantized": quantized,
            "integer_only": quantized and not found,
            "float": [f.to_dict() for f in found],
        }
        out_text(json_text(report))
    elif not quantized:
        out(f"{loaded.name} is not integer-only: it is not quantized")
    elif found:
        print_table(("node", "operator", "why it is float"), [[f.node, f.op, f.reason] for f in found], left=3)
        out()
        out(f"{loaded.name} is not integer-only: {len(found)} operator(s) left in float")
    else:
        out(
            f"{loaded.name} is integer-only: no float operator between the first QuantizeLinear and the last "
            "DequantizeLinear"
        )
    if found or not quantized:
        sys.exit(1)


def _rows(findings: list[Finding]) -> list[list[str]]:
    """One row per problem, with the nodes affected."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for f in findings:
        groups.setdefault((f.severity, f.problem, f.fix), []).append(f.node)
    return [[severity, first_of(nodes, NAMED), problem, fix] for (severity, problem, fix), nodes in groups.items()]
