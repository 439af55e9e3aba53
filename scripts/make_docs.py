"""Make the generated parts of the documentation: the command line's reference and the pictures.

python scripts/make_docs.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

from click.testing import CliRunner

import softmap
from softmap.cli import main as command_line

DOCS = Path(__file__).parents[1] / "docs"


def cli_reference() -> str:
    """The page on the command line, from the commands' own help."""
    parts = ["# Command line\n", "Generated from `--help` by `scripts/make_docs.py`.\n"]
    for command in ([], *([name] for name in command_line.commands)):
        told = CliRunner().invoke(command_line, [*command, "--help"], prog_name="softmap", terminal_width=100)
        parts.append(f"## {' '.join(['softmap', *command])}\n\n```text\n{told.stdout}```\n")
    parts.append(
        "The exit code is 0 when all went well, 1 when softmap refused what it was given, 2 when the command line "
        "was wrong.\n\nColours are left out where output is piped or NO_COLOR is set.\n"
    )
    return "\n".join(parts)


def main() -> None:
    """Write them into docs/."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    (DOCS / "reference" / "cli.md").write_text(cli_reference(), encoding="utf-8")
    story = softmap.explain("I love learning", layer=3, head=1, row="love", lang="en")
    story.save(DOCS / "images" / "figure.svg")


if __name__ == "__main__":
    main()
