"""What each head of a recording does: where its weights are, as shares, and a name where one of them is clear.

    first, special, sink     on the first key; on special tokens; on either of them, or on a learnt sink
    previous, next, itself   on the token before; on the token after; on the query's own
    same, induction          on other occurrences of the query's token; on what came after earlier ones
    near                     on the tokens at most 4 away, the query's own among them
    entropy, spread          how widely the weights are spread: in nats, and as a share of the most there can be
    distance                 how many tokens away they are

Each score is a mean over the queries that can look there at all, and is compared with what a head of equal weights would
score on the same text. docs/explanation/heads.md has the formulas and their sources.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch

from softmap.errors import ParameterError
from softmap.matrix.lookup import STRIP
from softmap.shares import POSITIONAL

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from rich.console import Console, ConsoleOptions, RenderableType

    from softmap.masks import Mask
    from softmap.matrix import AttentionMatrix, Summary
    from softmap.recorded import RecordedLayer, Recording
    from softmap.recorded.layer import Kind, Part
    from softmap.tokens import Tokens

    Numbers = np.ndarray[Any, Any]

Role = Literal["previous token", "next token", "itself", "same token", "induction", "sink", "local", "broad"]

NAMED_BY: dict[Role, str] = {
    "previous token": "previous",
    "next token": "next",
    "itself": "itself",
    "same token": "same",
    "induction": "induction",
    "sink": "sink",
    "local": "near",
    "broad": "spread",
}
"""The roles, and the score that each is named by: the first that is clear counts."""
CLEAR = 0.5
"""A clear score is at least so far on the way from that of equal weights to 1."""
TELLING = 0.5
"""What equal weights may score at most, if a score is to name a head: above it, text or mask leave little to choose."""
BROAD = 0.9
"""The spread from which on a head is broad."""
LEAST = 4
"""Over how many queries a score must be a mean to name a head."""
NEAR = 4
"""How many tokens away is near."""
FORMAT, VERSION = "softmap.heads", 1
_ROWS = 512  # of a tile of repeated tokens: small beside the work per tile is what rows of different tokens waste in it


@dataclass(frozen=True, kw_only=True)
class Head:
    """One head. Scores are shares of its weights, means over queries, NaN where there is none (`HeadTable.notes`).

    Attributes:
        layer: counted from 0, in the order in which they ran.
        head: counted from 0.
        path: the layer's module in the model.
        role: what it does; None where nothing is clear.
        entropy: −Σ_j w_ij ln w_ij, nats.
        spread: the entropy as a share of the most there can be, that of equal weights.
        sink: the weight on the first key, on special tokens, and on a learnt sink, probability.
        first: the weight on the first key, probability.
        special: the weight on special tokens, probability.
        previous: the weight on the token before, probability.
        next: the weight on the token after, probability.
        itself: the weight on the query's own token, probability.
        same: the weight on other occurrences of the query's token, probability.
        induction: the weight on the tokens right after earlier occurrences of the query's token, probability.
        near: the weight on the tokens at most 4 away, the query's own included, probability.
        distance: Σ_j w_ij |i − j|, tokens.
    """

    layer: int
    head: int
    path: str
    role: Role | None
    entropy: float
    spread: float
    sink: float
    first: float
    special: float
    previous: float
    next: float
    itself: float
    same: float
    induction: float
    near: float
    distance: float


SCORES = tuple(field.name for field in fields(Head) if field.name not in ("layer", "head", "path", "role"))


@dataclass(frozen=True, eq=False)
class LayerHeads:
    """The heads of one layer.

    Attributes:
        layer: counted from 0, in the order in which they ran.
        path: its module in the model.
        kind: ``self`` or ``cross``.
        part: ``encoder`` or ``decoder``.
        heads: its heads.
        uniform: for each score what a head of equal weights on all keys that it sees would have; for `near`, on all keys
            of the text.
        queries: over how many queries each score is a mean; 0 where it is missing.
    """

    layer: int
    path: str
    kind: Kind
    part: Part
    heads: tuple[Head, ...]
    uniform: Mapping[str, float]
    queries: Mapping[str, int]


@dataclass(frozen=True, repr=False, eq=False)
class HeadTable:
    """What each head of a recording does. Printed, it is a map of roles with the strongest heads of each.

    `table["induction"]` is a score of all heads, (layers, heads), NaN where a layer has fewer heads than another;
    `table["role"]` their names.

    Attributes:
        model: the model's name.
        tokens: how many tokens the model read; None where it read no text.
        layers: the layers, with their heads.
        notes: what is missing and why, in sentences.
    """

    model: str
    tokens: int | None
    layers: tuple[LayerHeads, ...]
    notes: tuple[str, ...]

    @property
    def rows(self) -> tuple[Head, ...]:
        """All heads, layer by layer."""
        return tuple(head for layer in self.layers for head in layer.heads)

    def __getitem__(self, name: str) -> Numbers:
        if name != "role":
            _check_score(name, ("role", *SCORES))
        missing, dtype = (None, object) if name == "role" else (np.nan, np.float64)
        widest = max((len(layer.heads) for layer in self.layers), default=0)
        found = np.full((len(self.layers), widest), missing, dtype=dtype)
        for row, layer in zip(found, self.layers, strict=True):
            row[: len(layer.heads)] = [getattr(head, name) for head in layer.heads]
        return found

    def best(self, name: str, k: int = 5) -> list[Head]:
        """The heads with the highest score, in falling order; equals in the model's order, missing scores left out.

        Args:
            name: a score, as in "induction".
            k: how many.

        Raises:
            ParameterError: no such score; k that is no whole number of at least 1.
        """
        _check_score(name, SCORES)
        if isinstance(k, bool) or not hasattr(k, "__index__") or k < 1:
            raise ParameterError("k", "a whole number of at least 1", repr(k), "It is how many heads to give.")
        known = [head for head in self.rows if not np.isnan(getattr(head, name))]
        return sorted(known, key=lambda head: -float(getattr(head, name)))[:k]

    def json(self) -> str:
        """One JSON object, with the attributes' names; a score that is missing is null."""
        data = {"format": FORMAT, "version": VERSION, "model": self.model, "tokens": self.tokens}
        data |= {"layers": [asdict(layer) for layer in self.layers], "notes": self.notes}
        return json.dumps(_without_nan(data), ensure_ascii=False, allow_nan=False)

    def __repr__(self) -> str:
        counts = Counter(head.role or "nothing clear" for head in self.rows)
        named = ", ".join(f"{counts[name]} {name}" for name in (*NAMED_BY, "nothing clear") if counts[name])
        return f"HeadTable({self.model!r}, {len(self.rows)} heads in {len(self.layers)} layers: {named})"

    def __str__(self) -> str:
        from softmap.render.heads import as_text

        return as_text(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from softmap.render.heads import lay_out

        yield from lay_out(self, console, options)


def heads(rec: Recording, progress: Callable[[int, int], None] = lambda done, total: None) -> HeadTable:
    """What each head of a recording does: scores of where it looks, and a name where one of them is clear.

    Takes time with the number of pairs of equal tokens, which are looked at a tile at a time, and memory with the number
    of tokens. Where no statistics were recorded, one pass over each layer gives them.

    Args:
        rec: a recording of one sequence. Where q and k were not kept, entropy, distance and the shares of sinks can be
            told, and `HeadTable.notes` says what is missing.
        progress: called with how many layers are done, of how many.

    Raises:
        RecordingError: a batch of several sequences.

    Examples:
        >>> import softmap
        >>> table = softmap.heads(softmap.record("I love learning"))  # doctest: +SKIP
        >>> table.best("previous", 1)[0].role  # doctest: +SKIP
        'previous token'
    """
    layers, reasons = [], dict[str, list[int]]()
    for number, layer in enumerate(rec.layers):
        keys = None if layer.keys_of is None else getattr(rec, layer.keys_of)
        scores, missing = _measure(layer, keys if keys is not None and len(keys) == layer.shape[2] else None)
        layers.append(_named(number, layer, scores))
        for reason in missing:
            reasons.setdefault(reason, []).append(number)
        progress(number + 1, len(rec.layers))
    read = next((text for text in (rec.tokens, rec.target) if text is not None), None)
    return HeadTable(rec.origin.model, None if read is None else len(read), tuple(layers), _notes(rec, reasons))


# ---- the scores of a layer


class _Score(NamedTuple):
    """A score of every head, (heads,); that of equal weights; and over how many queries it is a mean."""

    values: Float[Numbers, " heads"]
    uniform: float
    queries: int


class _Sight:
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
    ) -> _Score:
        """A mean over queries.

        Args:
            totals: the weights in question, summed over all queries.
            number: how many keys in question each query may see.
            able: which queries count; those that may see such a key, unless given.
        """
        able = number > 0 if able is None else able
        count = int(able.sum())
        if not count:
            return _Score(np.full(len(totals), np.nan), np.nan, 0)
        return _Score(totals / count, float((number[able] / np.maximum(self.count[able], 1)).mean()), count)


def _measure(layer: RecordedLayer, keys: Tokens | None) -> tuple[dict[str, _Score], list[str]]:
    """The scores that a layer has, by name, and why it lacks others.

    Args:
        layer: the layer.
        keys: the tokens that its keys are, where they are a text.
    """
    sight = _Sight(layer.mask, *layer.shape[1:])
    aligned = _is_aligned(layer)
    scores, missing = _of_statistics(layer, sight, keys, aligned)
    if layer.kind == "cross":
        missing.append("cross-attention, whose queries and keys are two texts: no token is before, near or the same")
    elif not aligned:
        missing.append("queries are not all of the keys' tokens: previous, next, near and the same are not told")
    elif layer.q is None or layer.k is None:
        missing.append("q and k were not kept: entropy, spread, distance and sinks alone can be told")
    else:
        scores |= _of_neighbours(layer.matrix, sight)
        if keys is not None:
            scores |= _of_repeats(layer.matrix, sight, keys)
    if keys is None:
        missing.append("its keys are no tokens of a text: special, same and induction are not told")
    elif not any(keys.special):
        missing.append("the text has no special tokens")
    if "same" in scores and not scores["same"].queries:
        missing.append("no query sees another occurrence of its token: same and induction are not told")
    elif "induction" in scores and not scores["induction"].queries:
        missing.append("no query sees what came after an earlier occurrence of its token: induction is not told")
    return scores, missing


def _is_aligned(layer: RecordedLayer) -> bool:
    """Whether query i and key i are the same token."""
    one_text = layer.kind == "self" and layer.queries_of == layer.keys_of
    return one_text and layer.shape[1] == layer.shape[2] and not layer.mask.offset


def _of_statistics(
    layer: RecordedLayer, sight: _Sight, keys: Tokens | None, aligned: bool
) -> tuple[dict[str, _Score], list[str]]:
    """What follows from the statistics of one pass, which are taken where they are not there."""
    summary, scores, missing = _summary(layer, aligned), dict[str, _Score](), list[str]()
    if summary is None or summary.entropy is None:
        missing.append("neither q and k nor the entropy was kept: entropy and spread are not told")
    else:
        able = sight.count > 1
        entropy, most = _mean(summary.entropy, able), float(np.log(sight.count[able]).mean()) if able.any() else np.nan
        scores["entropy"] = _Score(entropy, most, int(able.sum()))
        scores["spread"] = _Score(entropy / most, 1.0, int(able.sum()))
    if summary is None or summary.received is None:
        missing.append("neither q and k nor what keys receive was kept: the shares of sinks are not told")
    else:
        special = None if keys is None else np.array(keys.special)
        scores |= _of_sinks(_numbers(summary.received), sight, special, learnt=layer.sinks is not None)
    if aligned and (summary is None or summary.distance is None):
        missing.append("neither q and k nor the distance was kept: distance is not told")
    elif aligned and summary is not None and summary.distance is not None:
        every = np.arange(len(sight.count))
        able = sight.count > sight.of(every, every)  # who sees nobody else is at no distance
        scores["distance"] = _Score(_mean(summary.distance.absolute, able), np.nan, int(able.sum()))
    return scores, missing


def _summary(layer: RecordedLayer, aligned: bool) -> Summary | None:
    """A layer's statistics: those that were recorded, or new ones where some are missing and q and k are there."""
    found = layer.summary
    whole = found is not None and found.entropy is not None and found.received is not None
    if layer.q is None or layer.k is None or (found is not None and whole and (found.distance or not aligned)):
        return found
    return layer.matrix.summary(top=0, cells=None)


def _of_sinks(
    received: Float[Numbers, "heads keys"], sight: _Sight, special: Bool[Numbers, " keys"] | None, *, learnt: bool
) -> dict[str, _Score]:
    """Of what keys receive, what the first one and special tokens do."""
    first = np.zeros(received.shape[1], dtype=bool)
    first[0] = True
    sinks = first if special is None else first | special
    kinds = {"first": first, "special": special, "sink": sinks}
    totals = {name: received[:, kind].sum(1) for name, kind in kinds.items() if kind is not None}
    numbers = {name: sight.among(np.flatnonzero(kinds[name])) for name in totals}
    scores = {name: sight.score(totals[name], numbers[name]) for name in totals}
    if learnt:  # it takes what is missing of each row's sum, and every query can look there
        every = np.ones(len(sight.count), dtype=bool)
        rest = len(every) - received.sum(1)
        scores["sink"] = sight.score(totals["sink"] + rest, numbers["sink"], every)
    return scores


def _of_neighbours(matrix: AttentionMatrix, sight: _Sight) -> dict[str, _Score]:
    """The diagonals: what lies at each distance up to `NEAR`."""
    tokens = np.arange(matrix.queries)
    found = {offset: _diagonal(matrix, sight, offset) for offset in range(-NEAR, NEAR + 1)}
    near = sum(totals for totals, _ in found.values())
    around = np.minimum(tokens, NEAR) + 1 + np.minimum(tokens[::-1], NEAR)
    able = sight.count > 0
    count = int(able.sum())
    values = near / count if count else np.full(matrix.heads, np.nan)
    # a window leaves nothing but near keys, and a head that looks there is local all the same: hence all of the text
    uniform = float(around[able].mean() / len(tokens)) if count else np.nan
    names = {"previous": -1, "itself": 0, "next": 1}
    return {name: sight.score(*found[at]) for name, at in names.items()} | {"near": _Score(values, uniform, count)}


def _diagonal(
    matrix: AttentionMatrix, sight: _Sight, offset: int
) -> tuple[Float[Numbers, " heads"], Int[Numbers, " queries"]]:
    """The sum of the weights at (i, i + offset), and which queries may see that key."""
    tokens = np.arange(matrix.queries)
    rows = tokens[(tokens + offset >= 0) & (tokens + offset < matrix.keys)]
    number = np.zeros(len(tokens), dtype=np.int64)
    number[rows] = sight.of(rows, rows + offset)
    if not number.any():
        return np.zeros(matrix.heads), number
    return _numbers(matrix.diagonal(offset)).sum(1), number


def _of_repeats(matrix: AttentionMatrix, sight: _Sight, tokens: Tokens) -> dict[str, _Score]:
    """What lies on other occurrences of a token, and on the tokens after its earlier ones; special tokens do not count.

    Equal tokens are put next to each other, and taken as tiles: a strip of rows with all occurrences of the tokens in it.
    So the work is that of the pairs of equal tokens, and a tile is the most that is held.
    """
    special = np.array(tokens.special)
    _, token, count = np.unique(tokens.ids or tokens.pieces, return_inverse=True, return_counts=True)
    order = np.argsort(token, kind="stable")
    order = order[(count[token[order]] > 1) & ~special[order]]
    totals, numbers = np.zeros((2, matrix.heads)), np.zeros((2, matrix.queries), dtype=np.int64)
    for rows, occurrences in _strips(token[order], matrix.heads):
        row = order[rows, None]
        for kind, after in enumerate((0, 1)):
            key = order[occurrences] + after
            key = key[key < matrix.keys]
            key = key[~special[key]]
            wanted = (token[key - after] == token[row]) & sight.of(row, key)
            wanted &= key < row if after else key != row
            numbers[kind, row[:, 0]] = wanted.sum(1)
            totals[kind] += _sum_of(matrix, row[:, 0], key, wanted)
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
    matrix: AttentionMatrix, row: Int[Numbers, " rows"], key: Int[Numbers, " keys"], wanted: Bool[Numbers, "rows keys"]
) -> Float[Numbers, " heads"]:
    """The sum of those weights of a tile that are wanted."""
    rows, keys = wanted.any(1), wanted.any(0)
    if not rows.any():
        return np.zeros(matrix.heads)
    tile = np.ix_(rows, keys)
    weights: torch.Tensor = matrix[:, row[rows, None], key[keys]].cpu()
    total: Numbers = weights.masked_fill_(torch.from_numpy(~wanted[tile]), 0).sum((1, 2), dtype=torch.float64).numpy()
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


# ---- names


def _named(number: int, layer: RecordedLayer, scores: Mapping[str, _Score]) -> LayerHeads:
    """A layer's heads, with the names that their scores give them."""
    nothing = _Score(np.full(layer.heads, np.nan), np.nan, 0)
    scores = {name: scores.get(name, nothing) for name in SCORES}
    least = {role: _least(role, scores[name]) for role, name in NAMED_BY.items()}
    found = []
    for head in range(layer.heads):
        own = {name: float(score.values[head]) for name, score in scores.items()}
        role = next((role for role, name in NAMED_BY.items() if own[name] >= least[role]), None)
        found.append(Head(layer=number, head=head, path=layer.path, role=role, **own))
    return LayerHeads(
        number,
        layer.path,
        layer.kind,
        layer.part,
        tuple(found),
        {name: score.uniform for name, score in scores.items()},
        {name: score.queries for name, score in scores.items()},
    )


def _least(role: Role, score: _Score) -> float:
    """The score from which on a head has the role; infinity where the score tells too little."""
    if score.queries < LEAST:
        return np.inf
    if role == "broad":
        return BROAD
    halfway = score.uniform + CLEAR * (1 - score.uniform)
    least = max(POSITIONAL, halfway) if role in ("previous token", "next token") else halfway
    return least if score.uniform <= TELLING else np.inf


def _notes(rec: Recording, reasons: Mapping[str, list[int]]) -> tuple[str, ...]:
    """What is missing, in sentences."""
    notes = [f"{_which(numbers, len(rec.layers))}: {reason}." for reason, numbers in reasons.items()]
    if rec.others:
        kinds = ", ".join(dict.fromkeys(other.name for other in rec.others))
        notes.append(f"Not in the table: {len(rec.others)} layers without softmax attention ({kinds}).")
    if rec.partial:
        notes.append(f"The recording is not whole: {rec.partial}.")
    return tuple(notes)


def _which(numbers: list[int], layers: int) -> str:
    if len(numbers) == layers:
        return "All layers" if layers > 1 else "The layer"
    *most, last = map(str, numbers)
    return f"Layers {', '.join(most)} and {last}" if most else f"Layer {last}"


def _check_score(name: Any, names: tuple[str, ...]) -> None:
    if name not in names:
        hint = "docs/explanation/heads.md says what each of them is."
        raise ParameterError("name", f"a score: {', '.join(names)}", repr(name), hint)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
