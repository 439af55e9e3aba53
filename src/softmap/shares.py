"""What the heads of a model look at: other words, the word itself, or special tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from softmap.errors import ParameterError, RecordingError
from softmap.mechanism import PAGE

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from softmap.recorded import RecordedLayer, Recording
    from softmap.words import Unit

    Numbers = np.ndarray[Any, Any]


POSITIONAL = 0.8
"""The mean weight on the token before (or after) from which on a head is said to look there, whatever it finds."""


@dataclass(frozen=True, eq=False)
class Shares:
    """Where the words' attention goes in each head, as a mean over the words (special tokens do not look here).

    A row stands for one of the layers that were measured, in their order: of a story, `Source.told`.

    Attributes:
        to_special: the weight on special tokens, (layers, heads), probability.
        to_itself: the weight on the word itself, (layers, heads), probability.
        to_others: the weight on other words, (layers, heads), probability. The three sum to 1, less a sink's share.
        to_neighbour: the mean weight of all tokens on the token just before, or just after, whichever is more,
            (layers, heads), probability.
        difference: the largest absolute difference between a head's output as computed here and that of the model's own
            attention function, at the rows that were compared, (layers, heads), in units of the output; NaN where
            nothing was. Of a recording it is that of the whole layer, from when it was recorded.
    """

    to_special: Float[Numbers, "layers heads"]
    to_itself: Float[Numbers, "layers heads"]
    to_others: Float[Numbers, "layers heads"]
    to_neighbour: Float[Numbers, "layers heads"]
    difference: Float[Numbers, "layers heads"]

    def best(self, layer: int | None = None, head: int | None = None) -> tuple[int, int]:
        """The head in which words look most at other words; within a layer or a head number, where one is given.

        A layer is a row here, counted from 0.

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


class Choice(NamedTuple):
    """The head that a story tells.

    Attributes:
        layer: its layer's number in the model, counted from 0.
        head: its number, counted from 0.
        among: the numbers of the layers that can be told: the rows of `shares`.
        shares: where the words look in every head; None where layer and head were both asked for.
    """

    layer: int
    head: int
    among: tuple[int, ...]
    shares: Shares | None


def choose(
    recording: Recording,
    units: tuple[Unit, ...],
    layer: int | None = None,
    head: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Choice:
    """The head to tell: the one asked for, or the best of those that fit what was asked for (`Shares.best`).

    Args:
        recording: of a text.
        units: the words (or tokens) of the text.
        layer: the layer asked for, by its number in the model.
        head: the head asked for.
        progress: as in `measure_shares`.

    Raises:
        ParameterError: a layer or a head that can't be told.
        RecordingError: as `tellable` and `measure_shares`.
    """
    check_head(recording, layer, head)
    among = tellable(recording)
    if layer is not None and head is not None:
        return Choice(int(layer), int(head), among, None)
    shares = measure_shares([recording.layers[recording.find_layer(i)] for i in among], units, progress)
    row, head = shares.best(None if layer is None else among.index(layer), head)
    return Choice(among[row], head, among, shares)


def measure_shares(
    layers: Sequence[RecordedLayer],
    units: tuple[Unit, ...],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Shares:
    """See where the words look in every head, a strip of rows of all heads of a layer at a time.

    Args:
        layers: attention layers in which the tokens of a text look at each other.
        units: the words (or tokens) of the text.
        progress: called with how many heads are done, of how many.

    Raises:
        RecordingError: layers with several numbers of heads; q and k were not kept.
    """
    counts = sorted({layer.heads for layer in layers})
    if len(counts) > 1:
        hint = "Name both a layer and a head: layer=0, head=0 (--layer, --head)."
        raise RecordingError("layers to choose from", "one number of heads", " and ".join(map(str, counts)), hint)
    measured = []
    for number, layer in enumerate(layers, start=1):
        measured.append(_measure(layer, units))
        progress(number * layer.heads, len(layers) * layer.heads)
    return Shares(*np.stack(measured, axis=1))


def tellable(recording: Recording) -> tuple[int, ...]:
    """The layers that a story can be told of, by their numbers in the model.

    They are those in which the tokens of the text look at each other.

    Raises:
        RecordingError: there are none; a batch of several sequences.
    """
    found = tuple(
        number
        for number, layer in zip(recording.numbers, recording.layers, strict=True)
        if layer.kind == "self" and layer.queries_of == layer.keys_of == "tokens"
    )
    if not found:
        expected = "a layer in which the tokens of the text look at each other"
        got = f"none in {recording.origin.architecture}"
        raise RecordingError("recording", expected, got, "rec[layer] gives the matrices of the layers that there are.")
    return found


def check_head(recording: Recording, layer: int | None, head: int | None) -> None:
    """Refuse a layer or a head that can't be told.

    Raises:
        ParameterError: with the numbers that can, and what the layer is where there is one.
        RecordingError: as `tellable`.
    """
    told = tellable(recording)
    hint = "Layers count from 0."
    if layer is not None and layer not in told and layer in recording.numbers:
        found = recording.layers[recording.find_layer(layer)]
        hint = f"That is {found.path}, {found.part} {found.kind} attention: not of the text's tokens to each other."
    _check_number("layer", layer, told, hint)
    heads = max(recording.layers[recording.find_layer(i)].heads for i in (told if layer is None else [layer]))
    _check_number("head", head, range(heads), "Heads count from 0.")


def _check_number(name: str, wanted: Any, numbers: Sequence[int], hint: str) -> None:
    if wanted is None or (not isinstance(wanted, bool) and hasattr(wanted, "__index__") and wanted in numbers):
        return
    first, last = numbers[0], numbers[-1]
    in_a_row = last - first + 1 == len(numbers)
    expected = f"a number from {first} to {last}" if in_a_row else f"one of {', '.join(map(str, numbers))}"
    raise ParameterError(name, expected, repr(wanted), hint)


def _measure(layer: RecordedLayer, units: tuple[Unit, ...]) -> Float[Numbers, "5 heads"]:
    """Where the words look in each head of a layer, and how far its output is from the model's own."""
    from softmap.matrix.lookup import STRIP

    heads, tokens, _ = layer.shape
    unit_of = np.repeat(np.arange(len(units)), [unit.pieces for unit in units])  # (tokens)
    special = np.array([unit.special for unit in units])[unit_of]  # (tokens)
    # every word counts the same, every piece of a word the same
    share = np.array([0 if unit.special else 1 / unit.pieces for unit in units])[unit_of]  # (tokens)
    share /= share.sum()
    sums, neighbours, difference = np.zeros((heads, 3)), np.zeros((2, heads)), np.zeros(heads)
    height = min(PAGE, max(1, STRIP // (heads * tokens)))
    for start in range(0, tokens, height):
        rows = slice(start, min(start + height, tokens))
        strip: Tensor = layer.matrix[:, rows]  # (heads, rows, tokens)
        difference = np.maximum(difference, _difference(layer, rows, strip))
        weights = strip.cpu().double().numpy()
        itself = (unit_of[rows, None] == unit_of[None, :]) & ~special  # (rows, tokens)
        kinds = np.stack([np.broadcast_to(special, itself.shape), itself, ~(itself | special)])  # (3, rows, tokens)
        sums += np.tensordot(weights, kinds * share[rows, None], axes=((1, 2), (1, 2)))
        neighbours += [np.trace(weights, start + offset, axis1=1, axis2=2) for offset in (-1, 1)]
    return np.stack([*sums.T, neighbours.max(axis=0) / max(1, tokens - 1), difference])


def _difference(
    layer: RecordedLayer, rows: slice, weights: Float[Tensor, "heads rows keys"]
) -> Float[Numbers, " heads"]:
    """How far the output at these rows is from the model's own, 0 where none of them was compared."""
    inside, v = layer.inside, layer.v
    if inside is None or inside.rows is None or inside.output is None or v is None:
        return np.full(layer.heads, np.nan if layer.difference is None else layer.difference)
    here = (inside.rows >= rows.start) & (inside.rows < rows.stop)
    if not here.any():
        return np.zeros(layer.heads)
    compared, output = weights[:, inside.rows[here] - rows.start], inside.output[:, here]
    grouped = compared.reshape(len(v), -1, compared.shape[2])  # heads that share values, one below the other
    told = (grouped @ v.to(compared.dtype)).reshape(output.shape)
    found: Numbers = (told - output).abs().amax((1, 2)).double().numpy(force=True)
    return found
