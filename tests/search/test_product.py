"""The product of a search is proven, once, as `quantize` proves the model that it makes of the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxq
from onnxq import api, demo
from onnxq.data.options import DataOptions
from onnxq.errors import ConfigError, ProofError
from onnxq.execution import library
from onnxq.graph.model import load
from onnxq.measure.proof import ProofOptions
from onnxq.placement.settings import load_config, load_search_record
from onnxq.reporting import Reporter
from onnxq.search.choose import search_bits, search_partial
from onnxq.search.measure import measure_sensitivity
from onnxq.search.result import SearchResult
from support.build import floating
from support.command import inside

pytestmark = pytest.mark.filterwarnings("ignore:.*PuLP 4.0:DeprecationWarning")
TEXT = """g (float[N,6] x) => (y) <float[6,8] w1, float[8,8] w2, float[8,4] w3> {
[one] a = MatMul(x, w1) [r1] b = Relu(a) [two] c = MatMul(b, w2) [r2] d = Relu(c) [three] y = MatMul(d, w3)
}"""


def proto() -> Any:
    return floating.proto(TEXT, 17, 8)


def data(count: int = 32) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((1, 6)).astype(np.float32)} for _ in range(count)]


def found_by(method: str, **options: Any) -> SearchResult:
    """The result of a method on the small network."""
    if method == "partial":
        return search_partial(proto(), options.pop("data"), max_drop=0.9, **options)
    if method == "ilp":
        options["sensitivity"] = measure_sensitivity(proto(), data(4), method="weight-error", bits=(4, 8))
        options["limits"] = {"size": "80%"}
    return search_bits(proto(), method, **options)


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The options of every proof that quantize makes."""
    made, prove = [], api.proven

    def counted(*args: Any) -> Any:
        made.append(args)
        return prove(*args)

    monkeypatch.setattr(api, "proven", counted)
    return made


@pytest.mark.parametrize("method", ["mixquant", "ilp", "partial"])
def test_the_product_is_proven_once(method: str, proofs: list[Any]) -> None:
    found = found_by(method, data=data())
    assert len(proofs) == 1
    assert found.proof is not None and found.proof.samples == 4 and not found.proof.random
    made = onnxq.quantize(proto(), data(), overrides=dict(found.assignment))
    assert found.proof == made.card.proof
    assert found.record()["proof"] == found.proof.summary()
    assert found.to_dict()["proof"] == found.proof.to_dict()


@pytest.mark.parametrize("method", ["mixquant", "ilp"])
def test_without_data_there_is_no_product_and_it_is_said(method: str, proofs: list[Any]) -> None:
    said: list[str] = []
    found = found_by(method, reporter=Reporter(said.append))
    assert found.proof is None and not proofs and "proof" not in found.record()
    assert any("not proven" in text for text in said)
    said.clear()
    assert found_by(method, reporter=Reporter(said.append), proof="none").proof is None
    assert not said


@pytest.mark.parametrize("options", [{"strict": True}, {"min_sqnr": 10.0}, {"proving": ProofOptions(strict=True)}])
def test_a_proof_that_must_succeed_needs_data(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="needs data"):
        found_by("mixquant", **options)
    assert found_by("mixquant", data=DataOptions(random_data=4), proof="full").proof is not None


@pytest.mark.parametrize("method", ["mixquant", "partial"])
def test_a_product_that_is_not_good_enough_is_an_error(method: str) -> None:
    with pytest.raises(ProofError, match="dB"):
        found_by(method, data=data(), min_sqnr=90.0)


@pytest.mark.skipif(not library.has_library(), reason="no kernel library")
def test_the_product_of_an_integer_only_profile_is_lowered_and_the_model_is_not_changed() -> None:
    model = load(proto())
    before = [node.op for node in model.graph.nodes]
    found = search_bits(model, "mixquant", profile="onnxq", data=data())
    assert found.proof is not None and [r.name for r in found.proof.runs] == [
        "unoptimized",
        "kernels",
        "function bodies",
    ]
    assert [node.op for node in model.graph.nodes] == before


def test_where_every_layer_stays_in_float_there_is_nothing_to_prove(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxq.search.keep_float.dropped", lambda report: 1.0)
    said: list[str] = []
    found = search_partial(proto(), data(), max_drop=0.1, reporter=Reporter(said.append))
    assert found.counts() == {32: 3} and found.proof is None
    assert any("no product to prove" in text for text in said)


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(demo.model_path().read_bytes())
    np.savez(tmp_path / "d.npz", **{k: v[:16] for k, v in demo.calibration_data().items()})
    how = ("search", "m.onnx", "--method", "mixquant", "--max-size", "70%", "-o", "c.toml")
    failed = inside(*how, "--data", "d.npz", "--min-sqnr", 90, cwd=tmp_path)
    assert failed.code == 3 and "fails its proof" in failed.err and not (tmp_path / "c.toml").exists()
    refused = inside(*how, "--strict", cwd=tmp_path)
    assert refused.code not in (0, 3) and "needs data" in refused.err
    done = inside(*how, "--data", "d.npz", "--strict", cwd=tmp_path)
    assert done.code == 0 and "proven on 4 sample(s)" in done.out
    assert load_search_record(tmp_path / "c.toml")["proof"] in done.out
    assert load_config(tmp_path / "c.toml")
    assert "proven on" not in inside(*how, "--data", "d.npz", "--proof", "none", cwd=tmp_path).out
