"""The card that users hold: its data, with a method for each rendering."""

from __future__ import annotations

from dataclasses import dataclass

from onnxq.card.render import html, markdown, text
from onnxq.card.schema import CardData


@dataclass(frozen=True)
class Card(CardData):
    """A quantization card: what was traded for the accuracy, for people and for machines."""

    def to_markdown(self) -> str:
        """The card as Markdown with tables."""
        return markdown.render(self)

    def to_html(self) -> str:
        """The card as one self-contained HTML page: styles and pictures are inline, there are no scripts."""
        return html.render(self)

    def summary(self) -> str:
        """A few lines for the terminal."""
        return text.summary(self)
