"""A recording's map as one file that works from disk: the page with its script and style, and what it shows.

The file holds no matrices. Like softmap itself it holds q and k, from which the page computes the weights that are looked
at, as far as a limit of bytes allows; of longer texts an overview of some heads. The page says what it holds.

All data in it are base64, so that no text can be read as HTML. The page's own policy lets nothing run but its script, by
its hash, and nothing be loaded (Content Security Policy, https://www.w3.org/TR/CSP3/).
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from softmap.errors import ParameterError, RecordingError
from softmap.viewer.held import Holding, Place
from softmap.viewer.pieces import Pieces
from softmap.viewer.shipped import OPENSEADRAGON_STYLE, read, source_of
from softmap.viewer.texts import Texts, holding
from softmap.writing import written

if TYPE_CHECKING:
    from softmap.recorded import Recording
    from softmap.recorded.recording import Where
    from softmap.viewer.answers import Answers

    Doing = Callable[[str], None]

LIMIT = 25.0
"""Megabytes (10^6 bytes) of a file, unless told otherwise."""
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="content-security-policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} · softmap</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body class="softmap-page"><div id="map"></div><noscript>The map needs JavaScript.</noscript>
"""
FOOT = """<script type="module">{script}</script>
</body>
</html>
"""


def export_html(
    recording: Recording,
    path: str | os.PathLike[str],
    *,
    heads: Sequence[tuple[int, int]] = (),
    rows: Sequence[Where] = (),
    layer: int | None = None,
    head: int | None = None,
    limit: float = LIMIT,
    doing: Doing = lambda doing: None,
) -> int:
    """Write a recording's map as one HTML file.

    Args:
        recording: of one sequence.
        path: the file; what is there is written over.
        heads: (layer, head) of those that come first, by the layer's number in the model; unless given, the head that is
            opened and the clearest of each role.
        rows: words or tokens, as in `Recording.row`, whose rows are held of heads that don't fit, and the first of
            which is pointed out; unless given, those of the word that is pointed out.
        layer: the layer to open with, by its number in the model; the first of `heads` or else chosen, unless given.
        head: the head of it, likewise.
        limit: megabytes (10^6 bytes) that the file may have.
        doing: called with what is being done.

    Returns:
        How many bytes it has.

    Raises:
        ParameterError: no such layer or head; a limit that is no number above 0.
        RowError: no such word.
        SizeError: a limit within which not even the text fits.
        RecordingError: a batch of several sequences.
        OSError: the place can't be written to.

    Warns:
        UserWarning: a head of `heads` is not held whole, and why.
    """
    from softmap.viewer.answers import Answers

    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit < math.inf:
        raise ParameterError("limit", "megabytes, a number above 0", repr(limit), "As in limit=25.")
    named = [Place(recording.numbers[recording.find_layer(one)], other) for one, other in heads]
    for place in named:
        recording.layers[recording.find_layer(place.layer)].find_head(place.head)
    opened = named[0] if named and layer is None and head is None else (layer, head)
    answers = Answers(recording, layer=opened[0], head=opened[1])
    about: Any = answers.ask("about", {})
    start = Place(about["start"]["layer"], about["start"]["head"])
    named_rows = [query for where in rows for query in _find(recording, start, where)]
    query = named_rows[0] if named_rows else about["start"]["query"]
    queries = named_rows or _word_of(recording, start, query)

    before, after = _around(about["title"])
    pieces = Pieces(round(limit * 1e6), len(before) + len(after))
    holding = Holding(recording, answers, pieces, doing)
    holding.add_texts(query)
    chosen = [start, *(named or _clearest(recording, answers, doing))]
    holding.fill(list(dict.fromkeys(chosen)), queries)
    with written(path) as draft:
        draft.write_bytes(before + "".join(f"{piece.element()}\n" for piece in pieces).encode("ascii") + after)
    for place in dict.fromkeys(named):
        if why := holding.why_not(place):
            warnings.warn(f"{path} does not hold head {place} whole: {why}.", stacklevel=2)
    return pieces.size


def _clearest(recording: Recording, answers: Answers, doing: Doing) -> list[Place]:
    """The clearest head of each role."""
    best: dict[str, tuple[float, Place]] = {}
    for number in recording.numbers:
        doing(f"layer {number}: what its heads do")
        told: Any = answers.ask("roles", {"layer": str(number)})
        for each in told["heads"]:
            place, score = Place(number, each["head"]), each["score"]
            if each["role"] is not None and score > best.get(each["role"], (-math.inf, place))[0]:
                best[each["role"]] = score, place
    return [place for _, place in best.values()]


def _find(recording: Recording, start: Place, where: Where) -> range:
    """The queries of a row that is named."""
    return recording._find_tokens(recording.layers[recording.find_layer(start.layer)], where)


def _word_of(recording: Recording, start: Place, query: int) -> range:
    """All queries of the word that one belongs to, so that it can be looked at in words too."""
    starts = Texts(recording).queries(recording.layers[recording.find_layer(start.layer)]).starts(True)
    return range(*starts[holding(starts, query) :][:2].tolist())


def _around(title: str) -> tuple[bytes, bytes]:
    """What stands before and after the data."""
    script, style = _static("softmap.js"), _static("softmap.css")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {source_of(script)}",
            f"style-src {source_of(style)} {source_of(OPENSEADRAGON_STYLE)}",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return HEAD.format(policy=policy, title=escape(title), style=style).encode(), FOOT.format(script=script).encode()


def _static(name: str) -> str:
    """A file of the page, as it can stand inside of another.

    Raises:
        RecordingError: it is not there, or would end the element that it stands in.
    """
    text = read(name)
    for end in ("</script", "</style", "<!--"):
        if end in text.lower():
            hint = "Build the page anew: make page."
            raise RecordingError(f"the page's {name}", "no end of an element in it", end, hint)
    return text
