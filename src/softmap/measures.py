"""Where the heads of a layer look, measured: each score as a mean over the queries that can look there at all.

Sums over columns come from the statistics of one pass, what lies at a distance from diagonals, and what lies on equal
tokens from tiles of them: memory is linear in the number of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from softmap.kernels.sizes import SWEPT
from softmap.matrix.lookup import STRIP

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from softmap.masks import Mask
    from softmap.matrix import Summary
    from softmap.recorded import RecordedLayer
    from softmap.tokens import Tokens

    Numbers = np.ndarray[Any, Any]

NEAR = 4
"""How many tokens away is near."""
NOWHERE = {
    "special": "the text has no special tokens that a query sees",
    "previous": "no query sees the token before it",
    "next": "no query sees the token after it",
    "itself": "no query sees itself",
    "same": "no query sees another occurrence of its token",
    "induction": "no query sees what came after an earlier occurrence of its token",
}
"""Why there is no score, where no query can look there."""
OF_STATISTICS = {"entropy": "entropy, spread", "received": "first, special, sink", "distance": "distance"}
"""The statistics of a pass that are looked at, and the scores that follow from each."""
OF_PLACES = "previous, next, itself, near, same, induction"
"""The scores that need single weights, of queries and keys that are the same tokens."""
_ROWS = 256  # of a tile of repeated tokens: what rows of different tokens waste in it is small beside the work per tile


class Score(NamedTuple):
    """A score of every head, (heads,); that of equal weights; and over how many queries it is a mean."""

    values: Float[Numbers, " heads"]
    uniform: float
    queries: int


class Sight:
    """What the queries of a layer may see.

    Attributes:
        mask: which query may see which key.
        count: how many keys each query may see, (queries,).
    """

    def __init__(self, mask: Mask, queries: int, keys: int) -> None:
        self.mask, self.count = mask, _count_keys(mask, queries, keys)

    def of(self, query: Int[Numbers, "*shape"], key: Int[Numbers, "*shape"]) -> Bool[Numbers, "*shape"]:
        """Whether queries may see keys: arrays of indices that broadcast."""
        seen: Numbers = self.mask.visible(torch.from_numpy(query), torch.from_numpy(key)).numpy()
        return seen

    def among(self, keys: Int[Numbers, " n"]) -> Int[Numbers, " queries"]:
        """How many of these keys each query may see."""
        step = max(1, STRIP // max(1, len(keys)))
        every = np.arange(len(self.count))
        strips = (every[start : start + step, None] for start in range(0, len(every), step))
        return np.concatenate([self.of(rows, keys).sum(1) for rows in strips])

    def score(
        self,
        totals: Float[Numbers, " heads"],
        number: Int[Numbers, " queries"],
        able: Bool[Numbers, " queries"] | None = None,
    ) -> Score:
        """A mean over queries.

        Args:
            totals: the weights in question, summed over all queries.
            number: how many keys in question each query may see.
            able: which queries count; those that may see such a key, unless given.
        """
        able = number > 0 if able is None else able
        count = int(able.sum())
        if not count:
            return Score(np.full(len(totals), np.nan), np.nan, 0)
        return Score(totals / count, float((number[able] / np.maximum(self.count[able], 1)).mean()), count)


class _Weights:
    """Single weights of a layer, to the rounding of a sweep.

    exp(scaled − logsumexp) with the sweep's logsumexp, as far as its rounding does not show: the matrix itself would
    first go through all keys of each row whose scores are large, for weights that sum to 1 to the last digit. Beyond
    that the weights are the matrix's own.
    """

    def __init__(self, layer: RecordedLayer) -> None:
        found = layer.logsumexp
        if found is None:
            nothing = {"entropy": False, "distance": False, "received": False}
            found = layer.matrix.summary(top=0, cells=None, **nothing).logsumexp
        self.shape, self.matrix, self.scaled = layer.shape, layer.matrix, layer.matrix.scaled
        largest = float(found[found.isfinite()].abs().max()) if bool(found.isfinite().any()) else 0.0
        self.rounded = max(largest, layer.matrix._lookup.problem.size) > SWEPT
        self.logsumexp = found.masked_fill(found == -torch.inf, 0).cpu()  # of a row that sees nothing: exp(−∞ − 0) = 0

    def at(self, query: Int[Numbers, "*shape"], key: Int[Numbers, "*shape"]) -> Float[torch.Tensor, "*places"]:
        """The weights at places, (heads, *shape): arrays of indices that broadcast."""
        if self.rounded:
            weights: torch.Tensor = self.matrix[:, query, key].cpu()
            return weights
        scaled: torch.Tensor = self.scaled[:, query, key].cpu()
        logsumexp = self.logsumexp[:, torch.from_numpy(query)].to(scaled.dtype)
        return scaled.sub_(logsumexp.expand(scaled.shape)).exp_()


def measure(
    layer: RecordedLayer, keys: Tokens | None, pause: Callable[[], None] = lambda: None
) -> tuple[dict[str, Score], list[str]]:
    """The scores that a layer has, by name, and why it lacks others.

    Args:
        layer: the layer.
        keys: the tokens that its keys are; None where they are none, or not known.
        pause: called between tiles; what it raises ends the work.
    """
    sight = Sight(layer.mask, *layer.shape[1:])
    aligned = _is_aligned(layer)
    scores, missing = _of_statistics(layer, sight, keys, aligned)
    if layer.kind == "cross":
        missing.append(f"queries and keys of cross-attention are of two texts: no {OF_PLACES}, distance")
    elif not aligned:
        missing.append(f"queries and keys are not the same tokens: no {OF_PLACES}, distance")
    elif layer.q is None or layer.k is None:
        missing.append(f"q and k were not kept: no {OF_PLACES}")
    else:
        weights = _Weights(layer)
        scores |= _of_neighbours(weights, sight)
        if keys is not None:
            scores |= _of_repeats(weights, sight, keys, pause)
    if keys is None:
        why = "keys are no tokens of a text" if layer.keys_of is None else "the text is not in the recording"
        missing.append(f"{why}: no special, same, induction")
    missing += [why for name, why in NOWHERE.items() if name in scores and not scores[name].queries]
    return scores, missing


def _is_aligned(layer: RecordedLayer) -> bool:
    """Whether query i and key i are the same token."""
    one_text = layer.kind == "self" and layer.queries_of == layer.keys_of
    return one_text and layer.shape[1] == layer.shape[2] and not layer.mask.offset


def _of_statistics(
    layer: RecordedLayer, sight: Sight, keys: Tokens | None, aligned: bool
) -> tuple[dict[str, Score], list[str]]:
    """What follows from the statistics of one pass, and why the rest does not."""
    found, scores = _statistics(layer, aligned), dict[str, Score]()
    if "entropy" in found:
        able = sight.count > 1
        entropy, (most,) = _mean(found["entropy"], able), _mean(np.log(np.maximum(sight.count, 1))[None], able)
        scores["entropy"] = Score(entropy, float(most), int(able.sum()))
        scores["spread"] = Score(entropy / most, float(most / most), int(able.sum()))
    if "received" in found:
        special = None if keys is None else np.array(keys.special)
        scores |= _of_sinks(found["received"], sight, special, learnt=layer.sinks is not None)
    if "distance" in found:
        every = np.arange(len(sight.count))
        able = sight.count > sight.of(every, every)  # who sees nobody else is at no distance
        scores["distance"] = Score(_mean(found["distance"], able), np.nan, int(able.sum()))
    wanted = OF_STATISTICS if aligned else {name: OF_STATISTICS[name] for name in ("entropy", "received")}
    missing = [f"neither q and k nor {name} was kept: no {lost}" for name, lost in wanted.items() if name not in found]
    return scores, missing


def _statistics(layer: RecordedLayer, aligned: bool) -> dict[str, Numbers]:
    """A layer's statistics by name: those that were recorded; new ones, where some are missing and q and k are there."""
    recorded = _known(layer.summary, aligned)
    if len(recorded) == (3 if aligned else 2) or layer.q is None or layer.k is None:
        return recorded
    return _known(layer.matrix.summary(top=0, cells=None), aligned)


def _known(summary: Summary | None, aligned: bool) -> dict[str, Numbers]:
    """What a summary has of entropy, received and distance; a distance only where it is one between tokens."""
    if summary is None:
        return {}
    distance = summary.distance.absolute if aligned and summary.distance else None
    found = {"entropy": summary.entropy, "received": summary.received, "distance": distance}
    return {name: _numbers(array) for name, array in found.items() if array is not None}


def _of_sinks(
    received: Float[Numbers, "heads keys"], sight: Sight, special: Bool[Numbers, " keys"] | None, *, learnt: bool
) -> dict[str, Score]:
    """Of what keys receive, what the first one and special tokens do."""
    first: Numbers = np.arange(received.shape[1]) == 0
    kinds = (
        {"first": first, "sink": first}
        if special is None
        else {"first": first, "special": special, "sink": first | special}
    )
    totals = {name: received[:, kind].sum(1) for name, kind in kinds.items()}
    numbers = {name: sight.among(np.flatnonzero(kind)) for name, kind in kinds.items()}
    scores = {name: sight.score(totals[name], numbers[name]) for name in kinds}
    if learnt:  # it takes what a row's sum lacks, and every query can look there
        every = np.ones(len(sight.count), dtype=bool)
        scores["sink"] = sight.score(totals["sink"] + len(every) - received.sum(1), numbers["sink"], every)
    return scores


def _of_neighbours(weights: _Weights, sight: Sight) -> dict[str, Score]:
    """The diagonals: what lies at each distance up to `NEAR`."""
    heads, queries, _ = weights.shape
    tokens = np.arange(queries)
    found = {offset: _diagonal(weights, sight, offset) for offset in range(-NEAR, NEAR + 1)}
    near: Numbers = np.sum([totals for totals, _ in found.values()], axis=0)
    around = np.minimum(tokens, NEAR) + 1 + np.minimum(tokens[::-1], NEAR)
    able = sight.count > 0
    count = int(able.sum())
    values = near / count if count else np.full(heads, np.nan)
    # a window leaves nothing but near keys, and a head that looks there is local all the same: hence all of the text
    uniform = float(around[able].mean() / queries) if count else np.nan
    names = {"previous": -1, "itself": 0, "next": 1}
    return {name: sight.score(*found[at]) for name, at in names.items()} | {"near": Score(values, uniform, count)}


def _diagonal(
    weights: _Weights, sight: Sight, offset: int
) -> tuple[Float[Numbers, " heads"], Int[Numbers, " queries"]]:
    """The sum of the weights at (i, i + offset), and which queries may see that key."""
    heads, queries, keys = weights.shape
    rows = np.arange(max(0, -offset), min(queries, keys - offset))
    number = np.zeros(queries, dtype=np.int64)
    number[rows] = sight.of(rows, rows + offset)
    if not number.any():
        return np.zeros(heads), number
    return _numbers(weights.at(rows, rows + offset)).sum(1), number


def _of_repeats(weights: _Weights, sight: Sight, tokens: Tokens, pause: Callable[[], None]) -> dict[str, Score]:
    """What lies on other occurrences of a token, and on the tokens after its earlier ones; special tokens do not count.

    Equal tokens are put next to each other, and taken as tiles: a strip of rows with all occurrences of the tokens in it.
    So the work is that of the pairs of equal tokens, and a tile is the most that is held.
    """
    heads, queries, keys = weights.shape
    special = np.array(tokens.special)
    _, token, count = np.unique(tokens.ids or tokens.pieces, return_inverse=True, return_counts=True)
    order = np.argsort(token, kind="stable")
    order = order[(count[token[order]] > 1) & ~special[order]]
    totals, numbers = np.zeros((2, heads)), np.zeros((2, queries), dtype=np.int64)
    for rows, occurrences in _strips(token[order], heads):
        pause()
        row = order[rows, None]
        for kind, after in enumerate((0, 1)):
            key = order[occurrences] + after
            key = key[key < keys]
            key = key[~special[key]]
            wanted = (token[key - after] == token[row]) & sight.of(row, key)
            wanted &= key < row if after else key != row
            numbers[kind, row[:, 0]] = wanted.sum(1)
            totals[kind] += _sum_of(weights, row[:, 0], key, wanted)
    return {name: sight.score(totals[kind], numbers[kind]) for kind, name in enumerate(("same", "induction"))}


def _strips(token: Int[Numbers, " n"], heads: int) -> Iterator[tuple[slice, slice]]:
    """Of tokens in order: some of them, and all that are equal to one of those; no more than a tile of all heads."""
    first, last = np.searchsorted(token, token, "left"), np.searchsorted(token, token, "right")
    start = 0
    while start < len(token):
        stop = min(start + _ROWS, len(token))
        width = int(last[stop - 1] - first[start])
        stop = min(stop, start + max(1, STRIP // (heads * width)))
        yield slice(start, stop), slice(int(first[start]), int(last[stop - 1]))
        start = stop


def _sum_of(
    weights: _Weights, row: Int[Numbers, " rows"], key: Int[Numbers, " keys"], wanted: Bool[Numbers, "rows keys"]
) -> Float[Numbers, " heads"]:
    """The sum of those weights of a tile that are wanted."""
    rows, keys = wanted.any(1), wanted.any(0)
    if not rows.any():
        return np.zeros(weights.shape[0])
    found = weights.at(row[rows, None], key[keys])
    hidden = torch.from_numpy(~wanted[np.ix_(rows, keys)])
    total: Numbers = found.masked_fill_(hidden, 0).sum((1, 2), dtype=torch.float64).numpy()
    return total


def _count_keys(mask: Mask, queries: int, keys: int) -> Int[Numbers, " queries"]:
    """How many keys each query may see."""
    spans = mask.spans(queries, keys)
    if spans.exact:
        counts: Numbers = (spans.stop - spans.start).numpy()
        return counts
    step = max(1, STRIP // keys)
    strips = (range(start, min(start + step, queries)) for start in range(0, queries, step))
    return np.concatenate([mask.strip(rows, spans.key_range(rows)).sum(1).numpy() for rows in strips])


def _mean(array: Any, able: Bool[Numbers, " queries"]) -> Float[Numbers, " heads"]:
    """The mean over the queries that count; NaN where none does."""
    numbers = _numbers(array)[:, able]
    return numbers.mean(1) if able.any() else np.full(len(numbers), np.nan)


def _numbers(array: Any) -> Numbers:
    numbers: Numbers = torch.as_tensor(array).detach().cpu().double().numpy()
    return numbers
