"""The folder of bad files, and an output folder that must stay as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cases.bad_files import write
from support.command import listing


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good and bad models, data and configurations."""
    folder = tmp_path_factory.mktemp("kit")
    write(folder)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """An output folder with an older model in it, which must survive whatever is tried."""
    (tmp_path / "m.onnx").write_bytes(b"an older model")
    (tmp_path / "m.card.json").write_text("its card")
    before = listing(tmp_path)
    yield tmp_path
    assert listing(tmp_path) == before, "something was written although the command failed"
