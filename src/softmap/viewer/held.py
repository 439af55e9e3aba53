"""What an exported file holds of a recording: the most telling first, as far as it fits. page/held.js reads it.

1. texts, thumbnails of all heads, what the heads do
2. of the chosen heads, the first one first: beyond a page an overview of the matrix, and what each key receives; and q and
   k, from which the page computes every weight, or where they don't fit chosen rows
3. v of the chosen heads; the first head's overview without sinks; the mean of what a layer's keys receive
4. of a text of up to a page all other heads
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from softmap.errors import SizeError, SoftmapError
from softmap.language import LANGUAGES, describe_step_2, say
from softmap.mechanism import PAGE
from softmap.telling import added_by, steps_of
from softmap.viewer.headmap import TILE, zoom_within
from softmap.viewer.ingredients import Ingredients, Shared
from softmap.viewer.steps import agreement
from softmap.viewer.texts import Text, Texts
from softmap.viewer.tiles import SINKS

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from softmap.recorded import RecordedLayer, Recording
    from softmap.viewer.answers import Answers
    from softmap.viewer.pieces import Pieces

    Numbers = np.ndarray[Any, Any]

OVERVIEW = 1024
"""Pixels of an overview each way, at most; what is finer is computed from q and k."""
COARSE = 3
"""The zoom from which on there is an overview: what is finer takes the page a moment."""


class Place(NamedTuple):
    """A head: a layer's number in the model, and a head's in the layer."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}"


class Holding:
    """Puts what fits into a file.

    Args:
        recording: of one sequence.
        answers: what is said of it.
        pieces: where it goes.
        doing: called with what is being done.
    """

    def __init__(self, recording: Recording, answers: Answers, pieces: Pieces, doing: Callable[[str], None]) -> None:
        self._recording, self._answers, self._pieces, self._doing = recording, answers, pieces, doing
        self._texts, self._layers = Texts(recording), dict(zip(recording.numbers, recording.layers, strict=True))
        self._page = max(max(layer.shape[1:]) for layer in recording.layers) <= PAGE
        shared = Shared()
        self._of = {
            number: Ingredients(layer, number, self._texts.sinks(layer), shared)
            for number, layer in self._layers.items()
        }

    def fill(self, chosen: Sequence[Place], rows: Sequence[int]) -> None:
        """Put in everything that fits, after the texts.

        Args:
            chosen: the heads that come first.
            rows: the queries whose rows are held of chosen heads that don't fit.
        """
        self._add_pictures()
        for number in self._layers:
            self._doing(f"layer {number}")
            self._try(f"thumbs/{number}", "thumbs", layer=number)
            self._try(f"roles/{number}", "roles", layer=number)
        for place in chosen:
            self._doing(f"head {place}")
            self._add_overview(place, "shown")
            self._try(f"received/{place}", "received", heads=place)
            if not self._add_head(place):
                self._add_rows(place, rows)
        for place in chosen:
            self._pieces.add(self._of[place.layer].values(place.head))
        for sinks in SINKS[1:]:
            self._doing(f"head {chosen[0]}, sinks {sinks}")
            self._add_overview(chosen[0], sinks)
        if self._page:
            self._add_others()
        for number, layer in self._layers.items():
            self._doing(f"layer {number}")
            every = ",".join(str(Place(number, head)) for head in range(layer.heads))
            self._try(f"received/{number}", "received", heads=every)

    def why_not(self, place: Place) -> str:
        """Why a head is not held whole; empty where it is."""
        if f"q/{place}" in self._pieces:
            return ""
        return (
            self._of[place.layer].why
            or f"what comes before it leaves no room for it within {self._pieces.limit / 1e6:g} MB"
        )

    def add_texts(self, query: int) -> None:
        """Put in the texts, and what matrices are made of: without them there is no file.

        Args:
            query: the one that the page points out.

        Raises:
            SizeError: they do not fit.
        """
        about = dict(self._ask("about"))
        about["start"] = about["start"] | {"query": query}
        if not self._page:
            about["words_limit"] = PAGE
        layers = {str(number): self._describe(number, layer) for number, layer in self._layers.items()}
        needed: dict[str, Any] = {"index": {"about": about, "layers": layers}}
        for of in ("tokens", "target"):
            text = self._texts.named(of)
            needed |= {} if text is None else _of_text(of, text)
        if not self._pieces.add(needed):
            least = f"at least {self._pieces.size_with(needed) / 1e6:.1f} MB, for the page and its text"
            hint = "What is given besides is filled with heads."
            raise SizeError("limit", least, f"{self._pieces.limit / 1e6:g} MB", hint)

    def _add_pictures(self) -> None:
        """The pictures that the model saw, where all of them fit."""
        seen = self._ask("about")["pictures"]
        layers = {f"pictures/{number}": self._ask("pictures", layer=number) for number in seen}
        shown = {each["index"] for layer in layers.values() for each in layer["pictures"]}
        self._pieces.add(layers | {f"pixels/{index}": self._ask("pixels", index=index).array for index in shown})

    def _describe(self, number: int, layer: RecordedLayer) -> dict[str, Any]:
        own = self._of[number]
        if own.why:
            return own.described()
        return own.described() | {
            "said": {language: _said(layer, language) for language in LANGUAGES},
            "added": {
                "mask": None if (mask := added_by(layer, 0).mask) is None else repr(mask),
                "bias": None if layer.bias is None else repr(layer.bias),
            },
            "agreement": {language: agreement(layer, language) for language in LANGUAGES},
        }

    def _add_others(self) -> None:
        """All that the recording has besides."""
        places = [Place(number, head) for number, layer in self._layers.items() for head in range(layer.heads)]
        for place in places:
            if self._add_head(place):
                self._try(f"received/{place}", "received", heads=place)
                self._pieces.add(self._of[place.layer].values(place.head))

    def _add_head(self, place: Place) -> bool:
        """What a head's weights are computed from, if it fits."""
        own = self._of[place.layer]
        return not own.why and self._pieces.add(own.of_head(place.head))

    def _add_rows(self, place: Place, rows: Sequence[int]) -> None:
        for query in rows:
            if query < self._layers[place.layer].shape[1]:
                params = {"heads": place, "unit": query, "words": 0, "direction": "gives"}
                self._try(f"row/{place}/{query}", "row", **params)

    def _add_overview(self, place: Place, sinks: str) -> None:
        """All pixels of a head's map from some zoom on, both ways, where it is beyond a page."""
        sides = self._layers[place.layer].shape[1:]
        if max(sides) <= PAGE or self._layers[place.layer].q is None:
            return
        first = max(COARSE, zoom_within(sides, OVERVIEW))
        for how in ("max", "mean"):
            levels = {
                f"level/{place}/{how}/{sinks}/{zoom}": self._level(place, zoom, how, sinks)
                for zoom in range(first, zoom_within(sides, 1) + 1)
            }
            self._pieces.add(levels)

    def _level(self, place: Place, zoom: int, how: str, sinks: str) -> Float[Numbers, "h w"]:
        """All pixels of a zoom, float16."""
        side = TILE << zoom
        down, across = (range(-(-size // side)) for size in self._layers[place.layer].shape[1:])
        where = {"layer": place.layer, "head": place.head, "zoom": zoom, "how": how, "sinks": sinks}
        tiles = [[self._ask("tile", **where, row=row, column=column).array for column in across] for row in down]
        return np.block(tiles)

    def _try(self, name: str, question: str, **params: Any) -> None:
        """Hold an answer, where there is one and it fits."""
        if name in self._pieces:
            return
        try:
            answer = self._ask(question, **params)
        except SoftmapError:  # the recording has no such answer, and the page will say that the file has none
            return
        self._pieces.add({name: answer if isinstance(answer, dict) else answer.array})

    def _ask(self, question: str, **params: Any) -> Any:
        return self._answers.ask(question, {name: str(value) for name, value in params.items()})


def _of_text(of: str, text: Text) -> dict[str, Any]:
    """A text, where its tokens stand in it, and its units both ways."""
    held: dict[str, Any] = {f"text/{of}": text.tokens.text, f"places/{of}": _places(text)}
    for words in (False, True):
        held[f"units/{of}/{int(words)}"] = text.described(range(text.count(words)), words)
    return held


def _places(text: Text) -> Int[Numbers, "tokens 2"]:
    """Where in the text each token stands, without white space around it: start and stop, as JavaScript counts."""
    # UTF-16 units before each character
    wide = np.array([0, *(1 + (ord(char) > 0xFFFF) for char in text.tokens.text)]).cumsum()
    found: Numbers = wide[np.array(text.places(False)).reshape(-1, 2)].astype(np.int32)
    return found


def _said(layer: RecordedLayer, language: str) -> dict[str, dict[str, Any]]:
    """What is said of each step whatever the row."""
    steps, _ = steps_of(layer, 0, range(layer.shape[1] - 1, layer.shape[1]))
    added = added_by(layer, 0)
    formula, rule = describe_step_2(steps, added, layer.shape[2], language)
    sink = "" if added.sink is None else "_sink"
    said = {
        "scores": (say(language, "scores_title"), [say(language, "scores")]),
        "scaled": (say(language, "scaled_title", formula=formula), [rule] if added.bias is None else []),
        "weights": (say(language, f"weights_title{sink}"), [] if sink else [say(language, "weights")]),
        "output": (say(language, "output_title"), [say(language, "output" if layer.v is not None else "output_none")]),
    }
    return {name: {"title": title, "sentences": sentences} for name, (title, sentences) in said.items()}
