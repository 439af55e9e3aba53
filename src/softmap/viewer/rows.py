"""What units look at and what they receive, of one head or as the mean of several; a page's matrices in full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from softmap.errors import SizeError
from softmap.mechanism import PAGE
from softmap.viewer.sight import never, stop_if
from softmap.viewer.sources import in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, Int

    from softmap.matrix import Summary
    from softmap.recorded import RecordedLayer
    from softmap.viewer.sight import Cancelled
    from softmap.viewer.texts import Side, Texts
    from softmap.viewer.tiles import Sinks, Tiles

    Numbers = np.ndarray[Any, Any]

SIDE = 64
"""Units a side of a matrix that is given in full, at most."""


class Rows:
    """Rows and columns of a recording's matrices.

    Args:
        layers: the recording's layers.
        texts: what their sides stand for.
        tiles: who knows their matrices.
    """

    def __init__(self, layers: tuple[RecordedLayer, ...], texts: Texts, tiles: Tiles) -> None:
        self._layers, self._texts, self._tiles = layers, texts, tiles

    def gives(
        self, heads: Sequence[tuple[int, int]], unit: int, words: bool, sinks: Sinks, cancelled: Cancelled = never
    ) -> Float[Numbers, " units"]:
        """How a unit's queries look at every key unit: the mean of its rows, and of the heads; float32.

        Args:
            heads: (place of the layer, head), of layers whose sides stand for the same.
            unit: the number of the unit.
            words: whether units are words.
            sinks: what becomes of the keys that are sinks.
            cancelled: whether nobody waits for it any more.
        """
        rows, keys = self._sides(heads[0][0], words)
        row: Numbers = self._mean(heads, rows[unit : unit + 2], keys, sinks, cancelled)[0]
        return row

    def receives(
        self, heads: Sequence[tuple[int, int]], unit: int, words: bool, sinks: Sinks, cancelled: Cancelled = never
    ) -> Float[Numbers, " units"]:
        """How every query unit looks at a unit, as `gives`."""
        rows, keys = self._sides(heads[0][0], words)
        column: Numbers = self._mean(heads, rows, keys[unit : unit + 2], sinks, cancelled)[:, 0]
        return column

    def received(
        self, heads: Sequence[tuple[int, int]], words: bool, sinks: Sinks, cancelled: Cancelled = never
    ) -> Float[Numbers, " units"]:
        """How much attention each key unit receives, Σ over the queries, mean over the heads, in queries; float32.

        As it was recorded, where keys are hidden or shown; rescaled, by one pass over the other keys.
        """
        _, keys = self._sides(heads[0][0], words)
        total, seen = np.zeros(len(keys) - 1), np.zeros(len(keys) - 1, dtype=bool)
        for layer, head in heads:
            stop_if(cancelled)
            own = self._received(layer, head, sinks).astype(np.float64)
            own[list(self._tiles.sight(layer, sinks).left_out)] = 0  # a word may have other pieces
            total += np.add.reduceat(own, keys[:-1])
        for layer in {layer for layer, _ in heads}:
            every = np.array([0, self._layers[layer].shape[1]])
            seen |= self._tiles.sight(layer, sinks).cells(every, keys, cancelled)[0]
        return np.where(seen, total / len(heads), np.nan).astype(np.float32)

    def matrix(
        self, layer: int, words: bool, sinks: Sinks, cancelled: Cancelled = never
    ) -> Float[Numbers, "heads rows keys"]:
        """All heads of a layer in full, of a sentence; float32.

        Raises:
            SizeError: more than `SIDE` units a side, or than a page of tokens.
        """
        rows, keys = self._sides(layer, words)
        longest, tokens = max(len(rows), len(keys)) - 1, max(self._layers[layer].shape[1:])
        if longest > SIDE or tokens > PAGE:
            got = f"{longest} {'words' if words else 'tokens'} a side" + (f", {tokens} tokens" if words else "")
            hint = "Ask for tiles, or for the rows of some."
            raise SizeError("matrix", f"at most {SIDE} units a side, of at most {PAGE} tokens", got, hint)
        heads = range(self._layers[layer].heads)
        return np.stack([self._mean([(layer, head)], rows, keys, sinks, cancelled) for head in heads])

    def _sides(self, layer: int, words: bool) -> tuple[Int[Numbers, " rows1"], Int[Numbers, " keys1"]]:
        recorded = self._layers[layer]
        sides: list[Side] = [self._texts.queries(recorded), self._texts.keys(recorded)]
        rows, keys = (side.starts(words) for side in sides)
        return rows, keys

    def _mean(
        self, heads: Sequence[tuple[int, int]], rows: Numbers, keys: Numbers, sinks: Sinks, cancelled: Cancelled
    ) -> Float[Numbers, "rows keys"]:
        """The mean over the heads, NaN where none of them may see."""
        total = np.zeros((len(rows) - 1, len(keys) - 1))
        seen = np.zeros(total.shape, dtype=bool)
        for layer, head in heads:
            total += in_words(self._tiles.matrix(layer, sinks)[head], rows, keys, cancelled)
        for layer in {layer for layer, _ in heads}:
            seen |= self._tiles.sight(layer, sinks).cells(rows, keys, cancelled)
        return np.where(seen, total / len(heads), np.nan).astype(np.float32)

    def _received(self, layer: int, head: int, sinks: Sinks) -> Float[Numbers, " keys"]:
        summary: Summary | None = self._layers[layer].summary
        received: Any
        if sinks == "rescaled" or summary is None or summary.received is None:
            matrix = self._tiles.matrix(layer, "rescaled" if sinks == "rescaled" else "shown")
            received = matrix[head].received()
        else:
            received = summary.received[head]
        numbers: Numbers = received.numpy(force=True)
        return numbers
