"""What a ModelProto contains, checked before it is read any further: texts, stored tensors, functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import onnx
from google.protobuf.message import Message
from onnx import TensorProto, external_data_helper

from onnxq.errors import ModelError, printable
from onnxq.graph.external import check_size, every_tensor
from onnxq.graph.protos import ELEMENT_BITS, tensor_bytes

# Nodes of a model once its functions are inlined: beyond it, a small file was made to expand.
MOST_NODES = 1_000_000
TYPED = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
PAIRS = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)
Key = tuple[str, str]  # domain and name of a function


def check_contents(model: onnx.ModelProto, where: str) -> None:
    """Raise ModelError for text that is not UTF-8, tensors whose values do not fit them, functions without bound.

    Values in external files are not looked at. Functions that call themselves are found when they are inlined.
    """
    for text in _texts(model):
        if isinstance(text, bytes):  # what protobuf makes of it
            raise ModelError(f"{where}: it contains a text that is not UTF-8: {text[:100]!r}")
    for tensor in every_tensor(model):
        _check_tensor(tensor, where)
    _check_functions(model, where)


def _texts(message: Message) -> Iterator[str | bytes]:
    """Every text of a message; of tensors not the values, which would be copied."""
    if isinstance(message, TensorProto):
        yield from (message.name, message.doc_string)
        yield from (text for entry in message.external_data for text in (entry.key, entry.value))
        return
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            yield from [value] if isinstance(value, (str, bytes)) else value
        elif field.type == field.TYPE_MESSAGE:
            for inner in [value] if isinstance(value, Message) else value:
                yield from _texts(inner)


def _check_tensor(tensor: TensorProto, where: str) -> None:
    name = f"{where}: tensor {printable(tensor.name) or 'without a name'}"
    check_size(tensor, where)
    if external_data_helper.uses_external_data(tensor):
        return
    wanted, found, what = _counts(tensor)
    if wanted != found:
        raise ModelError(f"{name} ({list(tensor.dims)}) needs {wanted} {what}, the file holds {found}")


def _counts(tensor: TensorProto) -> tuple[int, int, str]:
    """How much the shape needs, how much there is, and of what, in the field that is used."""
    count = math.prod(tensor.dims)
    if tensor.data_type == TensorProto.STRING:
        return count, len(tensor.string_data), "texts"
    if tensor.HasField("raw_data"):
        return tensor_bytes(tensor), len(tensor.raw_data), "bytes"
    bits = ELEMENT_BITS[tensor.data_type]
    numbers = 2 * count if tensor.data_type in PAIRS else count
    if bits < 8:  # packed, as bytes are
        numbers = (count * bits + 7) // 8
    return numbers, sum(len(getattr(tensor, field)) for field in TYPED), "numbers"


def _check_functions(model: onnx.ModelProto, where: str) -> None:
    bodies = {(f.domain, f.name): f for f in model.functions}
    if not bodies:
        return
    calls = {key: _calls(f.node, bodies) for key, f in bodies.items()}
    callers: dict[Key, list[Key]] = {key: [] for key in bodies}
    for key, called in calls.items():
        for one in set(called):
            callers[one].append(key)
    waits = {key: len(set(called)) for key, called in calls.items()}
    counts: dict[Key, int] = {}
    ready = [key for key, count in waits.items() if not count]
    for key in ready:  # grows while it is read; what calls itself never gets there
        counts[key] = len(list(_nodes(bodies[key].node))) + sum(counts[one] for one in calls[key])
        _bound(counts[key], f"{where}: function {printable('.'.join(filter(None, key)))}")
        for caller in callers[key]:
            waits[caller] -= 1
            if not waits[caller]:
                ready.append(caller)
    called = _calls(model.graph.node, bodies)
    _bound(sum(counts.get(one, 0) for one in called), f"{where}: the functions of the model")


def _bound(count: int, what: str) -> None:
    if count > MOST_NODES:
        raise ModelError(f"{what} would be more than {MOST_NODES} nodes once inlined")


def _calls(nodes: Iterable[onnx.NodeProto], bodies: dict[Key, onnx.FunctionProto]) -> list[Key]:
    """The functions that the nodes call, once for each call."""
    return [key for node in _nodes(nodes) if (key := (node.domain, node.op_type)) in bodies]


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _nodes(graph.node)
