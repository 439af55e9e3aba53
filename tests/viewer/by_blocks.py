"""What a map must agree with: blocks of a dense matrix, one by one; and a text of words in pieces."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from softmap.tokens import Tokens

HALF = {"rtol": 1e-3, "atol": 6e-8}
"""What float16 rounds by: half of its last digit, of small numbers half of its smallest step."""


def dense_of(layer, head, left_out=()):
    """The weights of one head in float64, and whether each may be seen and is not left out."""
    weights = layer.matrix[head].dense().numpy().astype(float)
    seen = layer.mask.strip(*(range(size) for size in layer.shape[1:])).numpy().copy()
    seen[:, list(left_out)] = False
    return np.where(seen, weights, 0), seen


def rescale(layer, head, left_out):
    """The weights of one head over the keys that are not left out."""
    scaled = layer.matrix.scaled[head].dense().numpy().astype(float)
    scaled[:, list(left_out)] = -np.inf
    sink = -np.inf if layer.sinks is None else float(layer.sinks[head])
    peak = np.maximum(np.maximum(scaled.max(1, keepdims=True), sink), -1e300)
    weights = np.exp(scaled - peak)
    total = weights.sum(1, keepdims=True) + np.exp(sink - peak)
    return weights / np.where(total > 0, total, 1)


def by_words(matrix, rows, keys):
    """From a word the mean of its pieces' rows, to a word their sum; `rows` and `keys` are where words begin."""
    sums = np.stack([matrix[:, a:b].sum(1) for a, b in pairwise(keys)], 1)
    return np.stack([sums[a:b].mean(0) for a, b in pairwise(rows)])


def blocks(weights, seen, zoom):
    """The maximum and the mean of each block of 2^zoom x 2^zoom, NaN where nothing of it is seen."""
    size = 1 << zoom
    down, across = (-(-n // size) for n in weights.shape)
    around = [(0, count * size - n) for count, n in zip((down, across), weights.shape, strict=True)]
    apart = (down, size, across, size)
    inside = np.pad(np.ones(weights.shape), around).reshape(apart).sum((1, 3))
    some = np.pad(seen, around).reshape(apart).any((1, 3))
    numbers = np.pad(weights, around).reshape(apart)
    found = {"max": numbers.max((1, 3)), "mean": numbers.sum((1, 3)) / inside}
    return {how: np.where(some, each, np.nan) for how, each in found.items()}


def make_pieces(count):
    """So many tokens: a mark, words of one to three pieces, and a mark."""
    text, place, number, pieces, spans, words = [], 0, -1, ["<s>"], [(0, 0)], [None]
    while len(pieces) < count - 1:
        number += 1
        text += [" "] * (number > 0)
        place += number > 0
        for part in range(min(1 + number % 3, count - 1 - len(pieces))):
            text.append(f"w{number}" if part == 0 else "abc"[part])
            spans.append((place, place + len(text[-1])))
            place = spans[-1][1]
            pieces.append(text[-1] if part == 0 else f"##{text[-1]}")
            words.append(number)
    special = tuple(word is None for word in [*words, None])
    return Tokens(
        text="".join(text),
        ids=tuple(range(count)),
        pieces=(*pieces, "</s>"),
        spans=(*spans, (place, place)),
        words=(*words, None),
        special=special,
        unknown=(False,) * count,
    )
