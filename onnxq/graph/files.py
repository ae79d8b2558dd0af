"""Files: written atomically, and JSON read with clear errors."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from onnxq.errors import ConfigError, OutputError
from onnxq.graph.staging import remove_leftovers, staging_file
from onnxq.records import BadText, parse_json, read_text


def check_writable(path: str | Path) -> Path:
    """Fail early, before long work, if `path` is not writable; what killed runs left of it is removed.

    Returns the file that will be replaced: a link is followed, and stays. Raises OutputError.
    """
    target = Path(path)
    if target.is_symlink():
        target = Path(os.path.realpath(target))
        if target.is_symlink():
            raise OutputError(f"{path}: the link leads nowhere")
    folder = target.parent
    if not folder.is_dir():
        raise OutputError(f"{target}: the folder {folder} does not exist")
    if target.is_dir():
        raise OutputError(f"{target}: is a folder; give a file name")
    if target.exists() and not target.is_file():
        raise OutputError(f"{target}: is a device or a pipe, which a model cannot replace; give a file name")
    remove_leftovers(target)
    try:
        with staging_file(target):
            pass
    except OSError as err:
        raise OutputError(f"{target}: cannot be written: {err.strerror}") from None
    return target


def native_path(path: str | Path) -> str | None:
    """The path as onnx and onnxruntime accept it, which is UTF-8; None if it contains bytes that are not."""
    try:
        return os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        return None


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file atomically: a temporary file in the same folder, then a rename. Raises OutputError."""
    target = check_writable(path)
    try:
        with staging_file(target) as staged:
            staged.write_bytes(content)
            default_mode(staged)
            os.replace(staged, target)
    except OSError as err:
        raise OutputError(f"{target}: cannot be written: {err.strerror}") from None


def write_text(path: str | Path, text: str) -> None:
    """write_bytes for UTF-8 text."""
    write_bytes(path, text.encode())


def read_json(file: Path, what: str) -> Any:
    """The file's table. what: "a latency file", for messages. Raises ConfigError if it is missing or not JSON."""
    try:
        return parse_json(read_text(file))
    except OSError as err:
        raise ConfigError(f"{file}: cannot be read: {err.strerror}") from None
    except BadText as err:
        raise ConfigError(f"{file}: not {what}: {err}") from None


def file_sha256(path: Path) -> str:
    """The hash of a file's content, "" if it does not exist."""
    if not path.exists():
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def default_mode(path: Path) -> None:
    """Staged files are private; give the result the mode that a plain open() would have."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)
