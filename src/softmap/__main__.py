"""The command line: ``softmap``, and ``python -m softmap``."""

from __future__ import annotations

from typing import NoReturn

from softmap.interrupts import run


def main() -> NoReturn:
    """Run the command line, and end the process with its exit code."""
    run(_command)


def _command() -> None:
    from softmap.cli import main as commands  # not before Ctrl-C is listened to

    commands.main(prog_name="softmap")


if __name__ == "__main__":
    main()
