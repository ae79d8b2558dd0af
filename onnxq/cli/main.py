"""The `onnxq` command: a thin layer over the library, one module per subcommand."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from onnxq.errors import InterruptedRun, OnnxqError

# Subcommand → module in onnxq.cli that defines `command`. Loaded on demand, so that each starts fast.
COMMANDS = (
    "bench", "calibrate", "card", "check", "compare", "demo", "eval", "inspect", "kernels", "latency", "lower", "opt",
    "passes", "profiles", "quantize", "search", "sensitivity", "verify",
)  # fmt: skip


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
        """Run the subcommand; Ctrl-C is caught here because click would end it with exit code 1."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise InterruptedRun("interrupted") from None

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the subcommand; a user's mistake never ends in a traceback."""
        if os.environ.get("ONNXQ_DEBUG"):
            return super().main(*args, **kwargs)
        try:
            code = super().main(*args, **(kwargs | {"standalone_mode": False}))
        except OnnxqError as err:
            fail(str(err), err.exit_code)
        except click.ClickException as err:  # click's own report has three lines
            fail(err.format_message() + _see_help(err), err.exit_code)
        except OSError as err:
            fail(f"{err.filename or 'file system'}: {err.strerror or err}", 1)
        except MemoryError:
            fail("out of memory; a smaller --batch-size needs less", 1)
        except Exception as err:  # a bug in onnxq: still one line, with a hint how to see more
            fail(f"internal error: {type(err).__name__}: {err} (ONNXQ_DEBUG=1 shows where; please report it)", 70)
        else:
            sys.exit(code if isinstance(code, int) else 0)


def _see_help(err: click.ClickException) -> str:
    ctx = err.ctx if isinstance(err, click.UsageError) else None
    return f" (see {ctx.command_path} --help)" if ctx else ""


def fail(message: str, code: int) -> None:
    """Print one line on stderr and exit."""
    click.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(code)


@click.command(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="onnxq", prog_name="onnxq")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Quantize ONNX models for hardware that computes in low-precision integers."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
