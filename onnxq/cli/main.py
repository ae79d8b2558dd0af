"""The entry point of the `onnxq` command. Light: Ctrl-C is taken care of before anything large is imported."""

from __future__ import annotations

from onnxq.cli import signals

TYPE_CHECKING = False  # as in signals.py
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the command in sys.argv and exit with its code."""
    signals.install()
    from onnxq.cli import terminal
    from onnxq.cli.group import commands

    terminal.prepare()
    signals.leave(commands.run())


if __name__ == "__main__":
    main()
