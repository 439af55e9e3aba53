"""Where a map's numbers come from: the matrix of a head as it is, or in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from softmap.matrix.blocks import Rectangle, cells_of
from softmap.viewer.headmap import edges
from softmap.viewer.sight import parts, stop_if, strips

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from softmap.matrix import AttentionMatrix
    from softmap.viewer.sight import Cancelled, Sight

    Numbers = np.ndarray[Any, Any]


def weights_of(matrix: AttentionMatrix, rows: range, keys: range) -> Float[Numbers, "rows keys"]:
    """The weights of a rectangle of one head, float32."""
    found: Any = matrix[rows.start : rows.stop, keys.start : keys.stop]
    weights: Numbers = found.numpy(force=True).astype(np.float32, copy=False)
    return weights


def largest_of(matrix: AttentionMatrix, rows: range, keys: range, cancelled: Cancelled) -> tuple[int, int]:
    """The row and the key of the largest weight of a rectangle of one head, of which a strip is held at a time.

    Raises:
        CancelledError: nobody waits for it any more.
    """
    largest, at = -1.0, (rows.start, keys.start)
    for strip in strips(rows, len(keys)):
        stop_if(cancelled)
        weights = weights_of(matrix, strip, keys)
        i, j = divmod(int(weights.argmax()), len(keys))
        if weights[i, j] > largest:
            largest, at = float(weights[i, j]), (strip.start + i, keys.start + j)
    return at


def in_words(
    matrix: AttentionMatrix,
    row_starts: Int[Numbers, " rows1"],
    key_starts: Int[Numbers, " keys1"],
    cancelled: Cancelled,
) -> Float[Numbers, "rows keys"]:
    """A rectangle of one head with the rows and keys of each unit as one: the mean of its rows, the sum of its keys.

    Args:
        matrix: (queries, keys), of torch.
        row_starts: the first query of each unit, and one past the last one's.
        key_starts: the same for the keys.
        cancelled: whether nobody waits for it any more; asked between strips.

    Raises:
        CancelledError: nobody does.
    """
    keys, columns = range(int(key_starts[0]), int(key_starts[-1])), key_starts[:-1] - key_starts[0]
    sums = np.zeros((len(row_starts) - 1, len(key_starts) - 1), dtype=np.float32)
    for rows in strips(range(int(row_starts[0]), int(row_starts[-1])), len(keys)):
        stop_if(cancelled)
        place, lines = parts(row_starts, rows)
        to_units = np.add.reduceat(weights_of(matrix, rows, keys), columns, axis=1)
        sums[place] += np.add.reduceat(to_units, lines, axis=0)
    means: Numbers = sums / np.diff(row_starts)[:, None].astype(np.float32)
    return means


class Tokens:
    """One head's matrix: rows are queries, columns are keys.

    Args:
        matrix: (queries, keys), of torch.
        sight: what may be seen of it.
    """

    def __init__(self, matrix: AttentionMatrix, sight: Sight) -> None:
        self._matrix, self._sight = matrix, sight
        self.shape = matrix.queries, matrix.keys

    def cells(self, rows: range, columns: range, zoom: int, cancelled: Cancelled) -> tuple[Numbers, Numbers]:
        """The sum and the maximum of each block of 2^zoom x 2^zoom."""
        stop_if(cancelled)
        if zoom == 0:
            weights = weights_of(self._matrix, rows, columns)
            return weights, weights.copy()
        rectangle = Rectangle(rows, columns, min(1 << zoom, len(rows)), min(1 << zoom, len(columns)))
        found = cells_of(self._matrix._lookup, self._matrix._heads.tolist(), rectangle)  # both in one pass
        return found.sum[0].float().numpy(force=True), found.max[0].float().numpy(force=True)

    def seen(self, rows: range, columns: range, zoom: int, cancelled: Cancelled) -> Bool[Numbers, "down across"]:
        """Whether anything in each block may be seen."""
        return self._sight.cells(edges(rows, zoom), edges(columns, zoom), cancelled)


class Words:
    """One head's matrix in words: from a word the mean of its pieces' rows, to a word their sum.

    Args:
        matrix: (queries, keys), of torch.
        sight: what may be seen of it: of a word what any piece sees, and any piece that is seen.
        row_starts: the first query of each word, and the number of queries, (words + 1,).
        key_starts: the same for the keys.
    """

    def __init__(
        self,
        matrix: AttentionMatrix,
        sight: Sight,
        row_starts: Int[Numbers, " rows1"],
        key_starts: Int[Numbers, " keys1"],
    ) -> None:
        self._matrix, self._sight = matrix, sight
        self._rows, self._keys = row_starts, key_starts
        self.shape = len(row_starts) - 1, len(key_starts) - 1

    def cells(self, rows: range, columns: range, zoom: int, cancelled: Cancelled) -> tuple[Numbers, Numbers]:
        """The sum and the maximum of each block of 2^zoom x 2^zoom."""
        down, across = edges(rows, zoom), edges(columns, zoom)
        keys, starts = self._keys[columns.start : columns.stop + 1], across[:-1] - columns.start
        sums, maxima = np.zeros((2, len(down) - 1, len(across) - 1), dtype=np.float32)
        for strip in strips(rows, len(columns)):
            weights = in_words(self._matrix, self._rows[strip.start : strip.stop + 1], keys, cancelled)
            place, lines = parts(down, strip)
            sums[place] += np.add.reduceat(np.add.reduceat(weights, starts, axis=1), lines, axis=0)
            highest = np.maximum.reduceat(np.maximum.reduceat(weights, starts, axis=1), lines, axis=0)
            maxima[place] = np.maximum(maxima[place], highest)
        return sums, maxima

    def seen(self, rows: range, columns: range, zoom: int, cancelled: Cancelled) -> Bool[Numbers, "down across"]:
        """Whether anything in each block may be seen."""
        return self._sight.cells(self._rows[edges(rows, zoom)], self._keys[edges(columns, zoom)], cancelled)
