"""`softmap view`: the map of a whole attention matrix, in a browser."""

from __future__ import annotations

import gc
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softmap import interrupts
from softmap.commands.common import BATCH, PARTIAL, check_text, open_recording, progress, read_file, tell, warned
from softmap.commands.more import print_more
from softmap.commands.naming import LONGEST, looks_like_a_name, meant_by, suggest
from softmap.errors import RecordingError, TextError

if TYPE_CHECKING:
    from softmap.recorded import Recording


@click.command(short_help="Show a whole attention matrix in a browser, and every number in it.")
@click.argument("what", metavar="RECORDING|TEXT", required=False)
@click.option("--file", "file", type=click.Path(path_type=Path), help="Read the text from a UTF-8 file; - is stdin.")
@click.option("--model", metavar="M", help="A hub id or a directory. Default: all-MiniLM-L6-v2.")
@click.option("--revision", metavar="R", help="The hub's branch, tag or commit.")
@click.option("--trust-remote-code", is_flag=True, help="Let Python code that comes with the model run.")
@click.option("--truncate", is_flag=True, help="Cut a text that is longer than the model's limit, and say so.")
@BATCH
@PARTIAL
@click.option("--layer", type=int, metavar="L", help="The layer to start with, from 0. Default: chosen.")
@click.option("--head", type=int, metavar="H", help="The head to start with, from 0. Default: chosen.")
@click.option("--port", type=click.IntRange(0, 65535), metavar="N", default=0, help="The port. Default: a free one.")
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
def view(
    what: str | None,
    file: Path | None,
    batch: int | None,
    partial: bool,
    layer: int | None,
    head: int | None,
    port: int,
    no_browser: bool,
    **model: Any,
) -> None:
    """Show the attention of a RECORDING in a browser: whole matrices as a map, and every number in them.

    A TEXT is recorded first, in memory. The page is served to this machine alone, at the address that is printed, until
    Ctrl-C ends it. The address opens in one browser; Enter prints another.
    """
    recording = (
        _open(what, partial, batch, model) if _is_recording(what, file) else _record(what, file, partial, batch, model)
    )
    import logging

    from softmap.viewer.launch import View

    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # what it warns of are others' requests
    shown = View(recording, port=port, layer=layer, head=head)
    gc.freeze()  # as `explain` does
    try:
        with shown:
            click.echo(shown.url)
            if not no_browser and not shown.open():
                click.echo("There is no browser to open it in.", err=True)
            more = "Enter prints an address for another browser, " if print_more(shown) else ""
            tell(f"{_describe(recording, shown.start, (layer, head))} {more}Ctrl-C ends it.")
            shown.wait()
    except KeyboardInterrupt as error:
        click.echo("\nended" if sys.stderr.isatty() else "ended", err=True)  # a terminal's line begins with ^C
        raise click.exceptions.Exit(interrupts.INTERRUPTED) from error


def _is_recording(what: str | None, file: Path | None) -> bool:
    """Whether a folder is named; what only looks like a recording's or a file's name is not taken for a text."""
    if file is not None or what is None:
        return False
    if os.path.isdir(what):
        return True
    if os.path.isfile(what):
        hint = f"A text in a file is given as: softmap view --file {shlex.quote(what)}"
        raise RecordingError(what, "a recording, which is a folder, or a text", "a file", hint)
    near = meant_by(Path(what))
    if looks_like_a_name(what) or any(path.stem == what for path in near):
        hint = f"{suggest(near)} A text that is written so comes from standard input, with --file -."
        raise TextError(what, "a recording or a text", "a name of no folder", hint)
    return False


def _open(what: str | None, partial: bool, batch: int | None, model: dict[str, Any]) -> Recording:
    names = [f"--{name.replace('_', '-')}" for name, value in model.items() if value]
    if names:
        raise click.UsageError(f"A recording brings a text and a model of its own; leave out {' and '.join(names)}.")
    from softmap.models.settings import without_collections

    with without_collections():  # torch's import is most of the time that this takes
        return open_recording(Path(str(what)), partial, batch)


def _record(what: str | None, file: Path | None, partial: bool, batch: int | None, model: dict[str, Any]) -> Recording:
    if batch is not None or partial:
        raise click.UsageError("--batch and --partial are about a recording; name its folder.")
    if (what is None) == (file is None):
        raise click.UsageError('Give a recording, a text or --file, as in: softmap view "I love learning"')
    text = check_text(read_file(file) if file is not None else str(what))
    truncate = model.pop("truncate")
    from softmap.models.load import DEFAULT_MODEL
    from softmap.narrative import headline

    tell(f'recording the text "{headline(text, LONGEST)}" with {model["model"] or DEFAULT_MODEL}')
    with progress() as show:
        show("loading the model")
        from softmap import models
        from softmap.models.record import record

        with warned():
            loaded = models.load(model.pop("model"), **model)
        return record(text, loaded, truncate=truncate, progress=lambda done, total: show("recording", done, total))


def _describe(recording: Recording, start: tuple[int, int], asked: tuple[int | None, int | None]) -> str:
    """What is shown: the model and its sizes, the head that the page opens with, and why softmap chose it."""
    texts = [f"{len(tokens):,}" for tokens in (recording.tokens, recording.target) if tokens is not None]
    tokens = f", {' and '.join(texts)} tokens" if texts else ""
    layers = f"{len(recording.layers)} layer{'' if len(recording.layers) == 1 else 's'}"
    heads = " or ".join(map(str, sorted({layer.heads for layer in recording.layers})))
    head = f"layer {start[0]}, head {start[1]}{_why(recording, *asked)}"
    return f"{recording.origin.model}{tokens}, {layers} of {heads} heads; {head}"


def _why(recording: Recording, layer: int | None, head: int | None) -> str:
    """Why softmap chose a head, as `softmap explain` says it; nothing of one that was asked for, or chosen otherwise."""
    from softmap.viewer.overview import is_quick

    if (layer is not None and head is not None) or not is_quick(recording):
        return "."
    from softmap.narrative import narrate
    from softmap.story import explain

    story = explain(recording, layer=layer, head=head, lang="en")
    return f": {narrate(story)[0].sentences[-1]}"
