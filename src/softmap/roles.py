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

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from softmap.errors import ParameterError
from softmap.escaping import json_text
from softmap.measures import Score, measure
from softmap.shares import POSITIONAL

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

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
FORMAT, VERSION = "softmap.heads", 1


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
        least: for each role the score from which on a head has it; infinity where the text or the mask leaves too little
            choice to tell, and where the score is missing.
    """

    layer: int
    path: str
    kind: Kind
    part: Part
    heads: tuple[Head, ...]
    uniform: Mapping[str, float]
    queries: Mapping[str, int]
    least: Mapping[Role, float]


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
        return json_text(_without_nan(data), allow_nan=False)

    def __repr__(self) -> str:
        counts: Counter[str] = Counter(head.role or "nothing clear" for head in self.rows)
        names: list[str] = [*NAMED_BY, "nothing clear"]
        named = ", ".join(f"{counts[name]} {name}" for name in names if counts[name])
        return f"HeadTable({self.model!r}, {len(self.rows)} heads in {len(self.layers)} layers: {named})"

    def __str__(self) -> str:
        from softmap.render.heads import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from softmap.render.heads import as_html

        return as_html(self)

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
        >>> table = softmap.heads(softmap.record("I love learning"))
        >>> (head,) = table.best("previous", 1)
        >>> head.layer, head.head, head.role
        (0, 2, 'previous token')
    """
    layers, reasons = [], dict[str, list[int]]()
    for place, layer in enumerate(rec.layers):
        number = place if layer.number is None else layer.number
        found, missing = layer_heads(number, layer, None if layer.keys_of is None else getattr(rec, layer.keys_of))
        layers.append(found)
        for reason in missing:
            reasons.setdefault(reason, []).append(number)
        progress(place + 1, len(rec.layers))
    read = next((text for text in (rec.tokens, rec.target) if text is not None), None)
    return HeadTable(rec.origin.model, None if read is None else len(read), tuple(layers), _notes(rec, reasons))


def layer_heads(
    number: int, layer: RecordedLayer, keys: Tokens | None, pause: Callable[[], None] = lambda: None
) -> tuple[LayerHeads, list[str]]:
    """What the heads of one layer do, and why it lacks scores; the arguments are `measure`'s."""
    layer.look()
    scores, missing = measure(layer, keys, pause)
    return _named(number, layer, scores), missing


def _named(number: int, layer: RecordedLayer, scores: Mapping[str, Score]) -> LayerHeads:
    """A layer's heads, with the names that their scores give them."""
    nothing = Score(np.full(layer.heads, np.nan), np.nan, 0)
    scores = {name: scores.get(name, nothing) for name in SCORES}
    least = {role: _least(role, scores[name]) for role, name in NAMED_BY.items()}
    found = []
    for head in range(layer.heads):
        own = {name: _finite(score.values[head]) for name, score in scores.items()}
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
        least,
    )


def _finite(value: float) -> float:
    """A score; NaN, as where it is missing, of statistics that are no numbers: nothing is named by them."""
    return float(value) if np.isfinite(value) else np.nan


def _least(role: Role, score: Score) -> float:
    """The score from which on a head has the role; infinity where the score tells too little."""
    if score.queries < LEAST:
        return np.inf
    if role == "broad":
        return BROAD
    halfway = score.uniform + CLEAR * (1 - score.uniform)
    least = max(POSITIONAL, halfway) if role in ("previous token", "next token") else halfway
    return least if score.uniform <= TELLING else np.inf


def _notes(rec: Recording, reasons: Mapping[str, list[int]]) -> tuple[str, ...]:
    """What is missing, in sentences: one for the layers that lack it for the same reasons."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for reason, numbers in reasons.items():
        groups.setdefault(tuple(numbers), []).append(reason)
    notes = [f"{_which(numbers, len(rec.layers))}: {'; '.join(why)}." for numbers, why in groups.items()]
    for why in dict.fromkeys(other.why for other in rec.others):
        names = [other.name for other in rec.others if other.why == why]
        count = f"{len(names)} layer{'s' * (len(names) > 1)}"
        notes.append(f"Not in the table: {count} of {_list(list(dict.fromkeys(names)))} ({why}).")
    if rec.partial:
        notes.append(f"The recording is not whole: {rec.partial.rstrip('.')}.")
    return tuple(notes)


def _which(numbers: tuple[int, ...], layers: int) -> str:
    if len(numbers) == layers:
        return "All layers" if layers > 1 else "The layer"
    return f"Layer{'s' * (len(numbers) > 1)} {_list(numbers)}"


def _list(things: Sequence[object]) -> str:
    *most, last = map(str, things)
    return f"{', '.join(most)} and {last}" if most else last


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
