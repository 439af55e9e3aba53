"""A text -> lines that fit a page."""

from __future__ import annotations

import re
from collections.abc import Callable

BREAKABLE = re.compile(r"[（“]*(?:[\u2e80-\uffef]|[^\s\u2e80-\uffef]+)[，。、：；）！？”]*\s*|\s+")
"""A word, or one wide character, with the punctuation that must stay with it."""


def break_lines(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Break at spaces, and between wide characters, as Chinese is; no line begins with closing punctuation.

    Args:
        text: one paragraph.
        fits: whether a line is short enough. What can't be broken stands on a line of its own, however long.
    """
    lines = [""]
    for piece in BREAKABLE.findall(text):
        if lines[-1] and not fits((lines[-1] + piece).rstrip()):
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]
