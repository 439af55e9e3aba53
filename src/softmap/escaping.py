r"""What came from elsewhere -> text that shows whatever is in it: the one way to terminals, pages, figures and JSON.

A model's name, a layer's path, a token, a file's name or an error of another library may hold characters that move a
cursor, turn what stands around them, or can't be seen or written at all. They become escapes, such as ``\x1b``; nothing
is dropped, and text without them stays as it is, in every script.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any

HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of characters that are written as escapes: controls, invisible signs, halves of a pair, ends of lines."""
FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0"
"""Letters and marks that show nothing by themselves."""
JOINERS = "\u200c\u200d"
"""They hold an emoji or a script's letters together; next to ASCII they would only hide."""


def escaped(text: str, keep: str = "") -> str:
    r"""The text with what does not show as escapes, but for the characters of `keep`.

    Examples:
        >>> escaped("a\x1b[31mb\u202ec 我")
        'a\\x1b[31mb\\u202ec 我'
    """
    if text.isprintable() and not any(filler in text for filler in FILLERS):
        return text
    signs = {char for char in text if is_hidden(char)} - {*keep}
    if joined := signs & {*JOINERS}:
        text = "".join(_joined(text, i) if char in joined else char for i, char in enumerate(text))
    return text.translate({ord(char): escape_of(char) for char in signs - {*JOINERS}})


def is_hidden(char: str) -> bool:
    """Whether a character does not show: one of `HIDDEN` or `FILLERS`, or a noncharacter, which XML forbids."""
    code = ord(char)
    return (
        unicodedata.category(char) in HIDDEN or char in FILLERS or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    )


def escape_of(char: str) -> str:
    r"""A character as Python writes it in a string: ``\n``, ``\x1b``, ``\u202e``."""
    return char.encode("unicode_escape").decode("ascii")


def json_text(value: Any, **options: Any) -> str:
    r"""A value as JSON in which every script is readable and nothing hides: ``\u202e`` stands for what would.

    Args:
        value: what `json.dumps` takes.
        options: its own.
    """
    text = json.dumps(value, ensure_ascii=False, **options)
    if text.isprintable() and not any(filler in text for filler in FILLERS):
        return text
    signs = {char for char in text if is_hidden(char)} - {"\n", *JOINERS}  # a line's end stands between entries only
    return text.translate({ord(char): _unit_escapes(char) for char in signs})


def _unit_escapes(char: str) -> str:
    """A character as JSON escapes it: one for each of its UTF-16 units."""
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _joined(text: str, i: int) -> str:
    """The joiner at a place, as it is where it joins what is beyond ASCII."""
    around = text[max(0, i - 1) : i] + text[i + 1 : i + 2]
    return escape_of(text[i]) if any(char.isascii() for char in around) else text[i]
