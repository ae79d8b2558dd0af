"""Check that nothing in onnxq imports upwards or in a circle.

    python tools/checks/import_layers.py [options of lint-imports]

The contracts are in pyproject.toml ([tool.importlinter]). import-linter reads a package from disk and follows no
symbolic links, so the package is copied to build/imports in its installed layout, with the passes inside.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPY = ROOT / "build" / "imports"


def lay_out() -> Path:
    """Copy the package with its passes to build/imports/onnxq; returns build/imports."""
    shutil.rmtree(COPY, ignore_errors=True)
    only_python = shutil.ignore_patterns("__pycache__", "_kernels")
    shutil.copytree(ROOT / "onnxq", COPY / "onnxq", ignore=only_python)
    shutil.copytree(ROOT / "passes", COPY / "onnxq" / "passes", ignore=only_python)
    return COPY


def main() -> int:
    """Run lint-imports on the copy; returns its exit code."""
    environment = os.environ | {"PYTHONPATH": str(lay_out())}
    command = ["lint-imports", "--config", str(ROOT / "pyproject.toml"), "--no-cache", *sys.argv[1:]]
    scripts = Path(sys.executable).parent
    return subprocess.run([scripts / command[0], *command[1:]], cwd=COPY, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
