"""Profiles: built-in ones follow their sources; mistakes in a user's own are reported with key and line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from onnxq.errors import ConfigError, ProfileError
from onnxq.graph.axes import LINEAR_OPS
from onnxq.numeric.formats import QuantFormat
from onnxq.profiles.schema import Profile, builtin_names, load_profile, parse_profile

KNOWN = {
    "acl",
    "ascend",
    "fbgemm",
    "onnxq",
    "onnxruntime-cpu",
    "onnxruntime-cuda",
    "openvino",
    "qnn",
    "snpe",
    "tensorrt",
    "tvm",
}

MINIMAL = 'name = "mine"\nsummary = "s"\nsource = "s"\n\n[graph]\nscheme = 2\n'


def test_the_known_profiles_are_there() -> None:
    assert set(builtin_names()) >= KNOWN
    assert builtin_names() == sorted(builtin_names())


def test_every_profile_loads() -> None:
    for name in builtin_names():
        profile = load_profile(name)
        assert profile.name == name and profile.summary and profile.source
        assert load_profile(name) is profile and load_profile(profile) is profile
        for op in LINEAR_OPS:
            assert profile.rule(op).action == "quantized"
        assert 8 in profile.weights.bits and profile.weights.bits[0] == profile.activations.bits[0] == 8


# MQBench (Li et al. 2021), table 2: scale form, weight granularity, symmetry, graph scheme, BN folded.
TABLE_2 = [
    ("tensorrt", "float32", "per-channel", "symmetric", 2, True),
    ("ascend", "float32", "per-channel", "asymmetric", 1, True),
    ("tvm", "power-of-two", "per-tensor", "symmetric", 3, True),
    ("snpe", "float32", "per-tensor", "asymmetric", 3, True),
    ("fbgemm", "float32", "per-channel", "asymmetric", 3, True),
]


@pytest.mark.parametrize(("name", "form", "granularity", "symmetry", "scheme", "folded"), TABLE_2)
def test_mqbench_table_2(name: str, form: str, granularity: str, symmetry: str, scheme: int, folded: bool) -> None:
    profile = load_profile(name)
    assert profile.weights.power_of_two == profile.activations.power_of_two == (form == "power-of-two")
    assert profile.weights.granularity == granularity
    assert profile.weights.symmetric == profile.activations.symmetric == (symmetry == "symmetric")
    assert profile.graph.scheme == scheme
    assert profile.graph.fold_batchnorm == folded


# weights, activations at 8 bits, bias, scheme, concat: ours.
OWN = [
    ("onnxruntime-cpu", "int8 symmetric", "uint8 affine", "int32", 3, "per-input"),
    ("onnxruntime-cuda", "int8 symmetric", "int8 symmetric", "float32", 2, "float"),
    ("openvino", "int8 symmetric", "uint8 affine", "float32", 2, "shared"),
    ("qnn", "int8 symmetric", "uint8 affine", "int32", 3, "per-input"),
    ("acl", "int8 symmetric", "int8 affine", "int32", 3, "per-input"),
    ("onnxq", "int8 symmetric", "uint8 affine", "int32", 2, "per-input"),
]


@pytest.mark.parametrize(("name", "weights", "activations", "bias", "scheme", "concat"), OWN)
def test_our_own_profiles(name: str, weights: str, activations: str, bias: str, scheme: int, concat: str) -> None:
    profile = load_profile(name)
    assert str(profile.weights.format(8)) == weights and profile.weights.granularity == "per-channel"
    assert str(profile.activations.format(8, False)) == activations
    assert (profile.bias, profile.graph.scheme, profile.graph.concat) == (bias, scheme, concat)


def test_tensorrt_rejects_what_it_rejects() -> None:
    profile = load_profile("tensorrt")
    assert profile.bias == "float32" and not profile.limits.bias_dequantize and not profile.limits.nonzero_zero_points


@pytest.mark.parametrize("name", ["onnxq", "onnxruntime-cpu"])
def test_low_bits_where_they_run(name: str) -> None:
    profile = load_profile(name)
    assert set(profile.weights.bits) == set(profile.activations.bits) == set(range(2, 9))


def test_formats() -> None:
    tensorrt = load_profile("tensorrt")
    assert tensorrt.weights.format(8) == QuantFormat(8, True, True, True)
    auto = dataclasses.replace(tensorrt.activations, sign="auto", narrow_range=True)
    assert auto.format(8, True) == QuantFormat(8, False, True, False)  # narrow_range is for signed codes
    assert auto.format(8, False) == QuantFormat(8, True, True, True)
    assert load_profile("onnxruntime-cpu").activations.format(4, True) == QuantFormat(4, False, False)


def test_unnamed_operators_stay_float() -> None:
    assert load_profile("tensorrt").rule("Loop").action == "float"


def test_check_bits() -> None:
    profile = load_profile("openvino")
    profile.check_bits("weights", 4, "here")
    with pytest.raises(ConfigError, match="node a: profile openvino supports weights of 4, 8 bits, not 5"):
        profile.check_bits("weights", 5, "node a")
    with pytest.raises(ConfigError, match="supports activations of 8 bits, not 4"):
        profile.check_bits("activations", 4, "t")


def test_profiles_cannot_be_changed() -> None:
    profile = load_profile("tensorrt")
    with pytest.raises(TypeError):
        profile.ops["Conv"] = profile.ops["Add"]  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.bias = "int32"  # type: ignore[misc]


# A user's own


def test_a_file_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL + '[weights]\nbits = [4, 8]\n[ops]\nConv = { output = "always", note = "n" }\n')
    profile = load_profile(path)
    assert profile == load_profile(str(path))
    assert profile.name == "mine" and profile.weights.bits == (4, 8) and profile.rule("Conv").note == "n"
    assert profile.activations == type(profile.activations)()  # keys that are not given have their defaults


def test_a_copy_of_a_built_in_one(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "copy.toml"
    path.write_bytes((root / "onnxq" / "profiles" / "tensorrt.toml").read_bytes())
    assert load_profile(path) == load_profile("tensorrt")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensort", "no profile is called 'tensort'; did you mean tensorrt?"),
        ("onnxruntime", "did you mean onnxruntime-"),
        ("zzz", f"no profile is called 'zzz' (there are: {', '.join(builtin_names())})"),
        ("missing.toml", "missing.toml: cannot be read: No such file or directory"),
    ],
)
def test_names_that_do_not_exist(name: str, message: str) -> None:
    with pytest.raises(ProfileError) as caught:
        load_profile(name)
    assert message in str(caught.value)


def test_files_that_are_no_profiles(tmp_path: Path) -> None:
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match=r"b\.toml: not a text file"):
        load_profile(binary)
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(tmp_path)  # a folder
    with pytest.raises(ProfileError, match=r"x\.toml: .*line 1"):
        parse_profile("= 3", "x.toml")


# (text, line, message): every kind of mistake names the line and the key.
MISTAKES = {
    "unknown table": (MINIMAL + "[grahp]\n", 7, "grahp: unknown key 'grahp'; did you mean graph?"),
    "unknown key": (MINIMAL + "shceme = 2\n", 7, "graph.shceme: unknown key 'shceme'; did you mean scheme?"),
    "nothing close": (MINIMAL + "zzz = 2\n", 7, "graph.zzz: unknown key 'zzz' (known: scheme, concat, "),
    "key of an operator": (MINIMAL + "[ops]\nAdd = {}\nConv = { outptu = 1 }\n", 9, "'outptu'; did you mean output?"),
    "operator as a table": (MINIMAL + "[ops.Conv]\noutptu = 1\n", 8, "ops.Conv.outptu: unknown key"),
    "dotted key": (MINIMAL + "[ops]\nConv.outptu = 1\n", 8, "ops.Conv.outptu: unknown key"),
    "bad choice": (MINIMAL + '[weights]\ngranularity = "channel"\n', 8, "'channel' is not one of 'per-tensor', "),
    "bad number": (MINIMAL.replace("2", "4"), 6, "graph.scheme: 4 is not one of 1, 2, 3"),
    "a float is no scheme": (MINIMAL.replace("2", "2.0"), 6, "graph.scheme: 2.0 is not one of 1, 2, 3"),
    "a bool is no scheme": (MINIMAL.replace("2", "true"), 6, "graph.scheme: True is not one of 1, 2, 3"),
    "bool wanted": (MINIMAL + "[weights]\n\nsigned = 1\n", 9, "weights.signed: must be of type bool, not 1"),
    "string wanted": (MINIMAL.replace('"s"', "3", 1), 2, "summary: must be of type str, not 3"),
    "list wanted": (MINIMAL + "[weights]\nbits = 8\n", 8, "weights.bits: must be a list"),
    "list of numbers": (MINIMAL + '[weights]\nbits = ["8"]\n', 8, "weights.bits[0]: must be of type int, not '8'"),
    "empty list": (MINIMAL + "[weights]\nbits = []\n", 8, "weights.bits: must be a list"),
    "table wanted": ("weights = 3\n" + MINIMAL, 1, "weights: must be a table"),
    "ops no table": ("ops = 3\n" + MINIMAL, 1, "ops: must be a table"),
    "operator no table": (MINIMAL + "[ops]\nConv = true\n", 8, "ops.Conv: must be a table"),
    "missing scheme": (MINIMAL.replace("scheme = 2", ""), 5, "graph: key 'scheme' is missing"),
    "width": (MINIMAL + "[weights]\nbits = [8, 16]\n", 8, "weights.bits: 16 is not a width of 2 to 8 bits"),
    "width twice": (MINIMAL + "[activations]\nbits = [8, 8]\n", 8, "activations.bits: a width is listed twice"),
    "unsigned weights": (MINIMAL + "[weights]\nsigned = false\n", 8, "weights.signed: symmetric weights must be"),
    "unsigned": (MINIMAL + '[activations]\nsign = "unsigned"\n', 8, "activations.sign: symmetric activations cannot"),
    "zero points": (
        MINIMAL + "[activations]\nsymmetric = false\n[limits]\nnonzero_zero_points = false\n",
        8,
        "activations.symmetric: affine formats have zero points",
    ),
    "bias": (MINIMAL + "[limits]\nbias_dequantize = false\n", 8, "limits.bias_dequantize: rules out an int32 bias"),
    "opset": (MINIMAL + "[limits]\nopset_min = 40\n", 8, "limits.opset_min: onnxruntime supports opset 1 to 26"),
    "opsets": (MINIMAL + "[limits]\nopset_min = 19\nopset_max = 17\n", 9, "limits.opset_max: is below 19"),
    "operator": (MINIMAL + "[ops]\nConvv = {}\n", 8, "ops.Convv: ONNX has no operator 'Convv'; did you mean Conv?"),
    "fused": (MINIMAL + 'fused_activations = ["Relu6"]\n', 7, "ONNX has no operator 'Relu6'; did you mean Relu?"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(case: str) -> None:
    text, line, message = MISTAKES[case]
    with pytest.raises(ProfileError) as caught:
        parse_profile(text, "mine.toml")
    assert str(caught.value).startswith(f"mine.toml, line {line}: ")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["name", "summary", "source"])
def test_a_missing_key_at_the_top(key: str) -> None:
    text = "\n".join(line for line in MINIMAL.splitlines() if not line.startswith(key))
    with pytest.raises(ProfileError, match=f"^mine.toml: key '{key}' is missing$"):
        parse_profile(text, "mine.toml")


def test_every_field_of_every_table_is_checked() -> None:
    # A value of a type that no field takes is refused wherever it stands: none is passed through unread.
    def refuse(prefix: str, cls: type) -> None:
        for f in dataclasses.fields(cls):
            if f.name in ("graph", "weights", "activations", "limits", "ops"):
                continue
            value = "1979-05-27"
            text = f"{f.name} = {value}\n{MINIMAL}" if not prefix else f"{MINIMAL}[{prefix}]\n{f.name} = {value}\n"
            if prefix == "graph":
                text = MINIMAL.replace(
                    "scheme = 2", f"{f.name} = {value}" + ("\nscheme = 2" if f.name != "scheme" else "")
                )
            if not prefix:
                text = "\n".join(x for x in text.splitlines() if not x.startswith(f.name) or value in x)
            with pytest.raises(ProfileError, match=rf"line \d+: {prefix + '.' if prefix else ''}{f.name}: "):
                parse_profile(text, "x.toml")

    profile = load_profile("tensorrt")
    refuse("", Profile)
    for part in ("graph", "weights", "activations", "limits"):
        refuse(part, type(getattr(profile, part)))
    refuse("ops.Conv", type(profile.rule("Conv")))


def test_arm_compute_library_has_scales_per_channel_in_convolutions_only() -> None:
    """Its FullyConnectedLayer and MatMul take QASYMM8_SIGNED weights, which have one scale."""
    profile = load_profile("acl")
    assert {op: profile.granularity(op) for op in LINEAR_OPS} == {
        op: "per-tensor" if op in ("Gemm", "MatMul") else "per-channel" for op in LINEAR_OPS
    }
    assert all(load_profile(n).granularity("Gemm") == load_profile(n).weights.granularity for n in KNOWN - {"acl"})
    assert profile.rule("Softmax").action == "float"  # its output has a fixed scale there
