"""Which operators of a model onnxruntime can run: its own, com.onnxq's, and those of libraries that the user names."""

from __future__ import annotations

from functools import cache

import onnx

from onnxq.errors import ModelError
from onnxq.execution import runtime
from onnxq.execution.save import model_dir, runnable
from onnxq.graph.model import Model, to_proto
from onnxq.graph.protos import OWN_DOMAIN
from onnxq.graph.unknown_ops import Op, drop_unknown, mark_unknown, op_of, unavailable
from onnxq.graph.walk import all_graphs


def find_unknown(model: Model) -> frozenset[Op]:
    """The operators of the model that cannot be run; they are marked in its graph too (graph.unknown_ops).

    Without a library, those that onnxruntime does not declare. Where libraries may have them, or onnxruntime declares
    them but has no kernel (a function body may serve), a session is tried. Raises ModelError for an operator of the
    standard domain that neither ONNX nor onnxruntime declares, OnnxqError for a library that cannot be loaded.
    """
    used = {op_of(node) for graph in all_graphs(model.graph) for node in graph.nodes}
    foreign = frozenset(op for op in used if op[0] != OWN_DOMAIN and (op[0] or not onnx.defs.has(op[1])))
    unknown = foreign - runtime.declared() if foreign else foreign
    doubtful = foreign - unknown - _kernels() if foreign else foreign
    if not runtime.libraries(model.custom_ops):
        _require_domains(model, unknown)
    if unknown and runtime.libraries(model.custom_ops):
        unknown = _tried(model, unknown | doubtful, frozenset())
    elif doubtful:
        unknown = _tried(model, unknown | doubtful, unknown)
    mark_unknown(model.graph, unknown)
    return unknown


def _require_domains(model: Model, unknown: frozenset[Op]) -> None:
    for node in (n for graph in all_graphs(model.graph) for n in graph.nodes):
        if op_of(node) in unknown and not op_of(node)[0]:
            raise ModelError(
                f"{model.name}: node {node.name}: {node.op} is not an operator of ONNX; those of a plug-in need a "
                "domain of their own"
            )


def lost_tensors(*models: Model) -> dict[str, str]:
    """{tensor: reason} of those that depend on an operator that onnxruntime does not know, in any of the models."""
    found: dict[str, str] = {}
    for model in models:
        find_unknown(model)
        found |= unavailable(model.graph)
    return found


def _tried(model: Model, foreign: frozenset[Op], unknown: frozenset[Op]) -> frozenset[Op]:
    """Those of the foreign operators that a session does not accept. unknown: where to begin."""
    while unknown != foreign:
        proto = to_proto(model)
        drop_unknown(proto, unknown)
        try:
            with runnable(proto, model_dir(model)) as opened:
                runtime.session(opened, threads=1, optimize=False, custom_ops=model.custom_ops)
        except runtime.UnknownOperatorError as err:
            found = {op for op in foreign - unknown if op[1] == err.op and err.domain in ("", op[0])}
            if not found:
                return unknown
            unknown |= found
        except ModelError:
            return unknown  # something else is wrong: it is reported where the model is run
        else:
            return unknown
    return unknown


@cache
def _kernels() -> frozenset[Op]:
    """Operators with a kernel for CPUs."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    cpu = runtime.PROVIDERS["cpu"]
    return frozenset((k.domain, k.op_name) for k in state.get_all_opkernel_def() if k.provider == cpu)
