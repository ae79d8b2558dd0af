"""One model with a node of each operator of com.onnxq."""

from __future__ import annotations

import functools

from onnxq.operators import attach_functions
from support.cases.operators import nodes
from support.kernel_runs import Bundle, bundle


@functools.cache
def every_operator() -> Bundle:
    """A node of each, in models that carry the functions."""
    made = bundle(nodes())
    attach_functions(made.proto)
    return made
