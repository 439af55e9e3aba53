"""`softmap record`: run a model on a text, and keep its attention in a folder."""

from __future__ import annotations

import gc
import json
import os
import re
from pathlib import Path
from typing import Any

import click

from softmap.commands.common import JSON, check_new, progress, read_file, tell, warned
from softmap.commands.naming import looks_like_a_name
from softmap.errors import TextError
from softmap.escaping import json_text

DTYPES = click.Choice(["float16", "bfloat16", "float32", "float64"])


@click.command(short_help="Record a model's attention on a text, in a folder.")
@click.argument("text", metavar="TEXT|FILE|-")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The new folder.")
@click.option("--model", metavar="M", help="A hub id or a directory. Default: all-MiniLM-L6-v2.")
@click.option("--revision", metavar="R", help="The hub's branch, tag or commit.")
@click.option("--trust-remote-code", is_flag=True, help="Let Python code that comes with the model run.")
@click.option(
    "--model-dtype", type=DTYPES, metavar="DTYPE", help="What the model computes in. Default: as its files say."
)
@click.option("--device", metavar="D", help="Where the model runs, as in cuda.")
@click.option("--device-map", metavar="MAP", help="How a model too large for one device is spread, as in auto.")
@click.option("--layers", metavar="LIST", help="Which layers to keep, as in 0,5,10-12. Default: all.")
@click.option("--dtype", type=DTYPES, metavar="DTYPE", help="What q, k and v are kept in. Default: the model's own.")
@click.option("--no-values", is_flag=True, help="Leave v out.")
@click.option("--statistics-only", is_flag=True, help="Leave q, k and v out.")
@click.option("--no-statistics", is_flag=True, help="Leave the statistics out.")
@click.option(
    "--top", type=click.IntRange(min=0), metavar="K", default=8, show_default=True, help="Largest weights of each row."
)
@click.option(
    "--cells",
    type=click.IntRange(min=0),
    metavar="N",
    help="Cells of the map each way, at most, each of 1, 2, 4, … tokens. Default: 64; beyond 8,192 tokens one for "
    "each 128 of them, to 1,024.",
)
@click.option("--chunk", type=click.IntRange(min=1), metavar="N", help="Let a decoder read N tokens at a time.")
@click.option("--truncate", is_flag=True, help="Cut a text that is longer than the model's limit, and say so.")
@click.option("--check", is_flag=True, help="Run the model once more without softmap, and compare what it returns.")
@JSON
def record(
    text: str,
    output: Path,
    model: str | None,
    revision: str | None,
    trust_remote_code: bool,
    model_dtype: str | None,
    device: str | None,
    device_map: str | None,
    layers: str | None,
    no_values: bool,
    no_statistics: bool,
    top: int,
    cells: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Record a model's attention on a text: q, k and v of every layer, and the statistics of one pass.

    The text is given as it is, as the name of a UTF-8 file, or as - for standard input. What was recorded is looked at
    with softmap heads, top, info and explain --recording.

    A DTYPE is float16, bfloat16, float32 or float64.
    """
    chosen = _read_layers(layers)
    check_new(output)
    given = _read_text(text)
    with progress() as show:
        show("loading the model")
        from softmap import models
        from softmap.models.record import record as run

        wanted = {"device": device, "dtype": model_dtype, "device_map": device_map}
        loading = {name: value for name, value in wanted.items() if value is not None}
        with warned():
            loaded = models.load(model, revision=revision, trust_remote_code=trust_remote_code, **loading)
        gc.freeze()
        recording = run(
            given,
            loaded,
            layers=chosen,
            keep_values=not no_values,
            summary=False if no_statistics else {"top": top} | ({} if cells is None else {"cells": cells}),
            out=output,
            progress=lambda done, total: show("recording", done, total),
            **options,
        )
    from softmap.recorded.listing import list_layers

    listing = list_layers(recording)
    if as_json:
        click.echo(json_text(json.loads(listing.json()) | {"path": str(output)}, indent=2))
    else:
        tell(f"wrote {output}: {listing.headline()}", err=False)


def _read_text(text: str) -> str:
    """The text, or that of the file which it names; what only looks like a file's name is not taken for a text."""
    if text == "-" or os.path.isfile(text):
        return read_file(Path(text))
    if os.path.isdir(text) or looks_like_a_name(text):
        hint = "Check the name; a text that is written so comes from standard input, as -."
        raise TextError(text, "a text, or a file that can be read", "the name of neither", hint)
    return text


def _read_layers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    found: list[int] = []
    for part in text.split(","):
        numbers = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part)
        if numbers is None:
            raise click.BadParameter(f"numbers and ranges, as in 0,5,10-12; got {part!r}.", param_hint="--layers")
        first = int(numbers[1])
        found += range(first, int(numbers[2] or first) + 1)
    return found
