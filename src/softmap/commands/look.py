"""`softmap heads` and `softmap top`: what the heads of a recording do, and what a word looks at."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from softmap.commands.common import BATCH, JSON, PARTIAL, RECORDING, open_recording, print_page, progress
from softmap.escaping import json_text

if TYPE_CHECKING:
    from softmap.recorded import Recording
    from softmap.recorded.layer import Text


@click.command(short_help="Say what each head of a recording does.")
@RECORDING
@BATCH
@PARTIAL
@JSON
def heads(path: Path, batch: int | None, partial: bool, as_json: bool) -> None:
    """Say what each head of a RECORDING does: which layers and heads look where, and the role of those that are clear."""
    from softmap.roles import heads as measure

    recording = open_recording(path, partial, batch)
    with progress() as show:
        table = measure(recording, lambda done, total: show("measuring layers", done, total))
    click.echo(table.json()) if as_json else print_page(table)


@click.command(short_help="Say what a word looks at most, in each head.")
@RECORDING
@click.option("--row", required=True, metavar="WORD", help="The word that looks, or its token's number, as in :3.")
@click.option("--layer", type=int, metavar="L", help="The layer, from 0. Default: all that read the word.")
@click.option("--head", type=int, metavar="H", help="The head, from 0. Default: all of them.")
@click.option(
    "-k", type=click.IntRange(min=1), metavar="K", default=10, show_default=True, help="How many words of each head."
)
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
    """Say which words (or tokens) a word looks at most, in a head of a RECORDING or in all of them.

    Of an encoder-decoder, which reads two texts, --row is a word of the encoder's text, or else of the decoder's; with a
    token's number give --layer too.
    """
    from softmap.render.top import TopPage

    recording = open_recording(path, partial, batch)
    where = int(row[1:]) if row[:1] == ":" and row[1:].isdecimal() else row
    found = recording.top(where, k, layer, head, words=words)
    text = recording.layers[recording._layers_of(where, layer)[0]].queries_of
    if as_json:
        told = {"row": row, "text": text, "top": [each._asdict() for each in found]}
        click.echo(json_text(told, indent=2))
    else:
        several = len({each.queries_of for each in recording.layers}) > 1
        shown = TopPage(
            _name(recording, text, where, words), found, _repeated(recording, words), text if several else None
        )
        print_page(shown)


def _name(recording: Recording, text: Text | None, where: str | int, words: bool) -> str:
    """What looks, as it is shown: a word, or what was named by its number with it."""
    from softmap.words import find_row, units_of_tokens, units_of_words

    tokens = None if text is None else getattr(recording, text)
    if isinstance(where, str) or tokens is None or where >= len(tokens):
        return str(where)
    units = units_of_words(tokens) if words else units_of_tokens(tokens, as_in_text=True)
    unit = units[find_row(units, where)]
    return f"{unit.label} (:{unit.start})"


def _repeated(recording: Recording, words: bool) -> set[str]:
    """What several words (or tokens) of a text are called: such a one is told with its number."""
    from softmap.words import units_of_tokens, units_of_words

    units = units_of_words if words else units_of_tokens
    texts = [text for text in (recording.tokens, recording.target) if text is not None]
    counts = [Counter(unit.label for unit in units(text)) for text in texts]
    return {label for each in counts for label, count in each.items() if count > 1}
