"""`softmap export`: a recording's map as a file, to look at or to print."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softmap.commands.common import (
    BATCH,
    OUTPUT_FILE,
    PARTIAL,
    RECORDING,
    check_endings,
    open_recording,
    progress,
    tell,
    warned,
)
from softmap.errors import ParameterError

if TYPE_CHECKING:
    from softmap.commands.common import Show
    from softmap.recorded import Recording


@click.command(short_help="Write the map of a recording as a page, or a head's as a picture.")
@RECORDING
@click.option("--html", type=OUTPUT_FILE, metavar="FILE", help="Write the map as one page, which works from disk.")
@click.option("--png", type=OUTPUT_FILE, metavar="FILE", help="Write the map of one head as PNG.")
@click.option("--svg", type=OUTPUT_FILE, metavar="FILE", help="Write it as SVG.")
@click.option("--pdf", type=OUTPUT_FILE, metavar="FILE", help="Write it as PDF.")
@click.option("--layer", type=int, metavar="L", help="The layer to show, or to open with, from 0. Default: chosen.")
@click.option("--head", type=int, metavar="H", help="The head, from 0. Default: chosen.")
@click.option(
    "--heads",
    metavar="L.H,...",
    help="The heads that a page holds first, as in 3.1,3.2. Default: the clearest of each role.",
)
@click.option("--rows", metavar="WORD,...", help="The rows that a page holds of heads too large for it, as in love,:3.")
@click.option("--limit", type=float, metavar="MB", help="How large a page may be, in megabytes.  [default: 25]")
@click.option(
    "--how", type=click.Choice(["max", "mean"]), help="What a picture's pixel says of its block.  [default: max]"
)
@click.option(
    "--scale", type=click.Choice(["linear", "log"]), help="A picture's scale. Default: linear up to 64 keys, then log."
)
@click.option(
    "--palette", type=click.Choice(["viridis", "cividis", "ink"]), help="A picture's colours.  [default: viridis]"
)
@click.option(
    "--sinks",
    type=click.Choice(["shown", "hidden", "rescaled"]),
    help="What becomes of the first and special tokens in a picture.  [default: shown]",
)
@BATCH
@PARTIAL
def export(
    path: Path,
    html: Path | None,
    png: Path | None,
    svg: Path | None,
    pdf: Path | None,
    layer: int | None,
    head: int | None,
    batch: int | None,
    partial: bool,
    heads: str | None,
    rows: str | None,
    limit: float | None,
    **look: Any,
) -> None:
    """Write the map of a RECORDING as a page that works from disk, or that of one head as a picture.

    A page holds what weights are computed from, as far as --limit allows: of a text of up to 512 tokens everything, of a
    longer one some heads, and thumbnails of the others. It says what it holds.
    """
    files = {"png": png, "svg": svg, "pdf": pdf, "html": html}
    pictures = {kind: file for kind, file in files.items() if file is not None and kind != "html"}
    of_page: dict[str, Any] = {"heads": heads, "rows": rows, "limit": limit}
    _check(html, pictures, of_page, look)
    check_endings(files)
    recording = open_recording(path, partial, batch)
    where = {"layer": layer, "head": head}
    with progress() as show:
        for kind, file in pictures.items():
            show(f"drawing {file}")
            _write(f"--{kind}", file, functools.partial(_draw, recording, file, kind, where, look))
        if html is not None:
            options = where | _of_page(**of_page)
            show(f"writing {html}")
            _write("--html", html, functools.partial(_export, recording, html, options, show))


def _check(html: Path | None, pictures: dict[str, Path], of_page: dict[str, Any], look: dict[str, Any]) -> None:
    """Refuse a call that names no file, and options of what is not written."""
    if html is None and not pictures:
        raise click.UsageError("Name a file to write, as in: softmap export run.softmap --html map.html")
    for files, options, kind in ((html, of_page, "--html"), (pictures, look, "--png, --svg and --pdf")):
        given = [f"--{name}" for name, value in options.items() if value is not None]
        if given and not files:
            raise click.UsageError(f"{' and '.join(given)} is for {kind}.")


def _of_page(heads: str | None, rows: str | None, limit: float | None) -> dict[str, Any]:
    """The options of a page, read."""
    options: dict[str, Any] = {} if limit is None else {"limit": limit}
    if heads is not None:
        pairs = [re.fullmatch(r"\s*(\d+)\.(\d+)\s*", pair) for pair in heads.split(",")]
        if None in pairs:
            raise ParameterError("--heads", "layer.head, with commas between several", repr(heads), "As in 3.1,3.2.")
        options["heads"] = [(int(pair[1]), int(pair[2])) for pair in pairs if pair is not None]
    if rows is not None:
        options["rows"] = [row.strip() for row in rows.split(",")]
    return options


def _draw(recording: Recording, file: Path, kind: str, where: dict[str, Any], look: dict[str, Any]) -> str:
    from softmap.viewer.stills import Look, save_still

    given = {name: value for name, value in look.items() if value is not None}
    save_still(recording, file, kind=kind, look=Look(**given), **where)
    return ""


def _export(recording: Recording, file: Path, options: dict[str, Any], show: Show) -> str:
    from softmap.viewer.export import export_html

    size = export_html(recording, file, doing=lambda part: show(f"writing {file}", part=part), **options)
    return f", {size / 1e6:.1f} MB"


def _write(option: str, file: Path, write: Callable[[], str]) -> None:
    """Write a file, and say so."""
    try:
        with warned():
            said = write()
    except OSError as error:
        got = error.strerror or str(error)
        raise ParameterError(f"{option} {file}", "a file that can be written", got, "Check the folder.") from error
    tell(f"wrote {file}{said}")
