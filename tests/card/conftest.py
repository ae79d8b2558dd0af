"""The card of a small model, quantized with every default."""

import pytest

from onnxq.card import Card
from support.cards import quantized


@pytest.fixture(scope="module")
def card() -> Card:
    return quantized()[1]
