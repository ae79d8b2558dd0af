"""ModelProtos on import and export: parsing, checks, function inlining, IR and opset versions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from onnxq.errors import ModelError, first_line, printable
from onnxq.graph import native

OWN_DOMAIN = "com.onnxq"
IR_MIN, IR_FUNCTIONS, IR_INT4, IR_MAX = 4, 8, 10, 13
INT4_TYPES = (TensorProto.INT4, TensorProto.UINT4)
UNSUPPORTED_ATTRIBUTES = {
    onnx.AttributeProto.TYPE_PROTO: "TYPE_PROTO",
    onnx.AttributeProto.TYPE_PROTOS: "TYPE_PROTOS",
    onnx.AttributeProto.SPARSE_TENSOR: "SPARSE_TENSOR",
    onnx.AttributeProto.SPARSE_TENSORS: "SPARSE_TENSORS",
    onnx.AttributeProto.TENSORS: "TENSORS",
    onnx.AttributeProto.GRAPHS: "GRAPHS",
}
FLOAT8E8M0, UINT2, INT2 = 24, 25, 26  # newer than the oldest onnx that this works with
# Bits per element; sub-byte types are packed.
ELEMENT_BITS: dict[int, int] = {
    TensorProto.DOUBLE: 64, TensorProto.INT64: 64, TensorProto.UINT64: 64, TensorProto.COMPLEX64: 64,
    TensorProto.FLOAT: 32, TensorProto.INT32: 32, TensorProto.UINT32: 32, TensorProto.COMPLEX128: 128,
    TensorProto.FLOAT16: 16, TensorProto.BFLOAT16: 16, TensorProto.INT16: 16, TensorProto.UINT16: 16,
    TensorProto.INT8: 8, TensorProto.UINT8: 8, TensorProto.BOOL: 8, TensorProto.FLOAT8E4M3FN: 8,
    TensorProto.FLOAT8E4M3FNUZ: 8, TensorProto.FLOAT8E5M2: 8, TensorProto.FLOAT8E5M2FNUZ: 8, FLOAT8E8M0: 8,
    TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.FLOAT4E2M1: 4, UINT2: 2, INT2: 2,
}  # fmt: skip
FLOAT_TYPES = (
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.FLOAT8E4M3FN,
    TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E5M2FNUZ, TensorProto.FLOAT4E2M1,
)  # fmt: skip


def parse(raw: bytes, where: str) -> onnx.ModelProto:
    """Serialized bytes to a ModelProto; raises ModelError for anything that is not a complete ONNX model."""
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(raw)
    except DecodeError:
        raise ModelError(f"{where}: not an ONNX model, or a truncated one") from None
    if not raw or proto.ir_version <= 0 or not proto.HasField("graph") or not proto.opset_import:
        raise ModelError(f"{where}: not an ONNX model (no IR version, opset or graph in it)")
    return proto


def keep_only(values: Any, kept: list[Any]) -> None:
    """Keep only these in a repeated protobuf field."""
    if len(kept) < len(values):
        del values[:]
        values.extend(kept)


def tensor_protos(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Every tensor stored in the graph: initializers and attributes, in subgraphs too."""
    yield from graph.initializer
    for node in graph.node:
        for attr in node.attribute:
            if attr.HasField("t"):
                yield attr.t
            if attr.HasField("g"):
                yield from tensor_protos(attr.g)


def tensor_bytes(tensor: TensorProto) -> int:
    """Size of a tensor's values in bytes, wherever they are stored, packed below 8 bits. KeyError: no such type."""
    if tensor.data_type == TensorProto.STRING:
        return sum(len(s) for s in tensor.string_data)
    return (math.prod(tensor.dims) * ELEMENT_BITS[tensor.data_type] + 7) // 8


def check_attributes(graph: onnx.GraphProto, where: str) -> None:
    """Raise ModelError for an attribute of a type that onnx-graphsurgeon drops."""
    for node in graph.node:
        for attr in node.attribute:
            if attr.type in UNSUPPORTED_ATTRIBUTES:
                raise ModelError(
                    f"{where}: node {node.name or node.op_type} has attribute {attr.name} of type "
                    f"{UNSUPPORTED_ATTRIBUTES[attr.type]}, which onnxq does not support"
                )
            if attr.HasField("g"):
                check_attributes(attr.g, where)


ELEMENT_TYPES = frozenset(TensorProto.DataType.values())


def check_types(graph: onnx.GraphProto, where: str) -> None:
    """Raise ModelError for optional, map and opaque graph inputs and outputs, and for element types that ONNX does not
    have; drop types that nothing here can express elsewhere."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for kind in _tensor_types(value.type):
            if kind.elem_type not in ELEMENT_TYPES:
                name, given = printable(value.name), kind.elem_type
                raise ModelError(f"{where}: {name} is declared with element type {given}, which ONNX does not have")
    for value in (*graph.input, *graph.output):
        if not _expressible(value.type):
            kind = value.type.WhichOneof("value").removesuffix("_type")
            raise ModelError(f"{where}: input or output {value.name} is of type {kind}, which onnxq does not support")
    keep_only(graph.value_info, [v for v in graph.value_info if _expressible(v.type)])
    for node in graph.node:
        for attr in node.attribute:
            if attr.HasField("g"):
                check_types(attr.g, where)


def _tensor_types(kind: onnx.TypeProto) -> list[onnx.TypeProto.Tensor]:
    """The tensor types in a type that can be expressed."""
    inner = kind.sequence_type.elem_type if kind.HasField("sequence_type") else kind
    return [inner.tensor_type] if inner.HasField("tensor_type") else []


def _expressible(kind: onnx.TypeProto) -> bool:
    """Whether onnx-graphsurgeon can express this type: tensors, sequences of tensors, or none (in subgraphs)."""
    if kind.HasField("sequence_type"):
        return kind.sequence_type.elem_type.HasField("tensor_type")
    return kind.WhichOneof("value") in (None, "tensor_type", "sparse_tensor_type")


def inline_functions(
    proto: onnx.ModelProto, notes: list[str], where: str
) -> tuple[onnx.ModelProto, list[onnx.FunctionProto]]:
    """Inline every model-local function except our own, which are bodies of kernels and stay unchanged."""
    own = [f for f in proto.functions if f.domain == OWN_DOMAIN]
    others = [f for f in proto.functions if f.domain != OWN_DOMAIN]
    if others:
        try:
            proto = native.inline_functions(proto, [(f.domain, f.name) for f in own])
        except (native.NativeError, native.NativeCrashError) as err:
            raise ModelError(f"{where}: model-local functions cannot be inlined: {first_line(err)}") from None
        notes.append(f"inlined {len(others)} model-local function(s): {', '.join(f.name for f in others)}")
    kept = [f for f in proto.functions if f.domain == OWN_DOMAIN]
    del proto.functions[:]
    return proto, kept


def fix_defaults(proto: onnx.ModelProto, notes: list[str]) -> None:
    """Turn inputs with a default value into constants; below IR version 4 this is normal and needs no note."""
    names = {t.name for t in proto.graph.initializer} | {t.values.name for t in proto.graph.sparse_initializer}
    inputs = [v for v in proto.graph.input if v.name not in names]
    dropped = [v.name for v in proto.graph.input if v.name in names]
    if not dropped:
        return
    if proto.ir_version >= IR_MIN:
        notes.append(
            f"{len(dropped)} input(s) with a default value are fixed to it: {', '.join(dropped[:5])}"
            + ("…" if len(dropped) > 5 else "")
        )
    keep_only(proto.graph.input, inputs)


def header_of(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model without its graph and functions."""
    header = onnx.ModelProto()
    for descriptor, value in proto.ListFields():
        if descriptor.name in ("graph", "functions"):
            continue
        if descriptor.name in ("opset_import", "metadata_props"):
            getattr(header, descriptor.name).extend(value)
        elif isinstance(value, (int, float, str, bytes, bool)):
            setattr(header, descriptor.name, value)
    return header


def same_type(a: onnx.ValueInfoProto, b: onnx.ValueInfoProto) -> bool:
    """Whether two values have the same element type and dimensions (doc strings and denotations aside)."""
    ta, tb = a.type.tensor_type, b.type.tensor_type
    if ta.elem_type != tb.elem_type or len(ta.shape.dim) != len(tb.shape.dim):
        return not a.type.HasField("tensor_type") and a.type == b.type
    dims = zip(ta.shape.dim, tb.shape.dim, strict=True)
    return all((x.dim_value, x.dim_param) == (y.dim_value, y.dim_param) for x, y in dims)


def required_ir(proto: onnx.ModelProto, current: int) -> int:
    """The IR version to write: what the contents require, at least 4, at most what onnxruntime reads."""
    need = IR_MIN
    if proto.functions:
        need = IR_FUNCTIONS
    opset = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset >= 21 or any(t.data_type in INT4_TYPES for t in proto.graph.initializer):
        need = IR_INT4
    return min(max(current, need), IR_MAX)


def tidy_opsets(proto: onnx.ModelProto) -> None:
    """One entry per domain ("ai.onnx" is ""), and none for unused domains."""
    versions: dict[str, int] = {}
    for entry in proto.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        versions[domain] = max(versions.get(domain, 0), entry.version)
    used = {""} | _domains(proto.graph) | {f.domain for f in proto.functions}
    del proto.opset_import[:]
    for domain in sorted(versions):
        if domain in used:
            proto.opset_import.add(domain=domain, version=versions[domain])


def _domains(graph: onnx.GraphProto) -> set[str]:
    found = set()
    for node in graph.node:
        found.add("" if node.domain == "ai.onnx" else node.domain)
        for attr in node.attribute:
            if attr.HasField("g"):
                found |= _domains(attr.g)
    return found
