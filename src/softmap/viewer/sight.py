"""Which cells of a map hold a pair of query and key that may see each other, from the mask alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import numpy as np

from softmap.matrix.lookup import STRIP

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

    from softmap.masks import Mask

    Numbers = np.ndarray[Any, Any]
    Cancelled = Callable[[], bool]


def never() -> bool:
    """What says of a question that nobody has cancelled it."""
    return False


def stop_if(cancelled: Cancelled) -> None:
    """Raise CancelledError where nobody waits for the answer any more."""
    if cancelled():
        raise CancelledError


class Sight:
    """A mask, and keys that are left out of the map.

    Attributes:
        left_out: these keys, in order.
        remains: of each key whether it is not left out, and no padding, (keys,).
    """

    def __init__(self, mask: Mask, queries: int, keys: int, left_out: Collection[int] = ()) -> None:
        self._mask, seen = mask.split()
        self._spans = self._mask.spans(queries, keys)
        self.left_out = tuple(sorted(left_out))
        self.remains = np.ones(keys, dtype=bool) if seen is None else seen.numpy(force=True).copy()
        self.remains[list(self.left_out)] = False
        self._before = np.concatenate(([0], self.remains.cumsum()))  # how many keys remain before each

    @property
    def nbytes(self) -> int:
        """The bytes that are held."""
        spans: int = sum(ends.nbytes for ends in self._spans[:2])
        return spans + self.remains.nbytes + self._before.nbytes

    def cells(
        self, row_edges: Int[Numbers, " down1"], key_edges: Int[Numbers, " across1"], cancelled: Cancelled = never
    ) -> Bool[Numbers, "down across"]:
        """Whether any query of each cell may see any of its keys that remain.

        Args:
            row_edges: the queries at which cells begin, and where the last one ends.
            key_edges: the same for the keys.
            cancelled: whether nobody waits for it any more; asked between strips.

        Raises:
            CancelledError: nobody does.
        """
        found = self._of_spans if self._spans.exact else self._of_strips
        return found(row_edges, key_edges, cancelled)

    def _of_spans(self, row_edges: Numbers, key_edges: Numbers, _: Cancelled) -> Bool[Numbers, "down across"]:
        """Of rows that see all of their spans: the two cells in which a span ends, and those between them."""
        rows = slice(int(row_edges[0]), int(row_edges[-1]))
        start = np.maximum(self._spans.start[rows].numpy(), key_edges[0])
        stop = np.minimum(self._spans.stop[rows].numpy(), key_edges[-1])
        down = np.repeat(np.arange(len(row_edges) - 1), np.diff(row_edges))
        down, start, stop = (each[stop > start] for each in (down, start, stop))
        first = np.searchsorted(key_edges, start, "right") - 1
        last = np.searchsorted(key_edges, stop, "left") - 1
        seen = np.zeros((len(row_edges) - 1, len(key_edges) - 1), dtype=bool)
        inner = np.zeros((seen.shape[0], seen.shape[1] + 1), dtype=np.int32)
        np.add.at(inner, (down, np.minimum(first + 1, last)), 1)
        np.add.at(inner, (down, last), -1)
        seen |= (inner.cumsum(1)[:, :-1] > 0) & (np.diff(self._before[key_edges]) > 0)
        for cell in (first, last):
            begin, end = np.maximum(start, key_edges[cell]), np.minimum(stop, key_edges[cell + 1])
            some = self._before[end] > self._before[begin]
            seen[down[some], cell[some]] = True
        return seen

    def _of_strips(self, row_edges: Numbers, key_edges: Numbers, cancelled: Cancelled) -> Bool[Numbers, "down across"]:
        """Of any mask: its booleans, a strip at a time, at the keys that can matter."""
        seen = np.zeros((len(row_edges) - 1, len(key_edges) - 1), dtype=bool)
        for rows in strips(range(int(row_edges[0]), int(row_edges[-1])), int(key_edges[-1] - key_edges[0])):
            stop_if(cancelled)
            matter = self._spans.key_range(rows)
            keys = range(max(matter.start, int(key_edges[0])), min(matter.stop, int(key_edges[-1])))
            if not keys:
                continue
            strip = self._mask.strip(rows, keys).numpy(force=True) & self.remains[keys.start : keys.stop]
            across, columns = parts(key_edges, keys)
            down, lines = parts(row_edges, rows)
            some = np.logical_or.reduceat(np.logical_or.reduceat(strip, columns, axis=1), lines, axis=0)
            seen[down, across] |= some
        return seen


def strips(rows: range, width: int) -> Iterator[range]:
    """The rows in strips of at most `STRIP` numbers, of which each row has so many (one row at least)."""
    height = max(1, STRIP // width)
    return (range(first, min(first + height, rows.stop)) for first in range(rows.start, rows.stop, height))


def parts(edges: Int[Numbers, " cells1"], part: range) -> tuple[slice, Int[Numbers, " n"]]:
    """The cells that a part of what they cut lies in, and where each begins in it."""
    first = int(np.searchsorted(edges, part.start, "right")) - 1
    last = int(np.searchsorted(edges, part.stop, "left"))
    return slice(first, last), np.maximum(edges[first:last] - part.start, 0)
