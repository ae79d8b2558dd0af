"""What every test may use: the checkout, the shared models and data, exact sessions, hypothesis settings."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import onnxruntime as ort
import pytest
from hypothesis import settings

from support.saturation import EXACT

ROOT = Path(__file__).resolve().parent.parent

# `python -m pytest` puts the checkout on sys.path, where ./onnxq (which lacks passes and the kernel library) would
# hide the installed package.
sys.path[:] = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != ROOT]

# A shell that starts the tests in the background has SIGINT ignored, which every process below would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


class ExactSessionOptions(ort.SessionOptions):
    """onnxruntime's exact mode for int8, which CPUs without VNNI need (support.saturation)."""

    def __init__(self) -> None:
        super().__init__()
        self.add_session_config_entry(*EXACT)


@pytest.fixture(scope="session", autouse=True)
def exact_onnxruntime() -> Iterator[None]:
    """Every session is exact, those of fixtures of any scope too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ort, "SessionOptions", ExactSessionOptions)
        yield


@pytest.fixture(autouse=True)
def default_onnxruntime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions of tests marked `shared_weight` are as users have them: the exact mode refuses such models."""
    if request.node.get_closest_marker("shared_weight") is not None:
        monkeypatch.setattr(ort, "SessionOptions", ExactSessionOptions.__base__)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout the tests are run from."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared models and images: $ONNXQ_SHARED or ../shared beside the checkout; skips without one."""
    folder = Path(os.environ.get("ONNXQ_SHARED") or ROOT.parent / "shared")
    if not (folder / "models").is_dir():
        pytest.skip(f"no shared models in {folder}: set ONNXQ_SHARED to the folder that holds models/ and data/")
    return folder
