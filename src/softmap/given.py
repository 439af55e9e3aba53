"""Numbers that come with no model -> their story: the worked example, and steps of one's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import numpy as np

from softmap import words as wording
from softmap.arrays import as_numpy
from softmap.errors import ParameterError
from softmap.mechanism import PAGE, Steps, self_attention, softmax
from softmap.story import Story
from softmap.telling import Added
from softmap.tokens import Tokens
from softmap.worked_example import Example, example


def tell_example(given: Example, row: str | int | None, language: str) -> Story:
    """The worked example's story.

    Raises:
        ParameterError: other numbers in its place, of which its sentences would not be true.
        RowError: no such word.
    """
    if not all(np.array_equal(one, other) for one, other in zip(given, example(), strict=True)):
        hint = "Tell your own: softmap.explain(softmap.self_attention(x, w_q, w_k, w_v), tokens=['a', 'word', 'a', 'row'])."
        raise ParameterError("the worked example", "its own numbers", "others", hint)
    return _tell(self_attention(*given), given.tokens, row, language, is_example=True)


def tell_steps(given: Steps, tokens: Iterable[str] | None, row: str | int | None, language: str) -> Story:
    """The story of steps of one's own.

    Args:
        given: of one sequence with itself, of up to a page.
        tokens: a word for each of its rows.
        row: the word to point out, or its number; the first unless given.
        language: of the sentences.

    Raises:
        ParameterError: more than the four steps, as a model's soft cap, sinks or bias; another number of keys than
            queries, more than a page, another number of words than rows.
        RowError: no such word.
    """
    steps = Steps(**{field.name: as_numpy(getattr(given, field.name)) for field in fields(given)})
    queries, keys = steps.scores.shape
    if queries != keys or queries > PAGE:
        hint = "A story is of tokens that look at each other."
        raise ParameterError("steps", f"as many queries as keys, at most {PAGE}", f"{queries} and {keys}", hint)
    _refuse_more_than_steps(steps)
    words = list(tokens) if isinstance(tokens, Iterable) and not isinstance(tokens, str) else []
    if len(words) != queries or not all(map(_is_word, words)):
        hint = "Name them in their order, as in tokens=['I', 'love', 'learning']."
        raise ParameterError("tokens", f"{queries} words, one for each row", repr(tokens), hint)
    return _tell(steps, tuple(words), row, language, is_example=False)


def _tell(steps: Steps, pieces: tuple[str, ...], row: str | int | None, language: str, *, is_example: bool) -> Story:
    stops = np.cumsum([len(piece) + 1 for piece in pieces]) - 1
    tokens = Tokens(
        text=" ".join(pieces),
        ids=(),
        pieces=pieces,
        spans=tuple((int(stop) - len(piece), int(stop)) for piece, stop in zip(pieces, stops, strict=True)),
        words=tuple(range(len(pieces))),
        special=(False,) * len(pieces),
        unknown=(False,) * len(pieces),
    )
    units = wording.units_of_tokens(tokens)
    return Story(
        tokens=tokens,
        units=units,
        words=units,
        row=0 if row is None else wording.find_row(units, row),
        steps=steps,
        queries=range(len(units)),
        source=None,
        biases=() if is_example else None,
        language=language,
        added=_added(steps),
        is_example=is_example,
    )


def _refuse_more_than_steps(steps: Steps) -> None:
    """Refuse what a story of scale and causal mask alone would tell wrongly."""
    if not _follows(steps):
        hint = "Of a model's head tell the recording: softmap.explain(recording, layer=..., head=...)."
        expected = "the four steps alone, with no more than a causal mask"
        raise ParameterError("steps", expected, "more, as of a soft cap, sinks, a bias, a window or a part", hint)


def _follows(steps: Steps) -> bool:
    """Whether each stage follows from the one before by its step."""
    hidden: Any = np.isneginf(steps.scaled)
    if hidden.any() and not np.array_equal(hidden, np.triu(np.ones_like(hidden), 1)):
        return False
    scaled = np.where(hidden, -np.inf, steps.scores * steps.scale)
    pairs = [(steps.scaled, scaled), (steps.weights, softmax(steps.scaled))]
    if steps.q is not None and steps.k is not None:
        pairs.append((steps.scores, steps.q @ steps.k.T))
    if steps.v is not None:
        pairs.append((steps.output, steps.weights @ steps.v))
    return all(_agree(one, other) for one, other in pairs)


def _agree(one: Any, other: Any) -> bool:
    """To the rounding of float32, in which a model's steps may be."""
    finite = np.isfinite(other)
    size = float(np.abs(other[finite]).max(initial=0))
    return one is not None and one.shape == other.shape and np.allclose(one, other, rtol=1e-4, atol=1e-5 * size)


def _added(steps: Steps) -> Added:
    """The causal mask where the steps have one."""
    if not np.isneginf(steps.scaled).any():
        return Added()
    from softmap import masks

    return Added(mask=masks.causal())


def _is_word(token: Any) -> bool:
    return isinstance(token, str) and token.strip() != ""
