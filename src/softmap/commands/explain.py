"""`softmap explain`: the four steps of one head, told."""

from __future__ import annotations

import gc
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softmap.commands.common import (
    BATCH,
    JSON,
    OUTPUT_FILE,
    PARTIAL,
    Show,
    check_endings,
    check_text,
    open_recording,
    print_page,
    progress,
    read_file,
    tell,
    warned,
)
from softmap.commands.naming import is_recording, looks_like_a_name, meant_by, suggest
from softmap.errors import ParameterError, TextError

if TYPE_CHECKING:
    from softmap.story import Story


@click.command(short_help="Explain the four steps of one attention head.")
@click.argument("text", required=False)
@click.argument("more", nargs=-1, expose_value=True, metavar="")
@click.option("--file", "file", type=click.Path(path_type=Path), help="Read the text from a UTF-8 file; - is stdin.")
@click.option("--recording", type=click.Path(path_type=Path), help="Explain a head of a recording.")
@BATCH
@PARTIAL
@click.option("--example", is_flag=True, help="Explain the worked example instead of a model.")
@click.option("--model", metavar="M", help="A hub id or a directory. Default: all-MiniLM-L6-v2.")
@click.option("--revision", metavar="R", help="The hub's branch, tag or commit.")
@click.option("--trust-remote-code", is_flag=True, help="Let Python code that comes with the model run.")
@click.option("--layer", type=int, metavar="L", help="The layer, from 0. Default: chosen; the output says why.")
@click.option("--head", type=int, metavar="H", help="The head, from 0. Default: chosen; the output says why.")
@click.option(
    "--row",
    metavar="WORD",
    help="The word to point out, or its token's number, as in :3. Default: the first; of a decoder the last.",
)
@click.option("--words/--tokens", default=True, help="Merge sub-word pieces into words, or show them. [default: words]")
@click.option("--truncate", is_flag=True, help="Cut a text that is longer than the model's limit, and say so.")
@click.option("--lang", type=click.Choice(["en", "zh"]), help="The language of the sentences. Default: the locale's.")
@click.option("--html", type=OUTPUT_FILE, metavar="FILE", help="Write one self-contained page.")
@click.option("--svg", type=OUTPUT_FILE, metavar="FILE", help="Write the figure as SVG.")
@click.option("--png", type=OUTPUT_FILE, metavar="FILE", help="Write the figure as PNG.")
@click.option("--pdf", type=OUTPUT_FILE, metavar="FILE", help="Write the figure as PDF.")
@JSON
def explain(
    text: str | None,
    more: tuple[str, ...],
    file: Path | None,
    recording: Path | None,
    batch: int | None,
    partial: bool,
    example: bool,
    model: str | None,
    revision: str | None,
    trust_remote_code: bool,
    as_json: bool,
    html: Path | None,
    svg: Path | None,
    png: Path | None,
    pdf: Path | None,
    **options: Any,
) -> None:
    """Explain the four steps of one attention head on TEXT, with real numbers.

    Without --layer and --head softmap chooses the head in which words look most at other words, and shows a
    table of all heads to choose from. Without a file option the story is printed.
    """
    if more:
        raise click.UsageError(f'Put the text in quotes: softmap explain "{" ".join([text or "", *more])}"')
    if recording is None and (batch is not None or partial):
        raise click.UsageError("--batch and --partial are about a recording; name one with --recording.")
    outputs = {"html": html, "svg": svg, "png": png, "pdf": pdf}
    check_endings(outputs)
    files = {kind: path for kind, path in outputs.items() if path}
    with progress() as show:
        if recording is not None:
            given = {"TEXT": text is not None, "--file": file, "--example": example, "--model": model is not None}
            given |= {"--revision": revision is not None, "--trust-remote-code": trust_remote_code}
            told = _tell_recording((recording, partial, batch), given, options, show)
        elif example:
            given = {"TEXT": text is not None, "--file": file, "--model": model is not None}
            given |= {"--revision": revision is not None, "--trust-remote-code": trust_remote_code}
            told = _tell_example(given, options)
        else:
            told = _tell(_read_text(text, file), model, revision, trust_remote_code, options, show)
        for kind, path in files.items():
            show(f"writing {path}")
            _write(told, path, kind)
    if as_json:
        click.echo(told.json())
    elif not files:
        print_page(told)


def _tell(
    text: str,
    model: str | None,
    revision: str | None,
    trust_remote_code: bool,
    options: dict[str, Any],
    show: Show,
) -> Story:
    show("loading the model")
    from softmap import models
    from softmap.story import explain as explain_

    with warned():
        loaded = models.load(model, revision=revision, trust_remote_code=trust_remote_code)
    gc.freeze()  # what was imported and loaded stays to the end; Python would search it all for garbage as it exits: 1 s
    show("running the model")
    return explain_(text, loaded, **options, progress=lambda done, total: show("measuring heads", done, total))


def _tell_recording(
    place: tuple[Path, bool, int | None],
    given: dict[str, Any],
    options: dict[str, Any],
    show: Show,
) -> Story:
    names = [name for name, value in given.items() if value]
    if names:
        raise click.UsageError(f"--recording brings a text and a model of its own; leave out {' and '.join(names)}.")
    show("opening the recording")
    from softmap.story import explain as explain_

    return explain_(
        open_recording(*place), **options, progress=lambda done, total: show("measuring heads", done, total)
    )


def _tell_example(given: dict[str, Any], options: dict[str, Any]) -> Story:
    names = [name for name, value in given.items() if value]
    if names:
        raise click.UsageError(f"--example brings a text and numbers of its own; leave out {' and '.join(names)}.")
    from softmap.story import explain as explain_
    from softmap.worked_example import example

    return explain_(example(), **options)


def _read_text(text: str | None, file: Path | None) -> str:
    if text is not None and file is None:
        if is_recording(text):
            raise click.UsageError(f"{text} is a recording; explain it with --recording {shlex.quote(text)}")
        if os.path.isfile(text):
            raise TextError(text, "a text", "a file", f"Give it so: softmap explain --file {shlex.quote(text)}")
        if looks_like_a_name(text):
            hint = "Give a file with --file, a recording with --recording; a text that is written so, with --file -."
            raise TextError(text, "a text", "what looks like a name", f"{suggest(meant_by(Path(text)))} {hint}")
        return check_text(text)
    if file is None or text is not None:
        raise click.UsageError('Give either TEXT or --file, as in: softmap explain "I love learning"')
    return check_text(read_file(file))


def _write(told: Story, path: Path, kind: str) -> None:
    from softmap.render.files import save

    try:
        with warned():
            save(told, path, kind)
    except OSError as error:
        place = "a file that can be written"
        raise ParameterError(f"--{kind} {path}", place, error.strerror or str(error), "Check the folder.") from error
    tell(f"wrote {path}")
