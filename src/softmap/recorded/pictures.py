"""Pictures that a model read: each small, with the tokens that its patches are, in the tower that sees it and in a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from jaxtyping import Int, UInt8
    from torch import Tensor

    from softmap.recorded.entries import Arrays, Entry
    from softmap.recorded.layer import RecordedLayer, Text

LONGEST = 448
"""Pixels on a picture's longer side, at most: a larger one is kept smaller."""


@dataclass(frozen=True, repr=False, eq=False)
class Place:
    """Where the patches of a picture stand, in one part of the model.

    Attributes:
        of: the text whose tokens they are; None where they are no text's, as in a tower.
        path: how the paths of that part's layers begin, such as ``vision_tower``; empty for all layers, and of a text.
        count: how many tokens there are in all: a layer of another number of queries or keys is not meant.
        tokens: which token each patch is, (rows, columns). Where a model merges patches, the grid is that much coarser.
    """

    of: Text | None
    path: str
    count: int
    tokens: Int[Tensor, "rows columns"]

    def __repr__(self) -> str:
        rows, columns = self.tokens.shape
        return f"Place({self.of or self.path!r}, {rows} x {columns} patches of {self.count} tokens)"

    def holds(self, layer: RecordedLayer, side: Literal["queries", "keys"]) -> bool:
        """Whether the queries, or the keys, of a layer are these tokens."""
        of, size = (layer.queries_of, layer.shape[1]) if side == "queries" else (layer.keys_of, layer.shape[2])
        inside = not self.path or layer.path == self.path or layer.path.startswith(f"{self.path}.")
        return of == self.of and size == self.count and inside


@dataclass(frozen=True, repr=False, eq=False)
class Picture:
    """A picture that a model read.

    Attributes:
        pixels: red, green and blue, (height, width, 3), 0 to 255, at most `LONGEST` a side; what no patch covers at the
            edges is left out.
        stretched: whether its colours are stretched from the smallest to the largest number of the model's input, since
            nobody said how that was normalised; else the normalisation was undone.
        places: where its patches stand; none where that is not known for certain.
    """

    pixels: UInt8[Tensor, "height width 3"]
    stretched: bool
    places: tuple[Place, ...] = ()

    def __repr__(self) -> str:
        height, width, _ = self.pixels.shape
        return f"Picture({width} x {height}, {list(self.places)})"

    def patches(
        self, layer: RecordedLayer, side: Literal["queries", "keys"] = "keys"
    ) -> Int[Tensor, "rows columns"] | None:
        """Which query, or key, of a layer each patch is; None where the layer does not see the picture so."""
        return next((place.tokens for place in self.places if place.holds(layer, side)), None)


def write_picture(picture: Picture) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A picture as JSON and arrays."""
    places = [{"of": place.of, "path": place.path, "count": place.count} for place in picture.places]
    tokens = {f"places.{i}": place.tokens for i, place in enumerate(picture.places)}
    return {"stretched": picture.stretched, "places": places}, {"pixels": picture.pixels, **tokens}


def read_picture(entry: Entry, arrays: Arrays) -> Picture:
    """A picture, from JSON and arrays.

    Raises:
        RecordingError: something in it is not what it should be, or does not fit the rest.
    """
    stretched, places = entry.fields("stretched", "places")
    pixels = arrays.take("pixels", (torch.uint8,), None, None, 3)
    if not 1 <= min(pixels.shape[:2]) <= max(pixels.shape[:2]) <= LONGEST:
        raise entry.error(f"pixels of 1 to {LONGEST} a side", f"{pixels.shape[1]} x {pixels.shape[0]}")
    read = [_read_place(place, arrays, f"places.{i}") for i, place in enumerate(places.items())]
    return Picture(pixels, stretched.flag(), tuple(read))


def _read_place(entry: Entry, arrays: Arrays, name: str) -> Place:
    of, path, count = entry.fields("of", "path", "count")
    tokens = arrays.take(name, (torch.int64,), None, None)
    place = Place(of.optional(lambda of: of.choice("tokens", "target")), path.text(), count.whole(1), tokens)
    if place.of and place.path:
        raise path.error("an empty path, as of all places in a text")
    if not tokens.numel():
        raise entry.error("at least one patch", "none")
    first, last = int(tokens.min()), int(tokens.max())
    if first < 0 or last >= place.count:
        raise entry.error(f"tokens from 0 to {place.count - 1} as patches", f"{first} to {last}")
    if len(tokens.unique()) < tokens.numel():
        raise entry.error("another token for each patch", "one that is several")
    return place
