"""In-place shape and type inference without copying weights: works for models of any size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto
from onnx_graphsurgeon.ir.tensor import LazyValues, SparseValues

from onnxq.errors import first_line
from onnxq.graph.exporting import without_empty_lists
from onnxq.graph.identity import IdentityMap, IdentitySet
from onnxq.graph.native import NativeCrashError, infer_shapes
from onnxq.graph.protos import INT4_TYPES, IR_MIN
from onnxq.graph.refusal import Refused
from onnxq.graph.twins import own_nodes, use_twins
from onnxq.graph.walk import SMALL_BYTES, all_graphs
from onnxq.operators import attach_functions

# Inference reads the values of small constants (shapes, axes); of weights it only needs the type.
VALUES_MAX = SMALL_BYTES


def infer(graph: gs.Graph) -> Refused | None:
    """Fill in unknown shapes and types of intermediate tensors; refused where ONNX's inference fails.

    Known shapes and types are kept. Graph inputs and outputs keep their declared dimensions.
    Raises NativeCrashError for a model that ONNX's inference cannot stand.
    """
    try:
        with light(graph), without_empty_lists(n for g in all_graphs(graph) for n in g.nodes):
            proto = gs.export_onnx(graph, do_type_check=False)
        proto.ir_version = max(proto.ir_version, IR_MIN)  # below 4, initializers that are not inputs have no type
        use_twins(proto.graph)
        attach_functions(proto)  # inference of com.onnxq operators goes through their function bodies
        inferred = infer_shapes(proto)
    except NativeCrashError:
        raise
    except Exception as err:
        return Refused(first_line(err))
    _copy(graph, inferred.graph)
    return None


@contextlib.contextmanager
def light(graph: gs.Graph) -> Iterator[None]:
    """Context in which large constants are represented by their type alone."""
    swapped: IdentityMap[gs.Constant, object] = IdentityMap()  # a captured constant occurs once in each graph
    try:
        for g in all_graphs(graph):
            for tensor in g.tensors().values():
                values = getattr(tensor, "_values", None)
                if values is None or isinstance(values, SparseValues) or tensor in swapped:
                    continue
                if values.nbytes <= VALUES_MAX and element_type(tensor) not in INT4_TYPES:  # gs cannot write those
                    continue
                stub = TensorProto(name=tensor.name, data_type=element_type(tensor), dims=list(tensor.shape))
                stub.data_location = TensorProto.EXTERNAL
                swapped[tensor] = values
                tensor._values = LazyValues(stub)
        yield
    finally:
        for tensor, values in swapped.items():
            tensor._values = values


def element_type(tensor: gs.Tensor) -> int:
    """The tensor's onnx.TensorProto.DataType, 0 if unknown."""
    if tensor.dtype is None:
        return 0
    return (
        tensor.dtype if isinstance(tensor.dtype, int) else onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    )


def named_type(value: object) -> int:
    """The element type that an attribute such as Cast's `to` names (a number or numpy type); 0 if it names none."""
    return value if isinstance(value, int) else element_type(gs.Variable("", dtype=value))


def is_floating(dtype: np.dtype) -> bool:
    """Whether the elements are floating point; numpy does not classify bfloat16 as such."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def graph_type(elem_type: int) -> np.dtype | int:
    """An element type as onnx-graphsurgeon represents it: a numpy type, or the number where numpy has none."""
    found = gs.importers.onnx_importer.get_numpy_type(elem_type)
    return elem_type if found is None else np.dtype(found)


def _copy(graph: gs.Graph, proto: onnx.GraphProto) -> None:
    borders = IdentitySet((*graph.inputs, *graph.outputs))
    found = {v.name: v for v in (*proto.value_info, *proto.output)}
    for node, inferred in zip(graph.nodes, own_nodes(proto), strict=True):
        for tensor in node.outputs:
            value = found.get(tensor.name)
            if value is None or tensor.is_empty():
                continue
            if value.type.HasField("tensor_type"):
                _fill(tensor, value.type.tensor_type, keep_dims=tensor in borders)
            else:
                tensor.type = value.type.WhichOneof("value") or tensor.type  # a sequence, an optional
        for attr in inferred.attribute:
            if attr.HasField("g"):
                _copy(node.attrs[attr.name], attr.g)


def _fill(tensor: gs.Variable, inferred: onnx.TypeProto.Tensor, keep_dims: bool) -> None:
    if tensor.dtype is None and inferred.elem_type:
        tensor.dtype = graph_type(inferred.elem_type)
    if not inferred.HasField("shape"):
        return
    dims = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in inferred.shape.dim]
    if tensor.shape is None:
        tensor.shape = dims
    elif not keep_dims and len(tensor.shape) == len(dims):
        tensor.shape = [
            new if isinstance(new, int) and not isinstance(old, int) else old
            for old, new in zip(tensor.shape, dims, strict=True)
        ]


def static_shape(tensor: gs.Tensor) -> tuple[int, ...] | None:
    """The tensor's shape if every dimension is a known number, else None."""
    if tensor.shape is None or not all(isinstance(d, int) and d >= 0 for d in tensor.shape):
        return None
    return tuple(int(d) for d in tensor.shape)
