"""What a name stands for: a recording, a file, or nothing of the kind; and which recording a mistyped one may mean."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from softmap.errors import RecordingError

FEW = 3
"""Recordings and sequences that a message names, at most."""
LONGEST = 60
"""Characters of a text that a message has, at most."""
_CHAR = r"[^\s。，！？；：@]"
_NAME = re.compile(rf"{_CHAR}*/{_CHAR}*|{_CHAR}+\.([a-z][a-z0-9]{{1,7}}|[A-Z][A-Z0-9]{{1,7}})|.*\.softmap")


def looks_like_a_name(what: str) -> bool:
    """Whether something is written as the name of a file or folder: with a slash or an ending, and without a space or a
    sentence's mark; or with the ending of a recording.
    """
    return _NAME.fullmatch(what) is not None


def is_recording(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a recording, whole or not."""
    return os.path.isfile(os.path.join(folder, "manifest.json"))


def recordings_in(folder: Path) -> list[Path]:
    """The recordings that lie in a folder; none where it can't be read."""
    try:
        return sorted(path for path in folder.iterdir() if is_recording(path))
    except OSError:
        return []


def meant_by(path: Path) -> list[Path]:
    """The recordings whose names, but for their endings, are like that of one which is not there; the closest first."""
    there = [(each.stem.casefold(), each) for each in recordings_in(path.parent)]
    wanted = path.stem.casefold()
    same = [each for stem, each in there if stem == wanted]
    close = difflib.get_close_matches(wanted, {stem for stem, _ in there})
    return same or [each for like in close for stem, each in there if stem == like]


def suggest(near: Sequence[Path]) -> str:
    """The hint to a name of nothing."""
    return f"Did you mean {listed(near, 'or')}?" if near else "Check the name."


def listed(several: Sequence[object], last: str = "and") -> str:
    """The first few of several, with a word before the last, and how many more there are."""
    names = [str(each) for each in several[:FEW]]
    if len(several) > FEW:
        names.append(f"{len(several) - FEW} more")
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def check_recording(path: Path) -> None:
    """Refuse a folder that is no recording, and what names none, with what to do instead.

    Raises:
        RecordingError: it is one of these.
    """
    expected = "the folder of a recording"
    if os.path.isdir(path) and not is_recording(path):
        inside = recordings_in(path)
        hint = f"Recordings in it: {listed(inside)}." if inside else "Give the folder that softmap record wrote."
        raise RecordingError(str(path), expected, "a folder without a manifest.json", hint)
    if not os.path.lexists(path):
        from softmap.narrative import headline

        near, text = meant_by(path), str(path)
        record = f"A text has to be recorded first: softmap record {_quoted(text)} --output run.softmap"
        hint = suggest(near) if near or looks_like_a_name(text) else record
        raise RecordingError(headline(text, LONGEST), expected, "nothing of that name", hint)


def _quoted(text: str) -> str:
    """A text as a shell takes it; of a long one, the place where it stands."""
    return shlex.quote(text) if text.isprintable() and len(text) <= 2 * LONGEST else '"..."'
