"""What the benchmarks share: the machine and the versions, one process a tier of kernels, tables as text and as
Markdown."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from onnxq.execution import library
from onnxq.execution.benchmark import cpu_name

PACKAGES = ("onnxq", "onnx", "onnxruntime", "openvino", "numpy")
# Flags of /proc/cpuinfo that integer kernels of any of the runtimes look for.
FLAGS = (
    "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8",
    "amx_bf16",
)  # fmt: skip
BEST = "best"  # the tier that is chosen without ONNXQ_ISA


def environment() -> dict[str, Any]:
    """The CPU, its flags, the tier of kernels, versions; nothing that names the machine."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    flags = set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "flags": [f for f in FLAGS if f in flags],
        "isa": library.kernel_isa() if library.has_library() else None,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def each_tier(script: str, tiers: Sequence[str], arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Run a benchmark once for every tier, in a process of its own with ONNXQ_ISA set; yields what it wrote as JSON."""
    for tier in tiers:
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder, "result.json")
            variables = {k: v for k, v in os.environ.items() if k != library.ISA_VARIABLE}
            variables |= {} if tier == BEST else {library.ISA_VARIABLE: tier}
            command = [sys.executable, script, *arguments, "--json", str(result)]
            if subprocess.run(command, env=variables, check=False).returncode:
                sys.exit(f"{Path(script).name} with {library.ISA_VARIABLE}={tier} failed")
            yield json.loads(result.read_text())


def without(arguments: Sequence[str], *options: str) -> list[str]:
    """The command line without these options and their values."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in options:
            skip = True
        elif not argument.startswith(tuple(f"{option}=" for option in options)):
            kept.append(argument)
    return kept


def show(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for i, head in enumerate(heads):
        table.add_column(head, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)


def markdown(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], found: dict[str, Any]) -> str:
    """The table as Markdown, with the machine below it."""
    lines = [f"### {title}", "", _row(heads), _row(["---", *["---:"] * (len(heads) - 1)]), *map(_row, rows), ""]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items() if version)
    flags = " ".join(found["flags"])
    return "\n".join(
        [*lines, f"{found['cpu']} ({flags}), {found['cores']} cores; kernels: {found['isa']}; {versions}.", ""]
    )


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
