"""Widths and signs of quantized tensors and weights."""

import pytest

from onnxq.errors import ConfigError
from onnxq.placement.settings import Override
from support.build import qdq
from support.insertion import profile_of
from support.placements import CONV, DEEP, bits, planned


def test_widest_reader_decides_and_that_is_told() -> None:
    model = qdq.model(
        """g (float[1,4,6,6] x) => (float[1,4,6,6] y, float[1,4,6,6] z) <float[4,4,1,1] w, float[4,4,1,1] v>
        { [a] y = Conv(x, w) [b] z = Conv(x, v) }"""
    )
    overrides = {"a": Override(activation_bits=4), "b": Override(activation_bits=6)}
    placement = planned(model, overrides=overrides)
    assert bits(placement)["x"] == 6
    assert placement.notes == ["tensor x is quantized once, to 6 bits: a asks for 4, b asks for 6"]


def test_first_and_last_layers() -> None:
    placement = planned(qdq.model(DEEP), "onnxq", weight_bits=4, activation_bits=4)
    assert {layer.node.name: layer.weight_format.bits for layer in placement.layers} == {"a": 8, "b": 4, "c": 8}
    # What is before the first and behind the last layer has their width too: a 4-bit image or logit would ruin it.
    assert bits(placement) == {"x": 8, "x2": 8, "p": 4, "q": 8, "r": 8, "s": 8}
    plain = planned(qdq.model(DEEP), "onnxq", weight_bits=4, activation_bits=4, first_last_bits=None)
    assert {layer.weight_format.bits for layer in plain.layers} == {4} and set(bits(plain).values()) == {4}
    six = planned(qdq.model(DEEP), "onnxq", weight_bits=4, activation_bits=4, first_last_bits=6)
    assert {layer.node.name: layer.weight_format.bits for layer in six.layers} == {"a": 6, "b": 4, "c": 6}


def test_first_and_last_where_the_target_does_not_take_their_width() -> None:
    profile = profile_of("[graph]\nscheme = 3\n[weights]\nbits = [4]\n[activations]\nbits = [4]\n[ops]\nConv = {}\n")
    placement = planned(qdq.model(DEEP), profile)
    assert {layer.weight_format.bits for layer in placement.layers} == {4} and set(bits(placement).values()) == {4}


def test_a_tied_tensor_follows_the_reader_behind_the_passthrough() -> None:
    text = f"""g {CONV} <float[4,4,1,1] w, float[4,4,1,1] v, float[4,4,1,1] u>
    {{ [c] t = Conv(x, w) [pool] m = MaxPool<kernel_shape=[1,1]>(t) [d] n = Conv(m, v) [e] y = Conv(n, u) }}"""
    placement = planned(qdq.model(text), overrides={"d": Override(activation_bits=4)})
    assert bits(placement) == {"x": 8, "t": 4, "m": 4, "n": 8, "y": 8}


def test_bits_that_the_target_does_not_take() -> None:
    model = qdq.model(DEEP)
    with pytest.raises(ConfigError, match="node b: profile tensorrt supports weights of 8 bits, not 4"):
        planned(model, "tensorrt", weight_bits=4)
    with pytest.raises(ConfigError, match="tensor p: profile tensorrt supports activations of 8 bits, not 6"):
        planned(model, "tensorrt", activation_bits=6)


def test_formats_follow_the_sign() -> None:
    profile = profile_of('[graph]\nscheme = 3\n[activations]\nsign = "auto"\n[ops]\nConv = { output = "always" }\n')
    placement = planned(qdq.model(f"g {CONV} <float[4,4,1,1] w> {{ t = Conv(x, w) y = Relu(t) }}"), profile)
    assert {p.tensor.name: p.format.signed for p in placement.points} == {"x": True, "y": False}
