"""A recording's manifest: JSON whose first entry is the SHA-256 of all of it, its own digits taken as zeros."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from softmap.errors import RecordingError
from softmap.recorded.arrayfile import AGAIN, opened
from softmap.recorded.entries import Entry

NAME = "manifest.json"
FORMAT = "softmap.recording"
VERSION = 1
LARGEST_BYTES = 1 << 27
"""Of a manifest: 128 MiB hold the tokens of texts with some two million."""
_FIRST = 256  # bytes that say what a file is
_UNSIGNED = b"0" * 64
_BEGINNING = re.compile(rb'\{"checksum": "([0-9a-f]{64})", "format": "softmap\.recording", "version": ')


def text_of(content: dict[str, Any]) -> bytes:
    """The manifest of this content, as it is written.

    Raises:
        RecordingError: it is larger than is read.
    """
    named = {"checksum": _UNSIGNED.decode(), "format": FORMAT, "version": VERSION, **content}
    text = json.dumps(named, allow_nan=False).encode("ascii")
    if len(text) > LARGEST_BYTES:
        expected, hint = f"a manifest of at most {LARGEST_BYTES:,} bytes", "Record fewer sequences, or a shorter text."
        raise RecordingError("recording", expected, f"{len(text):,}", hint)
    return text.replace(_UNSIGNED, hashlib.sha256(text).hexdigest().encode(), 1)


def read(folder: Path) -> Entry:
    """What the manifest in a folder says besides its checksum, format and version, which are looked at here.

    Raises:
        RecordingError: there is none, it is damaged, or of a newer softmap.
    """
    path = folder / NAME
    with opened(path) as file:
        size = _checked_size(path, file)
        text = file.read(_FIRST)
        beginning = _BEGINNING.match(text)
        text += b"" if beginning is None else file.read(max(0, size - len(text)))
    if beginning is None:
        got = "another file, or one whose beginning is damaged"
        raise RecordingError(str(path), "the manifest of a recording", got, AGAIN)
    signed = beginning[1]
    found = hashlib.sha256(text.replace(signed, _UNSIGNED, 1)).hexdigest()
    if found != signed.decode():
        got = f"{found}, so that it is damaged or was changed"
        raise RecordingError(str(path), f"the SHA-256 {signed.decode()}", got, AGAIN)
    content = _parsed(text, path)
    version = content.pop("version")
    if type(version) is not int or version != VERSION:
        raise RecordingError(str(path), f"version {VERSION} of the format", repr(version), "Install a newer softmap.")
    for name in ("checksum", "format"):
        del content[name]
    return Entry(content, "", str(path))


def _checked_size(path: Path, file: BinaryIO) -> int:
    """Refuse a manifest that is larger than one can be, before any of it is read."""
    size = os.fstat(file.fileno()).st_size
    if size > LARGEST_BYTES:
        raise RecordingError(str(path), f"a manifest of at most {LARGEST_BYTES:,} bytes", f"{size:,}", AGAIN)
    return size


def _parsed(text: bytes, path: Path) -> dict[str, Any]:
    """The JSON, which has the checksum it says: whatever is wrong with it was wrong when it was written."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant}, which is no number")

    try:
        content: dict[str, Any] = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise RecordingError(str(path), "JSON", f"something else ({error})", AGAIN) from error
    return content
