"""The widths that nodes ask for: what the user said, the target's default, or that of the ends of the model (T6)."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxq.placement.facts import Job


def weight_bits(node: gs.Node, job: Job) -> int:
    """The width of a layer's weight."""
    override = job.settings.override_for(node.name).weight_bits
    return override or width(job.settings.weight_bits, job.profile.weights.bits, node in job.facts.ends, job)


def activation_bits(node: gs.Node, job: Job) -> int:
    """The width that a node asks for in what it reads."""
    override = job.settings.override_for(node.name).activation_bits
    return override or width(job.settings.activation_bits, job.profile.activations.bits, node in job.facts.ends, job)


def width(asked: int | None, allowed: tuple[int, ...], at_end: bool, job: Job) -> int:
    """The width asked for, or the target's default; at the ends of the model theirs, if the target takes it (T6)."""
    ends = job.settings.first_last_bits
    return ends if at_end and ends is not None and ends in allowed else asked or allowed[0]
