"""What a page may ask of a recording, and the answers: JSON, or an array of numbers.

    about                                    what there is, and where to begin
    units, starts, find                      the words and tokens of a text
    thumbs, roles                            the heads of a layer
    tile, pixel                              the map of a head at any zoom
    row, received, matrix                    weights of words or tokens
    steps                                    the four steps of one cell
    pictures, pixels                         what the model saw, and where its patches stand

A *unit* is a word or a token of a text, counted from 0. Layers are named by their numbers in the model. In an array of
weights NaN is where nothing may be seen, or where a key is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from softmap.errors import ParameterError, RecordingError, SizeError
from softmap.forking import cached_property
from softmap.language import LANGUAGES
from softmap.mechanism import PAGE
from softmap.viewer import overview, pictures
from softmap.viewer.headmap import TILE
from softmap.viewer.parameters import Parameters, shown
from softmap.viewer.rows import Rows
from softmap.viewer.sight import never, stop_if
from softmap.viewer.sources import in_words, largest_of
from softmap.viewer.steps import Cell, Stories
from softmap.viewer.texts import Texts
from softmap.viewer.tiles import SINKS, Tiles, Which

if TYPE_CHECKING:
    from softmap.recorded import RecordedLayer, Recording
    from softmap.viewer.sight import Cancelled
    from softmap.viewer.texts import Text
    from softmap.viewer.tiles import Sinks

WORDS_LIMIT = 4096
"""Tokens a side up to which there is a map in words."""
UNITS = 2048
"""Units that are given at once, at most."""
FOUND = 1000
"""Units that a search gives, at most; their number is always given."""
HEADS = 4096
"""Heads whose mean is taken, at most."""


class Numbers(NamedTuple):
    """An answer of numbers.

    Attributes:
        array: float16, float32 or int32, little-endian and contiguous.
    """

    array: np.ndarray[Any, Any]


Answer = dict[str, Any] | Numbers
Edges = np.ndarray[Any, Any]


class Answers:
    """Answers questions about one recording. May be asked from several threads.

    Args:
        recording: of one sequence.
        layer: the layer to begin with, by its number in the model; chosen unless given.
        head: the head of it, counted from 0; chosen unless given.

    Raises:
        RecordingError: a batch of several sequences; no layers.
        ParameterError: no such layer or head.
    """

    def __init__(self, recording: Recording, *, layer: int | None = None, head: int | None = None) -> None:
        if len(recording.sequences) != 1:
            got = f"a batch of {len(recording.sequences)}"
            raise RecordingError("recording", "one sequence", got, "Take one: rec.batch(0) (--batch 0).")
        if not recording.layers:
            raise RecordingError("recording", "a layer of softmax attention", "none", "Record one of its layers.")
        places = range(len(recording.layers)) if layer is None else [recording.find_layer(layer)]
        if head is not None:
            max((recording.layers[place] for place in places), key=lambda each: each.heads).find_head(head)
        self._recording, self._first = recording, (layer, head)
        self._texts = Texts(recording)
        self._tiles = Tiles(recording.layers, self._texts)
        self._rows = Rows(recording.layers, self._texts, self._tiles)
        self._stories = Stories(recording, self._texts)
        self._roles: dict[int, dict[str, Any]] = {}

    def ask(self, name: str, params: Mapping[str, str], cancelled: Cancelled = never) -> Answer:
        """The answer to a question.

        Args:
            name: the question.
            params: its parameters, as strings.
            cancelled: whether nobody waits for the answer any more; asked while it is computed.

        Raises:
            ParameterError: no such question or parameter, one that is missing, or outside of what it may be.
            RecordingError: the recording lacks what is asked for.
            SoftmapError: as the question says.
            CancelledError: nobody waits any more.
        """
        if name not in QUESTIONS:
            raise ParameterError("question", f"one of {', '.join(QUESTIONS)}", shown(name), "As in about.")
        answer, known = QUESTIONS[name]
        read = Parameters(params, known)
        stop_if(cancelled)
        self._look(params)
        told = answer(self, read, cancelled)
        self._look(params)  # what was found to be damaged meanwhile is not shown
        return told

    def _look(self, params: Mapping[str, str]) -> None:
        """Say which layers are looked at, so that their files are compared with their checksums.

        Raises:
            RecordingError: a file of one of them was found to be damaged.
        """
        named = {params.get("layer"), *(place.split(".")[0] for place in params.get("heads", "").split(","))}
        for number, layer in zip(self._recording.numbers, self._recording.layers, strict=True):
            if str(number) in named:
                layer.look()

    def takes_long(self, name: str, params: Mapping[str, str]) -> bool:
        """Whether a question may take seconds, so that others should not wait behind it."""
        layers, tokens = self._recording.layers, self._recording.tokens
        summaries = [layer.summary for layer in layers]
        rescaled = params.get("sinks") == "rescaled"
        if name == "thumbs":
            return not self._has_thumbs
        if name == "received":
            return rescaled or any(summary is None or summary.received is None for summary in summaries)
        if name == "row" and params.get("direction") == "receives":  # needs the logsumexp of all rows
            return rescaled or any(layer.logsumexp is None for layer in layers)
        return name == "roles" or (name == "steps" and tokens is not None and len(tokens) > PAGE)

    @cached_property
    def _has_thumbs(self) -> bool:
        return all(overview.has_thumbs(layer) for layer in self._recording.layers)

    def prepare(self, cancelled: Cancelled = never) -> bool:
        """Compute a little of what may be asked for next; whether there was anything.

        Raises:
            CancelledError: there is something else to do.
        """
        first = "_description" not in self.__dict__  # what a page asks before all else
        return bool(self._description) if first else self._tiles.fill(cancelled)

    # ---- the recording, its texts and heads

    def _about(self, _: Parameters, __: Cancelled) -> Answer:
        return {**self._description, "verified": list(self._recording.verified)}

    @cached_property
    def _description(self) -> dict[str, Any]:
        start = overview.start_of(self._recording, self._texts, *self._first)
        limits = {"tile": TILE, "words_limit": WORDS_LIMIT, "page": PAGE}
        pictured = {"pictures": pictures.pictured(self._recording)}
        return {**overview.describe(self._recording, self._texts), **pictured, "start": start, **limits}

    def _units(self, read: Parameters, _: Cancelled) -> Answer:
        text, words = self._text(read), read.flag("words")
        count = text.count(words)
        start = read.number("start", 0, count)
        hint = f"It is one past the last unit, at most {UNITS} after the first."
        units = range(start, read.number("stop", start, min(count, start + UNITS), what=hint))
        return text.described(units, words)

    def _starts(self, read: Parameters, _: Cancelled) -> Answer:
        return _numbers(self._text(read).starts(read.flag("words")), np.int32)

    def _find(self, read: Parameters, _: Cancelled) -> Answer:
        text, words, wanted = self._text(read), read.flag("words"), read.text("text")
        start = read.number("start", 0, text.count(words), default=0)
        if not wanted.strip():
            raise ParameterError("text", "something to look for", shown(wanted), "As in text=New York.")
        found = text.find(wanted, words)
        return {"units": [unit for unit in found if unit >= start][:FOUND], "total": len(found)}

    def _thumbs(self, read: Parameters, _: Cancelled) -> Answer:
        place = self._place(read)
        found = overview.thumbs(self._recording.layers[place], self._tiles.sight(place, "shown"))
        return _numbers(found, np.float16)

    def _roles_of(self, read: Parameters, cancelled: Cancelled) -> Answer:
        place = self._place(read)
        if place not in self._roles:
            self._roles[place] = overview.roles(self._recording, place, cancelled)
        return self._roles[place]

    # ---- the map

    def _tile(self, read: Parameters, cancelled: Cancelled) -> Answer:
        which, how = self._which(read), read.choice("how", ("max", "mean"), "max")
        shown_map = self._tiles.map(which)
        zoom = read.number("zoom", 0, shown_map.top)
        down, across = (-(-pixels // TILE) for pixels in shown_map.pixels(zoom))
        row, column = (read.number(name, 0, n - 1) for name, n in (("row", down), ("column", across)))
        tile = self._tiles.tile(which, zoom, row, column, cancelled)
        return _numbers(tile.max if how == "max" else tile.mean, np.float16)

    def _pixel(self, read: Parameters, cancelled: Cancelled) -> Answer:
        which = self._which(read)
        shown_map = self._tiles.map(which)
        zoom = read.number("zoom", 0, shown_map.top)
        down, across = shown_map.pixels(zoom)
        row, column = read.number("row", 0, down - 1), read.number("column", 0, across - 1)
        block = self._tiles.block(which, zoom, row, column, cancelled)
        at = (row, column) if zoom == 0 else block.at
        cell = None if at is None else self._cell(which, *at, cancelled)
        return {
            "rows": [block.rows.start, block.rows.stop],
            "keys": [block.columns.start, block.columns.stop],
            "mean": block.mean,
            "max": None if cell is None or block.at is None else cell["weight"],
            "at": cell,
        }

    def _cell(self, which: Which, row: int, column: int, cancelled: Cancelled) -> dict[str, Any]:
        """One cell with all that is known of it; between two words, score and scaled are of the pieces that look most."""
        layer, words = self._recording.layers[which.layer], which.words
        sides = self._texts.queries(layer), self._texts.keys(layer)
        rows, keys = (side.starts(words)[i : i + 2] for side, i in zip(sides, (row, column), strict=True))
        matrix = self._tiles.matrix(which.layer, which.sinks)[which.head]
        query, key = largest_of(matrix, range(*rows.tolist()), range(*keys.tolist()), cancelled)
        scaled = float(layer.matrix.scaled[which.head, query, key])
        return {
            "query": query,
            "key": key,
            "weight": float(in_words(matrix, rows, keys, cancelled)[0, 0]),
            "score": float(layer.matrix.scores[which.head, query, key]),
            "scaled": scaled if math.isfinite(scaled) else None,
            "pieces": int(max(np.diff(rows).max(), np.diff(keys).max())),
            "hidden": self._why_hidden(which, rows, keys, cancelled),
            "query_label": sides[0].unit(row, words).label,
            "key_label": sides[1].unit(column, words).label,
            "query_context": sides[0].context(row, words),
            "key_context": sides[1].context(column, words),
        }

    def _why_hidden(self, which: Which, rows: Edges, keys: Edges, cancelled: Cancelled) -> str:
        """Why a cell has no weight; empty where it has one."""
        sights = (self._tiles.sight(which.layer, sinks) for sinks in (which.sinks, "shown"))
        seen, unmasked = (bool(sight.cells(rows, keys, cancelled)[0, 0]) for sight in sights)
        return "" if seen else "left_out" if unmasked else "masked"

    # ---- rows

    def _row(self, read: Parameters, cancelled: Cancelled) -> Answer:
        heads, words, sinks = self._heads(read), read.flag("words"), self._sinks(read)
        gives = read.choice("direction", ("gives", "receives"), "gives") == "gives"
        layer = self._recording.layers[heads[0][0]]
        of = self._texts.name_of(*((layer.queries_of, layer.shape[1]) if gives else (layer.keys_of, layer.shape[2])))
        if of is not None:
            read.choice("of", (of,), of)
        side = self._texts.queries(layer) if gives else self._texts.keys(layer)
        unit = read.number("unit", 0, len(side.starts(words)) - 2)
        look = self._rows.gives if gives else self._rows.receives
        return _numbers(look(heads, unit, words, sinks, cancelled), np.float32)

    def _received(self, read: Parameters, cancelled: Cancelled) -> Answer:
        heads, words, sinks = self._heads(read), read.flag("words"), self._sinks(read)
        return _numbers(self._rows.received(heads, words, sinks, cancelled), np.float32)

    def _matrix(self, read: Parameters, cancelled: Cancelled) -> Answer:
        place, words, sinks = self._place(read), read.flag("words"), self._sinks(read)
        return _numbers(self._rows.matrix(place, words, sinks, cancelled), np.float32)

    def _steps(self, read: Parameters, _: Cancelled) -> Answer:
        place = self._place(read)
        layer = self._recording.layers[place]
        query, key = (read.number(n, 0, size - 1) for n, size in zip(("query", "key"), layer.shape[1:], strict=True))
        cell = Cell(place, self._head(read, layer), query, key)
        language = read.choice("lang", LANGUAGES, "en")
        return self._stories.tell(cell, read.flag("words"), language)

    # ---- pictures

    def _pictures(self, read: Parameters, _: Cancelled) -> Answer:
        return pictures.pictures(self._recording, self._recording.layers[self._place(read)])

    def _pixels(self, read: Parameters, _: Cancelled) -> Answer:
        count = len(self._recording.pictures)
        if not count:
            raise RecordingError("recording", "pictures", "none", "Record a model that is given pixel_values.")
        return _numbers(pictures.pixels(self._recording, read.number("index", 0, count - 1)), np.int32)

    # ---- what parameters name

    def _text(self, read: Parameters) -> Text:
        return self._texts.text(read.choice("of", ("tokens", "target")))

    def _place(self, read: Parameters) -> int:
        """The place of the layer that is named by its number in the model."""
        numbers = self._recording.numbers
        return self._recording.find_layer(read.number("layer", min(numbers), max(numbers)))

    @staticmethod
    def _head(read: Parameters, layer: RecordedLayer) -> int:
        return read.number("head", 0, layer.heads - 1)

    @staticmethod
    def _sinks(read: Parameters) -> Sinks:
        return SINKS[SINKS.index(read.choice("sinks", SINKS, "shown"))]

    def _which(self, read: Parameters) -> Which:
        place = self._place(read)
        layer, words = self._recording.layers[place], read.flag("words")
        tokens = max(layer.shape[1:])
        if words and tokens > WORDS_LIMIT:
            hint = "Ask with words=0 for a map of tokens."
            raise SizeError("map in words", f"at most {WORDS_LIMIT} tokens a side", str(tokens), hint)
        return Which(place, self._head(read, layer), self._sinks(read), words)

    def _heads(self, read: Parameters) -> list[tuple[int, int]]:
        """Heads as (place of the layer, head), whose rows and columns stand for the same."""
        found = []
        for layer, head in read.pairs("heads", HEADS):
            place = self._recording.find_layer(int(layer))
            found.append((place, self._recording.layers[place].find_head(int(head))))
        sides = {
            (each.queries_of, each.keys_of, *each.shape[1:]) for each in (self._recording.layers[i] for i, _ in found)
        }
        if len(sides) > 1:
            hint = "A mean is taken over heads whose rows and columns stand for the same."
            raise ParameterError("heads", "layers with the same queries and keys", "several kinds", hint)
        return found


def _numbers(array: np.ndarray[Any, Any], dtype: Any) -> Numbers:
    return Numbers(np.ascontiguousarray(array, dtype=np.dtype(dtype).newbyteorder("<")))


_Answerer = Callable[[Answers, Parameters, "Cancelled"], Answer]
_LAYER_HEAD = ("layer", "head")
_PLACE = ("zoom", "row", "column", "sinks", "words")
QUESTIONS: dict[str, tuple[_Answerer, tuple[str, ...]]] = {
    "about": (Answers._about, ()),
    "units": (Answers._units, ("of", "words", "start", "stop")),
    "starts": (Answers._starts, ("of", "words")),
    "find": (Answers._find, ("of", "words", "text", "start")),
    "thumbs": (Answers._thumbs, ("layer",)),
    "roles": (Answers._roles_of, ("layer",)),
    "tile": (Answers._tile, (*_LAYER_HEAD, *_PLACE, "how")),
    "pixel": (Answers._pixel, (*_LAYER_HEAD, *_PLACE)),
    "row": (Answers._row, ("heads", "of", "unit", "words", "direction", "sinks")),
    "received": (Answers._received, ("heads", "words", "sinks")),
    "matrix": (Answers._matrix, ("layer", "words", "sinks")),
    "steps": (Answers._steps, (*_LAYER_HEAD, "query", "key", "words", "lang")),
    "pictures": (Answers._pictures, ("layer",)),
    "pixels": (Answers._pixels, ("index",)),
}
"""The questions: who answers each, and the parameters that it knows."""
