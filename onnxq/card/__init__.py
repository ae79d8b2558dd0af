"""The quantization card: the tradeoffs of a quantized model, readable by people and machines.

schema, parts: the data. assembly: from a quantization run. render: as Markdown, HTML, text. store: reading and writing.
After Garg et al., "Confounding Tradeoffs for Neural Network Quantization" (2021), tables 1, 3 and 4: quantization
method, quantized operations, mixed precision, resource complexity, pretrained model; in addition the profile, the
pipeline, the bits of every layer, and every node left in float with the reason.
"""

from onnxq.card.assembly.card import build_card
from onnxq.card.assembly.float_model import FloatInfo, describe_float
from onnxq.card.assembly.run import Effort, Made, Provenance
from onnxq.card.card import Card
from onnxq.card.schema import SCHEMA
from onnxq.card.store import CARD_KEY, card_path, embed, find_card, read_card

__all__ = [
    "CARD_KEY", "SCHEMA", "Card", "Effort", "FloatInfo", "Made", "Provenance", "build_card", "card_path",
    "describe_float", "embed", "find_card", "read_card",
]  # fmt: skip
