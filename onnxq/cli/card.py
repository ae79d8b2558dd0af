"""`onnxq card`."""

from __future__ import annotations

import sys

import click

from onnxq.cli.guard import OUTPUT, Command
from onnxq.cli.terminal import out_text


@click.command("card", cls=Command)
@click.argument("model")
@click.option("--format", "form", type=click.Choice(["md", "json", "html"]), default="md", show_default=True)
@click.option("-o", "--output", type=OUTPUT, help="Write to this file instead of the terminal.")
def command(model: str, form: str, output: str | None) -> None:
    """Show the quantization card of MODEL: a quantized .onnx file, or a .card.json."""
    from onnxq.card import read_card
    from onnxq.graph.files import check_writable, write_text

    if output is not None:
        check_writable(output)
    card = read_card(model)
    text = {"md": card.to_markdown, "json": card.to_json, "html": card.to_html}[form]()
    if output is not None:
        write_text(output, text)
    elif form == "md" and sys.stdout.isatty():
        _print_markdown(text)
    else:
        out_text(text)


def _print_markdown(text: str) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))
