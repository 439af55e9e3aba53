"""`softmap heads` and `softmap top`: what the heads of a recording do, and what a word looks at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from softmap.commands.common import BATCH, JSON, PARTIAL, RECORDING, open_recording, print_page

if TYPE_CHECKING:
    from softmap.recorded import Recording


@click.command()
@RECORDING
@BATCH
@PARTIAL
@JSON
def heads(path: Path, batch: int | None, partial: bool, as_json: bool) -> None:
    """Say what each head of a RECORDING does: which layers and heads look where, and the role of those that are clear."""
    from softmap.roles import heads as measure

    table = measure(open_recording(path, partial, batch))
    click.echo(table.json()) if as_json else print_page(table)


@click.command()
@RECORDING
@click.option("--row", required=True, metavar="WORD", help="The word that looks, or its token's index, as in :3.")
@click.option("--layer", type=int, metavar="L", help="The layer, from 0. Default: all of them.")
@click.option("--head", type=int, metavar="H", help="The head, from 0. Default: all of them.")
@click.option("-k", type=click.IntRange(min=1), default=10, show_default=True, help="How many words of each head.")
@click.option("--words/--tokens", default=True, help="Merge sub-word pieces into words, or show them. [default: words]")
@BATCH
@PARTIAL
@JSON
def top(
    path: Path,
    row: str,
    layer: int | None,
    head: int | None,
    k: int,
    words: bool,
    batch: int | None,
    partial: bool,
    as_json: bool,
) -> None:
    """Say which words (or tokens) a word looks at most, in a head of a RECORDING or in all of them."""
    from softmap.render.top import TopPage

    recording = open_recording(path, partial, batch)
    where = int(row[1:]) if row[:1] == ":" and row[1:].isdecimal() else row
    found = recording.top(where, k, layer, head, words=words)
    if as_json:
        click.echo(json.dumps({"row": row, "top": [each._asdict() for each in found]}, ensure_ascii=False, indent=2))
    else:
        print_page(TopPage(_name(recording, where), found))


def _name(recording: Recording, where: str | int) -> str:
    """What looks, as it is shown: a word, or a token with its number."""
    tokens = recording.tokens
    if isinstance(where, str) or tokens is None or where >= len(tokens):
        return str(where)
    return f"{tokens.text[slice(*tokens.spans[where])].strip() or tokens.pieces[where]} (:{where})"
