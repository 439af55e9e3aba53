"""`softmap info`: what softmap runs on, or what a recording holds."""

from __future__ import annotations

import gc
from pathlib import Path

import click

from softmap.commands.common import JSON, PARTIAL, print_page
from softmap.commands.naming import check_recording


@click.command(short_help="Say what a recording holds, or what softmap runs on.")
@click.argument("path", metavar="[RECORDING]", required=False, type=click.Path(path_type=Path))
@click.option("--verify", is_flag=True, help="Read all of its files and compare their checksums.")
@PARTIAL
@JSON
def info(path: Path | None, verify: bool, partial: bool, as_json: bool) -> None:
    """Say what a RECORDING holds; without one, what softmap runs on, and which of its kernels are usable here.

    The environment variable SOFTMAP_KERNEL forces the kernel that it names.
    """
    if path is not None:
        check_recording(path)
        from softmap.recorded.listing import list_layers
        from softmap.recorded.storage import load

        listing = list_layers(load(path, partial=partial, verify=verify or None))
        click.echo(listing.json()) if as_json else print_page(listing)
        if verify and not as_json:
            click.echo("\n  All files that it lists are as they were written.")
        return
    if verify or partial:
        raise click.UsageError("--verify and --partial are about a RECORDING; name one.")
    from softmap.info import look

    found = look()
    gc.freeze()  # as `explain` does: what torch's import made need not be searched for garbage
    click.echo(found.json()) if as_json else print_page(found)
    if found.problem:
        raise click.ClickException(found.problem)
