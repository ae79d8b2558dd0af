"""onnx's C++ functions in another process: models that make them crash or grow are refused, and the node is named."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import onnx
import onnx.parser
import pytest

from onnxq.errors import ModelError
from onnxq.graph import native
from onnxq.graph.model import load

OPSETS = '"": 18, "ai.onnx.ml": 4'


def parsed(graph: str, domains: str = OPSETS) -> onnx.ModelProto:
    """A model from the text of its graph, not checked."""
    return onnx.parser.parse_model(f"<ir_version: 8, opset_import: [{domains}]> {graph}")


# Crashes of onnx's inference (1.23): a vector read beyond its end. The other nodes are fine.
SPLIT = "[s] y, b, c = Split<num_outputs=2>(r)"
RIGHT = parsed("g (float[2, 3] x) => (y) { [r] r = Relu(x) [s] y = Neg(r) }")


def crashing(before: int = 1, after: int = 1) -> onnx.ModelProto:
    """A model with a node on which inference crashes between others."""
    first = " ".join(f"[r{i}] {'r' if i == before - 1 else f'r{i}'} = Relu(x)" for i in range(before))
    last = " ".join(f"[n{i}] n{i} = Neg(y)" for i in range(after))
    return parsed(f"g (float[2, 3] x) => (y) {{ {first} {SPLIT} {last} }}")


def doubled(times: int) -> onnx.ModelProto:
    """A known shape that is concatenated with itself: 2 ** times values to propagate."""
    nodes = " ".join(f"[c{i}] s{i + 1} = Concat<axis=0>(s{i}, s{i})" for i in range(times))
    return parsed(f"g (float[2, 3] x) => (y) {{ s0 = Shape(x) {nodes} y = ConstantOfShape(s{times}) }}")


@pytest.mark.parametrize(("before", "after"), [(1, 0), (1, 1), (7, 30)])
def test_a_crash_is_an_error_that_names_the_node(before: int, after: int) -> None:
    with pytest.raises(ModelError, match=r"node s \(Split\): onnx's shape inference crashes on it \(SIG\w+\)"):
        load(crashing(before, after))
    assert load(RIGHT).graph.outputs[0].shape == [2, 3], "the process is started again"


def test_a_node_without_a_name_is_named_by_its_output() -> None:
    proto = crashing()
    for node in proto.graph.node:
        node.name = ""
    with pytest.raises(ModelError, match=r"node y \(Split\)"):
        load(proto)


def test_memory_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "MEMORY", 300 << 20)
    with pytest.raises(ModelError, match=r"node c\d+ \(Concat\): onnx's shape inference needs more than 300 MB"):
        load(doubled(40))
    assert load(RIGHT).notes == []


def test_time_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computing time where the system can limit it, else the clock."""
    monkeypatch.setattr(native, "SECONDS", -1)
    monkeypatch.setattr(native, "CLOCK_FACTOR", -0.001)
    with pytest.raises(native.NativeCrashError, match="takes more than -1 s of computing"):
        native.convert_version(doubled(2), 21)


def test_functions_that_expand_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "MEMORY", 300 << 20)
    functions = '<opset_import: ["": 17], domain: "f"> F0 (x) => (y) { y = Relu(x) } '
    for i in range(1, 11):
        calls = " ".join(f"t{j + 1} = f.F{i - 1}(t{j})" for j in range(8)).replace("(t0)", "(x)").replace("t8", "y")
        functions += f'<opset_import: ["": 17, "f": 1], domain: "f"> F{i} (x) => (y) {{ {calls} }} '
    head = '<ir_version: 8, opset_import: ["": 17, "f": 1]> '
    proto = onnx.parser.parse_model(f"{head} g (float[2] x) => (float[2] y) {{ y = f.F10(x) }} {functions}")
    with pytest.raises(native.NativeCrashError, match=r"onnx's inlining of functions needs more than 300 MB"):
        native.inline_functions(proto, [])


def test_what_onnx_rejects_is_not_a_crash() -> None:
    with pytest.raises(native.NativeError):
        native.convert_version(parsed("g (float[2] x) => (y) { y = Nonsense(x) }"), 21)


def test_threads_take_turns() -> None:
    shapes: list[object] = []
    protos = [parsed(f"g (float[2, {n}] x) => (y) {{ y = Relu(x) }}") for n in range(16)]
    threads = [threading.Thread(target=lambda p=p: shapes.append(load(p).graph.outputs[0].shape)) for p in protos]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(shapes) == [[2, n] for n in range(16)]  # type: ignore[type-var]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_its_own() -> None:
    load(RIGHT)
    code = """if True:
        import onnx.parser, os, sys
        from onnxq.graph.model import load
        proto = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 18]> g (float[2] x) => (y) { y = Relu(x) }')
        load(proto)
        child = os.fork()
        assert load(proto).graph.outputs[0].shape == [2]
        if child:
            assert os.waitpid(child, 0)[1] == 0"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr


def test_a_wrong_answer_is_never_kept_after_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between question and answer: the next question gets its own answer."""
    exchange = native._exchange

    def interrupted(process: subprocess.Popen[bytes], head: bytes, raw: bytes) -> None:
        assert process.stdin is not None
        process.stdin.write(len(head).to_bytes(8, "little") + head)
        raise KeyboardInterrupt

    monkeypatch.setattr(native, "_exchange", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(RIGHT)
    monkeypatch.setattr(native, "_exchange", exchange)
    assert load(RIGHT).graph.outputs[0].shape == [2, 3]
