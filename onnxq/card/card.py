"""The public card object: the data, with a method per rendering."""

from __future__ import annotations

from dataclasses import dataclass

from onnxq.card.render import html, markdown, text
from onnxq.card.schema import CardData


@dataclass(frozen=True)
class Card(CardData):
    """A quantization card: the tradeoffs of a quantized model, readable by people and machines."""

    def to_markdown(self) -> str:
        """The card as Markdown with tables."""
        return markdown.render(self)

    def to_html(self) -> str:
        """The card as one self-contained HTML page: styles and images are inline; there are no scripts."""
        return html.render(self)

    def summary(self) -> str:
        """A summary in a few lines for the terminal."""
        return text.summary(self)
