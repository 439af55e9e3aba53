"""The answers about pictures that a model read: where their patches stand in a layer, and how they look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from jaxtyping import Int32

    from softmap.recorded import Picture, RecordedLayer, Recording


def pictured(recording: Recording) -> list[int]:
    """The layers, by their numbers in the model, whose queries or keys are patches of a picture."""
    layers = zip(recording.numbers, recording.layers, strict=True)
    return [number for number, layer in layers if pictures(recording, layer)["pictures"]]


def pictures(recording: Recording, layer: RecordedLayer) -> dict[str, Any]:
    """The pictures of a layer: on which side of the matrix their patches are, and which tokens of it, row by row."""
    found = [
        {
            "index": index,
            "side": side,
            "first": tokens[0],
            "grid": grid,
            "tokens": tokens,
            "height": picture.pixels.shape[0],
            "width": picture.pixels.shape[1],
            "stretched": picture.stretched,
        }
        for index, picture in enumerate(recording.pictures)
        for side, grid, tokens in _sides(picture, layer)
    ]
    return {"pictures": found}


def pixels(recording: Recording, index: int) -> Int32[np.ndarray[Any, Any], "height width"]:
    """A picture's colours, each as 0xRRGGBB."""
    colours = recording.pictures[index].pixels.numpy(force=True).astype(np.int32)
    return np.asarray(colours @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32), dtype=np.int32)


def _sides(picture: Picture, layer: RecordedLayer) -> Iterator[tuple[str, list[int], list[int]]]:
    queries, keys = picture.patches(layer, "queries"), picture.patches(layer, "keys")
    if queries is not None and keys is not None and torch.equal(queries, keys):
        yield "both", list(queries.shape), queries.flatten().tolist()
        return
    for side, tokens in (("queries", queries), ("keys", keys)):
        if tokens is not None:
            yield side, list(tokens.shape), tokens.flatten().tolist()
