"""No output of a command replaces one of its inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from onnxq.errors import OutputError


class OutputFile(click.ParamType):
    """The type of an option that names a file to write, also as PASS=FILE. is_model: with its card and weights."""

    name = "file"

    def __init__(self, is_model: bool = False) -> None:
        self.is_model = is_model

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The text as it is."""
        return value


OUTPUT, OUTPUT_MODEL = OutputFile(), OutputFile(is_model=True)
# Of the files in a folder of data, those that are read as data.
DATA_SUFFIXES = frozenset(
    [".npz", ".pb", ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"]
)
LABELS_FILE = "labels.csv"


class Command(click.Command):
    """A command that refuses an output which is also an input, before any work."""

    def invoke(self, ctx: click.Context) -> Any:
        """Check the paths, then run."""
        outputs = [
            (param.opts[-1], path)
            for param in self.params
            if isinstance(param.type, OutputFile)
            for written in _paths(ctx.params.get(param.name or ""))
            for path in (written, *(_beside(written) if param.type.is_model else ()))
        ]
        inputs = [
            path
            for param in self.params
            if not isinstance(param.type, OutputFile)
            for path in _paths(ctx.params.get(param.name or ""))
        ]
        refuse(outputs, inputs)
        return super().invoke(ctx)


def refuse(outputs: Iterable[tuple[str, Path]], inputs: Iterable[Path]) -> None:
    """Raise OutputError for an output that would replace an input, or another output.

    outputs: (option, path). inputs: whatever else was given, of which only existing files and folders matter. An input
    is a model with its external data, or any file; a file in a folder of data is one too.
    """
    read = [path for path in inputs if _exists(path)]
    written: dict[Path, str] = {}
    for option, path in outputs:
        resolved = path.resolve()
        if resolved in written:
            raise OutputError(f"{path}: {written[resolved]} and {option} would write the same file")
        written[resolved] = option
        if not _exists(path) or path.is_dir():
            continue
        for source in read:
            if _holds(source, path):
                raise OutputError(f"{path}: {option} would replace an input; choose another name")


def _paths(value: Any) -> Iterator[Path]:
    """The files that the value of an option may name."""
    for text in value if isinstance(value, (tuple, list)) else [value]:
        if not isinstance(text, str) or text in ("", "-") or "\0" in text:
            continue
        path = Path(text)
        if "=" in text and not _exists(path):  # PASS=FILE
            path = Path(text.partition("=")[2])
        elif text.startswith("openvino:"):
            path = Path(text.removeprefix("openvino:"))
        yield path


def _beside(model: Path) -> tuple[Path, Path]:
    """What is written next to a model: its card, and its weights if they are external."""
    stem = model.stem if model.suffix == ".onnx" else model.name
    return model.with_name(f"{stem}.card.json"), model.with_name(f"{model.name}.data")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, RuntimeError):  # a name that is too long, a loop of links: no such file
        return False


def _holds(source: Path, path: Path) -> bool:
    """Whether an input is this file, contains it, or has its weights in it."""
    if source.is_dir():
        is_data = path.suffix.lower() in DATA_SUFFIXES or path.name == LABELS_FILE
        return is_data and path.resolve().is_relative_to(source.resolve())
    if source.samefile(path):
        return True
    return source.suffix == ".onnx" and any(file.samefile(path) for file in _external_data(source))


def _external_data(model: Path) -> list[Path]:
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import external_data_helper

    from onnxq.graph.protos import tensor_protos

    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(model.read_bytes())
    except (OSError, DecodeError):
        return []  # reported when it is loaded
    names = {
        entry.value
        for tensor in tensor_protos(proto.graph)
        if external_data_helper.uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [file for file in (model.parent / name for name in names if "\0" not in name) if _exists(file)]
