"""Mutations of what surrounds a graph: opsets, names, metadata, embedded cards, functions, raw bytes."""

from __future__ import annotations

import json
from typing import Any

import onnx

from fuzzing import draws
from fuzzing.draws import Rng

CARD_KEY = "onnxq.card"
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**70,
    1e308,
    float("nan"),
    "",
    "x",
    "\x1b[2J",
    "a\nb",
    [],
    {},
    [None],
    {"x": 1},
    "1e999",
]
RAW_VARINTS = [b"\xff" * 9 + b"\x01", b"\x80\x80\x80\x80\x10", b"\x00", b"\x7f"]


def opsets(model: onnx.ModelProto, rng: Rng) -> None:
    """Another version of an operator set, one more or less, another version of the format."""
    what = rng.random()
    if what < 0.5 and model.opset_import:
        version = int(rng.integers(1, 28)) if rng.random() < 0.7 else draws.integer(rng)
        draws.one(rng, model.opset_import).version = version
    elif what < 0.6 and model.opset_import:
        del model.opset_import[int(rng.integers(len(model.opset_import)))]
    elif what < 0.8:
        domain = draws.one(rng, ["", "ai.onnx", "com.onnxq", "com.microsoft", "\x1b[1m", draws.NOT_UTF8])
        model.opset_import.add(domain=domain, version=int(rng.integers(0, 24)))
    else:
        model.ir_version = draws.integer(rng)


def rename(model: onnx.ModelProto, rng: Rng) -> None:
    """A hostile name for a tensor everywhere, or for a node, the graph or the producer."""
    name = draws.one(rng, draws.NAMES)
    what = rng.random()
    known = draws.names(model.graph)
    if what < 0.6 and known:
        old = draws.one(rng, known)
        for graph in draws.graphs(model.graph):
            for node in graph.node:
                for group in (node.input, node.output):
                    for i, one in enumerate(group):
                        group[i] = name if one == old else one
            for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
                value.name = name if value.name == old else value.name
    elif what < 0.85 and model.graph.node:
        draws.one(rng, model.graph.node).name = name
    else:
        setattr(
            *draws.one(
                rng, [(model.graph, "name"), (model, "producer_name"), (model, "doc_string"), (model, "domain")]
            ),
            name,
        )


def metadata(model: onnx.ModelProto, rng: Rng) -> None:
    """A mark that our passes left, the embedded card, or another entry, with another value."""
    entries = [p for n in model.graph.node for p in n.metadata_props]
    if model.metadata_props and (rng.random() < 0.7 or not entries):
        entries = list(model.metadata_props)
    if not entries:
        model.metadata_props.add(
            key=draws.one(rng, [CARD_KEY, "onnxq.profile", "x"]), value=draws.one(rng, draws.NAMES)
        )
        return
    entry = draws.one(rng, entries)
    if entry.key == CARD_KEY:
        entry.value = _card(entry.value, rng)
    else:
        entry.value = draws.one(
            rng, [*draws.NAMES, "1", "-1", str(2**70), "nan", "1e999", "[]", "{}", "null", '{"a": [1]}']
        )


def _card(text: str, rng: Rng) -> str:
    """JSON with a few values replaced, removed or added at any depth; or text that is none."""
    if rng.random() < 0.15:
        return text[: int(rng.integers(len(text) + 1))]
    if rng.random() < 0.05:
        return "[" * 100_000
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):  # another mutation has been here
        return "{}"
    places = list(_places(table))
    for _ in range(int(rng.integers(1, 4))):
        if not places:
            break
        holder, key = draws.one(rng, places)
        what = rng.random()
        if isinstance(holder, dict) and what < 0.2:
            holder.pop(key, None)
        elif isinstance(holder, dict) and what < 0.3:
            holder[draws.one(rng, ["new", "", "\x1b"])] = draws.one(rng, VALUES)
        elif isinstance(holder, list) and what < 0.2:
            holder.append(draws.one(rng, VALUES))
        elif isinstance(holder, dict) or key < len(holder):
            holder[key] = draws.one(rng, VALUES)
    return json.dumps(table)


def _places(value: Any) -> Any:
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)


def bodies(model: onnx.ModelProto, rng: Rng) -> None:
    """A function that the model carries is dropped, doubled, renamed, or gets other inputs and outputs."""
    if not model.functions:
        return
    at = int(rng.integers(len(model.functions)))
    function, what = model.functions[at], rng.random()
    if what < 0.25:
        del model.functions[at]
    elif what < 0.4:
        model.functions.add().CopyFrom(function)
    elif what < 0.6:
        function.name = draws.name(rng, [n.op_type for n in model.graph.node])
    else:
        group = draws.one(rng, [function.input, function.output, function.attribute])
        if group and rng.random() < 0.5:
            del group[int(rng.integers(len(group)))]
        else:
            group.append(draws.one(rng, draws.NAMES[:-1]))


def raw(content: bytes, other: bytes, rng: Rng) -> bytes:
    """Bytes flipped, cut, repeated, replaced by hostile numbers, or joined with those of another model."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        if not changed:
            break
        at, what = int(rng.integers(len(changed))), rng.random()
        if rng.random() < 0.5:  # the structure is at the ends: tensors are in between
            at = min(at, int(rng.integers(1, 600))) if rng.random() < 0.5 else max(0, len(changed) - 1 - at % 800)
        if what < 0.5:
            changed[at] ^= 1 << int(rng.integers(8))
        elif what < 0.6:
            changed[at] = int(rng.integers(256))
        elif what < 0.7:
            del changed[at : at + int(rng.integers(1, 64))]
        elif what < 0.8:
            changed[at:at] = changed[at : at + int(rng.integers(1, 64))]
        elif what < 0.9:
            changed[at : at + 1] = draws.one(rng, RAW_VARINTS)
        elif what < 0.95:
            del changed[at:]
        else:
            changed[at:] = other[int(rng.integers(len(other))) :]
    return bytes(changed)


def not_utf8(content: bytes) -> bytes:
    """The names that stand for such as are no text become these; their length stays."""
    marker = draws.NOT_UTF8.encode()
    return content.replace(marker, b"\xff\xfe\xc3\x28\x80\x81"[: len(marker)])


MUTATIONS = [opsets, rename, rename, metadata, metadata, metadata, bodies]
