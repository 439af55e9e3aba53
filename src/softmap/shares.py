"""What the heads of a model look at: other words, the word itself, or special tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from softmap.errors import ModelError, ParameterError

if TYPE_CHECKING:
    from jaxtyping import Float

    from softmap.models.capture import Capture, Head
    from softmap.words import Unit

    Numbers = np.ndarray[Any, Any]


POSITIONAL = 0.8
"""The mean weight on the token before (or after) from which on a head is said to look there, whatever it finds."""


@dataclass(frozen=True, eq=False)
class Shares:
    """Where the words' attention goes in each head, as a mean over the words (special tokens do not look here).

    Attributes:
        to_special: the weight on special tokens, (layers, heads), probability.
        to_itself: the weight on the word itself, (layers, heads), probability.
        to_others: the weight on other words, (layers, heads), probability. The three sum to 1.
        to_neighbour: the mean weight of all tokens on the token just before, or just after, whichever is more,
            (layers, heads), probability.
        difference: the largest absolute difference between a head's output as computed here and the model's own,
            (layers, heads), in units of the output.
    """

    to_special: Float[Numbers, "layers heads"]
    to_itself: Float[Numbers, "layers heads"]
    to_others: Float[Numbers, "layers heads"]
    to_neighbour: Float[Numbers, "layers heads"]
    difference: Float[Numbers, "layers heads"]

    def best(self, layer: int | None = None, head: int | None = None) -> tuple[int, int]:
        """The head in which words look most at other words; within a layer or a head number, where one is given.

        Heads that look at the token before or after whatever it is come last: they say nothing of the words. Where
        no head looks at another word (a text of one word), it is the head that looks least at special tokens.
        """
        candidates = self.to_others if self.to_others.any() else -self.to_special
        allowed = np.ones(candidates.shape, dtype=bool)
        if layer is not None:
            allowed &= np.arange(candidates.shape[0])[:, None] == layer
        if head is not None:
            allowed &= np.arange(candidates.shape[1])[None, :] == head
        by_words = allowed & (self.to_neighbour < POSITIONAL)
        if self.to_others.any() and by_words.any():
            allowed = by_words
        best = np.argmax(np.where(allowed, candidates, -np.inf))
        row, column = np.unravel_index(best, candidates.shape)
        return int(row), int(column)


def measure_shares(
    capture: Capture, units: tuple[Unit, ...], progress: Callable[[int, int], None] = lambda done, total: None
) -> Shares:
    """Run every head of a capture, a strip of rows at a time, and see where its words look.

    Args:
        capture: the model's run.
        units: the words (or tokens) of the text.
        progress: called with how many heads are done, of how many.

    Raises:
        ModelError: a head's output is further from the model's own than the rounding of its dtype.
    """
    layers, heads = capture.shape
    shares = np.zeros((5, layers, heads))
    for layer in range(layers):
        for head in range(heads):
            measured = capture.head(layer, head)
            shares[:, layer, head] = _measure(measured, units)
            _refuse_disagreement(measured, f"layer {layer}, head {head}", shares[4, layer, head])
            progress(layer * heads + head + 1, layers * heads)
    return Shares(*shares)


def measure_difference(capture: Capture, layer: int, head: int) -> float:
    """The largest absolute difference between a head's output as computed here and the model's own, over all rows.

    Raises:
        ModelError: it is more than the rounding of the model's dtype.
    """
    told = capture.head(layer, head)
    difference = max(told.difference(steps, rows) for rows, steps in told.strips())
    _refuse_disagreement(told, f"layer {layer}, head {head}", difference)
    return difference


def check_head(capture: Capture, layer: int | None, head: int | None) -> None:
    """Refuse a layer or a head that the model has not.

    Raises:
        ParameterError: with the numbers it has.
    """
    for name, wanted, count in zip(("layer", "head"), (layer, head), capture.shape, strict=True):
        if wanted is None:
            continue
        if isinstance(wanted, bool) or not hasattr(wanted, "__index__") or not 0 <= wanted < count:
            raise ParameterError(
                name, f"a number from 0 to {count - 1}", repr(wanted), f"{name.title()}s count from 0."
            )


def _refuse_disagreement(head: Head, name: str, difference: float) -> None:
    if not head.agrees(difference):
        raise ModelError(
            name,
            "softmax(q kᵀ · scale) v to be what the model computes",
            f"an output that differs by {difference:.1e}",
            "Its attention does more than that, so its numbers can't be told by the four steps.",
        )


def _measure(head: Head, units: tuple[Unit, ...]) -> tuple[float, float, float, float, float]:
    """Where one head's words look, and how far its output is from the model's own."""
    unit_of = np.repeat(np.arange(len(units)), [unit.pieces for unit in units])  # (tokens)
    special = np.array([unit.special for unit in units])[unit_of]  # (tokens)
    # every word counts the same, every piece of a word the same
    share = np.array([0 if unit.special else 1 / unit.pieces for unit in units])[unit_of]  # (tokens)
    share /= share.sum()
    to_special = to_itself = to_others = difference = 0.0
    neighbours = np.zeros(2)
    for rows, steps in head.strips():
        weights = steps.weights.cpu().double().numpy()  # (rows, tokens)
        itself = (unit_of[rows, None] == unit_of[None, :]) & ~special  # (rows, tokens)
        to_special += float(share[rows] @ weights[:, special].sum(axis=1))
        to_itself += float(share[rows] @ np.where(itself, weights, 0).sum(axis=1))
        to_others += float(share[rows] @ np.where(itself | special, 0, weights).sum(axis=1))
        neighbours += [np.trace(weights, rows.start + offset) for offset in (-1, 1)]
        difference = max(difference, head.difference(steps, rows))
    to_neighbour = float(neighbours.max()) / max(1, head.tokens - 1)
    return to_special, to_itself, to_others, to_neighbour, difference
