"""A recording at a glance: its layers, a small picture of each head, and the head to open first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from softmap.escaping import escaped
from softmap.mechanism import PAGE
from softmap.shares import POSITIONAL, choose, tellable
from softmap.viewer.headmap import edges, zoom_within
from softmap.viewer.sight import never, stop_if
from softmap.viewer.tiles import joined, zoom_of
from softmap.words import printable

if TYPE_CHECKING:
    from jaxtyping import Float

    from softmap.matrix import Cells
    from softmap.recorded import RecordedLayer, Recording
    from softmap.viewer.sight import Cancelled, Sight
    from softmap.viewer.texts import Texts

    Numbers = np.ndarray[Any, Any]

THUMB = 64
"""Pixels of a head's small picture each way, at most."""
TITLE = 60
"""Characters of the beginning of a text."""
QUICK = 1 << 22
"""Weights of all heads that are looked at to choose the one to open; of more, the statistics are asked."""
SAMPLE = 256
"""Queries of each layer whose largest weights are looked at, at most."""


def describe(recording: Recording, texts: Texts) -> dict[str, Any]:
    """What there is in a recording: its model, texts and layers."""
    from softmap import __version__

    read = {"tokens": recording.tokens, "target": recording.target}
    first = next((tokens.text for tokens in read.values() if tokens is not None), "")
    title = printable(" ".join(first[: 4 * TITLE].split())) if first.strip() else escaped(recording.origin.model)
    return {
        "version": __version__,
        "model": escaped(recording.origin.model),
        "architecture": escaped(recording.origin.architecture),
        "partial": escaped(recording.partial),
        "title": title if len(title) <= TITLE else f"{title[: TITLE - 1]}…",
        "texts": {
            of: None
            if (text := texts.named(of)) is None
            else {"tokens": text.count(False), "words": text.count(True), "cut": text.tokens.cut}
            for of in read
        },
        "layers": [
            _describe_layer(number, layer, texts)
            for number, layer in zip(recording.numbers, recording.layers, strict=True)
        ],
    }


def _describe_layer(number: int, layer: RecordedLayer, texts: Texts) -> dict[str, Any]:
    heads, queries, keys = layer.shape
    return {
        "number": number,
        "path": escaped(layer.path),
        "kind": layer.kind,
        "part": layer.part,
        "heads": heads,
        "queries": queries,
        "keys": keys,
        "queries_of": texts.name_of(layer.queries_of, queries),
        "keys_of": texts.name_of(layer.keys_of, keys),
        "kept": layer.q is not None and layer.k is not None,
        "values": layer.v is not None,
        "summary": layer.summary is not None,
        "thumb": thumb_zoom(layer),
    }


def thumbs(layer: RecordedLayer, sight: Sight) -> Float[Numbers, "heads h w"]:
    """The largest weight in each block of each head's matrix, float16, NaN where nothing may be seen.

    From the recorded cells, where blocks have their edges; else from one pass.
    """
    zoom, cells = thumb_zoom(layer), _cells(layer)
    if cells is not None and zoom_of(cells) <= zoom:
        maxima = joined(cells.max.float().numpy(force=True), cells, zoom, np.maximum)
    else:
        maxima = layer.matrix.blocks(1 << zoom, "max").float().numpy(force=True)
    down, across = (edges(range(size), zoom) for size in layer.shape[1:])
    seen = sight.cells(down, across)
    return np.where(seen, maxima, np.nan).astype(np.float16)


def thumb_zoom(layer: RecordedLayer) -> int:
    """The zoom whose pixels a layer's small pictures have: the coarsest of its map.

    Where there is nothing but recorded cells, and these are larger, it is theirs.
    """
    zoom, cells = zoom_within(layer.shape[1:], THUMB), _cells(layer)
    return zoom if layer.q is not None or cells is None else max(zoom, zoom_of(cells))


def has_thumbs(layer: RecordedLayer) -> bool:
    """Whether its small pictures are there without a pass over the matrix."""
    cells = _cells(layer)
    return cells is not None and zoom_of(cells) <= thumb_zoom(layer)


def _cells(layer: RecordedLayer) -> Cells | None:
    return None if layer.summary is None else layer.summary.cells


def start_of(recording: Recording, texts: Texts, layer: int | None, head: int | None) -> dict[str, int]:
    """The head to open, within a layer or a head number where one is given, and the query to point out.

    Of a page it is the head that `softmap explain` would tell; of longer texts the one whose queries put most weight, of
    their largest, on keys that are neither sinks nor neighbours; where no statistics were kept, the middle layer's first.
    """
    place, head = _head_of(recording, texts, None if layer is None else recording.find_layer(layer), head)
    chosen = recording.layers[place]
    side = texts.named(texts.name_of(chosen.queries_of, chosen.shape[1]) or "")
    query = chosen.shape[1] - 1 if chosen.part == "decoder" else 0
    if side is not None:
        words = [i for i, special in enumerate(side.tokens.special) if not special] or [query]
        query = words[-1 if chosen.part == "decoder" else 0]
    return {"layer": recording.numbers[place], "head": head, "query": query}


def _head_of(recording: Recording, texts: Texts, place: int | None, head: int | None) -> tuple[int, int]:
    """The place of a layer, and a head."""
    layers = recording.layers
    if place is not None and head is not None:
        return place, layers[place].find_head(head)
    able = [i for i in range(len(layers)) if head is None or head < layers[i].heads]
    able = [place] if place is not None else able or [0]
    if head is not None:
        head = layers[able[0]].find_head(head)
    if is_quick(recording):
        text = texts.text("tokens")
        chosen = choose(recording, text.words, None if place is None else recording.numbers[place], head)
        return recording.find_layer(chosen.layer), chosen.head
    looked = {i: found for i in able if (found := _looks(layers[i], texts)) is not None}
    if not looked:
        kept = [i for i in able if layers[i].q is not None] or able
        return kept[len(kept) // 2], head or 0
    if head is not None:
        return max(looked, key=lambda i: looked[i][head]), head
    best = max(looked, key=lambda i: looked[i].max())
    return best, int(looked[best].argmax())


def is_quick(recording: Recording) -> bool:
    """Whether a story can be told of each layer, and all heads be looked at in a moment."""
    tokens = recording.tokens
    if tokens is None or all(tokens.special) or len(tokens) > PAGE:
        return False
    if any(layer.kind != "self" or layer.queries_of != "tokens" for layer in recording.layers):
        return False
    told = [recording.layers[recording.find_layer(number)] for number in tellable(recording)]
    same = len({layer.heads for layer in told}) == 1 and all(layer.q is not None for layer in told)
    return same and sum(layer.heads for layer in told) * len(tokens) ** 2 <= QUICK


def _looks(layer: RecordedLayer, texts: Texts) -> Float[Numbers, " heads"] | None:
    """How much of its largest weights each head has on keys that are neither sinks nor neighbours, mean over queries.

    Heads that look at a neighbour whatever it is come last. None where no largest weights were kept.
    """
    top = None if layer.summary is None else layer.summary.top
    if top is None or layer.q is None or layer.k is None:
        return None
    step = -(-layer.shape[1] // SAMPLE)
    keys, weights = (part[:, ::step].numpy(force=True) for part in (top.keys, top.weights))  # (heads, queries, top)
    here = np.arange(0, layer.shape[1], step)[:, None] + (layer.mask.offset or 0)
    sink = np.isin(keys, texts.sinks(layer))
    neighbour = (layer.kind == "self") & (abs(keys - here) <= 1) & ~sink
    shares = [np.where(of, weights, 0).sum(-1).mean(-1) for of in (~(sink | neighbour), neighbour)]
    looks: Numbers = shares[0] - (shares[1] >= POSITIONAL)
    return looks


def roles(recording: Recording, place: int, cancelled: Cancelled = never) -> dict[str, Any]:
    """What each head of a layer does, as `softmap.heads`; a score that is missing is None."""
    from softmap.roles import NAMED_BY, SCORES, layer_heads

    layer = recording.layers[place]
    keys = None if layer.keys_of is None else getattr(recording, layer.keys_of)
    found, _ = layer_heads(recording.numbers[place], layer, keys, lambda: stop_if(cancelled))

    def told() -> Iterator[dict[str, Any]]:
        for head in found.heads:
            scores = {name: _number(getattr(head, name)) for name in SCORES}
            score = None if head.role is None else scores[NAMED_BY[head.role]]
            yield {"head": head.head, "role": head.role, "score": score, "scores": scores}

    return {"heads": list(told())}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
