"""Which operators of a model onnxruntime can run: its own, com.onnxq's, and those of libraries that the user names."""

from __future__ import annotations

from functools import cache

from onnxq.errors import ModelError
from onnxq.execution import runtime
from onnxq.execution.save import model_dir, runnable
from onnxq.graph.model import Model, to_proto
from onnxq.graph.protos import OWN_DOMAIN
from onnxq.graph.unknown_ops import Op, drop_unknown, mark_unknown, op_of, unavailable
from onnxq.graph.walk import all_graphs


def find_unknown(model: Model) -> frozenset[Op]:
    """The operators of the model that cannot be run; they are marked in its graph too (graph.unknown_ops).

    Without a library, operators that onnxruntime has no schema of. With libraries, those that are in none of them:
    a session is tried. Raises ModelError for a library that cannot be loaded.
    """
    used = {op_of(node) for graph in all_graphs(model.graph) for node in graph.nodes}
    foreign = frozenset(op for op in used if op[0] not in ("", OWN_DOMAIN))
    foreign -= _schemas() if foreign else frozenset()
    if foreign and runtime.libraries(model.custom_ops):
        foreign = _without_those_of_libraries(model, foreign)
    mark_unknown(model.graph, foreign)
    return foreign


def lost_tensors(*models: Model) -> dict[str, str]:
    """{tensor: reason} of those that depend on an operator that onnxruntime does not know, in any of the models."""
    found: dict[str, str] = {}
    for model in models:
        find_unknown(model)
        found |= unavailable(model.graph)
    return found


def _without_those_of_libraries(model: Model, foreign: frozenset[Op]) -> frozenset[Op]:
    unknown: frozenset[Op] = frozenset()
    while unknown != foreign:
        proto = to_proto(model)
        drop_unknown(proto, unknown)
        try:
            with runnable(proto, model_dir(model)) as opened:
                runtime.session(opened, threads=1, optimize=False, custom_ops=model.custom_ops)
        except runtime.UnknownOperatorError as err:
            if (err.domain, err.op) not in foreign - unknown:
                return unknown
            unknown |= {(err.domain, err.op)}
        except ModelError:
            return unknown  # something else is wrong: it is reported where the model is run
        else:
            return unknown
    return unknown


@cache
def _schemas() -> frozenset[Op]:
    try:
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError:
        return frozenset()  # nothing can be run

    return frozenset((schema.domain, schema.name) for schema in state.get_all_operator_schema())
