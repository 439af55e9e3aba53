"""What the commands share: reading a text, opening a recording, saying what is being done, printing."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softmap.errors import ParameterError, RecordingError, TextError

if TYPE_CHECKING:
    from rich.status import Status

    from softmap.recorded import Recording

RECORDING = click.argument("path", metavar="RECORDING", type=click.Path(path_type=Path))
PARTIAL = click.option("--partial", is_flag=True, help="Open the complete layers of a recording that was cut off.")
BATCH = click.option("--batch", type=int, metavar="I", help="Which sequence of a batch, from 0.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")


def open_recording(path: Path, partial: bool, batch: int | None) -> Recording:
    """A recording from its folder, of one sequence."""
    from softmap.recorded.storage import load

    recording = load(path, partial=partial)
    if batch is None and len(recording.sequences) > 1:
        count = len(recording.sequences)
        raise ParameterError("--batch", f"a number from 0 to {count - 1}", "none", f"It holds {count} sequences.")
    return recording if batch is None else recording.batch(batch)


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


def read_file(file: Path) -> str:
    """The text of a file, or of standard input."""
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


def print_page(told: Any) -> None:
    """Print what has a layout for terminals, and plain text where it is piped."""
    from rich.console import Console

    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    console = Console()
    if console.is_terminal:
        console.print(told)
    else:
        click.echo(str(told), nl=False)


@contextlib.contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """Say what is being done, on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape

    shown: Status
    with Console(stderr=True).status("starting") as shown:
        yield lambda doing: shown.update(escape(doing))


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr, where that is a terminal: of what is being done, how many are done, and of how many."""
    if not sys.stderr.isatty():
        yield lambda doing, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda doing, done, total: bar.update(task, description=doing, completed=done, total=total or None)
