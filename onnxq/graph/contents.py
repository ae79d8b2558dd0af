"""What a ModelProto contains, checked before it is read any further: texts, stored tensors, functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import onnx
from google.protobuf.message import Message
from onnx import TensorProto, external_data_helper

from onnxq.errors import ModelError, printable
from onnxq.graph.external import check_size, every_tensor
from onnxq.graph.protos import ELEMENT_BITS, tensor_bytes

# Nodes of a model while its functions are inlined (calls count too: an empty body costs its call), and that as a
# multiple of the nodes in the file, if that is more: beyond both, a small file was made to expand. 100,000 nodes take
# about 20 s and 1 GB.
MOST_NODES = 100_000
MOST_GROWTH = 10
MOST_CALLS = 100  # functions in functions; as many as onnx inlines
MOST_SHOWN = 5  # functions in a message
# Bytes of one value with its declared shape, and of all inputs: more is made up, and only asks for memory.
MOST_BYTES = 1 << 36
MOST_DIMS = 64  # of a shape; as many as NumPy has
TYPED = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
PAIRS = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)
Key = tuple[str, str, str]  # domain, name and overload of a function


def check_contents(model: onnx.ModelProto, where: str) -> None:
    """Raise ModelError for text that is not UTF-8, tensors whose values do not fit them, functions that call themselves
    or expand without bound, values declared too large. Values in external files are not looked at.
    """
    for text in _texts(model):
        if isinstance(text, bytes):  # what protobuf makes of it
            raise ModelError(f"{where}: it contains a text that is not UTF-8: {text[:100]!r}")
    for tensor in every_tensor(model):
        _check_tensor(tensor, where)
    _check_functions(model, where)
    _check_declared(model.graph, where)


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
    if len(tensor.dims) > MOST_DIMS:
        raise ModelError(f"{name} has {len(tensor.dims)} dimensions; at most {MOST_DIMS} are read")
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


def _check_declared(graph: onnx.GraphProto, where: str) -> None:
    """Shapes that the graph and its subgraphs declare; dimensions that are not known count as 1."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        if (count := len(value.type.tensor_type.shape.dim)) > MOST_DIMS:
            raise ModelError(
                f"{where}: {printable(value.name)} is declared with {count} dimensions; at most {MOST_DIMS} are read"
            )
        if (size := _declared_bytes(value)) > MOST_BYTES:
            dims = [d.dim_value or d.dim_param or "?" for d in value.type.tensor_type.shape.dim]
            shown = f"{printable(value.name)} ({', '.join(printable(str(d)) for d in dims[:8])})"
            raise ModelError(f"{where}: {shown} is declared with {size} bytes; at most {MOST_BYTES >> 30} GiB are read")
    if (total := sum(map(_declared_bytes, graph.input))) > MOST_BYTES:
        raise ModelError(
            f"{where}: the inputs are declared with {total} bytes; at most {MOST_BYTES >> 30} GiB are read"
        )
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                _check_declared(inner, where)


def _declared_bytes(value: onnx.ValueInfoProto) -> int:
    tensor = value.type.tensor_type
    count = math.prod(max(d.dim_value, 1) for d in tensor.shape.dim)
    return count * ELEMENT_BITS.get(tensor.elem_type, 8) // 8


def _check_functions(model: onnx.ModelProto, where: str) -> None:
    """Count what each function expands to before anything expands it, callees first; linear in the calls."""
    if not model.functions:
        return
    bodies: dict[Key, onnx.FunctionProto] = {}
    for function in model.functions:
        if bodies.setdefault(_key(function, function.name), function) is not function:
            raise ModelError(f"{where}: function {_label(_key(function, function.name))} is defined twice")
    calls = {key: Counter(_calls(f.node, bodies)) for key, f in bodies.items()}
    stored = {key: sum(1 for _ in _nodes(f.node)) for key, f in bodies.items()}
    own = sum(1 for _ in _nodes(model.graph.node))
    most = max(MOST_NODES, MOST_GROWTH * (own + sum(stored.values())))
    counts: dict[Key, int] = {}
    depths: dict[Key, int] = {}
    for key in _callees_first(calls, where):
        called = calls[key]
        counts[key] = stored[key] + sum(times * counts[one] for one, times in called.items())
        depths[key] = 1 + max((depths[one] for one in called), default=0)
        if counts[key] > most:
            raise ModelError(f"{where}: function {_label(key)} takes more than {most} nodes to inline")
        if depths[key] > MOST_CALLS:
            raise ModelError(f"{where}: the calls of function {_label(key)} are nested more than {MOST_CALLS} deep")
    if own + sum(counts[one] for one in _calls(model.graph.node, bodies)) > most:
        raise ModelError(f"{where}: its functions take more than {most} nodes to inline")


def _callees_first(calls: Mapping[Key, Mapping[Key, int]], where: str) -> Iterator[Key]:
    """Every function after those that it calls. Raises ModelError, with the calls, for one that calls itself."""
    waits = {key: len(called) for key, called in calls.items()}
    callers: dict[Key, list[Key]] = {key: [] for key in calls}
    for key, called in calls.items():
        for one in called:
            callers[one].append(key)
    ready = [key for key, count in waits.items() if not count]
    for key in ready:  # grows while it is read
        yield key
        for caller in callers[key]:
            waits[caller] -= 1
            if not waits[caller]:
                ready.append(caller)
    if len(ready) < len(calls):
        cycle = [next(key for key, count in waits.items() if count)]
        seen = {cycle[0]: 0}
        while (following := next(one for one in calls[cycle[-1]] if waits[one])) not in seen:
            seen[following] = len(cycle)
            cycle.append(following)
        path = [*cycle[seen[following] :], following]
        shown = path if len(path) <= MOST_SHOWN else [*path[: MOST_SHOWN - 1], path[-1]]
        names = [_label(key) for key in shown]
        if len(path) > MOST_SHOWN:
            names.insert(-1, "…")
        raise ModelError(f"{where}: function {names[0]} is recursive: {' → '.join(names)}")


def _key(of: onnx.FunctionProto | onnx.NodeProto, name: str) -> Key:
    """How a function is told from others, by itself or by a node that calls it; overloads are newer than IR 8."""
    return (of.domain, name, getattr(of, "overload", ""))


def _label(key: Key) -> str:
    return printable(".".join(filter(None, key)))


def _calls(nodes: Iterable[onnx.NodeProto], bodies: Mapping[Key, onnx.FunctionProto]) -> list[Key]:
    """The functions that the nodes call, once for each call."""
    return [key for node in _nodes(nodes) if (key := _key(node, node.op_type)) in bodies]


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _nodes(graph.node)
