"""Check the types of onnxq, its passes and the tools.

    python tools/checks/typecheck.py [options of mypy]

mypy does not follow an editable install, and in the checkout the passes are outside the package. So mypy runs on
build/typecheck, where symbolic links give the package its installed layout.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FARM = Path("build/typecheck")


def link_farm() -> Path:
    """Make build/typecheck/onnxq, a link for each entry of onnxq/ and one for passes/; returns its path from ROOT."""
    package = ROOT / FARM / "onnxq"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    for entry in [*(ROOT / "onnxq").iterdir(), ROOT / "passes"]:
        if entry.name != "__pycache__":
            (package / entry.name).symlink_to(os.path.relpath(entry, package))
    return FARM / "onnxq"


def main() -> int:
    """Run mypy; returns its exit code."""
    package = link_farm()
    command = [sys.executable, "-m", "mypy", *sys.argv[1:], str(package), "tools"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"MYPYPATH": str(FARM)}, capture_output=True, text=True, check=False
    )
    print(done.stdout.replace(f"{package}/passes/", "passes/").replace(f"{package}/", "onnxq/"), end="")
    print(done.stderr, end="", file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
