"""onnxq calibrate: statistics files, shards, Ctrl-C and what comes after it."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxq import demo
from onnxq.calibrate.store import load_statistics
from onnxq.card import CARD_KEY
from support.command import COMMAND, Finished, environment, error_of, listing, onnxq, succeed

SAMPLES = 30
SLOW = f'''
"""The demo's images, one at a time, slowly; each is noted in the file `seen`."""
import time
from onnxq import demo

def samples():
    for image in demo.calibration_data()["image"][:{SAMPLES}]:
        with open("seen", "a") as log:
            log.write("x")
        time.sleep(0.03)
        yield {{"image": image[None]}}
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the demo model, its images and a slow source of them."""
    (tmp_path / "m.onnx").write_bytes(demo.model_path().read_bytes())
    np.savez(tmp_path / "d.npz", image=demo.calibration_data()["image"][:SAMPLES])
    (tmp_path / "slow.py").write_text(SLOW)
    return tmp_path


def interrupt(folder: Path, *args: str, after: int) -> Finished:
    """Run a command and press Ctrl-C once `after` samples were read."""
    process = subprocess.Popen(
        [COMMAND, *args], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    seen = folder / "seen"
    seen.unlink(missing_ok=True)
    deadline = time.monotonic() + 120
    while not (seen.exists() and seen.stat().st_size >= after):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return Finished(process.returncode, out, err)


CALIBRATE = ("calibrate", "m.onnx", "--data", "slow:samples", "--profile", "tensorrt", "--threads", "1", "-o")


def test_what_ctrl_c_leaves_is_continued_to_the_same_statistics(folder: Path) -> None:
    succeed(*CALIBRATE, "whole.stats", cwd=folder)
    assert SAMPLES <= (folder / "seen").stat().st_size <= SAMPLES + 2, "slow samples are not read twice"
    done = interrupt(folder, *CALIBRATE, "part.stats", after=8)
    assert done.code == 130
    assert "Traceback" not in done.err
    said = done.err.splitlines()[-1]
    assert said.startswith("error: interrupted after ") and "part.stats" in said and "continues" in said
    kept = load_statistics(folder / "part.stats").provenance["samples"]
    assert f"after {kept} samples" in said  # how many a function will give is not known
    assert 0 < kept < SAMPLES
    succeed(*CALIBRATE, "part.stats", cwd=folder)
    assert (folder / "part.stats").read_bytes() == (folder / "whole.stats").read_bytes()


def test_twice_interrupted_is_once_whole(folder: Path) -> None:
    succeed(*CALIBRATE, "whole.stats", cwd=folder)
    counts = []
    for after in (5, 16):
        assert interrupt(folder, *CALIBRATE, "part.stats", after=after).code == 130
        counts.append(load_statistics(folder / "part.stats").provenance["samples"])
    assert 0 < counts[0] < counts[1] < SAMPLES
    succeed(*CALIBRATE, "part.stats", cwd=folder)
    assert (folder / "part.stats").read_bytes() == (folder / "whole.stats").read_bytes()


QUANTIZE = ("quantize", "m.onnx", "--data", "slow:samples", "--threads", "1", "-o")


def bare(path: Path) -> bytes:
    """A model without its card."""
    model = onnx.load(path)
    kept = [p for p in model.metadata_props if p.key != CARD_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    return model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("resume", [(), ("--resume", "kept.stats")])
def test_an_interrupted_quantize_goes_on_too(resume: tuple[str, ...], folder: Path) -> None:
    succeed(*QUANTIZE, "whole.onnx", cwd=folder)
    files = set(listing(folder))
    done = interrupt(folder, *QUANTIZE, "part.onnx", *resume, after=8)
    assert done.code == 130, done
    partial = "kept.stats" if resume else "part.onnx.calibration"
    assert partial in done.err.splitlines()[-1]
    assert set(listing(folder)) - files == {partial}, "the statistics are all that is kept"
    succeed(*QUANTIZE, "part.onnx", *resume, cwd=folder)
    assert bare(folder / "part.onnx") == bare(folder / "whole.onnx")
    assert set(listing(folder)) - files == {"part.onnx", "part.card.json", *resume[1:]}


def test_ctrl_c_before_the_first_sample_keeps_nothing(folder: Path) -> None:
    files = set(listing(folder))
    done = interrupt(folder, *QUANTIZE, "part.onnx", after=1)
    assert done.code == 130
    assert "Traceback" not in done.err and done.err.splitlines()[-1].startswith("error: interrupted")
    assert set(listing(folder)) - files <= {"seen", "__pycache__", "part.onnx.calibration"}


# Shards and profiles


def test_shards_merge_to_the_whole(folder: Path) -> None:
    use = ("m.onnx", "--data", "d.npz", "-o")
    succeed("calibrate", *use, "whole", cwd=folder)
    for name, start, limit in (("a", 0, 11), ("b", 11, 12), ("c", 23, 7)):
        succeed("calibrate", *use, name, "--start", start, "--limit", limit, cwd=folder)
    assert "30 samples" in succeed("calibrate", "--merge", "a", "b", "c", "-o", "abc", cwd=folder).out
    succeed("calibrate", "--merge", "c", "--merge", "a", "--merge", "b", "-o", "cab", cwd=folder)
    whole = load_statistics(folder / "whole")
    for merged in (load_statistics(folder / "abc"), load_statistics(folder / "cab")):
        assert list(merged) == list(whole) and merged.provenance["samples"] == SAMPLES
        for name in whole:
            assert merged[name] == whole[name]
    for stats in ("whole", "abc"):
        succeed("quantize", "m.onnx", "-o", f"{stats}.onnx", "--stats", stats, cwd=folder)
    assert bare(folder / "whole.onnx") == bare(folder / "abc.onnx")


def test_one_file_serves_every_profile_and_width(folder: Path) -> None:
    """As if each had seen the data. Observing every tensor keeps onnxruntime from fusing some, which shows in the last
    bit of a range."""
    succeed("calibrate", "m.onnx", "--data", "d.npz", "-o", "s", cwd=folder)
    for extra in (("--profile", "tensorrt"), ("--weight-bits", "4", "--activation-bits", "5")):
        succeed("quantize", "m.onnx", "-o", "stats.onnx", "--stats", "s", *extra, cwd=folder)
        succeed("quantize", "m.onnx", "-o", "data.onnx", "--data", "d.npz", *extra, cwd=folder)
        ours, theirs = (
            {t.name: numpy_helper.to_array(t) for t in onnx.load(folder / name).graph.initializer}
            for name in ("stats.onnx", "data.onnx")
        )
        assert ours.keys() == theirs.keys()
        for name, values in ours.items():
            if values.dtype == np.float32:
                np.testing.assert_allclose(values, theirs[name], rtol=1e-6, err_msg=name)


def test_statistics_of_one_profile_are_exactly_what_quantize_would_collect(folder: Path) -> None:
    use = ("--profile", "onnxruntime-cpu")
    succeed("calibrate", "m.onnx", "--data", "d.npz", "-o", "s", *use, cwd=folder)
    succeed("quantize", "m.onnx", "-o", "stats.onnx", "--stats", "s", *use, cwd=folder)
    succeed("quantize", "m.onnx", "-o", "data.onnx", "--data", "d.npz", *use, cwd=folder)
    assert bare(folder / "stats.onnx") == bare(folder / "data.onnx")


def test_statistics_of_another_model_or_profile_are_refused(folder: Path) -> None:
    succeed("calibrate", "m.onnx", "--data", "d.npz", "-o", "s", "--profile", "ascend", cwd=folder)
    said = error_of(onnxq("quantize", "m.onnx", "-o", "x.onnx", "--stats", "s", "--profile", "qnn", cwd=folder))
    assert "do not cover tensor" in said
    other = onnx.load(folder / "m.onnx")
    other.graph.doc_string = "another"
    onnx.save(other, folder / "other.onnx")
    said = error_of(onnxq("quantize", "other.onnx", "-o", "x.onnx", "--stats", "s", "--profile", "ascend", cwd=folder))
    assert "model" in said


def test_a_profile_observes_less(folder: Path) -> None:
    everything = succeed("calibrate", "m.onnx", "--data", "d.npz", "-o", "all", cwd=folder).out
    succeed("calibrate", "m.onnx", "--data", "d.npz", "-o", "ascend", "--profile", "ascend", cwd=folder)
    assert set(load_statistics(folder / "ascend")) < set(load_statistics(folder / "all"))
    assert "30 samples" in everything


def test_the_statistics_do_not_depend_on_batches_and_threads(folder: Path) -> None:
    """Up to the tensors themselves, which onnxruntime may round otherwise in another batch size."""
    for threads in ("1", "2", "3"):
        succeed("calibrate", "m.onnx", "--data", "d.npz", "-o", threads, "--threads", threads, cwd=folder)
    assert (folder / "1").read_bytes() == (folder / "2").read_bytes() == (folder / "3").read_bytes()


# Progress


def test_a_terminal_gets_a_bar(folder: Path) -> None:
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, *CALIBRATE, "s.stats"],
        cwd=folder,
        env=environment(TERM="xterm", COLUMNS="100"),
        stdout=subprocess.DEVNULL,
        stderr=child,
    )
    os.close(child)
    seen = b""
    while True:
        ready, _, _ = select.select([parent], [], [], 60)
        assert ready, "nothing more is said"
        try:
            part = os.read(parent, 65536)
        except OSError:  # the other end was closed
            break
        if not part:
            break
        seen += part
    os.close(parent)
    assert process.wait(60) == 0
    text = seen.decode()
    assert "calibrating" in text and "ETA" in text


def test_a_pipe_gets_plain_lines(folder: Path) -> None:
    done = succeed(*CALIBRATE, "s.stats", cwd=folder)
    assert "\x1b" not in done.err + done.out and "\r" not in done.err + done.out
    assert done.out.splitlines() == [
        f"{len(load_statistics(folder / 's.stats'))} tensors on {SAMPLES} samples, saved in s.stats"
    ]


def test_plain_lines_tell_how_long_it_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from onnxq.cli import common

    monkeypatch.setattr(common, "PLAIN_EVERY", 0.0)
    with common.progress("calibrating") as update:
        update(0, 4)
        time.sleep(0.03)
        update(2, 4)
        update(3, None)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("calibrating: 0 of 4")
    assert lines[1].startswith("calibrating: 2 of 4, ") and lines[1].endswith(" s left")
    assert lines[2] == "calibrating: 3"
