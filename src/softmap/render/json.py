"""A story as JSON: every number, by the names of the vocabulary. Schema: ``softmap/data/story.schema.json``."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from softmap.escaping import json_text
from softmap.narrative import narrate

if TYPE_CHECKING:
    from softmap.story import Source, Story
    from softmap.telling import Added

FORMAT, VERSION = "softmap.story", 1
STAGES = ("x", "q", "k", "v", "scores", "scaled", "weights", "output")


def as_json(story: Story) -> str:
    """One JSON object. A number that JSON has no word for, the −∞ of a masked score, is null."""
    return json_text(as_data(story), allow_nan=False)


def as_data(story: Story) -> dict[str, Any]:
    """The object, as Python dictionaries and lists."""
    tokens, steps = story.tokens, story.steps
    return {
        "format": FORMAT,
        "version": VERSION,
        "language": story.language,
        "text": story.text,
        "cut": {"tokens": tokens.cut, "text": tokens.cut_text},
        "source": None if story.source is None else _source(story.source),
        "tokens": [
            {
                "id": tokens.ids[i] if tokens.ids else None,
                "piece": tokens.pieces[i],
                "label": unit.label,
                "start": tokens.spans[i][0],
                "stop": tokens.spans[i][1],
                "special": unit.special,
                "unknown": tokens.unknown[i],
            }
            for i, unit in enumerate(story.units)
        ],
        "words": [
            {"label": word.label, "start": word.start, "stop": word.stop, "special": word.special}
            for word in story.words
        ],
        "row": story.row,
        "queries": {"start": story.queries.start, "stop": story.queries.stop},
        "d_k": steps.d_k,
        "scale": steps.scale,
        "added": _added(story.added),
        "steps": {name: _numbers(getattr(steps, name)) for name in STAGES},
        "gradient": {
            "largest_weight": {
                "scores": _numbers(story.unscaled_weights.max(axis=1)),
                "scaled": _numbers(steps.weights.max(axis=1)),
            },
            "norm": dict(zip(("scores", "scaled"), map(_numbers, story.gradient_norms), strict=True)),
        },
        "by_word": {
            "rows": list(story.shown_words),
            "weights": _numbers(story.weights),
            "norms": _numbers(story.norms),
            "contributions": _numbers(story.contributions),
        },
        "sections": [
            {
                "name": section.name,
                "title": section.title,
                "sentences": list(section.sentences),
                "readings": [{"row": reading.row, "text": reading.text} for reading in section.readings],
            }
            for section in narrate(story)
        ],
    }


def _source(source: Source) -> dict[str, Any]:
    shares = source.shares
    return {
        "model": source.model,
        "revision": source.revision,
        "dtype": source.dtype,
        "stored": source.stored,
        "missing": source.missing,
        "layers": source.layers,
        "told": list(source.told),
        "heads": source.heads,
        "layer": source.layer,
        "path": source.path,
        "head": source.head,
        "chosen_from": source.chosen_from,
        "difference": source.difference,
        "compared": source.compared,
        "shares": None
        if shares is None
        else {field.name: _numbers(getattr(shares, field.name)) for field in fields(shares)},
    }


def _added(added: Added) -> dict[str, Any]:
    return {
        "softcap": added.softcap,
        "bias": None if added.bias is None else repr(added.bias),
        "mask": None if added.mask is None else repr(added.mask),
        "sink": added.sink,
    }


def _numbers(array: np.ndarray[Any, Any] | None) -> Any:
    """Nested lists, each number in the fewest digits that give its dtype's value back; null where not finite."""
    if array is None:
        return None
    if array.ndim > 1:
        return [_numbers(row) for row in array]
    shortest = array.astype(np.str_).tolist()
    return [float(text) if finite else None for text, finite in zip(shortest, np.isfinite(array), strict=True)]
