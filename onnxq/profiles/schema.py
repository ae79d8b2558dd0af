"""Hardware profiles: one TOML file per target, validated when loaded (docs/profiles.md)."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import onnx

from onnxq.errors import ConfigError, ProfileError
from onnxq.graph.model import OPSET_MAX
from onnxq.numeric.formats import MAX_BITS, MIN_BITS, QuantFormat
from onnxq.records import BadRecord, BadText, build, parse_toml, read_text, suggest, toml_line

OPSET_QDQ = 13  # per-channel Q/DQ

Granularity = Literal["per-tensor", "per-channel"]
Sign = Literal["signed", "unsigned", "auto"]


@dataclass(frozen=True)
class WeightRule:
    """Number format of weights. bits: the widths the target supports, the default first."""

    bits: tuple[int, ...] = (8,)
    signed: bool = True
    symmetric: bool = True
    narrow_range: bool = True
    granularity: Granularity = "per-channel"
    power_of_two: bool = False

    def format(self, bits: int) -> QuantFormat:
        """The format at one width."""
        return QuantFormat(bits, self.signed, self.symmetric, self.narrow_range, self.power_of_two)


@dataclass(frozen=True)
class ActivationRule:
    """Number format of activations, always per-tensor. sign "auto": unsigned where known to be non-negative."""

    bits: tuple[int, ...] = (8,)
    sign: Sign = "signed"
    symmetric: bool = True
    narrow_range: bool = False
    power_of_two: bool = False

    def format(self, bits: int, nonnegative: bool) -> QuantFormat:
        """The format at one width. nonnegative: the tensor is known to be non-negative."""
        signed = self.sign == "signed" or (self.sign == "auto" and not nonnegative)
        return QuantFormat(bits, signed, self.symmetric, self.narrow_range and signed, self.power_of_two)


@dataclass(frozen=True)
class GraphRule:
    """Where Q/DQ goes between layers.

    scheme: MQBench's graph schemes (figure 4) for elementwise adds. 1: adds stay in float. 2: exactly one input is
    quantized, the shortcut; the residual convolution's output enters wide. 3: every input is quantized.
    concat: "float" (no Q/DQ for it), "per-input" (each input has its own scale) or "shared" (one scale for the
    inputs and the output).
    tie_passthrough: an op that only moves or selects values (pooling, reshape…) has Q/DQ on both sides with one scale;
    otherwise only where its consumer needs it.
    all_readers: a quantized tensor is dequantized for every reader, float operators and graph outputs too.
    fold_batchnorm: batch normalizations are folded into layers before quantizing.
    fused_activations: run inside the upstream layer, so no Q/DQ in between. fused_after: those layers.
    absorb_activations: a Relu or Clip is dropped where the following QuantizeLinear saturates identically.
    matmul_bias: a per-channel constant added to the result of a MatMul is that layer's int32 bias: no Q/DQ in between.
    residual_kept: type of residual sums when lowered to integers: "int8", codes like those of other activations;
    "int32", wide wherever a layer below 8 bits makes or reads them (HAWQ-V3, eqs. 9 and 10); "int16", likewise, stored
    in 16 bits with a calibrated range; "float", not lowered.
    lowered: the target runs integer-only models, so quantizing produces one.
    """

    scheme: Literal[1, 2, 3]
    concat: Literal["float", "per-input", "shared"] = "per-input"
    tie_passthrough: bool = False
    all_readers: bool = False
    fold_batchnorm: bool = True
    fused_activations: tuple[str, ...] = ("Relu", "Clip")
    fused_after: tuple[str, ...] = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sum")
    absorb_activations: bool = False
    matmul_bias: bool = False
    residual_kept: Literal["int8", "int16", "int32", "float"] = "float"
    lowered: bool = False


@dataclass(frozen=True)
class OpRule:
    """What the target does with one operator.

    action: "quantized" (inputs, and weights if any, in integers), "passthrough" (moves integers unchanged) or "float".
    output: "always" puts Q/DQ on its output in any case; "on-demand" only if a consumer runs in integers.
    dynamic: matrix products of two activations are quantized too. constants: a constant operand is quantized,
    or (float_constants) stays in float. inner: quantized only if a layer is downstream; at the end of a model it stays
    in float. per_tensor: its weight has one scale even if others have one per channel. note: a remark for the user,
    shown by `onnxq check`.
    """

    action: Literal["quantized", "passthrough", "float"] = "quantized"
    output: Literal["always", "on-demand"] = "on-demand"
    dynamic: bool = False
    constants: bool = False
    float_constants: bool = False
    inner: bool = False
    per_tensor: bool = False
    note: str = ""


@dataclass(frozen=True)
class LimitRule:
    """Limits of the model file. opset_max 0: no limit.

    nonzero_zero_points, bias_dequantize: whether the target accepts them. contrib_ops: whether it accepts, besides
    Q/DQ, onnxruntime's own operators (domain com.microsoft) and integer operators (QLinearConv, MatMulInteger).
    """

    opset_min: int = 13
    opset_max: int = 0
    nonzero_zero_points: bool = True
    bias_dequantize: bool = True
    contrib_ops: bool = False


@dataclass(frozen=True)
class Profile:
    """One hardware target.

    bias: "int32" (quantized with scale_x · scale_w) or "float32" where the target rejects quantized biases.
    runtime: what runs its models on this machine, for their proof (docs/proof.md); "none" if nothing here does what the
    target does.
    ops: operator → OpRule; operators that are not listed stay in float.
    """

    name: str
    summary: str
    source: str
    graph: GraphRule
    weights: WeightRule = WeightRule()
    activations: ActivationRule = ActivationRule()
    bias: Literal["int32", "float32"] = "int32"
    runtime: Literal["onnxruntime", "onnxruntime-gpu", "onnxruntime-qnn", "openvino", "none"] = "onnxruntime"
    limits: LimitRule = LimitRule()
    ops: Mapping[str, OpRule] = dataclasses.field(default_factory=dict)

    def rule(self, op: str) -> OpRule:
        """The rule for an operator of the standard domain; float if the profile does not list it."""
        return self.ops.get(op, _FLOAT)

    def granularity(self, op: str) -> Granularity:
        """The scales of the weights of an operator: one, or one per output channel."""
        return "per-tensor" if self.rule(op).per_tensor else self.weights.granularity

    def check_bits(self, kind: Literal["weights", "activations"], bits: int, where: str) -> None:
        """Raise ConfigError if the target does not support this width."""
        allowed = getattr(self, kind).bits
        if bits not in allowed:
            widths = ", ".join(map(str, sorted(allowed)))
            raise ConfigError(f"{where}: profile {self.name} supports {kind} of {widths} bits, not {bits}")


_FLOAT = OpRule(action="float")


def builtin_names() -> list[str]:
    """Names of the built-in profiles."""
    return sorted(p.name.removesuffix(".toml") for p in _folder().iterdir() if p.name.endswith(".toml"))


def load_profile(name_or_path: str | Path | Profile) -> Profile:
    """A built-in profile by name, or a user's profile by path. Raises ProfileError."""
    if isinstance(name_or_path, Profile):
        return name_or_path
    text = str(name_or_path)
    if text in builtin_names():
        return _builtin(text)
    path = Path(text)
    if path.suffix != ".toml" and not path.exists():
        hint = suggest(text, builtin_names(), "there are")
        raise ProfileError(f"no profile is called {text!r}{hint}; the name of a profile file must end in .toml")
    try:
        return parse_profile(read_text(path), str(path))
    except OSError as err:
        raise ProfileError(f"{path}: cannot be read: {err.strerror}") from None
    except BadText as err:
        raise ProfileError(f"{path}: {err}") from None


def parse_profile(text: str, where: str) -> Profile:
    """TOML text to a Profile. Raises ProfileError, naming the file, the line and the key."""
    try:
        table = parse_toml(text)
    except BadText as err:
        raise ProfileError(f"{where}: {err}") from None
    try:
        profile = build(Profile, table)
        for path, reason in _contradictions(profile):
            raise BadRecord(path, reason)
    except BadRecord as err:
        line = toml_line(text, err.path)
        raise ProfileError(f"{where}{f', line {line}' if line else ''}: {err}") from None
    return profile


@cache
def _builtin(name: str) -> Profile:
    file = _folder() / f"{name}.toml"
    profile = parse_profile(file.read_text(encoding="utf-8"), f"{name}.toml")
    if profile.name != name:
        raise ProfileError(f"{name}.toml: its name is {profile.name!r}, it must match the file name")
    return profile


def _contradictions(profile: Profile) -> Iterator[tuple[tuple[str, ...], str]]:
    """Well-formed but contradictory values, as (key, message)."""
    for part in ("weights", "activations"):
        bits = getattr(profile, part).bits
        if not bits:
            yield (part, "bits"), "must be a list of at least one width"
        wrong = next((b for b in bits if not MIN_BITS <= b <= MAX_BITS), None)
        if wrong is not None:
            yield (part, "bits"), f"{wrong} is not a width of {MIN_BITS} to {MAX_BITS} bits"
        if len(set(bits)) < len(bits):
            yield (part, "bits"), "a width is listed twice"
    if profile.weights.symmetric and not profile.weights.signed:
        yield ("weights", "signed"), "symmetric weights must be signed: without a zero point nothing is negative"
    if profile.activations.symmetric and profile.activations.sign == "unsigned":
        yield ("activations", "sign"), 'symmetric activations cannot all be unsigned: use "auto"'
    limits = profile.limits
    if not limits.nonzero_zero_points:
        for part in ("weights", "activations"):
            if not getattr(profile, part).symmetric:
                yield (part, "symmetric"), "affine formats have zero points, which limits.nonzero_zero_points rules out"
    if not limits.bias_dequantize and profile.bias == "int32":
        yield ("limits", "bias_dequantize"), 'rules out an int32 bias: bias = "float32" is needed'
    if not 1 <= limits.opset_min <= OPSET_MAX:
        yield ("limits", "opset_min"), f"onnxruntime supports opset 1 to {OPSET_MAX}"
    lowest = max(limits.opset_min, OPSET_QDQ)
    if limits.opset_max and limits.opset_max < lowest:
        yield ("limits", "opset_max"), f"is below {lowest}, the lowest opset needed"
    named = [(("ops", op), op) for op in profile.ops]
    for key in ("fused_activations", "fused_after"):
        named += [(("graph", key), op) for op in getattr(profile.graph, key)]
    for path, op in named:
        if not onnx.defs.has(op):
            close = difflib.get_close_matches(op, {s.name for s in onnx.defs.get_all_schemas() if not s.domain}, 1)
            yield path, f"ONNX has no operator {op!r}" + (f"; did you mean {close[0]}?" if close else "")


def _folder() -> Any:
    return resources.files("onnxq") / "profiles"
