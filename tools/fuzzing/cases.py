"""The case of a seed: a model of the corpus with a few mutations, and the commands that read it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fuzzing import corpus, draws, envelope, nodes, values
from fuzzing.draws import Rng
from onnxq.profiles.schema import builtin_names

MOST_MUTATIONS = 4
BYTES = 0.15  # of the cases, with mutations of their bytes
PASSES = ("convert-float32", "convert-opset{version=%d}", "dilated-pool-to-conv", "eliminate-identity", "expand-axes",
          "fold-batchnorm", "fold-channel-affine", "fold-constants", "fuse-matmul-add", "strip-qdq", "layout-nhwc",
          "fuse-residual", "fuse-activation-clips", "lower-dyadic")  # fmt: skip
NARROW = ("--weight-bits", "4", "--activation-bits", "4", "--first-last-bits", "none")
WIDTHS = ((), (), (), ("--weight-bits", "4"), NARROW)
RANDOM = ("--random-data", "2", "--threads", "1")
GROUPS = (nodes.MUTATIONS, nodes.MUTATIONS, values.MUTATIONS, values.MUTATIONS, envelope.MUTATIONS)
Words = tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """A mutated model. what: base and mutations, for people. commands: words, {model} and {out} for the files."""

    seed: int
    what: str
    content: bytes
    commands: tuple[Words, ...]


def drawn(seed: int) -> Case:
    """The case of a seed, the same at every call."""
    rng = np.random.default_rng([seed, 1])
    base = draws.one(rng, corpus.bases())
    model, done = base.proto(), [base.name]
    for _ in range(int(rng.integers(1, MOST_MUTATIONS + 1))):
        mutation = draws.one(rng, draws.one(rng, GROUPS))
        mutation(model, rng)
        done.append(f"{mutation.__module__.rpartition('.')[2]}.{mutation.__name__}")
    content = envelope.not_utf8(model.SerializeToString())
    if rng.random() < BYTES:
        other = draws.one(rng, corpus.bases()[:20]).proto().SerializeToString()
        content = envelope.raw(content, other, rng)
        done.append("bytes")
    return Case(seed, ", ".join(done), content, _commands(base.form, np.random.default_rng([seed, 2])))


def _commands(form: str, rng: Rng) -> tuple[Words, ...]:
    """inspect always, because it is quick, and two or three more that suit the model."""
    profile = draws.one(rng, builtin_names())
    chosen: list[Words] = [("inspect", "{model}", *(("--json",) if rng.random() < 0.3 else ()))]
    if form != "float":
        chosen.append(("card", "{model}", "--format", draws.one(rng, ["md", "json", "html"])))
    if rng.random() < 0.5:
        chosen.append(("check", "{model}", "--profile", profile, *(("--json",) if rng.random() < 0.3 else ())))
    if form != "float" or rng.random() < 0.1:
        chosen.append(("check", "{model}", "--integer-only"))
    if rng.random() < 0.4:
        chosen.append(("opt", "{model}", "-o", "{out}", "-p", ",".join(_passes(rng)), "--threads", "1"))
    if form == "QDQ":
        chosen.append(("lower", "{model}", "-o", "{out}", "--proof", _proof(rng)))
        if rng.random() < 0.3:
            chosen.append(_quantize(profile, rng, "--requantize"))
    elif form == "float":
        chosen.append(_quantize(profile, rng))
    return tuple(chosen)


def _quantize(profile: str, rng: Rng, *more: str) -> Words:
    widths = draws.one(rng, WIDTHS) if profile == "onnxq" else ()
    return ("quantize", "{model}", "-o", "{out}", "--profile", profile, *RANDOM, *widths, "--proof", _proof(rng), *more)


def _proof(rng: Rng) -> str:
    return "quick" if rng.random() < 0.25 else "none"


def _passes(rng: Rng) -> list[str]:
    chosen = [draws.one(rng, PASSES) for _ in range(int(rng.integers(1, 7)))]
    return [p % int(rng.integers(13, 23)) if "%" in p else p for p in chosen]
