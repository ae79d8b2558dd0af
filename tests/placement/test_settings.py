"""What the user asks for: widths, overrides, exclusions, and the files they are kept in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.errors import ConfigError
from onnxq.placement.settings import Override, QuantSettings, check_patterns, dump_config, load_config, parse_overrides


@pytest.mark.parametrize("value", [1, 9, 0, -8, 4.0, "4", True])
@pytest.mark.parametrize("name", ["weight_bits", "activation_bits", "first_last_bits"])
def test_widths(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: {value!r} is not a width of 2 to 8 bits$"):
        QuantSettings(**{name: value})
    for good in (2, 8, None):
        assert getattr(QuantSettings(**{name: good}), name) == good


def test_weight_range() -> None:
    with pytest.raises(ConfigError, match="weight_range: 'entropy' is neither max nor mse"):
        QuantSettings(weight_range="entropy")  # type: ignore[arg-type]


def test_a_name_beats_a_regular_expression_and_the_last_of_those_wins() -> None:
    settings = QuantSettings(
        overrides={
            "conv.*": Override(weight_bits=4),
            "conv1": Override(weight_bits=6),
            "conv[12]": Override(weight_bits=5),
            "conv": Override(keep_float=True),
        }
    )
    found = {n: settings.override_for(n) for n in ("conv1", "conv2", "conv3", "conv", "xconv1")}
    assert [found[n].weight_bits for n in ("conv1", "conv2", "conv3")] == [6, 5, 4]
    assert found["conv"].keep_float and found["xconv1"] == Override()  # the whole name has to match


def test_exclude() -> None:
    settings = QuantSettings(exclude=("a/.*", "b(1)", "c[0"))
    assert [settings.excluded(n) for n in ("a/x", "a", "b1", "b(1)", "c[0", "c")] == [
        True,
        False,
        True,
        True,
        True,
        False,
    ]


def test_names_are_checked() -> None:
    nodes, ops = ["conv1", "conv2", "fc[0"], ["Conv", "Gemm"]
    QuantSettings(overrides={"conv\\d": Override()}, exclude=("fc[0",), op_types=("Gemm",)).check_names(nodes, ops)
    for settings, message in (
        (QuantSettings(exclude=("covn1",)), "exclude: 'covn1' matches no node of the model; did you mean 'conv1'?"),
        (QuantSettings(overrides={"zzz": Override()}), "bits.toml: 'zzz' matches no node of the model"),
        (
            QuantSettings(exclude=("fc[",)),
            "exclude: 'fc[' is neither a node's name nor a regular expression: unterminated",
        ),
        (QuantSettings(op_types=("MatMul",)), "the model has no MatMul node (op_types); it has: Conv, Gemm"),
    ):
        with pytest.raises(ConfigError) as caught:
            settings.check_names(nodes, ops, "bits.toml")
        assert str(caught.value).startswith(message)


def test_check_patterns_of_nothing() -> None:
    check_patterns([], [], "here")
    with pytest.raises(ConfigError, match="matches no node"):
        check_patterns([".*"], [], "here")


def test_parse_overrides() -> None:
    override = Override(3, 5)
    table = {
        "a": "float",
        "b": {"weight_bits": 4},
        "c": {"weight_bits": 4, "activation_bits": 8},
        "d": {},
        "e": override,
    }
    assert parse_overrides(table) == {
        "a": Override(keep_float=True),
        "b": Override(4),
        "c": Override(4, 8),
        "d": Override(),
        "e": override,
    }


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("int8", "where: 'n' must be \"float\" or a table of bits, not 'int8'"),
        (4, 'must be "float" or a table of bits, not 4'),
        ({"bits": 4}, "where: 'n' has unknown key 'bits' (known: weight_bits, activation_bits)"),
        ({"weight_bits": 9}, "where: 'n': weight_bits: 9 is not a width of 2 to 8 bits"),
        ({"activation_bits": True}, "where: 'n': activation_bits: True is not a width"),
    ],
)
def test_malformed_overrides(value: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_overrides({"n": value}, "where")
    assert message in str(caught.value)


names = st.text(st.characters(codec="utf-8"), min_size=1)
overrides = st.one_of(
    st.just(Override(keep_float=True)),
    st.builds(Override, st.none() | st.integers(2, 8), st.none() | st.integers(2, 8)),
)


@given(st.dictionaries(names, overrides))
def test_a_dumped_config_reads_back_to_the_same(tmp_path_factory, table: dict[str, Override]) -> None:
    path = tmp_path_factory.mktemp("config") / "bits.toml"
    path.write_bytes(dump_config(table).encode())
    assert load_config(path) == table


def test_config_files(tmp_path: Path) -> None:
    expected = {"conv.*": Override(4, 8), "fc": Override(keep_float=True)}
    toml = tmp_path / "a.toml"
    toml.write_text('fc = "float"\n"conv.*" = { weight_bits = 4, activation_bits = 8 }\n')
    assert load_config(toml) == expected
    toml.write_text('[nodes]\nfc = "float"\n["nodes"."conv.*"]\nweight_bits = 4\nactivation_bits = 8\n')
    assert load_config(str(toml)) == expected
    file = tmp_path / "a.json"
    for table in ({"fc": "float"}, {"nodes": {"fc": "float"}}):
        file.write_text(json.dumps(table))
        assert load_config(file) == {"fc": Override(keep_float=True)}


def test_config_files_that_cannot_be_used(tmp_path: Path) -> None:
    def message(name: str, content: bytes | None) -> str:
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        text = str(caught.value)
        assert text.startswith(str(path)) and "\n" not in text
        return text.removeprefix(f"{path}: ")

    assert message("none.toml", None) == "cannot be read: No such file or directory"
    assert message("bad.toml", b"a = = 2").startswith("Invalid value (at line 1")
    assert message("bad.json", b"{").startswith("Expecting property name")
    assert message("binary.toml", b"\xff\x00") == "not a text file"
    assert message("list.json", b"[1]") == "a table of node names is needed, not list"
    assert message("bits.toml", b"conv = 4") == "'conv' must be \"float\" or a table of bits, not 4"
