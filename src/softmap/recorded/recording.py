"""A recording: what every attention layer of a model worked with on one run, and where its tokens stand in the text.

Of each layer it holds q, k and v as attention saw them (positions and norms applied), what was added to the scores, and
the statistics of one pass. The matrix of a layer, `rec[layer]`, is computed where it is looked at, and never stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from softmap import words as wording
from softmap.errors import ParameterError, RecordingError, RowError
from softmap.recorded.checksum import describe
from softmap.recorded.layer import OtherLayer, RecordedLayer, find

if TYPE_CHECKING:
    import os

    from jaxtyping import Float
    from torch import Tensor

    from softmap.matrix import AttentionMatrix
    from softmap.recorded.layer import Text
    from softmap.recorded.pictures import Picture
    from softmap.tokens import Tokens
    from softmap.viewer.launch import View
    from softmap.viewer.widget import MapWidget
    from softmap.words import Unit

Where = str | int | tuple[int, int]
TEXTS: tuple[Text, ...] = ("tokens", "target")
"""What an encoder (or a model of one part) read, and what a decoder did: a word is looked for in this order."""


@dataclass(frozen=True)
class Origin:
    """The model that was recorded.

    Attributes:
        model: the hub id or directory, or the class of a model that was given loaded.
        architecture: the model's class.
        revision: the commit of a hub id, else None.
        dtype: what the model computed in, such as ``bfloat16``.
        stored: the dtype of q, k and v as they are kept.
        versions: of softmap, torch and transformers.
        checked: how far the run's output is from the model's without softmap, relative to its largest number; None where
            it was not compared.
    """

    model: str
    architecture: str
    revision: str | None
    dtype: str
    stored: str
    versions: Mapping[str, str]
    checked: float | None = None


@dataclass(frozen=True, repr=False, eq=False)
class RecordedSequence:
    """One sequence of a batch, its padding trimmed.

    Attributes:
        layers: its attention layers, in the order in which they ran.
        tokens: what the model (of an encoder-decoder, its encoder) read; None where it read no text.
        target: what an encoder-decoder's decoder read, else None.
        pictures: what it saw, in their order.
    """

    layers: tuple[RecordedLayer, ...]
    tokens: Tokens | None
    target: Tokens | None = None
    pictures: tuple[Picture, ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        """The layers' numbers in the model: their places, where a recording of one's own says none."""
        return tuple(i if layer.number is None else layer.number for i, layer in enumerate(self.layers))


class Attended(NamedTuple):
    """One of the words (or tokens) that are most looked at.

    Attributes:
        layer: its number in the model, counted from 0.
        head: counted from 0.
        key: the token looked at, counted from 0; of a word its first.
        stop: one past its last: the weight is the sum of those from `key` up to it.
        label: how it is shown.
        weight: the attention to it, probability.
    """

    layer: int
    head: int
    key: int
    stop: int
    label: str
    weight: float


@dataclass(frozen=True, repr=False, eq=False)
class Recording:
    """A model's attention on one run. `rec[layer]` and `rec[layer, head]` are attention matrices.

    A layer is named by its number in the model, also where not all layers were recorded (`find_layer`).

    Attributes:
        origin: the model.
        sequences: those of the batch; one where it was a single text.
        others: layers without softmax attention.
        partial: what is missing, where it was cut off and opened all the same; empty where it is whole.
    """

    origin: Origin
    sequences: tuple[RecordedSequence, ...]
    others: tuple[OtherLayer, ...] = ()
    partial: str = ""

    def batch(self, i: int) -> Recording:
        """The recording of one sequence of the batch.

        Raises:
            ParameterError: there is no such sequence.
        """
        count = len(self.sequences)
        if isinstance(i, bool) or not hasattr(i, "__index__") or not -count <= i < count:
            hint = "Sequences of the batch count from 0."
            raise ParameterError("batch", f"a number from 0 to {count - 1}", repr(i), hint)
        return replace(self, sequences=(self.sequences[i],))

    @property
    def layers(self) -> tuple[RecordedLayer, ...]:
        """The attention layers, in the order in which they ran.

        Raises:
            RecordingError: a batch of several sequences.
        """
        return self._only.layers

    @property
    def numbers(self) -> tuple[int, ...]:
        """The layers' numbers in the model, counted from 0 in the order in which they ran.

        Raises:
            RecordingError: a batch of several sequences.
        """
        return self._only.numbers

    @property
    def verified(self) -> tuple[int, int]:
        """How many of its layers' files have been compared with their checksums, of how many; 0 of 0 in memory.

        Files of a large recording are compared in the background, each from when it is first looked at.
        """
        return describe(
            {id(sum_): sum_ for each in self.sequences for layer in each.layers if (sum_ := layer.checksum)}.values()
        )

    @property
    def tokens(self) -> Tokens | None:
        """What the model (of an encoder-decoder, its encoder) read; None where it read no text.

        Raises:
            RecordingError: a batch of several sequences.
        """
        return self._only.tokens

    @property
    def target(self) -> Tokens | None:
        """What an encoder-decoder's decoder read, else None.

        Raises:
            RecordingError: a batch of several sequences.
        """
        return self._only.target

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures that the model read, each small, with where its patches stand.

        Raises:
            RecordingError: a batch of several sequences.
        """
        return self._only.pictures

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[AttentionMatrix]:
        return (layer.matrix for layer in self.layers)

    def __repr__(self) -> str:
        if len(self.sequences) != 1:
            return f"Recording({self.origin.model!r}, {len(self.sequences)} sequences; .batch(i) gives one)"
        shapes = {layer.shape for layer in self.layers}
        shape = f"of shape {shapes.pop()}" if len(shapes) == 1 else "of several shapes"
        more = f", and {len(self.others)} others" if self.others else ""
        return f"Recording({self.origin.model!r}, {len(self.layers)} layers {shape}{more}{', partial' * bool(self.partial)})"

    def __getitem__(self, index: int | tuple[int, int]) -> AttentionMatrix:
        """The matrix of a layer, (heads, queries, keys), or of one head of it, (queries, keys).

        Raises:
            ParameterError: there is no such layer or head.
            RecordingError: q and k were not kept; a batch of several sequences.
        """
        pair = index if isinstance(index, tuple) else (index,)
        if len(pair) not in (1, 2):
            raise ParameterError("rec[...]", "layer, or layer and head", f"{len(pair)} numbers", "As in rec[2, 5].")
        layer = self.layers[self.find_layer(pair[0])]
        return layer.matrix if len(pair) == 1 else layer.matrix[layer.find_head(pair[1])]

    def find_layer(self, layer: Any) -> int:
        """The place in `layers` of a layer by its number in the model, or from the end where that is negative.

        Raises:
            ParameterError: there is none.
        """
        numbers = self.numbers
        if numbers != tuple(range(len(numbers))) and not (hasattr(layer, "__index__") and layer < 0):
            if isinstance(layer, bool) or layer not in numbers:
                expected = f"one of the layers that were kept, {', '.join(map(str, numbers))}"
                raise ParameterError("layer", expected, repr(layer), "Layers count from 0, in the order they ran.")
            return numbers.index(layer)
        return find("layer", layer, len(self.layers), "Layers count from 0, in the order in which they ran.")

    def words(self) -> tuple[Unit, ...]:
        """The words of the text, each with the tokens it is made of.

        Raises:
            RecordingError: no text was read.
        """
        return wording.units_of_words(self._text("tokens"))

    def row(self, where: Where, layer: int | None = None, head: int | None = None) -> Float[Tensor, "*shape keys"]:
        """How a token or word looks at every key: of several tokens, the mean of their rows.

        Args:
            where: a word of the text; a token's number, as 3 or ":3"; or (start, stop), characters of the text.
            layer: of which layer, by its number in the model; all of them unless given. Where the queries of some are
                one text's and those of others another's, as of an encoder-decoder, it is all that ask of the text in
                which the word stands: the encoder's, or else the decoder's.
            head: of which head, counted from 0; all of them unless given.

        Returns:
            Weights, (layers, heads, keys), without the axes of what was given.

        Raises:
            RowError: the word does not occur, or several times; no token lies there.
            ParameterError: no such layer or head; several texts, and no layer with the number or the characters.
            RecordingError: layers of several shapes, of which one has to be named; no text; q and k were not kept.
        """
        chosen = self._layers_of(where, layer)
        if len({self.layers[i].shape for i in chosen}) > 1:
            raise RecordingError("row", "layers of one shape", "several", "Name one: rec.row(where, layer=0).")
        rows = [_mean_row(self.layers[i], self._find_tokens(self.layers[i], where), head) for i in chosen]
        if len({row.device for row in rows}) > 1:  # a model spread over several
            rows = [row.cpu() for row in rows]
        return torch.stack(rows) if layer is None else rows[0]

    def top(
        self, where: Where, k: int = 5, layer: int | None = None, head: int | None = None, *, words: bool = True
    ) -> list[Attended]:
        """What a token or word looks at most, in each head.

        Args:
            where: as in `row`; where words are told, a token's number means the word that it belongs to.
            k: how many of each head; fewer where it gives weight to fewer.
            layer: as in `row`.
            head: as in `row`.
            words: whether attention to the pieces of a word is added up, or tokens are told one by one.

        Raises:
            SoftmapError: as `row`; k that is no whole number of at least 1.
        """
        if isinstance(k, bool) or not hasattr(k, "__index__") or k < 1:
            raise ParameterError("k", "a whole number of at least 1", repr(k), "It is how many to give of each head.")
        found: list[Attended] = []
        for i in self._layers_of(where, layer):
            recorded = self.layers[i]
            tokens = self._find_tokens(recorded, where)
            if words and not isinstance(where, tuple):
                tokens = self._whole_word(recorded, tokens)
            row = _mean_row(recorded, tokens, head)
            units = self._units_of_keys(recorded, words)
            sums = torch.from_numpy(wording.attention_to(row.reshape(-1, row.shape[-1]).numpy(force=True), units))
            first = 0 if head is None else recorded.find_head(head)
            for h, weights in enumerate(sums, start=first):
                order = torch.argsort(weights, descending=True, stable=True)[:k].tolist()
                seen = [j for j in order if weights[j] > 0]
                for unit, weight in ((units[j], float(weights[j])) for j in seen):
                    found.append(Attended(self.numbers[i], h, unit.start, unit.stop, unit.label, weight))
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as a folder: a manifest, and a safetensors file for each layer (docs/reference/recording.md).

        Raises:
            RecordingError: there is something already; a mask or bias that no file can hold.
            OSError: the place can't be written to.
        """
        from softmap.recorded.storage import save

        save(self, path)

    def view(self, *, port: int = 0, layer: int | None = None, head: int | None = None) -> View | MapWidget:
        """Show its map: in a notebook the widget, else a page in a browser, from a server that ends with Python.

        Args:
            port: where to serve the page, on 127.0.0.1; a free port unless given. A widget needs none.
            layer: which layer to show first, by its number in the model; chosen unless given.
            head: which head of it, counted from 0; chosen unless given.

        Raises:
            ParameterError: a port that is taken; no such layer or head.
            RecordingError: a batch of several sequences.
        """
        from softmap.viewer import view

        return view(self, port=port, layer=layer, head=head)

    def to_arrow(self) -> Any:
        """The statistics as a table of Apache Arrow: one row for each layer, head and token (docs/how-to/record.md).

        Raises:
            RecordingError: no statistics were kept.
            ImportError: pyarrow is not installed.
        """
        from softmap.recorded.tables import to_arrow

        return to_arrow(self)

    def to_pandas(self) -> Any:
        """`to_arrow` as a pandas DataFrame.

        Raises:
            RecordingError: no statistics were kept.
            ImportError: pyarrow or pandas is not installed.
        """
        return self.to_arrow().to_pandas()

    @property
    def _only(self) -> RecordedSequence:
        if len(self.sequences) != 1:
            got = f"a batch of {len(self.sequences)}"
            raise RecordingError("recording", "one sequence", got, "Take one: rec.batch(0).")
        return self.sequences[0]

    def _text(self, of: Text | None) -> Tokens:
        tokens = None if of is None else getattr(self._only, of)
        if tokens is None:
            hint = "Name queries and keys by their number."
            raise RecordingError("recording", "the tokens of a text", "none here", hint)
        found: Tokens = tokens
        return found

    def _layers_of(self, where: Where, layer: int | None) -> Sequence[int]:
        """The places of the layers that are meant: the one that is named, or all whose queries are the text of `where`."""
        if layer is not None:
            return (self.find_layer(layer),)
        texts = {each.queries_of for each in self.layers}
        if not texts:
            raise RecordingError("recording", "a layer of softmax attention", "none", "Record one of its layers.")
        if len(texts) == 1:
            return range(len(self.layers))
        text = self._text_with(where, [of for of in TEXTS if of in texts])
        return [i for i, each in enumerate(self.layers) if each.queries_of == text]

    def _text_with(self, where: Where, texts: Sequence[Text]) -> Text:
        """Of several texts the first in which the word stands."""
        if isinstance(where, str):
            for of in texts:
                if _units_called(wording.units_of_words(self._text(of)), where):
                    return of
            if _as_number(where) is None:
                return texts[0]  # which says that it has no such word
        hint = "Each has tokens and characters of its own: name a layer, layer=0 (--layer 0), or give a word."
        raise ParameterError("layer", "a layer's number, for the queries are of several texts", "none", hint)

    def _find_tokens(self, layer: RecordedLayer, where: Where) -> range:
        """The queries that are meant."""
        count = layer.shape[1]
        if isinstance(where, tuple):
            if len(where) != 2 or not all(_is_whole(place) and place >= 0 for place in where):
                hint = "They are characters of the text, counted from 0; stop is one past the last."
                raise RowError("characters", "(start, stop), two whole numbers from 0", repr(where), hint)
            tokens = self._text(layer.queries_of)
            start, stop = where
            inside = [i for i, (a, b) in enumerate(tokens.spans) if a < stop and b > start and not tokens.special[i]]
            if not inside:
                hint = f"The text has {len(tokens.text)} characters, counted from 0; stop is one past the last."
                raise RowError(f"characters {where}", "a token that lies there", "none", hint)
            return range(inside[0], inside[-1] + 1)
        if isinstance(where, str):
            units = wording.units_of_words(self._text(layer.queries_of))
            number = None if _units_called(units, where) else _as_number(where)
            if number is None:
                return _find_word(units, where)
            where = number
        if isinstance(where, bool) or not hasattr(where, "__index__") or not -count <= where < count:
            hint = "A word stands as text, characters as (start, stop)."
            raise RowError(f"token {where!r}", f"a number from 0 to {count - 1}", repr(where), hint)
        return range(where % count, where % count + 1)

    def _whole_word(self, layer: RecordedLayer, tokens: range) -> range:
        """The word that a query belongs to; the query alone where it is of no text."""
        text = None if layer.queries_of is None else getattr(self._only, layer.queries_of)
        if text is None:
            return tokens
        units = wording.units_of_words(text)
        unit = units[wording.find_row(units, tokens.start)]
        return range(unit.start, unit.stop)

    def _units_of_keys(self, layer: RecordedLayer, words: bool) -> tuple[Unit, ...]:
        tokens = None if layer.keys_of is None else getattr(self._only, layer.keys_of)
        if tokens is None:
            return tuple(wording.Unit(str(i), i, i + 1) for i in range(layer.shape[2]))
        return wording.units_of_words(tokens) if words else wording.units_of_tokens(tokens)


def _mean_row(layer: RecordedLayer, tokens: range, head: int | None) -> Float[Tensor, "*heads keys"]:
    """How some queries look at every key, on average."""
    matrix = layer.matrix if head is None else layer.matrix[layer.find_head(head)]
    weights: Tensor = matrix[..., tokens.start : tokens.stop, :]
    return weights.mean(-2)


def _is_whole(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _units_called(units: tuple[Unit, ...], label: str) -> list[Unit]:
    """Those with this label, in any case if no other reading fits."""
    exact = [unit for unit in units if unit.label == label]
    return exact or [unit for unit in units if unit.label.casefold() == label.casefold()]


def _as_number(where: str) -> int | None:
    """A token's number that is written as 3 or ":3"."""
    found = re.fullmatch(r":?([0-9]{1,9})", where)
    return int(found[1]) if found else None


def _find_word(units: tuple[Unit, ...], label: str) -> range:
    """The tokens of a word."""
    called = _units_called(units, label)
    if len(called) > 1:
        raise wording.occurs_often(label, called)
    unit = units[wording.find_row(units, label)]
    return range(unit.start, unit.stop)
