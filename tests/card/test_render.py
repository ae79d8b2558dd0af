"""Markdown, HTML and summary of a card show what is in it."""

import dataclasses
import re
from html.parser import HTMLParser

import onnxq
from onnxq.placement.settings import Override
from support.cards import EVALUATION, quantized
from support.cases.zoo import KINDS


class Page(HTMLParser):
    """Collects text and attributes, and fails on tags that do not match."""

    VOID = ("meta", "rect", "line", "br", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_markdown_shows_every_section_and_layer(card):
    text = card.to_markdown()
    for title in (
        "Pretrained model",
        "Quantization method",
        "Quantized operations",
        "Mixed precision",
        "Resource complexity",
    ):
        assert f"## {title}" in text
    for name in ("stem", "block", "head"):
        assert re.search(rf"^\| {name} \| (Conv|Gemm) \|", text, re.M)
    assert "| soft | Softmax |" in text
    assert "not evaluated" in text
    assert "RANDOM" not in text
    assert "| pipeline | insert-qdq{calibration=percentile:99.9}, fuse-activation-clips |" in text
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith(("| stem", "| layer"))}
    assert len(widths) == 1, "every row has as many cells as its heading"


def test_names_cannot_break_the_tables(card):
    odd = dataclasses.replace(card.layers[0], name="a|b\n<script>alert(1)</script>")
    changed = dataclasses.replace(card, layers=(odd, *card.layers[1:]))
    line = next(line for line in changed.to_markdown().splitlines() if "a\\|b" in line)
    assert line.count(" | ") == 8
    assert "<script" not in changed.to_html()
    assert Page(changed.to_html())


def test_html_is_whole_and_needs_nothing_from_outside(card):
    html = card.to_html()
    page = Page(html)
    assert not re.search(r"(?:src|href)\s*=|url\((?!#)|@import|<script", html)
    assert "http" not in html
    for word in ("stem", "block", "head", "soft", "Quantization card", "onnxruntime-cpu", "not evaluated"):
        assert word in page.text
    bars = [a for tag, a in page.seen if tag == "rect" and a.get("class")]
    products = [r.name for r in card.layers if r.macs]
    assert products == ["stem", "block", "head"]
    assert len(bars) == len(products) * (1 + 1 + 1 + 2), "weight bits, activation bits, MACs, bytes before and after"
    assert all(float(b["x"]) >= 0 and float(b["x"]) + float(b["width"]) <= 1000 for b in bars)
    assert all(float(b["height"]) >= 0 for b in bars)


def test_bars_are_as_high_as_the_bits():
    card = quantized(profile="onnxq", overrides={"block": Override(weight_bits=4)}, exclude=("head",))[1]
    bars = [a for tag, a in Page(card.to_html()).seen if tag == "rect" and a.get("class") in ("b4", "b8", "float")]
    heights = {kind: {float(b["height"]) for b in bars if b["class"] == kind} for kind in ("b4", "b8", "float")}
    assert heights == {"b4": {32.0}, "b8": {64.0}, "float": {64.0}}


def test_random_data_is_loud_everywhere():
    card = quantized(data={"kind": "random", "name": None, "samples": 8, "labelled": False, "sha256": None})[1]
    assert card.random_data
    assert "RANDOM DATA" in card.to_markdown().splitlines()[2]
    assert "RANDOM NUMBERS" in Page(card.to_html()).text
    assert "WARNING" in card.summary() and "RANDOM" in card.summary()
    assert card.to_dict()["resources"]["data"][0]["random"] is True
    assert "RANDOM" not in quantized()[1].summary()


def test_an_evaluation_is_shown(card):
    evaluated = card.with_evaluation(EVALUATION)
    for text in (evaluated.to_markdown(), Page(evaluated.to_html()).text):
        assert "88.67 % float → 88.33 % quantized (± 1.85 points)" in text
        assert "97.30 %" in text
        assert "22.8 dB" in text
        assert "300 samples of val (image folder)" in text
    assert "88.33 %" in evaluated.summary()
    assert "not evaluated" not in evaluated.to_markdown()
    other = card.with_evaluation({"mIoU": 0.7})
    assert "mIoU" in other.to_markdown() and "0.7" in Page(other.to_html()).text


def test_summary_names_model_profile_bits_and_data(card):
    lines = card.summary().splitlines()
    assert "onnxruntime-cpu: 3 of 3 layers in integers, weights 8 bits, activations 8 bits" in lines[0]
    assert "3 samples of calib (image folder)" in lines[2]
    assert "percentile:99.9" in lines[2]


def test_a_model_without_layers_to_chart_still_renders(card):
    empty = dataclasses.replace(card, layers=(), float_nodes=())
    assert Page(empty.to_html())
    assert "Nothing." in empty.to_markdown()
    assert empty.summary()


def test_of_sizes_that_are_not_known_no_bit_operations_are_told() -> None:
    kind = KINDS["attention with padding"]
    card = onnxq.quantize(kind.model(), kind.feeds(), profile="onnxq", calibration="max").card
    assert "bit operations unknown" in card.summary() and "weights 8 bits" in card.summary()
    assert "bit operations unknown" in card.to_markdown() and "the model leaves sizes open" in card.to_html()
    sizes = {"x": (2, 5, 16), "mask": (2, 5)}
    card = onnxq.quantize(kind.model(), kind.feeds(), profile="onnxq", calibration="max", shapes=sizes).card
    assert "unknown" not in card.summary()
