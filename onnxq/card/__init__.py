"""The quantization card: what was traded for the accuracy, for people and for machines.

After Garg et al., "Confounding Tradeoffs for Neural Network Quantization" (2021), tables 1, 3 and 4: quantization
method, quantized operations, mixed precision, resource complexity, pretrained model; and beyond them the profile, the
pipeline, every layer's bits and every node left in float with the reason.
"""

from onnxq.card.build import FloatInfo, build_card, describe_float
from onnxq.card.schema import SCHEMA, Card
from onnxq.card.store import CARD_KEY, card_path, embed, read_card

__all__ = ["CARD_KEY", "SCHEMA", "Card", "FloatInfo", "build_card", "card_path", "describe_float", "embed", "read_card"]
