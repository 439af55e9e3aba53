"""A file that sends a browser on to an address, so that the address is on no command line, where all users could read it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path

from softmap.writing import unfinished

PAGE = """<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0;url={url}">
<title>softmap</title>
<p><a href="{url}">Open the map</a></p>
"""


@contextmanager
def redirect_to(url: str) -> Iterator[Path]:
    """A page that only this user can read, and that goes on to an address. It is there as long as the block.

    Raises:
        OSError: there is no place for it.
    """
    folder = Path(tempfile.mkdtemp(prefix="softmap-", dir=_place()))  # readable by this user only
    file = folder / "open.html"
    try:
        with unfinished(lambda: shutil.rmtree(folder, ignore_errors=True)):
            with os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as page:
                page.write(PAGE.format(url=escape(url)))
            yield file
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _place() -> Path | None:
    """The folder of temporary files; where browsers are snaps, which see none of those, the user's own."""
    return Path.home() if Path("/snap").is_dir() else None
