"""The `onnxq` command: a thin layer over the library, one module a subcommand."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from onnxq.errors import OnnxqError

# Subcommand → module in onnxq.cli that defines `command`. Loaded when asked for, so that each starts fast.
COMMANDS = (
    "calibrate", "card", "check", "compare", "demo", "eval", "inspect", "opt", "passes", "profiles", "quantize",
)  # fmt: skip
INTERRUPTED = 130


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
        return module.command  # type: ignore[no-any-return]

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run; never lets a user's mistake end in a traceback."""
        if os.environ.get("ONNXQ_DEBUG"):
            return super().main(*args, **kwargs)
        try:
            return super().main(*args, **kwargs)
        except OnnxqError as err:
            fail(str(err), err.exit_code)
        except KeyboardInterrupt:
            fail("interrupted", INTERRUPTED)
        except OSError as err:
            fail(f"{err.filename or 'file system'}: {err.strerror or err}", 1)
        except MemoryError:
            fail("out of memory; a smaller --batch-size needs less", 1)
        except Exception as err:  # our bug: still one line, and how to see more
            fail(f"internal error: {type(err).__name__}: {err} (ONNXQ_DEBUG=1 shows where; please report it)", 70)


def fail(message: str, code: int) -> None:
    """Print one line on stderr and exit."""
    click.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(code)


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="onnxq", prog_name="onnxq")
def main() -> None:
    """Quantize ONNX models for hardware that computes in low-precision integers."""
