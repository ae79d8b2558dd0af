"""The tool that kills runs finds nothing lost; tools/checks/kill_rounds.py makes hundreds of rounds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks, and watches the folder")
def test_nothing_is_lost(root: Path) -> None:
    tool = root / "tools" / "checks" / "kill_rounds.py"
    done = subprocess.run(
        [sys.executable, tool, "--rounds", "24", "--seed", "7"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0  failures" in done.stdout
