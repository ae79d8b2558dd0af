"""What holds for every search method, whichever there are."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner

from onnxq.cli.search import GIVE, command
from onnxq.errors import ConfigError
from onnxq.search.choose import search_bits
from onnxq.search.method import INPUTS, available, listed, options_of, users
from support.build import floating

TEXT = "g (float[1,4] x) => (y) <float[4,4] w> { [one] y = MatMul(x, w) }"
METHODS = tuple(available())


def help_text() -> str:
    return re.sub(r"\s+", " ", CliRunner().invoke(command, ["--help"]).output)


@pytest.mark.parametrize("name", METHODS)
def test_the_command_lists_the_method_with_its_options(name):
    cls, shown = available()[name], help_text()
    about = (cls.__doc__ or "").splitlines()[0]
    assert about
    assert not about.startswith(f"{cls.__name__}("), "the docstring that dataclass makes up is no help"
    assert f"{name}: {about}" in shown
    flags = {param.name: param for param in command.params}
    for option, field in options_of(cls).items():
        assert field.metadata["help"]
        assert f"--{option.replace('_', '-')}" in flags[option].opts
        assert name in users(option)


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_needs_and_takes_is_known(name):
    cls = available()[name]
    assert set(cls.takes) <= set(INPUTS) == set(GIVE)
    assert set(cls.needs) <= {*INPUTS, *options_of(cls)}
    assert cls.sweeps in ("", *options_of(cls))
    assert all(2 <= bits <= 8 for bits in cls.widths)


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_needs_must_be_given(name, tmp_path):
    cls = available()[name]
    if cls.needs:
        result = CliRunner().invoke(command, [str(tmp_path / "m.onnx"), "--method", name])
        assert isinstance(result.exception, ConfigError)
        assert f"--method {name} needs --" in str(result.exception)


@pytest.mark.parametrize("name", METHODS)
def test_options_of_other_methods_are_refused_unless_they_have_their_default(name, tmp_path):
    cls = available()[name]
    others = {o: f for other in available().values() for o, f in options_of(other).items() if name not in users(o)}
    for option, field in others.items():
        value = field.metadata["choices"][-1] if field.metadata["choices"] else "7"
        flag = f"--{option.replace('_', '-')}"
        result = CliRunner().invoke(command, [str(tmp_path / "m.onnx"), "--method", name, flag, value])
        assert f"{flag} is for --method {listed(users(option))}, not {name}" in str(result.exception)
        if not cls.needs:
            with pytest.raises(ConfigError, match=f"{option} is an option of method"):
                search_bits(floating.proto(TEXT, 17, 8), name, **{option: value})


def test_an_unheard_of_method_is_answered_with_those_there_are():
    result = CliRunner().invoke(command, ["m.onnx", "--method", "dice"])
    assert all(name in result.output for name in METHODS)
    assert isinstance(command, click.Command)
    with pytest.raises(ConfigError, match=r"method 'dice': choose .*mixquant"):
        search_bits(floating.proto(TEXT, 17, 8), "dice")
