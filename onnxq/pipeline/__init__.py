"""Passes (base), their text form (text), and the runner, which checks the graph between passes (runner)."""

from __future__ import annotations

from onnxq.graph.match import MatchFailure
from onnxq.pipeline.base import Pass, PassResult
from onnxq.pipeline.runner import run
from onnxq.pipeline.text import available, parse, print_pipeline
from onnxq.reporting import PassReport, describe

__all__ = [
    "MatchFailure",
    "Pass",
    "PassReport",
    "PassResult",
    "available",
    "describe",
    "parse",
    "print_pipeline",
    "run",
]
