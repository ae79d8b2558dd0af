"""onnxq profiles: the list, one profile, a file of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

import onnxq
from onnxq.profiles.schema import builtin_names, load_profile
from support.command import error_of, succeed
from support.command import onnxq as run


def test_the_list_has_every_profile_on_one_line() -> None:
    lines = succeed("profiles").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == builtin_names()
    for name, line in zip(builtin_names(), lines[1:], strict=True):
        assert load_profile(name).summary in line


@pytest.mark.parametrize("name", builtin_names())
def test_one_profile(name: str) -> None:
    said, profile = succeed("profiles", name).out, load_profile(name)
    assert said.startswith(f"{name}: {profile.summary}\nsource: {profile.source}\n")
    assert f"bits {' '.join(map(str, profile.weights.bits))}" in said
    assert "Rule(" not in said and "True" not in said, "Python in what people read"
    for op in profile.ops:
        assert any(line.split()[:1] == [op] for line in said.splitlines())


def test_a_file_is_validated(tmp_path: Path) -> None:
    own = tmp_path / "p.toml"
    text = (Path(onnxq.__file__).parent / "profiles" / "tensorrt.toml").read_text()
    own.write_text(text.replace("[weights]\n", '[weights]\ncolour = "red"\n'))
    line = own.read_text().splitlines().index('colour = "red"') + 1
    said = error_of(run("profiles", own))
    assert "p.toml" in said and f"line {line}" in said and "colour" in said
