"""The `onnxq` command: a thin layer over the library, one module per subcommand."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from onnxq.cli import terminal
from onnxq.cli.signals import INTERRUPTED, TERMINATED
from onnxq.errors import InterruptedRun, OnnxqError

# Subcommand → module in onnxq.cli that defines `command`. Loaded on demand, so that each starts fast.
COMMANDS = (
    "bench", "calibrate", "card", "check", "compare", "demo", "eval", "inspect", "kernels", "latency", "lower", "opt",
    "passes", "profiles", "quantize", "search", "sensitivity", "verify",
)  # fmt: skip
MAX_MESSAGE = 1500  # characters of an error
UNREAD = 141  # what a shell reports of a program whose output nobody reads any more


class Commands(click.Group):
    """Loads subcommands lazily and turns errors into one line on stderr and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All subcommands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand's click command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"onnxq.cli.{cmd_name}")
        return module.command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; Ctrl-C is caught here because click would print an empty line for it."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise InterruptedRun("interrupted") from None

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command line, the first argument or sys.argv, and exit with its code."""
        sys.exit(self.run(*args, **kwargs))

    def run(self, args: Sequence[str] | None = None, **extra: Any) -> int:
        """Run a command line and return its exit code; a user's mistake never ends in a traceback.

        An error is one line on stderr, and with --json also {"error": {"message", "exit_code"}} on stdout.
        """
        words = list(sys.argv[1:] if args is None else args)
        if os.environ.get("ONNXQ_DEBUG"):
            super().main(words, **extra)
        try:
            code = self._ended(words, extra)
            terminal.flush()
        except terminal.UnreadError:
            terminal.discard()
            return UNREAD
        except BaseException as err:  # what may leave a command: also Ctrl-C and `kill`
            return report(err, wants_json(words))
        return code

    def _ended(self, words: list[str], extra: dict[str, Any]) -> int:
        try:
            code = super().main(words, **(extra | {"standalone_mode": False}))
        except SystemExit as end:
            if end.code == TERMINATED:
                raise
            code = end.code
        return code if isinstance(code, int) else 0


def wants_json(words: Sequence[str]) -> bool:
    """Whether the command line asks for JSON, also one that cannot be parsed."""
    options = words[: words.index("--")] if "--" in words else words
    return any(word == "--json" or word.startswith("--json=") for word in options)


def report(err: BaseException, as_json: bool) -> int:
    """Print an error and return its exit code."""
    message, code = _told(err)
    message = shortened(" ".join(message.split()))
    try:
        if as_json:
            terminal.out_text(json.dumps({"error": {"message": message, "exit_code": code}}, indent=2) + "\n")
        terminal.say(f"error: {message}")
    except (terminal.UnreadError, OnnxqError):
        terminal.discard()
    return code


def shortened(message: str) -> str:
    """A message without its middle, if a name or a value that it quotes is endless."""
    return message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - 300]} […] {message[-290:]}"


def _told(err: BaseException) -> tuple[str, int]:
    if isinstance(err, OnnxqError):
        return str(err), err.exit_code
    if isinstance(err, click.ClickException):  # click's own report has three lines
        return err.format_message() + _see_help(err), err.exit_code
    if isinstance(err, (KeyboardInterrupt, click.Abort)):
        return "interrupted", INTERRUPTED
    if isinstance(err, SystemExit):
        return "terminated", TERMINATED
    if isinstance(err, OSError):
        return f"{os.fspath(err.filename) if err.filename else 'file system'}: {err.strerror or err}", 1
    if isinstance(err, MemoryError):
        return "out of memory; a smaller --batch-size needs less", 1
    # a bug in onnxq: still one line, with a hint how to see more
    return f"internal error: {type(err).__name__}: {err} (ONNXQ_DEBUG=1 shows where; please report it)", 70


def _see_help(err: click.ClickException) -> str:
    ctx = err.ctx if isinstance(err, click.UsageError) else None
    return f" (see {ctx.command_path} --help)" if ctx else ""


@click.command(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="onnxq", prog_name="onnxq")
@click.pass_context
def commands(ctx: click.Context) -> None:
    """Quantize ONNX models for hardware that computes in low-precision integers."""
    if ctx.invoked_subcommand is None:
        terminal.out_text(ctx.get_help() + "\n")
