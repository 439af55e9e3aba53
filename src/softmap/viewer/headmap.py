"""One head's map at any zoom: at zoom z a pixel stands for a block of 2^z x 2^z weights, their maximum or their mean.

    fine    where a screenful is computed in a moment, z < 5: from the weights, each time
    filled  from there on: from blocks of 2^f x 2^f weights that are kept, computed where somebody looks and, while nobody
            asks, everywhere else (`HeadMap.fill`)
    known   from blocks that the recording's statistics have, where their edges allow it

A coarser pixel is the maximum of 2 x 2 finer ones, or their sum. A mean counts all weights of the block, those that may
not be seen as 0; at the matrix's end a block is smaller. NaN is where no query of the block may see a key of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from softmap.viewer.sight import never, stop_if

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from softmap.viewer.sight import Cancelled

    Numbers = np.ndarray[Any, Any]

How = Literal["max", "mean"]
TILE = 256
"""Pixels of a tile each way."""
FINE = 5
"""The zoom from which on blocks are kept: a screenful below it is 10^8 weights at most."""
MOST = 4096
"""Blocks each way that are kept of a head, at most."""
PIECE = 4096
"""Weights each way of a rectangle that is computed at once, where blocks are kept."""


class Source(Protocol):
    """Where a map's numbers come from."""

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns there are at zoom 0."""

    def cells(self, rows: range, columns: range, zoom: int, cancelled: Cancelled) -> tuple[Numbers, Numbers]:
        """The sum and the maximum of each block of 2^zoom x 2^zoom in a rectangle whose corner is a block's."""

    def seen(self, rows: range, columns: range, zoom: int, cancelled: Cancelled) -> Bool[Numbers, "down across"]:
        """Whether anything in each of these blocks may be seen."""


class Level:
    """Blocks of 2^zoom x 2^zoom weights of all of a map.

    Attributes:
        zoom: how large they are.
        sum: the sum of the weights in each, (down, across), float32.
        max: the largest of them.
        missing: which pieces of side x side blocks are still to be computed.
        side: blocks of a piece each way.
    """

    def __init__(self, zoom: int, shape: tuple[int, int]) -> None:
        self.zoom, self.side = zoom, max(1, PIECE >> zoom)
        down, across = (-(-size >> zoom) for size in shape)
        self.sum, self.max = np.zeros((2, down, across), dtype=np.float32)
        self.missing = np.ones((-(-down // self.side), -(-across // self.side)), dtype=bool)

    @classmethod
    def known(cls, zoom: int, sums: Float[Numbers, "down across"], maxima: Float[Numbers, "down across"]) -> Level:
        """One whose blocks are known."""
        level = cls.__new__(cls)
        level.zoom, level.side, level.sum, level.max = zoom, max(1, PIECE >> zoom), sums, maxima
        level.missing = np.zeros(tuple(-(-size // level.side) for size in sums.shape), dtype=bool)
        return level

    @property
    def nbytes(self) -> int:
        """The bytes that are held."""
        return self.sum.nbytes + self.max.nbytes

    def holds(self, rows: range, columns: range) -> bool:
        """Whether all of these blocks are there."""
        return not self._missing_in(rows, columns).any()

    def complete(self, source: Source, rows: range, columns: range, cancelled: Cancelled) -> None:
        """Compute what is missing of these blocks, piece by piece.

        Raises:
            CancelledError: nobody waits for it any more. What was computed stays.
        """
        for i, j in np.argwhere(self._missing_in(rows, columns)):
            stop_if(cancelled)
            self._compute(source, rows.start // self.side + int(i), columns.start // self.side + int(j), cancelled)

    def compute_next(self, source: Source, cancelled: Cancelled) -> None:
        """Compute the first piece that is missing."""
        i, j = divmod(int(self.missing.argmax()), self.missing.shape[1])
        self._compute(source, i, j, cancelled)

    def _missing_in(self, rows: range, columns: range) -> Bool[Numbers, "down across"]:
        down, across = (slice(part.start // self.side, -(-part.stop // self.side)) for part in (rows, columns))
        return self.missing[down, across]

    def _compute(self, source: Source, i: int, j: int, cancelled: Cancelled) -> None:
        size = self.side << self.zoom
        rows, columns = (range(n * size, min((n + 1) * size, end)) for n, end in zip((i, j), source.shape, strict=True))
        place = tuple(slice(n * self.side, (n + 1) * self.side) for n in (i, j))
        self.sum[place], self.max[place] = source.cells(rows, columns, self.zoom, cancelled)
        self.missing[i, j] = False


class Tile(NamedTuple):
    """A tile both ways, (h, w), float16."""

    max: Float[Numbers, "h w"]
    mean: Float[Numbers, "h w"]


class Block(NamedTuple):
    """The weights under one pixel.

    Attributes:
        rows: its rows, at zoom 0.
        columns: its columns.
        mean: of its weights; None where nothing may be seen.
        at: the row and the column of its largest weight; None likewise.
    """

    rows: range
    columns: range
    mean: float | None
    at: tuple[int, int] | None


class HeadMap:
    """Tiles of one head.

    Attributes:
        shape: how many rows and columns there are at zoom 0.
        top: the zoom at which all of it is one pixel.
    """

    def __init__(self, source: Source, known: Level | None = None) -> None:
        """A map of a source, some of whose blocks are known."""
        self._source, self.shape = source, source.shape
        self.top = (max(self.shape) - 1).bit_length()
        zoom = max(FINE, zoom_within(self.shape, MOST))
        self._levels = [] if known is None else [known]
        if zoom <= self.top and (known is None or zoom < known.zoom):
            self._levels.append(Level(zoom, self.shape))  # finest last

    @property
    def nbytes(self) -> int:
        """The bytes of the blocks that are kept."""
        return sum(level.nbytes for level in self._levels)

    def pixels(self, zoom: int) -> tuple[int, int]:
        """How many pixels there are at a zoom, (down, across)."""
        return -(-self.shape[0] >> zoom), -(-self.shape[1] >> zoom)

    def tile(self, zoom: int, row: int, column: int, cancelled: Cancelled = never) -> Tile:
        """The pixels 256·row.. and 256·column.. of a zoom, with what lies in the map of them.

        Raises:
            CancelledError: nobody waits for it any more.
        """
        down, across = (
            range(n * TILE, min((n + 1) * TILE, end)) for n, end in zip((row, column), self.pixels(zoom), strict=True)
        )
        rows, columns = _under(down, across, zoom, self.shape)
        sums, maxima = self._cells(zoom, down, across, cancelled)
        hidden = ~self._source.seen(rows, columns, zoom, cancelled)
        mean = sums / (_sizes(rows, zoom)[:, None] * _sizes(columns, zoom))
        maxima[hidden], mean[hidden] = np.nan, np.nan
        return Tile(maxima.astype(np.float16), mean.astype(np.float16))

    def block(self, zoom: int, row: int, column: int, cancelled: Cancelled = never) -> Block:
        """What is under one pixel of a zoom; of several largest weights the first that is found.

        Raises:
            CancelledError: nobody waits for it any more.
        """
        down, across = range(row, row + 1), range(column, column + 1)
        rows, columns = _under(down, across, zoom, self.shape)
        if not self._source.seen(rows, columns, zoom, cancelled)[0, 0]:
            return Block(rows, columns, None, None)
        sums, _ = self._cells(zoom, down, across, cancelled)
        at = self._largest(*self._part_with_largest(zoom, rows, columns, cancelled), cancelled)
        return Block(rows, columns, float(sums[0, 0]) / (len(rows) * len(columns)), at)

    def fill(self, cancelled: Cancelled = never) -> bool:
        """Compute one more piece of what is kept; whether there was one."""
        for level in self._levels:
            if level.missing.any():
                level.compute_next(self._source, cancelled)
                return True
        return False

    def _cells(
        self, zoom: int, rows: range, columns: range, cancelled: Cancelled
    ) -> tuple[Float[Numbers, "h w"], Float[Numbers, "h w"]]:
        """Sums and maxima of some pixels of a zoom, float32."""
        level = self._level(zoom)
        if level is None:
            return self._source.cells(*_under(rows, columns, zoom, self.shape), zoom, cancelled)
        down, across = _under(rows, columns, zoom - level.zoom, level.sum.shape)
        level.complete(self._source, down, across, cancelled)
        place = slice(down.start, down.stop), slice(across.start, across.stop)
        sums, maxima = level.sum[place].copy(), level.max[place].copy()
        for _ in range(zoom - level.zoom):
            sums, maxima = _halved(sums, np.add), _halved(maxima, np.maximum)
        return sums, maxima

    def _level(self, zoom: int) -> Level | None:
        """The coarsest blocks that pixels of a zoom are made of; None where they are computed each time."""
        return next((level for level in self._levels if level.zoom <= zoom), None)

    def _part_with_largest(self, zoom: int, rows: range, columns: range, cancelled: Cancelled) -> tuple[range, range]:
        """The part of a block that holds its largest weight: all of it, where it is small."""
        level = self._level(zoom)
        if level is None or len(rows) * len(columns) <= PIECE * TILE:
            return rows, columns
        top, left = rows.start >> level.zoom, columns.start >> level.zoom
        maxima = level.max[top : -(-rows.stop >> level.zoom), left : -(-columns.stop >> level.zoom)]
        if not maxima.any():  # all are too small to be told from 0: the first that may be seen
            maxima = self._source.seen(rows, columns, level.zoom, cancelled)
        i, j = divmod(int(maxima.argmax()), maxima.shape[1])
        return _under(range(top + i, top + i + 1), range(left + j, left + j + 1), level.zoom, self.shape)

    def _largest(self, rows: range, columns: range, cancelled: Cancelled) -> tuple[int, int]:
        """Where the largest weight is that may be seen in a rectangle."""
        stop_if(cancelled)
        _, weights = self._source.cells(rows, columns, 0, cancelled)
        weights = np.where(self._source.seen(rows, columns, 0, cancelled), weights, -1)
        i, j = divmod(int(weights.argmax()), len(columns))
        return rows.start + i, columns.start + j


def zoom_within(shape: tuple[int, ...], pixels: int) -> int:
    """The finest zoom at which there are at most so many pixels each way."""
    return (-(-max(shape) // pixels) - 1).bit_length()


def _under(down: range, across: range, zoom: int, shape: tuple[int, ...]) -> tuple[range, range]:
    """The rows and columns that some blocks of 2^zoom stand for, in all of that shape."""
    rows, columns = (
        range(part.start << zoom, min(part.stop << zoom, end)) for part, end in zip((down, across), shape, strict=True)
    )
    return rows, columns


def edges(part: range, zoom: int) -> Numbers:
    """Where the blocks of 2^zoom in a part begin, and where the last one ends."""
    return np.append(np.arange(part.start, part.stop, 1 << zoom), part.stop)


def _sizes(part: range, zoom: int) -> Numbers:
    """How many weights each block has."""
    return np.diff(edges(part, zoom)).astype(np.float32)


def _halved(numbers: Float[Numbers, "h w"], of: Any) -> Float[Numbers, "h2 w2"]:
    """Each 2 x 2 numbers as one: their sum or their maximum, neither of which a 0 beside them changes."""
    for axis in (0, 1):
        first, second = numbers[::2], numbers[1::2]
        halved = first.copy()
        of(halved[: len(second)], second, out=halved[: len(second)])
        numbers = halved.T if axis == 0 else halved
    result: Numbers = numbers.T
    return result
