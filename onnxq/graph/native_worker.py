"""The process that runs onnx's C++ functions for onnxq.graph.native: on some models they crash or grow without bound.

Started as a script, `python -I -S native_worker.py EXTENSION FOLDER…`: the path of onnx's extension module, and the
search path of the process that started it. The extension is loaded without its package, in a tenth of the time.

Questions on stdin, answers on stdout, until stdin ends; in front of each part are 8 bytes with its length. A question
is JSON, {"call": …, "arguments": […], "memory": bytes, "seconds": …}, then the model. An answer is one byte, 0 if a
model follows and 1 if the text of an error does, then that.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import json
import sys
from typing import Any, BinaryIO

PACKAGE_MODULE = "onnx.onnx_cpp2py_export"
SIZE = 8  # bytes of a length
REPLY_FACTOR, REPLY_BASE = 40, 256 << 20  # of an answer, in bytes for each byte of the model, and in bytes


def _extension(path: str) -> Any:
    try:
        loader = importlib.machinery.ExtensionFileLoader(PACKAGE_MODULE, path)
        spec = importlib.util.spec_from_file_location(PACKAGE_MODULE, path, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    except ImportError:  # a version that needs its package
        module = importlib.import_module(PACKAGE_MODULE)
    return module


def _call(native: Any, name: str, model: bytes, arguments: list[Any]) -> bytes:
    if name == "infer_shapes":
        inference = getattr(native, "shape_inference", native)
        return bytes(inference.infer_shapes(model, False, False, True))  # no type check, not strict, values too
    if name == "inline_functions":
        return bytes(native.inliner.inline_selected_functions(model, [tuple(a) for a in arguments], True))
    if name == "convert_version":
        return bytes(native.version_converter.convert_version(model, *arguments))
    raise ValueError(f"no function {name}")


def _limit(memory: int, seconds: int) -> None:
    try:
        import resource
    except ImportError:  # not a POSIX system: the other process watches the time
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    _set(resource, resource.RLIMIT_AS, memory)
    _set(resource, resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + seconds + 1)


def _set(resource: Any, kind: int, wanted: int) -> None:
    hard = resource.getrlimit(kind)[1]
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(kind, (soft, hard))
    except (ValueError, OSError):  # a system without this limit
        return


def _read(stream: BinaryIO) -> bytes | None:
    size = stream.read(SIZE)
    return stream.read(int.from_bytes(size, "little")) if len(size) == SIZE else None


def _write(stream: BinaryIO, kind: int, content: bytes) -> None:
    stream.write(bytes([kind]) + len(content).to_bytes(SIZE, "little"))
    stream.write(content)
    stream.flush()


def main() -> None:
    """Answer requests until there are no more."""
    path, sys.path[:] = sys.argv[1], sys.argv[2:]
    native = _extension(path)
    source, target = sys.stdin.buffer, sys.stdout.buffer
    while (head := _read(source)) is not None:
        request = json.loads(head)
        _limit(request["memory"], request["seconds"])
        model = _read(source)
        if model is None:
            return
        try:
            answer = _call(native, request["call"], model, request["arguments"])
            if len(answer) > REPLY_BASE + REPLY_FACTOR * len(model):
                raise MemoryError
        except MemoryError:
            _write(target, 1, b"std::bad_alloc")
        except Exception as err:
            _write(target, 1, str(err).encode("utf-8", "replace"))
        else:
            _write(target, 0, answer)


if __name__ == "__main__":
    main()
