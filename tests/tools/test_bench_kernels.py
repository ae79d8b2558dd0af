"""The kernel benchmark measures the right thing: one operator, the same values in every runtime."""

from __future__ import annotations

from pathlib import Path

import bench_kernels
import bench_report
import kernel_models
import pytest
from kernel_models import LAYERS, Layer

from onnxq.execution import library, runtime
from onnxq.execution.layer_times import layer_times

needs_library = pytest.mark.skipif(not library.has_library(), reason="onnxq was built without the kernel library")
SMALL = [
    Layer("test", 16, 32, size=9, kernel=3, stride=2),
    Layer("test", 24, 24, size=6, kernel=3, groups=24),
    Layer("test", 3, 16, size=12, kernel=7, stride=2),
    Layer("test", 40, 24, size=5),
    Layer("test", 48, 40, rows=6),
    Layer("test", 64, 56),
]


@needs_library
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("layer", SMALL, ids=str)
def test_every_runtime_computes_the_same(layer: Layer, bits: int) -> None:
    """Ours, against Q/DQ unoptimized: at most a tie apart. Outputs use their range, so that this says something."""
    v = kernel_models.values(layer, 2, bits)
    assert bench_kernels._difference(layer, v, bits) <= 1
    out = runtime.session(kernel_models.ours(layer, v, bits)).run(None, kernel_models.feed(layer, v))[0]
    assert out.std() > 20
    side = layer.out_size
    assert out.shape == ((2, side, side, layer.channels) if layer.size else (2 * layer.rows, layer.channels))
    peer = runtime.session(kernel_models.onnxruntimes(layer, v)).run(None, kernel_models.feed(layer, v))[0]
    assert peer.shape == out.shape


@needs_library
def test_a_row_has_every_figure() -> None:
    pytest.importorskip("openvino", reason="needs the dev extra: OpenVINO")
    row = bench_kernels.bench(SMALL[4], 8, 1, 1, list(bench_kernels.PEERS), 0.001)
    assert row["macs"] == 6 * 48 * 40
    assert row["bytes_moved"] == 6 * (48 + 40) + 48 * 40
    assert set(row["seconds"]) == {"ours", *bench_kernels.PEERS}
    assert all(seconds > 0 for name, seconds in row["seconds"].items() if name != "openvino")
    assert row["ops_per_second"] == pytest.approx(2 * row["macs"] / row["seconds"]["ours"])
    assert row["max_lsb"] <= 1
    cells = bench_kernels.cells({"environment": bench_report.environment(), "rows": [row]})
    assert [len(line) for line in cells] == [len(bench_kernels.HEADS)]


@needs_library
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("layer", SMALL, ids=str)
def test_the_profile_counts_what_the_layer_says(layer: Layer, bits: int) -> None:
    """Work and traffic of our operators, as `onnxq bench --per-layer` sees them; 4-bit weights take half a byte."""
    v = kernel_models.values(layer, 2, bits)
    found = layer_times(kernel_models.ours(layer, v, bits), kernel_models.feed(layer, v), threads=1, seconds=0.001)
    assert [x.macs for x in found.layers] == [layer.macs(2)] * kernel_models.COPIES
    vectors = 4 * 2 * layer.channels + 4 + 1  # biases and multipliers, one shift, one zero point
    assert {x.bytes_moved for x in found.layers} == {layer.bytes_moved(2, bits) + vectors}
    assert found.ceiling == f"inner loop of the {library.kernel_isa()} kernels on 1 thread(s)"


def test_work_of_the_lists_is_that_of_the_networks() -> None:
    """ResNet-50's distinct layers, each as often as it occurs, are its 4.09 G multiply-accumulates less the head's."""
    macs = {str(layer): layer.macs(1) for layer in LAYERS["resnet50"]}
    often = {
        "1×1 64→256 @56": 4, "3×3 64→64 @56": 3, "1×1 256→64 @56": 2, "1×1 128→512 @28": 4, "1×1 512→128 @28": 3,
        "3×3 128→128 @28": 3, "1×1 256→1024 @14": 6, "1×1 1024→256 @14": 5, "3×3 256→256 @14": 5,
        "1×1 512→2048 @7": 3, "1×1 2048→512 @7": 2, "3×3 512→512 @7": 2,
    }  # fmt: skip
    assert set(often) <= set(macs)
    assert sum(count * often.get(layer, 1) for layer, count in macs.items()) == 4_089_184_256 - 2_048_000
    assert Layer("n", 32, 32, 112, 3, 1, groups=32).macs(2) == 2 * 112 * 112 * 32 * 9


def test_options_are_handed_on_without_those_of_the_parent() -> None:
    given = ["--nets", "bert", "--isa=best,portable", "--json", "out.json", "--threads=2", "--markdown", "m.md"]
    assert bench_report.without(given, "--isa", "--json", "--markdown") == ["--nets", "bert", "--threads=2"]


@needs_library
def test_each_tier_is_a_process_of_its_own(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import json, os, sys\nfrom pathlib import Path\n"
        "Path(sys.argv[-1]).write_text(json.dumps([os.environ.get('ONNXQ_ISA'), sys.argv[1:-2]]))"
    )
    found = list(bench_report.each_tier(str(script), ["best", "portable"], ["--batch", "2"]))
    assert found == [[None, ["--batch", "2"]], ["portable", ["--batch", "2"]]]


def test_markdown_names_the_versions() -> None:
    text = bench_report.markdown("T", ["a", "b"], [["x", "1"]], bench_report.environment())
    lines = text.splitlines()
    assert lines[:5] == ["### T", "", "| a | b |", "| --- | ---: |", "| x | 1 |"]
    assert "onnxruntime" in lines[-1]
