"""A text that would do harm in a page that took text for anything else."""

from __future__ import annotations

from recorded.builders import ORIGIN, make_layer

from softmap import masks
from softmap.recorded import RecordedSequence, Recording
from softmap.tokens import Tokens

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "\u202e\u202eevil\u2066",
    "nul\x00bell\x07esc\x1b[31m",
    "`code`",
    "&amp;&lt;\"'",
    "${alert(3)}{name}%s",
    "👩‍👩‍👧‍👦",
    "e" + "\u0301" * 40,
    "javascript:alert(4)",
)
"""Words that would do harm in a page that took text for anything else."""


def make_hostile(words):
    """A recording of a text of these words, one token each, after a special one."""
    pieces = ("<s>", *words)
    starts = [sum(len(word) + 1 for word in words[:i]) for i in range(len(words))]
    tokens = Tokens(
        text=" ".join(words),
        ids=tuple(range(len(pieces))),
        pieces=pieces,
        spans=((0, 0), *((start, start + len(word)) for start, word in zip(starts, words, strict=True))),
        words=(None, *range(len(words))),
        special=(True, *[False] * len(words)),
        unknown=(False,) * len(pieces),
    )
    of = {"queries": len(pieces), "queries_of": "tokens", "keys_of": "tokens", "mask": masks.full()}
    return Recording(ORIGIN, (RecordedSequence((make_layer(0, number=0, difference=1e-6, **of),), tokens),))
