"""The command line: parses, calls, prints."""

from __future__ import annotations

import contextlib
import gc
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softmap import __version__
from softmap.errors import ParameterError, SoftmapError, TextError

if TYPE_CHECKING:
    from rich.status import Status

    from softmap.info import Info
    from softmap.story import Story

OUTPUT_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="softmap")
def main() -> None:
    """Show which token attends to which inside a transformer, step by step."""


@main.command()
@click.argument("text", required=False)
@click.argument("more", nargs=-1, expose_value=True, metavar="")
@click.option("--file", "file", type=click.Path(path_type=Path), help="Read the text from a UTF-8 file; - is stdin.")
@click.option("--example", is_flag=True, help="Explain the worked example instead of a model.")
@click.option("--model", metavar="M", help="A hub id or a directory. Default: all-MiniLM-L6-v2.")
@click.option("--revision", metavar="R", help="The hub's branch, tag or commit.")
@click.option("--trust-remote-code", is_flag=True, help="Let Python code that comes with the model run.")
@click.option("--layer", type=int, metavar="L", help="The layer, from 0. Default: chosen; the output says why.")
@click.option("--head", type=int, metavar="H", help="The head, from 0. Default: chosen; the output says why.")
@click.option(
    "--row", metavar="WORD", help="The word to point out, or its index, as in 3 or :3. Default: the first word."
)
@click.option("--words/--tokens", default=True, help="Merge sub-word pieces into words, or show them. [default: words]")
@click.option("--truncate", is_flag=True, help="Cut a text that is longer than the model's limit, and say so.")
@click.option("--lang", type=click.Choice(["en", "zh"]), help="The language of the sentences. Default: the locale's.")
@click.option("--html", type=OUTPUT_FILE, metavar="FILE", help="Write one self-contained page.")
@click.option("--svg", type=OUTPUT_FILE, metavar="FILE", help="Write the figure as SVG.")
@click.option("--png", type=OUTPUT_FILE, metavar="FILE", help="Write the figure as PNG.")
@click.option("--pdf", type=OUTPUT_FILE, metavar="FILE", help="Write the figure as PDF.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def explain(
    text: str | None,
    more: tuple[str, ...],
    file: Path | None,
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
    files = {kind: path for kind, path in (("html", html), ("svg", svg), ("png", png), ("pdf", pdf)) if path}
    with _errors(), _status() as say_status:
        if example:
            given = {"TEXT": text is not None, "--file": file, "--model": model is not None, "--revision": revision}
            told = _tell_example({**given, "--trust-remote-code": trust_remote_code}, options)
        else:
            told = _tell(_read_text(text, file), model, revision, trust_remote_code, options, say_status)
        for kind, path in files.items():
            say_status(f"writing {path}")
            _write(told, path, kind)
    if as_json:
        click.echo(told.json())
    elif not files:
        _print(told)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def info(as_json: bool) -> None:
    """Say what softmap runs on, and which of its kernels are usable here.

    The environment variable SOFTMAP_KERNEL forces the kernel that it names.
    """
    from softmap.info import look

    found = look()
    gc.freeze()  # as `explain` does: what torch's import made need not be searched for garbage
    if as_json:
        click.echo(found.json())
    else:
        _print(found)
    if found.problem:
        raise click.ClickException(found.problem)


def _tell(
    text: str,
    model: str | None,
    revision: str | None,
    trust_remote_code: bool,
    options: dict[str, Any],
    say_status: Callable[[str], None],
) -> Story:
    say_status("loading the model")
    from softmap import models
    from softmap.story import explain as tell

    loaded = models.load(model, revision=revision, trust_remote_code=trust_remote_code)
    gc.freeze()  # what was imported and loaded stays to the end; Python would search it all for garbage as it exits: 1 s
    say_status("running the model")
    return tell(text, loaded, **options, progress=lambda done, total: say_status(f"head {done} of {total}"))


def _tell_example(given: dict[str, Any], options: dict[str, Any]) -> Story:
    names = [name for name, value in given.items() if value]
    if names:
        raise click.UsageError(f"--example brings a text and numbers of its own; leave out {' and '.join(names)}.")
    from softmap.story import explain as tell
    from softmap.worked_example import example

    return tell(example(), **options)


def _read_text(text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise click.UsageError('Give either TEXT or --file, as in: softmap explain "I love learning"')
    if text is not None:
        return text
    name = str(file)
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(
            name,
            "UTF-8 text",
            f"the byte 0x{error.object[error.start]:02x} at position {error.start}",
            "Convert it, as in: iconv -f GB18030 -t UTF-8 file.",
        ) from error
    except OSError as error:
        raise TextError(name, "a file that can be read", error.strerror or str(error), "Check the path.") from error


def _write(told: Story, path: Path, kind: str) -> None:
    from softmap.render.files import save

    try:
        with warnings.catch_warnings(record=True) as caught:
            save(told, path, kind)
    except OSError as error:
        place = "a file that can be written"
        raise ParameterError(f"--{kind} {path}", place, error.strerror or str(error), "Check the folder.") from error
    for warning in caught:
        click.echo(f"Warning: {warning.message}", err=True)
    click.echo(f"wrote {path}", err=True)


def _print(told: Story | Info) -> None:
    from rich.console import Console

    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    console = Console()
    if console.is_terminal:
        console.print(told)
    else:
        click.echo(str(told), nl=False)


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Print an error of softmap's as one message, without a traceback, and exit with 1."""
    try:
        yield
    except SoftmapError as error:
        raise click.ClickException(str(error)) from error


@contextlib.contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """Say what is being done, on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape

    status: Status
    with Console(stderr=True).status("starting") as status:
        yield lambda doing: status.update(escape(doing))
