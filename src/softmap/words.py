"""Sub-word pieces -> words, and the rule for adding weights up.

Attention *to* a word is the sum over its pieces; attention *from* a word is the mean over its pieces, so that
each row still sums to 1 (Clark et al., 2019, "What Does BERT Look At?", section 4.1,
https://arxiv.org/abs/1906.04341).
"""

from __future__ import annotations

import operator
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from softmap.errors import RowError
from softmap.escaping import JOINERS, escaped

if TYPE_CHECKING:
    from jaxtyping import Float

    from softmap.tokens import Tokens

    Numbers = np.ndarray[Any, Any]


_SIGNS = str.maketrans({" ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥"})
_SPACES = "".join(_SIGNS.values())
_PRINTED = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
"""The bytes that vocabularies of bytes write as the character of that number; the others follow from 256 on."""
_BYTES = {chr(byte): byte for byte in _PRINTED} | {
    chr(256 + i): byte for i, byte in enumerate(byte for byte in range(256) if byte not in _PRINTED)
}


@dataclass(frozen=True)
class Unit:
    """What a row or a column of a matrix is labelled with: a word, or a single token.

    Attributes:
        label: how it is shown; characters that would not print are written as escapes.
        start: the first token it is made of.
        stop: one past the last.
        special: whether it is a special token, such as ``[SEP]``, and stands for no text.
    """

    label: str
    start: int
    stop: int
    special: bool = False

    @property
    def pieces(self) -> int:
        """How many tokens it is made of."""
        return self.stop - self.start


def units_of_words(tokens: Tokens) -> tuple[Unit, ...]:
    """One unit a word, labelled as the text has it; one a special token."""
    starts = [i for i in range(len(tokens)) if i == 0 or _begins(tokens, i)]
    units = []
    for start, stop in zip(starts, [*starts[1:], len(tokens)], strict=True):
        surface = tokens.text[tokens.spans[start][0] : tokens.spans[stop - 1][1]].strip()
        special = tokens.special[start]
        label = printable(surface) if surface and not special else token_label(tokens, start)
        units.append(Unit(label, start, stop, special))
    return tuple(units)


def units_of_tokens(tokens: Tokens, *, as_in_text: bool = False) -> tuple[Unit, ...]:
    """One unit a token, with its `token_label`; `as_in_text` labels those that are a whole word as the text has it."""
    pieces = tuple(Unit(token_label(tokens, i), i, i + 1, tokens.special[i]) for i in range(len(tokens)))
    if not as_in_text:
        return pieces
    whole = {word.start: word for word in units_of_words(tokens) if word.pieces == 1}
    return tuple(whole.get(i, piece) for i, piece in enumerate(pieces))


def token_label(tokens: Tokens, i: int) -> str:
    r"""How one token is shown: as the vocabulary calls it, but what stands for bytes by its characters.

    Vocabularies of bytes write each as a printable character (Radford et al., 2019, section 2.2), as in ``Ġfor`` or
    ``Ã©``; here that is ``␣for`` and ``é``, and part of a character its bytes, as in ``\xf0\x9f``. Which vocabularies
    do so is seen by the text, which has the characters where the token stands.
    """
    piece, surface = tokens.pieces[i], tokens.text[slice(*tokens.spans[i])]
    if tokens.special[i] or piece == surface or not all(char in _BYTES for char in piece):
        return printable(piece)
    data = bytes(_BYTES[char] for char in piece)
    try:
        read = data.decode()
    except UnicodeDecodeError:
        # part of a character, whose white space the span may lack; of one that was cut, the text has a sign in its place
        spelt = (surface, unicodedata.normalize("NFC", surface))
        part = any(data.strip() in each.encode() for each in spelt) or "\ufffd" in surface
        return "".join(f"\\x{byte:02x}" for byte in data) if part else printable(piece)
    return printable(read.translate(_SIGNS)) if _alike(read, surface) else printable(piece)


def _alike(one: str, other: str) -> bool:
    """Whether two spellings differ by no more than what tokenizers change of a text before they cut it."""
    return _plain(one) == _plain(other)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text.strip()).casefold()


def attention_to(weights: Float[Numbers, "rows tokens"], units: tuple[Unit, ...]) -> Float[Numbers, "rows units"]:
    """Columns of pieces -> columns of words: the sum."""
    sums: Numbers = np.add.reduceat(weights, [unit.start for unit in units], axis=1)
    return sums


def attention_from(
    weights: Float[Numbers, "tokens columns"], units: tuple[Unit, ...], first: int = 0
) -> Float[Numbers, "units columns"]:
    """Rows of pieces -> rows of words: the mean. `first` is the token that row 0 of `weights` stands for."""
    sums: Numbers = np.add.reduceat(weights, [unit.start - first for unit in units], axis=0)
    means: Numbers = sums / np.array([unit.pieces for unit in units])[:, None]
    return means


def find_row(units: tuple[Unit, ...], wanted: str | int) -> int:
    """Which unit is meant: by its label, in any case if no other reading fits, or by a token of it, as in 3 or ":3".

    A token of bytes is also found as GPT-2's vocabulary has it, and without the sign of its space: `␣for` by "Ġfor" or "for".

    Raises:
        RowError: no unit has this label, or several have.
    """
    if isinstance(wanted, str):
        exact = [i for i, unit in enumerate(units) if unit.label == wanted]
        folded = [
            i
            for i, unit in enumerate(units)
            if wanted.casefold() in (unit.label.casefold(), unit.label.lstrip(_SPACES).casefold())
        ]
        typed = [i for i, unit in enumerate(units) if wanted and wanted == unit.label.lstrip(_SPACES)]
        written = [i for i, unit in enumerate(units) if unit.label == _of_bytes(wanted)]
        for found in (exact, written, typed, folded):
            if len(found) == 1:
                return found[0]
            if found:
                raise occurs_often(wanted, [units[i] for i in found])
    token = _as_token(wanted)
    if 0 <= token < units[-1].stop:
        return bisect_right(units, token, key=lambda unit: unit.start) - 1
    shown = ", ".join(unit.label for unit in units[:12]) + (", ..." if len(units) > 12 else "")
    raise RowError(
        f"row {wanted!r}",
        "a word of the text or a token's number",
        "neither",
        f"Tokens count from 0 to {units[-1].stop - 1}, and the words are {shown}.",
    )


def occurs_often(wanted: str, units: Sequence[Unit]) -> RowError:
    """What to say of a word that is several units."""
    places = " or ".join(f":{unit.start}" for unit in units[:8]) + " ..." * (len(units) > 8)
    got, hint = f"one that occurs {len(units)} times", f"Give its token's number: {places}."
    return RowError(f"row {wanted!r}", "a word that occurs once", got, hint)


def _of_bytes(wanted: str) -> str | None:
    """What a vocabulary of bytes writes so, as tokens are labelled; None where it writes nothing so."""
    try:
        return bytes(_BYTES[char] for char in wanted).decode().translate(_SIGNS)
    except (KeyError, UnicodeDecodeError):
        return None


def _as_token(wanted: Any) -> int:
    if isinstance(wanted, str):
        number = re.fullmatch(r":?([0-9]{1,9})", wanted)
        return int(number[1]) if number else -1
    return operator.index(wanted) if hasattr(wanted, "__index__") and not isinstance(wanted, bool) else -1


def printable(label: str) -> str:
    """The label with characters that do not show as escapes: it must not move a cursor, nor vanish."""
    shown = escaped(label)
    return shown if shown.strip(JOINERS) else shown.encode("unicode_escape").decode("ascii")


def _begins(tokens: Tokens, i: int) -> bool:
    """Whether token i begins a unit: a special token, another word than the token before, or by a Chinese character.

    Chinese is written without spaces, and some tokenizers keep a whole sentence of it as one word. White space that
    is a token of its own goes with the word after it; at the end of a text with the word before.
    """
    if tokens.special[i] or tokens.special[i - 1]:
        return True
    before, here = _surface(tokens, i - 1), _surface(tokens, i)
    if not before or (not here and (i + 1 == len(tokens) or tokens.special[i + 1])):
        return False
    if tokens.words[i] is None or tokens.words[i] != tokens.words[i - 1]:
        return True
    if tokens.spans[i][0] < tokens.spans[i - 1][1]:
        return False  # one more piece of the same character
    return _is_ideograph(before[-1:]) or _is_ideograph(here[:1])


def _surface(tokens: Tokens, i: int) -> str:
    return tokens.text[slice(*tokens.spans[i])].strip()


def _is_ideograph(char: str) -> bool:
    return char != "" and unicodedata.name(char, "").startswith("CJK UNIFIED IDEOGRAPH")
