"""The texts of a recording as the map shows them: words or tokens, each with a label and the white space before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from softmap import words as wording
from softmap.errors import ParameterError
from softmap.escaping import escaped
from softmap.forking import cached_property
from softmap.words import Unit, token_label

if TYPE_CHECKING:
    from jaxtyping import Int

    from softmap.recorded import RecordedLayer, Recording
    from softmap.recorded.layer import Text as Of
    from softmap.tokens import Tokens

    Numbers = np.ndarray[Any, Any]

AROUND = 40
"""Characters of a text that are shown before and after a word."""
SPACES = "\n\r\t"
"""What stays between words as it is: the page sets it as white space."""


class Side(Protocol):
    """What the rows or columns of a matrix stand for."""

    def starts(self, words: bool) -> Int[Numbers, " units1"]:
        """Each unit's first token, and the number of tokens, int32."""

    def unit(self, i: int, words: bool) -> Unit:
        """A word or a token."""

    def context(self, i: int, words: bool) -> list[str]:
        """The text before a unit, how the unit is shown, and the text after it."""


class Numbered:
    """Rows or columns that are no tokens of a text: their labels are their numbers."""

    def __init__(self, count: int) -> None:
        self._count = count

    def starts(self, words: bool) -> Int[Numbers, " units1"]:
        """As many units as there are rows, whether or not words are asked for."""
        return np.arange(self._count + 1, dtype=np.int32)

    def unit(self, i: int, words: bool) -> Unit:
        """The number of a row."""
        return Unit(str(i), i, i + 1)

    def context(self, i: int, words: bool) -> list[str]:
        """There is nothing around it."""
        return ["", str(i), ""]


class Text:
    """The words and tokens of one text.

    Attributes:
        tokens: the text.
    """

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self._places: dict[bool, list[tuple[int, int]]] = {}
        self._searched: dict[bool, _Searched] = {}

    @cached_property
    def words(self) -> tuple[Unit, ...]:
        """Its words."""
        return wording.units_of_words(self.tokens)

    def count(self, words: bool) -> int:
        """How many words or tokens there are."""
        return len(self.words) if words else len(self.tokens)

    def starts(self, words: bool) -> Int[Numbers, " units1"]:
        """Each unit's first token, and the number of tokens, int32."""
        return self._word_starts if words else np.arange(len(self.tokens) + 1, dtype=np.int32)

    def unit(self, i: int, words: bool) -> Unit:
        """A word, as the text has it; a token as `token_label` shows it, one that is a whole word as the text has it."""
        if words:
            return self.words[i]
        word = self.words[holding(self._word_starts, i)]
        whole = word.pieces == 1
        return word if whole else Unit(token_label(self.tokens, i), i, i + 1, self.tokens.special[i])

    def described(self, units: range, words: bool) -> dict[str, list[Any]]:
        """What is told of some units: labels, the text before each, their first tokens, and whether they are special."""
        found = [self.unit(i, words) for i in units]
        return {
            "labels": [unit.label for unit in found],
            "gaps": [self._gap(i, words) for i in units],
            "starts": [unit.start for unit in found],
            "special": [unit.special for unit in found],
        }

    def context(self, i: int, words: bool) -> list[str]:
        """The text before a unit, how the unit is shown, and the text after it."""
        (start, stop), text = self.places(words)[i], self.tokens.text
        before, after = text[max(0, start - AROUND) : start], text[stop : stop + AROUND]
        return [escaped(before, SPACES), self.unit(i, words).label, escaped(after, SPACES)]

    def places(self, words: bool) -> list[tuple[int, int]]:
        """Where in the text each unit's characters are, without white space; of one without any, where it would stand."""
        if words not in self._places:
            places, end = list[tuple[int, int]](), 0
            for i in range(self.count(words)):
                start, stop = self._span(i, words)
                places.append((start, stop) if start < stop else (end, end))
                end = max(end, stop) if start < stop else end
            self._places[words] = places
        return self._places[words]

    def find(self, wanted: str, words: bool) -> list[int]:
        """The units with which some text begins, in any case, and those tokens whose names or labels have it in them."""
        if words not in self._searched:
            self._searched[words] = self._make_searched(words)
        searched, wanted = self._searched[words], _plain(wanted)
        found = {i for i, label in enumerate(searched.labels) if wanted in label}
        place = searched.text.find(wanted)
        while place >= 0:
            unit = int(np.searchsorted(searched.starts, place, "right")) - 1
            found.add(unit)  # once, however often it begins there
            after = unit + 1 < len(searched.starts)
            place = searched.text.find(wanted, int(searched.starts[unit + 1])) if after else -1
        return sorted(found)

    @cached_property
    def _word_starts(self) -> Int[Numbers, " words1"]:
        return np.array([*(unit.start for unit in self.words), len(self.tokens)], dtype=np.int32)

    def _gap(self, i: int, words: bool) -> str:
        """The text between the unit before and this one, white space kept."""
        places = self.places(words)
        return escaped(self.tokens.text[places[i - 1][1] if i else 0 : places[i][0]], SPACES)

    def _span(self, i: int, words: bool) -> tuple[int, int]:
        """The characters of a unit, without white space around them; none of a special token."""
        first, last = (self.words[i].start, self.words[i].stop - 1) if words else (i, i)
        start, stop = self.tokens.spans[first][0], self.tokens.spans[last][1]
        if self.tokens.special[first] or stop <= start:
            return start, start
        surface = self.tokens.text[start:stop]
        start += len(surface) - len(surface.lstrip())
        return start, start + len(surface.strip())

    def _make_searched(self, words: bool) -> _Searched:
        text, special, end = self.tokens.text, False, 0
        parts, starts, at = [], [], 0
        for i, (start, stop) in enumerate(self.places(words)):
            apart = special or start == stop or text[end:start] != ""
            # a piece of a character that has been there already adds nothing to the text
            shown = _plain(text[max(start, end) : stop] if start < stop else self.unit(i, words).label)
            parts.append(f" {shown}" if apart else shown)
            starts.append(at + apart)
            at += len(parts[-1])
            special, end = start == stop, max(stop, end)
        pieces = () if words else enumerate(self.tokens.pieces)
        labels = [f"{piece}\n{self.unit(i, words).label}".casefold() for i, piece in pieces]
        return _Searched("".join(parts), np.array(starts), labels)


class _Searched(NamedTuple):
    """A text as it is searched.

    Attributes:
        text: in one case, with single spaces.
        starts: where in it each unit begins.
        labels: of each token what the vocabulary calls it and how it is shown, in one case; none of words, which are as
            the text has them.
    """

    text: str
    starts: Int[Numbers, " units"]
    labels: list[str]


class Texts:
    """The texts of a recording of one sequence, and what the sides of its layers' matrices stand for."""

    def __init__(self, recording: Recording) -> None:
        self._texts = {
            of: None if tokens is None else Text(tokens)
            for of, tokens in (("tokens", recording.tokens), ("target", recording.target))
        }

    def named(self, of: str) -> Text | None:
        """A text by its name, None where there is none."""
        return self._texts.get(of)

    def name_of(self, of: Of | None, count: int) -> Of | None:
        """The name of the text that so many queries or keys are the tokens of; None where it is not there."""
        text = None if of is None else self._texts[of]
        return of if text is not None and len(text.tokens) == count else None

    def text(self, of: str) -> Text:
        """A text by its name.

        Raises:
            ParameterError: the recording has none of that name.
        """
        found = self._texts[of]
        if found is None:
            there = " or ".join(name for name, text in self._texts.items() if text is not None)
            hint = "Queries and keys are named by their numbers."
            raise ParameterError("of", there or "no text, for the recording has none", repr(of), hint)
        return found

    def queries(self, layer: RecordedLayer) -> Side:
        """What the rows stand for."""
        return self._side(layer.queries_of, layer.shape[1])

    def keys(self, layer: RecordedLayer) -> Side:
        """What the columns stand for."""
        return self._side(layer.keys_of, layer.shape[2])

    def sinks(self, layer: RecordedLayer) -> tuple[int, ...]:
        """The keys that take what is not needed elsewhere: the first, and special tokens."""
        side = self.keys(layer)
        special = np.flatnonzero(side.tokens.special).tolist() if isinstance(side, Text) else []
        return tuple(sorted({0, *special}))

    def _side(self, of: Of | None, count: int) -> Side:
        name = self.name_of(of, count)
        return Numbered(count) if name is None else self.text(name)


def holding(starts: Int[Numbers, " units1"], token: int) -> int:
    """The unit that holds a token."""
    return int(np.searchsorted(starts, token, "right")) - 1


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
