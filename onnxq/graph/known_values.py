"""Values of nodes whose inputs are all known, computed as the runtime would compute them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, external_data_helper, numpy_helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter
from onnx_graphsurgeon.ir.tensor import LazyValues

from onnxq.graph.exporting import without_empty_lists
from onnxq.graph.identity import IdentitySet
from onnxq.graph.model import ExternalValues
from onnxq.graph.native import infer_shapes
from onnxq.graph.protos import IR_INT4
from onnxq.graph.shapes import VALUES_MAX, element_type


def tensor_proto(constant: gs.Constant) -> TensorProto:
    """The constant as a TensorProto with inline data; an external file is read but not kept in memory."""
    values = constant._values
    if isinstance(values, ExternalValues):
        values = values.load()
    elif isinstance(values, LazyValues):
        if not external_data_helper.uses_external_data(values.tensor):
            copy = TensorProto()
            copy.CopyFrom(values.tensor)
            copy.name = constant.name
            return copy
        values = values.load()
    return numpy_helper.from_array(np.asarray(values), constant.name)


def output_sizes(nodes: Sequence[gs.Node], opset: int) -> dict[str, int | None]:
    """Bytes of every output of the nodes, from shape inference; None where it is not known statically."""
    constants = _constants(nodes)
    small = [c for c in constants if c._values.nbytes <= VALUES_MAX]
    large = [c for c in constants if c._values.nbytes > VALUES_MAX]
    inputs = [onnx.helper.make_tensor_value_info(c.name, element_type(c), list(c.shape)) for c in large]
    proto = _model(nodes, [tensor_proto(c) for c in small], inputs, [], opset)
    sizes: dict[str, int | None] = {t.name: None for n in nodes for t in n.outputs}
    try:
        inferred = infer_shapes(proto)
    except Exception:
        return sizes
    for value in inferred.graph.value_info:
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
            count = int(np.prod([d.dim_value for d in kind.shape.dim], dtype=np.float64))
            sizes[value.name] = count * _itemsize(kind.elem_type)
    return sizes


def _itemsize(elem_type: int) -> int:
    if elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return 8
    return int(onnx.helper.tensor_dtype_to_np_dtype(elem_type).itemsize)


def evaluate(nodes: Sequence[gs.Node], wanted: Sequence[gs.Tensor], opset: int) -> list[Any]:
    """Values of the `wanted` outputs of the nodes, computed by onnxruntime in one session. Outer inputs are constants.

    The nodes are in topological order and in the standard domain. Raises what onnxruntime raises.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    raw = _whole(nodes, wanted, opset).SerializeToString()
    session = ort.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
    return session.run([t.name for t in wanted], {})


def evaluate_reference(nodes: Sequence[gs.Node], wanted: Sequence[gs.Tensor], opset: int) -> list[Any]:
    """Like evaluate, with the onnx package's reference implementation: slow, but supports types that runtimes lack."""
    from onnx.reference import ReferenceEvaluator

    return list(ReferenceEvaluator(_whole(nodes, wanted, opset)).run([t.name for t in wanted], {}))


def _whole(nodes: Sequence[gs.Node], wanted: Sequence[gs.Tensor], opset: int) -> onnx.ModelProto:
    constants = _constants(nodes)
    outputs = [onnx.helper.make_empty_tensor_value_info(t.name) for t in wanted]
    return _model(nodes, [tensor_proto(c) for c in constants], [], outputs, opset)


def _constants(nodes: Sequence[gs.Node]) -> list[gs.Constant]:
    made = IdentitySet(t for n in nodes for t in n.outputs)
    return list(IdentitySet(t for n in nodes for t in n.inputs if not t.is_empty() and t not in made))


def _model(
    nodes: Sequence[gs.Node],
    initializers: list[TensorProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    opset: int,
) -> onnx.ModelProto:
    with without_empty_lists(nodes):
        written = [OnnxExporter.export_node(n) for n in nodes]
    graph = onnx.helper.make_graph(written, "known", inputs, outputs, initializer=initializers)
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    proto.ir_version = IR_INT4
    return proto
