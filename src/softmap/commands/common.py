"""What the commands share: reading a text, opening a recording, saying what is being done, printing."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from softmap.commands.naming import check_recording, listed
from softmap.errors import ParameterError, RecordingError, TextError
from softmap.escaping import escaped

if TYPE_CHECKING:
    from softmap.recorded import Recording

RECORDING = click.argument("path", metavar="RECORDING", type=click.Path(path_type=Path))
PARTIAL = click.option("--partial", is_flag=True, help="Open the complete layers of a recording that was cut off.")
BATCH = click.option("--batch", type=int, metavar="I", help="Which sequence of a batch, from 0.")
OUTPUT_FILE = click.Path(dir_okay=False, path_type=Path)
ENDINGS = {
    "html": ("html", "htm"),
    "png": ("png",),
    "svg": ("svg",),
    "pdf": ("pdf",),
    "": ("jpg", "jpeg", "gif", "webp", "avif", "bmp", "tif", "tiff", "eps", "ps", "svgz"),
    "json": ("json",),
    "text": ("txt", "md", "csv"),
}
"""How the names of files end that an option writes, of pictures that none does (""), and of what has no file."""
LARGEST_TEXT_BYTES = 1 << 27
"""Of a text: far beyond what a model reads, and no endless device."""
JSON = click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")


def open_recording(path: Path, partial: bool, batch: int | None) -> Recording:
    """A recording from its folder, of one sequence."""
    check_recording(path)
    from softmap.recorded.storage import load

    recording = load(path, partial=partial)
    count = len(recording.sequences)
    if batch is None and count > 1:
        hint = f"It holds {count} sequences: {_beginnings(recording)}. Take one, as in --batch 0."
        raise ParameterError("--batch", f"a number from 0 to {count - 1}", "none", hint)
    return recording if batch is None else recording.batch(batch)


def _beginnings(recording: Recording) -> str:
    """The first few sequences of a batch: the first words of each, or how long it is."""
    from softmap.narrative import headline
    from softmap.recorded.listing import list_layers

    return listed(
        [
            f'{i} is "{headline(text, 30)}"' if text else f"{i} has {count:,} tokens or patches"
            for i, (text, count) in enumerate(list_layers(recording).texts)
        ]
    )


def check_endings(files: Mapping[str, Path | None]) -> None:
    """Refuse files whose endings are those of another kind than what their option writes."""
    for kind, file in files.items():
        ending = "" if file is None else file.suffix.lower().removeprefix(".")
        other = next((other for other, endings in ENDINGS.items() if ending in endings), kind)
        if file is None or other == kind:
            continue
        unknown = "" if other in files else ", which no option writes"
        fitting = other if other in files else kind if other else "png"
        instead = f"--{fitting} {shlex.quote(str(file if other == fitting else file.with_suffix(f'.{fitting}')))}"
        raise click.UsageError(f"--{kind} writes {kind.upper()}, not .{ending}{unknown}; give {instead}")


def check_new(folder: Path) -> None:
    """Refuse a place at which no folder can be made, before anything slow is done for it.

    Raises:
        RecordingError: something is there already.
        ParameterError: the folder that it is to be in is not there.
    """
    if os.path.lexists(folder):
        hint = "Choose another name, or remove it first; nothing is ever written over."
        raise RecordingError(str(folder), "a name that is not taken", "something there already", hint)
    if not folder.parent.is_dir():
        hint = f"Make it first: mkdir -p {shlex.quote(str(folder.parent))}"
        raise ParameterError(f"--output {folder}", f"{folder.parent} to be a folder", "none of that name", hint)


def check_text(text: str) -> str:
    """A text that has a word, before a model is loaded for it.

    Raises:
        TextError: it has none.
    """
    if not text.strip():
        raise TextError("text", "at least one word", "an empty text", "Give a sentence, such as 'I love learning'.")
    return text


def read_file(file: Path) -> str:
    """The text of a file, or of standard input."""
    name = str(file)
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb") as stream:
            data = stream.read(LARGEST_TEXT_BYTES + 1)
        if len(data) > LARGEST_TEXT_BYTES:
            raise TextError(name, f"a text of at most {LARGEST_TEXT_BYTES:,} bytes", "more", "Give a part of it.")
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


def tell(said: str, *, err: bool = True) -> None:
    """Print a line, on stderr unless told otherwise; names that others chose stand in it, which may hide anything."""
    click.echo(escaped(said, "\n"), err=err)


@contextlib.contextmanager
def warned() -> Iterator[None]:
    """Say on stderr what is warned of in the block, whatever filters make of warnings; nothing where the block fails."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        tell(f"Warning: {warning.message}")


def print_page(told: Any) -> None:
    """Print what has a layout for terminals, and plain text where it is piped."""
    from softmap.console import TextConsole

    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    console = TextConsole()
    if console.is_terminal:
        console.print(told)
    else:
        click.echo(str(told), nl=False)


class Show(Protocol):
    """Says what is being done, how many are done and of how many; and on a terminal, at which part of it one is."""

    def __call__(self, doing: str, done: int = 0, total: int = 0, *, part: str = "") -> None:
        """Say it."""


@contextlib.contextmanager
def progress() -> Iterator[Show]:
    """Say on stderr what is being done: as a bar where that is a terminal, else a line for each stage."""
    if not sys.stderr.isatty():
        yield _say_stages()
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from softmap.console import TextConsole

    said, counted = (TextColumn(f"{{task.{name}}}", markup=False) for name in ("description", "fields[count]"))
    columns = SpinnerColumn(), said, BarColumn(), counted, TimeElapsedColumn()
    with Progress(*columns, console=TextConsole(stderr=True), transient=True) as bar:
        stage, task = "", bar.add_task("starting", total=None, count="")

        def show(doing: str, done: int = 0, total: int = 0, *, part: str = "") -> None:
            nonlocal stage, task
            if doing != stage:
                bar.remove_task(task)
                stage, task = doing, bar.add_task(doing, total=None, count="")
            description = escaped(f"{doing}: {part}" if part else doing)
            count = f"{done}/{total}" if total else ""
            bar.update(task, description=description, completed=done, total=total or None, count=count)

        yield show


def _say_stages() -> Show:
    """What says each stage in a line."""
    said = ""

    def show(doing: str, done: int = 0, total: int = 0, *, part: str = "") -> None:
        nonlocal said
        if doing != said:
            tell(doing)
        said = doing

    return show
