"""Nodes of com.onnxq run on their kernels, many of them in one model, on every tier."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxq.errors import OnnxqError
from onnxq.execution import library, runtime
from onnxq.operators import DOMAIN, VERSION
from support.cases.operators import Case
from support.prove.operator_bodies import activations

TIERS = tuple(tier.name for tier in library.tier_table()) if library.has_library() else ()
needs_library = pytest.mark.skipif(not library.has_library(), reason="onnxq was built without the kernel library")
on_every_tier = pytest.mark.parametrize("tier", TIERS)


@contextmanager
def chosen(tier: str) -> Iterator[None]:
    """Kernels made inside are of this tier; skips the test where this library or CPU has none such."""
    before = os.environ.get(library.ISA_VARIABLE)
    os.environ[library.ISA_VARIABLE] = tier
    try:
        try:
            library.kernel_isa()
        except OnnxqError as err:
            pytest.skip(str(err))
        yield
    finally:
        if before is None:
            del os.environ[library.ISA_VARIABLE]
        else:
            os.environ[library.ISA_VARIABLE] = before


@dataclass(frozen=True)
class Bundle:
    """One model with a node for each case, its feeds, and what the outputs must be."""

    cases: Sequence[Case]
    proto: onnx.ModelProto
    feeds: dict[str, np.ndarray]
    expected: list[np.ndarray]


def bundle(cases: Sequence[Case]) -> Bundle:
    """The cases side by side. Inputs are declared without sizes, outputs without shape."""
    nodes, inputs, outputs, constants = [], [], [], []
    feeds, expected = {}, []
    for i, case in enumerate(cases):
        names = {name: f"{name}_{i}" for name in case.arrays}
        nodes.append(
            helper.make_node(
                case.op, list(names.values()), [f"y_{i}"], f"{case.op}_{i}", domain=DOMAIN, **case.attributes
            )
        )
        for name, values in case.arrays.items():
            if name in activations(case.op):
                kind = helper.np_dtype_to_tensor_dtype(values.dtype)
                dims = [f"{name}_{i}_{d}" for d in range(values.ndim)]
                inputs.append(helper.make_tensor_value_info(names[name], kind, dims))
                feeds[names[name]] = unaligned(values)
            else:
                constants.append(numpy_helper.from_array(values, names[name]))
        outputs.append(helper.make_empty_tensor_value_info(f"y_{i}"))
        expected.append(case.expected())
    graph = helper.make_graph(nodes, "cases", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, VERSION)]
    return Bundle(cases, helper.make_model(graph, opset_imports=opsets, ir_version=10), feeds, expected)


def unaligned(values: np.ndarray) -> np.ndarray:
    """The same values behind one more of their size, and nothing behind them: what is read there, a sanitizer sees."""
    room = np.empty(values.nbytes + values.itemsize, np.uint8)
    moved = room[values.itemsize :].view(values.dtype).reshape(values.shape)
    moved[...] = values
    return moved


def check(made: Bundle, threads: Sequence[int] = (1, 2)) -> None:
    """Assert that the kernels give the exact integers."""
    for count in threads:
        session = runtime.session(made.proto, threads=count)
        check_outputs(made, session.run(None, made.feeds), f"{count} threads")


def check_outputs(made: Bundle, outputs: Sequence[np.ndarray], what: str) -> None:
    """Assert that outputs are those expected, naming the case that is not."""
    for case, found, expected in zip(made.cases, outputs, made.expected, strict=True):
        where = f"{what}: {case}"
        assert found.dtype == expected.dtype and found.shape == expected.shape, (where, found.dtype, found.shape)
        np.testing.assert_array_equal(found, expected, err_msg=where)


def refusal(case: Case) -> str:
    """What is said of a node for which no session can be made."""
    with pytest.raises(OnnxqError) as told:
        runtime.session(lone(case))
    return str(told.value)


def run_refusal(case: Case) -> str:
    """What is said of inputs that the kernel does not take; nothing of their sizes is known before."""
    session = runtime.session(lone(case))
    feeds = {name: case.arrays[name] for name in activations(case.op)}
    with pytest.raises(Exception) as told:  # onnxruntime's own class derives straight from Exception
        session.run(None, feeds)
    return str(told.value)


def lone(case: Case) -> onnx.ModelProto:
    """A model of one node, also of one that makes no sense."""
    fed = activations(case.op)
    node = helper.make_node(case.op, list(case.arrays), ["y"], domain=DOMAIN, **case.attributes)
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(case.arrays[name].dtype), [None] * case.arrays[name].ndim
        )
        for name in fed
    ]
    constants = [numpy_helper.from_array(values, name) for name, values in case.arrays.items() if name not in fed]
    graph = helper.make_graph([node], "lone", inputs, [helper.make_empty_tensor_value_info("y")], constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, VERSION)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
