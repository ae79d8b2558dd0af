"""onnx's C++ functions (shape inference, inlining, conversion between opsets), run in another process.

They read models of any origin, and some models make them crash, or use memory and time out of proportion. In the
other process (native_worker) both are limited, and its end is an error like any other. It is started on first use,
which takes some 20 ms, and ends with this one.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import onnx_cpp2py_export as extension

from onnxq.errors import ModelError

SCRIPT = Path(__file__).with_name("native_worker.py")
SIZE = 8  # bytes of a length
# Limits of one call: address space, and CPU time, with a part for every byte of the model. Inference of 100,000 nodes
# takes 1 s; a model whose weights are inline is read, parsed, copied and written.
MEMORY, MEMORY_PER_BYTE = 2 << 30, 16
SECONDS, BYTES_PER_SECOND = 30, 2 << 20
SEARCH_SECONDS = 2  # for each part of a model in the search for the node that is too much
# The clock is only watched for systems without a limit of CPU time: others may need the cores as well.
CLOCK_FACTOR = 6
CALLS = {
    "infer_shapes": "shape inference",
    "inline_functions": "inlining of functions",
    "convert_version": "conversion between opsets",
}


class NativeError(Exception):
    """What onnx says about a model that it rejects."""


class NativeCrashError(ModelError):
    """A model on which onnx's C++ code crashes, or exceeds its limits of memory or time."""


def infer_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with inferred shapes and types, known values included (data propagation).

    Raises NativeError for a model that onnx rejects, NativeCrashError for one that is too much for it; the message
    names the node.
    """
    try:
        return _called("infer_shapes", proto)
    except NativeCrashError as err:
        node = _culprit(proto)
        if node is None:
            raise
        name = next((n for n in (node.name, *node.output) if n), "without a name")
        raise NativeCrashError(f"node {name} ({node.op_type}): {err}") from None


def inline_functions(proto: onnx.ModelProto, kept: Sequence[tuple[str, str]]) -> onnx.ModelProto:
    """The model with its functions inlined, except those kept, (domain, name) each. Raises like infer_shapes."""
    return _called("inline_functions", proto, [list(name) for name in kept])


def convert_version(proto: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """The model at another version of the standard domain. Raises like infer_shapes."""
    return _called("convert_version", proto, [version])


def _called(name: str, proto: onnx.ModelProto, arguments: Sequence[Any] = ()) -> onnx.ModelProto:
    raw = proto.SerializeToString()
    found = onnx.ModelProto()
    found.ParseFromString(_call(name, raw, arguments, SECONDS + len(raw) // BYTES_PER_SECOND))
    return found


def _call(name: str, raw: bytes, arguments: Sequence[Any], seconds: int) -> bytes:
    memory = MEMORY + MEMORY_PER_BYTE * len(raw)
    head = {"call": name, "arguments": list(arguments), "memory": memory, "seconds": seconds}
    try:
        kind, content = _worker.ask(json.dumps(head).encode(), raw, seconds)
    except _EndedError as err:
        raise NativeCrashError(f"onnx's {CALLS[name]} {err}") from None
    if kind == 0:
        return content
    text = content.decode("utf-8", "replace")
    if "bad_alloc" in text:
        raise NativeCrashError(f"onnx's {CALLS[name]} needs more than {memory >> 20} MB of memory for it")
    raise NativeError(text)


def _culprit(proto: onnx.ModelProto) -> onnx.NodeProto | None:
    """The first node with which the model is too much, by bisection over its first nodes; None if it is not found."""

    def fails(nodes: int) -> bool:
        part = onnx.ModelProto()
        part.CopyFrom(proto)
        del part.graph.node[nodes:]
        try:
            _call("infer_shapes", part.SerializeToString(), (), SEARCH_SECONDS)
        except NativeCrashError:
            return True
        except NativeError:
            return False
        return False

    low, high = 0, len(proto.graph.node)
    if not high or not fails(high):  # it may only just exceed a limit
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fails(middle) else (middle, high)
    return proto.graph.node[high - 1]


class _EndedError(Exception):
    """The other process has ended; the message says how, as the rest of a sentence."""


class _Worker:
    """The other process. One question at a time; it is started again after its end, and in a forked process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # pid of the process that started it, to which the pipes belong

    def ask(self, head: bytes, raw: bytes, seconds: int) -> tuple[int, bytes]:
        """(kind, content) of the answer. Raises _EndedError, and ModelError if the process cannot be started."""
        with self._lock:
            process = self._running()
            try:
                with _watched(process, seconds * CLOCK_FACTOR) as expired:
                    answer = _exchange(process, head, raw)
            except BaseException:  # Ctrl-C: what it would answer now is not an answer to the next question
                self.stop()
                raise
            if answer is None:
                raise _EndedError(_end(self.stop(), bool(expired), seconds))
            return answer

    def stop(self) -> int:
        """End the process; its exit status, 0 without one."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return 0
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        try:
            return process.wait(0.5)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        process = self._process
        if process is not None and self._owner == os.getpid() and process.poll() is None:
            return process
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(SCRIPT), str(extension.__file__), *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for this process, which then ends the other
            )
        except OSError as err:
            raise ModelError(f"the process that reads models cannot be started: {err.strerror or err}") from None
        self._process, self._owner = process, os.getpid()
        return process


def _exchange(process: subprocess.Popen[bytes], head: bytes, raw: bytes) -> tuple[int, bytes] | None:
    """Send a question, and the answer, (kind, content); None if the process has ended."""
    source, target = process.stdout, process.stdin
    assert source is not None and target is not None
    try:
        for part in (head, raw):
            target.write(len(part).to_bytes(SIZE, "little"))
            target.write(part)
        target.flush()
        start = source.read(1 + SIZE)
        size = int.from_bytes(start[1:], "little")
        content = source.read(size)
    except OSError:
        return None
    return (start[0], content) if len(start) == 1 + SIZE and len(content) == size else None


@contextlib.contextmanager
def _watched(process: subprocess.Popen[bytes], seconds: float) -> Iterator[list[bool]]:
    """Context in which the process is killed after some seconds; then the list is not empty."""
    expired: list[bool] = []

    def expire() -> None:
        expired.append(True)
        process.kill()

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()


def _end(status: int, expired: bool, seconds: int) -> str:
    """How the process ended, as the rest of a sentence."""
    if expired or (status < 0 and -status == getattr(signal, "SIGXCPU", 0)):
        return f"takes more than {seconds} s of computing for it"
    try:
        return f"crashes on it ({signal.Signals(-status).name})"
    except ValueError:
        return f"ends on it (exit status {status})"


_worker = _Worker()
atexit.register(_worker.stop)
