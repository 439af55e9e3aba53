"""One head of a model on one text -> the four steps of its attention, as data.

A `Story` holds numbers only; `narrative` puts them into sentences and `render` onto a page.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from softmap import words as wording
from softmap.errors import ParameterError, RowError, TextError
from softmap.language import choose_language
from softmap.mechanism import PAGE, Steps, self_attention, softmax
from softmap.tokens import Tokens, tokenize
from softmap.worked_example import Example

if TYPE_CHECKING:
    from jaxtyping import Float
    from matplotlib.figure import Figure

    from softmap.models import LoadedModel
    from softmap.shares import Shares
    from softmap.words import Unit

    Numbers = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Source:
    """Where a story's numbers come from.

    Attributes:
        model: the hub id or directory of the model.
        revision: its commit; None for a directory or a packaged copy.
        dtype: what the model computed in, such as ``float32``.
        layers: how many layers it has.
        heads: how many heads each of them has.
        layer: the layer told of, counted from 0.
        head: the head told of, counted from 0.
        chosen_from: what softmap chose it from: ``all`` heads, those of the ``layer`` asked for, or those of the
            ``head`` number asked for; None where layer and head were both asked for.
        shares: where the words look in every head; None where layer and head were both asked for.
        difference: the largest absolute difference between this head's output and the model's own.
    """

    model: str
    revision: str | None
    dtype: str
    layers: int
    heads: int
    layer: int
    head: int
    chosen_from: Literal["all", "layer", "head"] | None
    shares: Shares | None
    difference: float


@dataclass(frozen=True, repr=False, eq=False)
class Story:
    """How one head relates every word of a text to every other, step by step.

    ``print(story)`` tells it; `html`, `figure`, `json` and `save` put it elsewhere; a notebook shows it as a page.

    Attributes:
        tokens: what the model read.
        units: a label for each token: the rows and columns of steps 1 and 2.
        words: the labels of step 3 and 4; the same as `units` where every word is one token.
        row: the word that is pointed out, an index into `words`.
        steps: every stage as NumPy arrays; its rows are `queries`, its columns all tokens.
        queries: the tokens that the rows of `steps` stand for: all, or those of `row` where the text is longer
            than a page (512 tokens).
        source: the model behind it; None for the worked example.
        biases: those of q, k and v that a bias was added to.
        language: ``en`` or ``zh``, the language of its sentences.
    """

    tokens: Tokens
    units: tuple[Unit, ...]
    words: tuple[Unit, ...]
    row: int
    steps: Steps
    queries: range
    source: Source | None
    biases: tuple[str, ...]
    language: str

    @property
    def text(self) -> str:
        """The text as given."""
        return self.tokens.text

    @cached_property
    def shown_words(self) -> tuple[int, ...]:
        """The words that the rows of `weights`, `norms` and `contributions` stand for, indices into `words`."""
        return tuple(i for i, word in enumerate(self.words) if word.start in self.queries)

    @cached_property
    def weights(self) -> Float[Numbers, "shown_words words"]:
        """Step 3 in words: attention to a word adds its pieces up, attention from a word averages them."""
        return self._by_words(self.steps.weights)

    @cached_property
    def norms(self) -> Float[Numbers, "shown_words words"]:
        """The length of the vector that each word brings to another's output, ‖w v‖.

        Kobayashi et al., 2020, "Attention is Not Only a Weight", https://arxiv.org/abs/2004.10102
        """
        starts = [word.start for word in self.words]
        lengths = []
        for i in self.shown_words:
            word = self.words[i]
            weights = self.steps.weights[word.start - self.queries.start : word.stop - self.queries.start].mean(axis=0)
            brought = np.add.reduceat(weights[:, None] * self.steps.v, starts, axis=0)  # (words, d_v)
            lengths.append(np.linalg.norm(brought, axis=1))
        return np.array(lengths)

    @cached_property
    def contributions(self) -> Float[Numbers, "shown_words words"]:
        """`norms` as shares: each row sums to 1 (0 where every value vector is 0)."""
        totals = self.norms.sum(axis=1, keepdims=True)
        return self.norms / np.where(totals > 0, totals, 1)

    @cached_property
    def gradient_norms(self) -> tuple[Float[Numbers, " queries"], Float[Numbers, " queries"]]:
        """The norm of softmax's gradient in each row: of the scores as they are, and of the scaled ones."""
        return softmax_gradient_norm(self._unscaled), softmax_gradient_norm(self.steps.scaled)

    @cached_property
    def unscaled_weights(self) -> Float[Numbers, "queries tokens"]:
        """What softmax would make of the scores without the division of step 2."""
        unscaled: Numbers = softmax(self._unscaled)
        return unscaled

    @property
    def _unscaled(self) -> Float[Numbers, "queries tokens"]:
        """The scores, with −∞ where a key may not be seen."""
        return np.where(np.isfinite(self.steps.scaled), self.steps.scores, -np.inf)

    @cached_property
    def neighbour_shares(self) -> dict[int, float]:
        """How much weight tokens put on the token before them (-1) and after them (1), on average.

        Empty where not all rows are kept. Clark et al., 2019, section 3.1: some heads look at one of them alone.
        """
        weights = self.steps.weights
        if len(self.queries) < len(self.units) or len(self.units) < 2:
            return {}
        return {offset: float(np.diagonal(weights, offset).mean()) for offset in (-1, 1)}

    @property
    def merges_pieces(self) -> bool:
        """Whether some word is more than one token."""
        return len(self.words) < len(self.units)

    def __str__(self) -> str:
        from softmap.render.terminal import as_text

        return as_text(self)

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= 40 else self.text[:37] + "..."
        where = f"{self.source.model}, layer {self.source.layer}, head {self.source.head}" if self.source else "example"
        return f"Story({text!r}, {where}; print it, or see .html(), .figure(), .json(), .save(path))"

    def __rich__(self) -> Any:
        from softmap.render.terminal import Page

        return Page(self)

    def _repr_html_(self) -> str:
        from softmap.render.html import as_frame

        return as_frame(self)

    def html(self) -> str:
        """One self-contained page that needs no network."""
        from softmap.render.html import as_html

        return as_html(self)

    def figure(self) -> Figure:
        """Draw the pointed-out word's lines to all words, and the matrices of steps 1 to 3, with matplotlib."""
        from softmap.render.figure import as_figure

        return as_figure(self)

    def json(self) -> str:
        """Everything, by the names of the vocabulary; the schema ships as ``softmap/data/story.schema.json``."""
        from softmap.render.json import as_json

        return as_json(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the story as what the path's ending says: .html, .svg, .png, .pdf, .json or .txt.

        The file appears when it is complete.

        Raises:
            ParameterError: another ending.
            OSError: the place can't be written to.
        """
        from softmap.render.files import save

        save(self, path)

    def _by_words(self, matrix: Float[Numbers, "queries tokens"]) -> Float[Numbers, "shown_words words"]:
        rows = tuple(self.words[i] for i in self.shown_words)
        return wording.attention_from(wording.attention_to(matrix, self.words), rows, self.queries.start)


def explain(
    text: str | Example,
    model: str | os.PathLike[str] | LoadedModel | None = None,
    *,
    layer: int | None = None,
    head: int | None = None,
    row: str | int | None = None,
    words: bool = True,
    truncate: bool = False,
    lang: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Story:
    """Tell how one attention head relates the words of a text, step by step.

    Args:
        text: a text; or `softmap.example()`, which needs no model.
        model: a hub id, a directory, what `softmap.models.load` gave, or None for the bundled model.
        layer: which layer, counted from 0; chosen where it is left open.
        head: which head, counted from 0; chosen where it is left open: the one in which words look most at
            other words.
        row: the word to point out, or its index; the first word unless given.
        words: whether sub-word pieces are merged into words from step 3 on.
        truncate: whether a text longer than the model's limit is cut at its end.
        lang: ``en`` or ``zh``; by the locale unless given.
        progress: called with how many heads are measured, of how many.

    Raises:
        SoftmapError: one of its children TextError, ModelError, ParameterError and RowError.

    Examples:
        >>> import softmap
        >>> story = softmap.explain(softmap.example(), lang="en")
        >>> story.weights.round(2)[0]
        array([0.9 , 0.07, 0.03])
    """
    language = choose_language(lang)
    if isinstance(text, Example):
        _refuse_given(
            model=model is not None, layer=layer is not None, head=head is not None, words=not words, truncate=truncate
        )
        return _tell_example(text, row, language)
    if not isinstance(text, str):
        hint = "Give a sentence, or softmap.example()."
        raise TextError("text", "a string or softmap.example()", type(text).__name__, hint)

    from softmap import models
    from softmap.models.capture import capture
    from softmap.models.settings import on_one_thread
    from softmap.shares import check_head, measure_difference, measure_shares

    loaded = model if isinstance(model, models.LoadedModel) else models.load(model)
    tokens = tokenize(loaded, text, truncate=truncate)
    rows = wording.units_of_words(tokens) if words else wording.units_of_tokens(tokens)
    chosen_row = _find_row(rows, row)
    queries = _page_of(len(tokens), rows[chosen_row])
    with on_one_thread() if len(tokens) <= PAGE else nullcontext():
        run = capture(loaded, tokens)
        check_head(run, layer, head)
        shares = measure_shares(run, rows, progress) if layer is None or head is None else None
        chosen = shares.best(layer, head) if shares else (int(layer or 0), int(head or 0))
        told = run.head(*chosen)
        ((_, steps),) = told.strips(slice(queries.start, queries.stop))
        difference = float(shares.difference[chosen]) if shares else measure_difference(run, *chosen)
    source = Source(
        model=loaded.name,
        revision=loaded.revision,
        dtype=str(loaded.model.dtype).removeprefix("torch."),
        layers=run.shape[0],
        heads=run.shape[1],
        layer=chosen[0],
        head=chosen[1],
        chosen_from=_chosen_from(layer, head),
        shares=shares,
        difference=difference,
    )
    units = wording.units_of_tokens(tokens, as_in_text=words)
    biases = tuple(name for name in "qkv" if getattr(told, f"b_{name}") is not None)
    return Story(tokens, units, rows, chosen_row, _as_numpy(steps), queries, source, biases, language)


def softmax_gradient_norm(scaled: Float[Numbers, "rows columns"]) -> Float[Numbers, " rows"]:
    """The Frobenius norm of softmax's Jacobian at each row, J = diag(w) − w wᵀ, without forming it.

    ‖J‖² = Σ_i w_i² (1 − w_i)² + Σ_{i≠j} w_i² w_j². Where one weight is nearly 1 both sums are differences of nearly
    equal numbers; so the largest weight is taken out of them, and 1 minus it is the sum of the others.
    """
    weights: Numbers = softmax(np.asarray(scaled, dtype=np.float64))  # (rows, columns)
    top = np.argmax(weights, axis=1)[:, None]
    largest = np.take_along_axis(weights, top, axis=1)[:, 0]  # (rows)
    others = weights.copy()
    np.put_along_axis(others, top, 0, axis=1)
    squares = (others**2).sum(axis=1)
    diagonal = (largest * others.sum(axis=1)) ** 2 + ((others * (1 - others)) ** 2).sum(axis=1)
    crossed = 2 * largest**2 * squares + np.maximum(squares**2 - (others**4).sum(axis=1), 0)
    norms: Numbers = np.sqrt(diagonal + crossed)
    return norms


def _refuse_given(**given: bool) -> None:
    """Refuse options that mean nothing to the worked example, rather than ignore them."""
    names = [name for name, is_given in given.items() if is_given]
    if names:
        hint = f"It brings a text and numbers of its own, a token for each word; leave out {' and '.join(names)}."
        raise ParameterError("the worked example", "row and lang alone", " and ".join(names), hint)


def _tell_example(example: Example, row: str | int | None, language: str) -> Story:
    steps = self_attention(*example)
    text = " ".join(example.tokens)
    ends = np.cumsum([len(word) + 1 for word in example.tokens]) - 1
    tokens = Tokens(
        text=text,
        ids=(),
        pieces=example.tokens,
        spans=tuple((int(end) - len(word), int(end)) for word, end in zip(example.tokens, ends, strict=True)),
        words=tuple(range(len(example.tokens))),
        special=(False,) * len(example.tokens),
        unknown=(False,) * len(example.tokens),
    )
    units = wording.units_of_words(tokens)
    return Story(tokens, units, units, _find_row(units, row), steps, range(len(units)), None, (), language)


def _find_row(units: tuple[Unit, ...], row: str | int | None) -> int:
    """The unit asked for; else the first that is no special token."""
    if row is None:
        return next(i for i, unit in enumerate(units) if not unit.special)
    return wording.find_row(units, row)


def _chosen_from(layer: int | None, head: int | None) -> Literal["all", "layer", "head"] | None:
    if layer is None:
        return "all" if head is None else "head"
    return "layer" if head is None else None


def _page_of(tokens: int, row: Unit) -> range:
    """The queries whose rows are kept: all of a page, and the pointed-out word's of a longer text."""
    if tokens <= PAGE:
        return range(tokens)
    if row.pieces > PAGE:
        got = f"one of {row.pieces}, which begins with {row.label[:40]!r}"
        raise RowError("row", f"a word of at most {PAGE} tokens", got, "Take single tokens: words=False (--tokens).")
    return range(row.start, row.stop)


def _as_numpy(steps: Steps) -> Steps:
    """The same stages as NumPy arrays."""
    stages = {field.name: getattr(steps, field.name) for field in dataclasses.fields(steps)}
    return Steps(**{n: s.cpu().numpy() if hasattr(s, "cpu") else s for n, s in stages.items()})
