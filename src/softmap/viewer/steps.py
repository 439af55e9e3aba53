"""The four steps of one cell of a head's matrix: its numbers, and what `softmap explain` says of its row."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from softmap.language import describe_step_2, say
from softmap.narrative import narrate
from softmap.sections import percent
from softmap.story import explain
from softmap.telling import added_by, steps_of
from softmap.viewer.texts import holding
from softmap.viewer.tiles import Kept

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float

    from softmap.mechanism import Steps
    from softmap.recorded import RecordedLayer, Recording
    from softmap.sections import Section
    from softmap.telling import Added
    from softmap.viewer.texts import Texts

    Numbers = np.ndarray[Any, Any]

STAGES = ("scores", "scaled", "weights", "output")
ROWS = 64
"""Rows of which what was said is kept, at most."""
TOP = 12
"""Keys of a row that are told with their numbers: those of the largest weights."""


class Cell(NamedTuple):
    """A cell of a matrix.

    Attributes:
        layer: the layer's place in the recording.
        head: counted from 0.
        query: a token's number, or a row's.
        key: likewise, a column's.
    """

    layer: int
    head: int
    query: int
    key: int


class Said(NamedTuple):
    """What is said of a step."""

    title: str
    sentences: list[str]


class Stories:
    """Tells the steps of cells. What was said of the last rows is kept, for one asks of several keys of a row.

    Args:
        recording: of one sequence.
        texts: what the sides of its layers' matrices stand for.
    """

    def __init__(self, recording: Recording, texts: Texts) -> None:
        self._recording, self._texts = recording, texts
        self._kept = Kept[tuple[dict[str, Said], str | None]](ROWS)

    def tell(self, cell: Cell, words: bool, language: str) -> dict[str, Any]:
        """The four steps of a cell.

        Numbers are those of the query's own row and of single keys, also in words; sentences speak of words.

        Raises:
            RecordingError: q and k were not kept.
            RowError: a word of more tokens than a page.
        """
        layer = self._recording.layers[cell.layer]
        steps, _ = steps_of(layer, cell.head, range(cell.query, cell.query + 1))
        added = added_by(layer, cell.head)
        brought = None if steps.v is None else steps.weights[0] * np.linalg.norm(steps.v, axis=1)
        shares = None if brought is None else brought / (brought.sum() or 1)
        numbers = dict(zip(STAGES, (steps.scores[0], steps.scaled[0], steps.weights[0], shares), strict=True))
        said, agreement = self._said(cell, words, language, steps, added)
        queries, keys = self._texts.queries(layer), self._texts.keys(layer)
        labels = [
            side.unit(holding(side.starts(words), token), words).label
            for side, token in ((queries, cell.query), (keys, cell.key))
        ]
        return {
            "title": f"{labels[0]} → {labels[1]}",
            "query_label": labels[0],
            "key_label": labels[1],
            "d_k": steps.d_k,
            "scale": steps.scale,
            "sections": [
                {
                    "name": name,
                    "title": said[name].title,
                    "sentences": said[name].sentences,
                    "number": _at(of, cell.key),
                }
                for name, of in numbers.items()
            ],
            "added": {
                "softcap": added.softcap,
                "bias": None if added.bias is None else repr(added.bias),
                "mask": None if added.mask is None else repr(added.mask),
                "sink": added.sink,
            },
            **_top(steps, shares, cell.key, lambda key: keys.unit(key, False).label),
            "logsumexp": _logsumexp(steps.scaled[0], added.sink),
            "agreement": agreement,
        }

    def _said(
        self, cell: Cell, words: bool, language: str, steps: Steps, added: Added
    ) -> tuple[dict[str, Said], str | None]:
        """What is said of each step, and of how well the numbers agree with the model's."""
        layer, tokens = self._recording.layers[cell.layer], self._recording.tokens
        told = layer.kind == "self" and layer.queries_of == layer.keys_of == "tokens"
        if told and tokens is not None and not all(tokens.special):
            row = cell._replace(key=0)  # the same for all its keys
            return self._kept.get((row, words, language), lambda: self._of_story(row, words, language), lambda made: 1)
        return dict(_of_layer(layer, steps, added, language)), agreement(layer, language)

    def _of_story(self, cell: Cell, words: bool, language: str) -> tuple[dict[str, Said], str | None]:
        """The sentences of a story, and those that read the row."""
        unit = holding(self._texts.text("tokens").starts(words), cell.query)
        number = self._recording.numbers[cell.layer]
        story = explain(self._recording, layer=number, head=cell.head, row=unit, words=words, lang=language)
        rows = {"scores": cell.query - story.queries.start}
        rows |= dict.fromkeys(("weights", "output"), story.shown_words.index(unit))
        sections = {section.name: section for section in narrate(story)}
        said = {name: _with_reading(sections[name], rows.get(name)) for name in STAGES}
        return said, " ".join(sections["agreement"].sentences) or None


def _top(steps: Steps, shares: Numbers | None, asked: int, label: Any) -> dict[str, Any]:
    """The largest weights of the row, the asked one besides, and how much the others have together."""
    weights, scaled = steps.weights[0], steps.scaled[0]
    seen = np.isfinite(scaled)
    order = np.argsort(-weights, kind="stable")
    named = order[seen[order]][:TOP].tolist()
    named += [] if asked in named else [asked]
    rest = seen.copy()
    rest[named] = False
    return {
        "top": [
            {
                "key": key,
                "label": label(key),
                "score": float(steps.scores[0, key]),
                "scaled": _at(scaled, key),
                "weight": float(weights[key]),
                "share": _at(shares, key),
            }
            for key in named
        ],
        "rest": {"count": int(rest.sum()), "weight": float(weights[rest].sum(dtype=np.float64))},
    }


def _logsumexp(scaled: Float[Numbers, " keys"], sink: float | None) -> float | None:
    """The row's ln Σ exp(scaled), the sink's logit included; None where the query sees nothing."""
    logits = np.append(scaled.astype(np.float64), -math.inf if sink is None else sink)
    peak = logits.max()
    return float(peak + np.log(np.exp(logits - peak).sum())) if np.isfinite(peak) else None


def _with_reading(section: Section, row: int | None) -> Said:
    """A section's sentences, and the one that reads a row of its matrix."""
    return Said(section.title, [*section.sentences, *(each.text for each in section.readings if each.row == row)])


def _of_layer(layer: RecordedLayer, steps: Steps, added: Added, language: str) -> Iterator[tuple[str, Said]]:
    """What can be said of any layer, also where queries and keys are no words of one text."""
    yield "scores", Said(say(language, "scores_title"), [say(language, "scores")])
    formula, rule = describe_step_2(steps, added, layer.shape[2], language)
    yield "scaled", Said(say(language, "scaled_title", formula=formula), [rule])
    sink = "" if added.sink is None else "_sink"
    share = percent(1 - float(steps.weights.sum()))
    weights = say(language, f"weights{sink}", logit=f"{added.sink or 0:.2f}", share=share)
    yield "weights", Said(say(language, f"weights_title{sink}"), [weights])
    output = say(language, "output_none" if steps.output is None else "output")
    yield "output", Said(say(language, "output_title"), [output])


def agreement(layer: RecordedLayer, language: str) -> str:
    """How well the numbers agree with the model's, of a layer of which no story is told."""
    if layer.difference is None:
        return say(language, "agreement_none")
    return say(language, "agreement_recorded", difference=f"{layer.difference:.1e}")


def _at(numbers: Numbers | None, key: int) -> float | None:
    """One number; None where there is none, or it is −∞."""
    return None if numbers is None or not np.isfinite(numbers[key]) else float(numbers[key])
