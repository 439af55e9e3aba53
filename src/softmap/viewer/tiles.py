"""The maps that are held: of the heads looked at last, as many as fit; and the tiles that were made of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np

from softmap.forking import Lock
from softmap.viewer.headmap import HeadMap, Level, Tile
from softmap.viewer.sight import Sight, never
from softmap.viewer.sources import Tokens, Words

if TYPE_CHECKING:
    from jaxtyping import Float

    from softmap.matrix import AttentionMatrix, Cells
    from softmap.recorded import RecordedLayer
    from softmap.viewer.headmap import Block
    from softmap.viewer.sight import Cancelled
    from softmap.viewer.texts import Texts

    Numbers = np.ndarray[Any, Any]

Sinks = Literal["shown", "hidden", "rescaled"]
SINKS: tuple[Sinks, ...] = ("shown", "hidden", "rescaled")
"""Keys that are the first token or special tokens: as they are; left out of the map; left out of the softmax too."""
TILES = 64 << 20
"""Bytes of tiles that are kept."""
MAPS = 256 << 20
"""Bytes of blocks that are kept: two heads of 131,072 tokens, or many shorter ones."""
MATRICES = 4
"""Layers whose matrix without some keys is kept, at most."""
SIGHTS = 32 << 20
"""Bytes of what is known of masks, at most."""

T = TypeVar("T")


class Kept(Generic[T]):
    """What was made, the least lately used of it dropped where it is too much.

    Args:
        limit: the sum of all sizes, at most; but the last one stays whatever its size.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._entries: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._lock = Lock()

    @property
    def held(self) -> int:
        """The sum of the sizes of what is kept."""
        return self._held

    def get(self, key: Hashable, make: Callable[[], T], size: Callable[[T], int]) -> T:
        """What is kept by a key, else made anew."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key][0]
        made = make()  # outside the lock: it takes time
        with self._lock:
            if key not in self._entries:
                self._entries[key] = made, size(made)
                self._held += self._entries[key][1]
            while self._held > self._limit and len(self._entries) > 1:
                self._held -= self._entries.popitem(last=False)[1][1]
        return made

    def latest(self) -> list[T]:
        """All that is kept, the last used first."""
        with self._lock:
            return [entry for entry, _ in reversed(self._entries.values())]


class Which(NamedTuple):
    """A head's map.

    Attributes:
        layer: the layer's place in the recording.
        head: counted from 0.
        sinks: what becomes of the keys that are sinks.
        words: whether its pixels are words.
    """

    layer: int
    head: int
    sinks: Sinks = "shown"
    words: bool = False


class Tiles:
    """The maps of a recording's heads, and what was computed of them.

    Args:
        layers: the recording's layers, with q and k.
        texts: what their sides stand for.
    """

    def __init__(self, layers: tuple[RecordedLayer, ...], texts: Texts) -> None:
        self._layers, self._texts = layers, texts
        self._maps = Kept[HeadMap](MAPS)
        self._tiles = Kept[Tile](TILES)
        self._matrices = Kept["AttentionMatrix"](MATRICES)
        self._sights = Kept[Sight](SIGHTS)

    @property
    def nbytes(self) -> int:
        """The bytes of the maps and tiles that are kept."""
        return self._maps.held + self._tiles.held

    def map(self, which: Which) -> HeadMap:
        """A head's map."""
        return self._maps.get(which, lambda: self._make(which), lambda made: made.nbytes)

    def tile(self, which: Which, zoom: int, row: int, column: int, cancelled: Cancelled = never) -> Tile:
        """A tile, both ways.

        Raises:
            CancelledError: nobody waits for it any more.
        """
        shown = self.map(which)  # first, so that it counts as used
        return self._tiles.get(
            (which, zoom, row, column),
            lambda: shown.tile(zoom, row, column, cancelled),
            lambda made: made.max.nbytes + made.mean.nbytes,
        )

    def block(self, which: Which, zoom: int, row: int, column: int, cancelled: Cancelled = never) -> Block:
        """What is under a pixel.

        Raises:
            CancelledError: nobody waits for it any more.
        """
        return self.map(which).block(zoom, row, column, cancelled)

    def fill(self, cancelled: Cancelled = never) -> bool:
        """Compute a piece of what a map still lacks, of the one that was used last first; whether there was one."""
        return any(each.fill(cancelled) for each in self._maps.latest())

    def matrix(self, layer: int, sinks: Sinks) -> AttentionMatrix:
        """A layer's matrix, as it is or without the keys that are sinks."""
        recorded = self._layers[layer]
        if sinks == "shown":
            return recorded.matrix

        def make() -> AttentionMatrix:
            from softmap.matrix.without import without

            return without(recorded.matrix, self._texts.sinks(recorded), sinks == "rescaled")

        return self._matrices.get((layer, sinks), make, lambda made: 1)

    def sight(self, layer: int, sinks: Sinks) -> Sight:
        """What may be seen of a layer's matrix."""
        recorded = self._layers[layer]
        left_out = () if sinks == "shown" else self._texts.sinks(recorded)
        make = partial(Sight, recorded.mask, *recorded.shape[1:], left_out)
        return self._sights.get((layer, sinks), make, lambda made: made.nbytes)

    def _make(self, which: Which) -> HeadMap:
        recorded = self._layers[which.layer]
        matrix, sight = self.matrix(which.layer, which.sinks)[which.head], self.sight(which.layer, which.sinks)
        if which.words:
            sides = self._texts.queries(recorded), self._texts.keys(recorded)
            return HeadMap(Words(matrix, sight, *(side.starts(True) for side in sides)))
        cells = None if recorded.summary is None else recorded.summary.cells
        if cells is None or which.sinks == "rescaled":  # without these keys all weights are others
            return HeadMap(Tokens(matrix, sight))
        level = known_level(cells, which.head)
        if level is not None and which.sinks == "hidden":
            level = _without(level, sight.left_out)
        return HeadMap(Tokens(matrix, sight), level)


def known_level(cells: Cells, head: int) -> Level | None:
    """What the statistics of one pass give of a map: the finest blocks of a power of two each way, at edges of cells.

    Returns:
        The blocks; None where only a single one would have its edges.
    """
    top, zoom = (max(cells.row_edges[-1], cells.key_edges[-1]) - 1).bit_length(), zoom_of(cells)
    if 0 < top <= zoom:
        return None
    sums, maxima = (part[head].float().numpy(force=True) for part in (cells.sum, cells.max))
    return Level.known(zoom, joined(sums, cells, zoom, np.add), joined(maxima, cells, zoom, np.maximum))


def zoom_of(cells: Cells) -> int:
    """The finest zoom all of whose blocks begin at edges of cells."""
    return max(_zoom_of(cells.row_edges), _zoom_of(cells.key_edges))


def joined(numbers: Numbers, cells: Cells, zoom: int, of: np.ufunc) -> Float[Numbers, "*heads down across"]:
    """What cells have, as what the blocks of a zoom have whose edges are theirs."""
    for axis, ends in ((-2, cells.row_edges), (-1, cells.key_edges)):
        starts = np.searchsorted(ends[:-1], range(0, ends[-1], 1 << zoom))
        numbers = of.reduceat(numbers, starts, axis)
    return numbers


def _zoom_of(cell_edges: tuple[int, ...]) -> int:
    """The smallest zoom of which every block begins at an edge."""
    there, size = set(cell_edges), cell_edges[-1]
    return next(zoom for zoom in range(size.bit_length() + 1) if there.issuperset(range(0, size, 1 << zoom)))


def _without(level: Level, left_out: tuple[int, ...]) -> Level:
    """The blocks that hold none of these keys; the others are to be computed."""
    own = Level.known(level.zoom, level.sum.copy(), level.max.copy())
    own.missing[:, sorted({(key >> level.zoom) // own.side for key in left_out})] = True
    return own
