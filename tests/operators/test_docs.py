"""The pages in docs/operators are those that the schemas make."""

from __future__ import annotations

import operator_docs


def test_pages_are_current() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in operator_docs.FOLDER.glob("*.md")}
    assert written == operator_docs.pages(), "run tools/generators/operator_docs.py and read the difference"


def test_pages_hold_what_a_reader_needs() -> None:
    pages = operator_docs.pages()
    for line in ("`w_zero_point` | int8 | [1] or [M]", "`qmin` | int | required", "`strides` | ints, 2 | [1, 1]"):
        assert line in pages["Conv.md"]
    assert "ConvInteger <strides: ints = @strides" in pages["Conv.md"]
    assert "[Max pooling, channels-last.](MaxPool.md)" in pages["README.md"]
    assert "Concat2 … Concat8" in pages["README.md"] and "Concat2.md" not in pages
