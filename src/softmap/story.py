"""One head of a model on one text -> the four steps of its attention, as data.

A `Story` holds numbers only; `narrative` puts them into sentences and `render` onto a page.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from softmap import words as wording
from softmap.errors import ParameterError, RecordingError, RowError, TextError
from softmap.forking import cached_property
from softmap.language import choose_language
from softmap.mechanism import PAGE, Steps
from softmap.shares import choose
from softmap.telling import Added, added_by, compare, steps_of
from softmap.tokens import tokenize
from softmap.worked_example import Example

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from matplotlib.figure import Figure
    from torch import nn
    from transformers import Pipeline

    from softmap.models import LoadedModel
    from softmap.models.record import LiveRecording
    from softmap.recorded import Recording
    from softmap.shares import Choice, Shares
    from softmap.tokens import Tokens
    from softmap.words import Unit

    Numbers = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Source:
    """Where a story's numbers come from.

    Attributes:
        model: the hub id or directory of the model.
        revision: its commit; None for a directory or a packaged copy.
        dtype: what the model computed in, such as ``float32``.
        stored: what q, k and v are kept in; where that is another dtype, the numbers are those of rounded q, k and v.
        layers: how many attention layers there are; of a recording, in it.
        told: those that can be told, by their numbers in the model, counted from 0: the rows of `shares`.
        heads: how many heads the layer told of has.
        layer: the number of the layer told of in the model, counted from 0.
        path: the layer's path in the model.
        head: the head told of, counted from 0.
        chosen_from: what softmap chose it from: ``all`` heads, those of the ``layer`` asked for, or those of the
            ``head`` number asked for; None where layer and head were both asked for.
        shares: where the words look in every head; None where layer and head were both asked for.
        difference: the largest absolute difference between this head's output and that of the model's own attention
            function, in float32; None where there was none to compare with.
        compared: at how many tokens they were compared; None where `difference` is the whole layer's, from when it was
            recorded.
        missing: what is missing of a recording that was cut off; empty where it is whole.
    """

    model: str
    revision: str | None
    dtype: str
    stored: str
    layers: int
    told: tuple[int, ...]
    heads: int
    layer: int
    path: str
    head: int
    chosen_from: Literal["all", "layer", "head"] | None
    shares: Shares | None
    difference: float | None
    compared: int | None
    missing: str


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
        source: the model behind it; None for the worked example, and for numbers of one's own.
        biases: those of q, k and v that a bias was added to; None where they are more than x W + b, or may be.
        language: ``en`` or ``zh``, the language of its sentences.
        added: what the model does to the scores besides the scale.
        is_example: whether it is the worked example.
        unscaled: step 2 with a scale of 1 and all else as it is, (queries, tokens); None where that is the scores, with
            −∞ where a key may not be seen.
    """

    tokens: Tokens
    units: tuple[Unit, ...]
    words: tuple[Unit, ...]
    row: int
    steps: Steps
    queries: range
    source: Source | None
    biases: tuple[str, ...] | None
    language: str
    added: Added = field(default_factory=Added)
    unscaled: Float[Numbers, "queries tokens"] | None = None
    is_example: bool = False

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
    def visible(self) -> Bool[Numbers, "shown_words words"]:
        """Whether a word (any token of it) may see another (any token of it)."""
        return self._by_words(np.isfinite(self.steps.scaled).astype(float)) > 0

    @cached_property
    def sink_shares(self) -> Float[Numbers, " shown_words"]:
        """What a sink takes of each word's row, the mean over its tokens; 0 without one."""
        taken = _softmax(self.steps.scaled, self.added.sink)[1][:, None]  # (queries, 1)
        rows = tuple(self.words[i] for i in self.shown_words)
        shares: Numbers = wording.attention_from(taken, rows, self.queries.start)[:, 0]
        return shares

    @cached_property
    def norms(self) -> Float[Numbers, "shown_words words"] | None:
        """The length of the vector that each word brings to another's output, ‖w v‖; None where v was not kept.

        Kobayashi et al., 2020, "Attention is Not Only a Weight", https://arxiv.org/abs/2004.10102
        """
        if self.steps.v is None:
            return None
        starts = [word.start for word in self.words]
        lengths = []
        for i in self.shown_words:
            word = self.words[i]
            weights = self.steps.weights[word.start - self.queries.start : word.stop - self.queries.start].mean(axis=0)
            brought = np.add.reduceat(weights[:, None] * self.steps.v, starts, axis=0)  # (words, d_v)
            lengths.append(np.linalg.norm(brought, axis=1))
        return np.array(lengths)

    @cached_property
    def contributions(self) -> Float[Numbers, "shown_words words"] | None:
        """`norms` as shares: each row sums to 1 (0 where every value vector is 0)."""
        if self.norms is None:
            return None
        totals = self.norms.sum(axis=1, keepdims=True)
        shares: Numbers = self.norms / np.where(totals > 0, totals, 1)
        return shares

    @cached_property
    def gradient_norms(self) -> tuple[Float[Numbers, " queries"], Float[Numbers, " queries"]]:
        """The norm of softmax's gradient in each row: with a scale of 1 (all else as it is), and with the model's."""
        sink = self.added.sink
        return softmax_gradient_norm(self._unscaled, sink), softmax_gradient_norm(self.steps.scaled, sink)

    @cached_property
    def unscaled_weights(self) -> Float[Numbers, "queries tokens"]:
        """What the weights would be with a scale of 1 in step 2, all else as it is."""
        return _softmax(self._unscaled, self.added.sink)[0]

    @property
    def _unscaled(self) -> Float[Numbers, "queries tokens"]:
        """Step 2 with a scale of 1: the scores, with −∞ where a key may not be seen, unless there is more to it."""
        if self.unscaled is not None:
            return self.unscaled
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
        where = f"{self.source.model}, layer {self.source.layer}, head {self.source.head}" if self.source else ""
        where = where or ("the worked example" if self.is_example else "numbers of your own")
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
    text: str | Recording | LiveRecording | Example | Steps,
    model: str | os.PathLike[str] | nn.Module | Pipeline | LoadedModel | None = None,
    *,
    layer: int | None = None,
    head: int | None = None,
    row: str | int | None = None,
    words: bool = True,
    truncate: bool = False,
    tokens: Iterable[str] | None = None,
    lang: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Story:
    """Tell how one attention head relates the words of a text, step by step.

    Args:
        text: a text; a recording of one, as `softmap.record`, `softmap.recording` and `softmap.load` give it; and with
            no model the steps of numbers of one's own, as `softmap.self_attention` and `Steps.from_scores` give them,
            or `softmap.example()`.
        model: of a text, the model that is to read it, as `softmap.record` takes it: a hub id, a directory, a loaded
            model, what `softmap.models.load` gave, what a model stands in, or None for the bundled model.
        layer: which layer, by its number in the model, counted from 0; chosen where it is left open.
        head: which head, counted from 0; chosen where it is left open: the one in which words look most at
            other words.
        row: the word to point out, or the number of a token of it. Unless given it is the first word; of a model in
            which tokens see what is before them alone, the last one, which sees all.
        words: whether sub-word pieces are merged into words from step 3 on.
        truncate: whether a text longer than the model's limit is cut at its end.
        tokens: of steps, and of nothing else: the words that their rows stand for.
        lang: ``en`` or ``zh``; by the locale unless given.
        progress: called with how many heads are measured, of how many.

    Raises:
        SoftmapError: one of its children TextError, ModelError, ParameterError, RowError and RecordingError.

    Examples:
        >>> import softmap
        >>> story = softmap.explain(softmap.example(), lang="en")
        >>> story.weights.round(2)[0]
        array([0.9 , 0.07, 0.03])
    """
    language = choose_language(lang)
    if isinstance(text, Example | Steps):
        from softmap import given

        options = {
            "model": model,
            "layer": layer,
            "head": head,
            "words": not words or None,
            "truncate": truncate or None,
        }
        if isinstance(text, Example):
            hint = "It brings a text and numbers of its own, a token for each word"
            _refuse_given("the worked example", "row and lang alone", hint, **options, tokens=tokens)
            return given.tell_example(text, row, language)
        hint = "They bring numbers of their own, a token for each word"
        _refuse_given("steps", "tokens, row and lang alone", hint, **options)
        return given.tell_steps(text, tokens, row, language)
    _refuse_given("a text or a recording", "no tokens", "It brings its own", tokens=tokens)
    if isinstance(text, str):
        from softmap.models.options import read_model
        from softmap.models.record import record_inside

        loaded = read_model(model)
        read = tokenize(loaded, text, truncate=truncate)
        record = partial(record_inside, loaded, read)
    else:
        recording = _read_recording(text)
        hint = "It brings its text and its model's numbers"
        _refuse_given("a recording", "neither model nor truncate", hint, model=model, truncate=truncate or None)
        read = _tokens_of(recording)
        record = partial(_as_it_is, recording)

    from softmap.models.settings import on_one_thread

    rows = wording.units_of_words(read) if words else wording.units_of_tokens(read)
    asked = None if row is None else wording.find_row(rows, row)
    with on_one_thread() if len(read) <= PAGE else nullcontext():
        recording = record()
        choice = choose(recording, rows, layer, head, progress)
        told = recording.layers[recording.find_layer(choice.layer)]
        chosen = _first_or_last(rows, last=told.part == "decoder") if asked is None else asked
        queries = _page_of(len(read), rows[chosen])
        steps, unscaled = steps_of(told, choice.head, queries)
    return Story(
        tokens=read,
        units=wording.units_of_tokens(read, as_in_text=True) if words else rows,
        words=rows,
        row=chosen,
        steps=steps,
        queries=queries,
        source=_source_of(recording, choice, _chosen_from(layer, head), compare(told, choice.head, steps)),
        biases=None if told.inside is None or told.inside.x is None else told.inside.biases,
        language=language,
        added=added_by(told, choice.head),
        unscaled=unscaled,
    )


def softmax_gradient_norm(scaled: Float[Numbers, "rows columns"], sink: float | None = None) -> Float[Numbers, " rows"]:
    """The Frobenius norm of softmax's Jacobian at each row, J = diag(w) − w wᵀ, without forming it.

    ‖J‖² = Σ_i w_i² (1 − w_i)² + Σ_{i≠j} w_i² w_j². Where one weight is nearly 1 both sums are differences of nearly
    equal numbers; so the largest weight is taken out of them, and 1 minus it is the sum of the others, a sink's share
    among them. It is 0 in a row of nothing but −∞.
    """
    weights, of_sink = _softmax(np.asarray(scaled, dtype=np.float64), sink)  # (rows, columns), (rows)
    top = np.argmax(weights, axis=1)[:, None]
    largest = np.take_along_axis(weights, top, axis=1)[:, 0]  # (rows)
    others = weights.copy()
    np.put_along_axis(others, top, 0, axis=1)
    squares = (others**2).sum(axis=1)
    diagonal = (largest * (others.sum(axis=1) + of_sink)) ** 2 + ((others * (1 - others)) ** 2).sum(axis=1)
    crossed = 2 * largest**2 * squares + np.maximum(squares**2 - (others**4).sum(axis=1), 0)
    norms: Numbers = np.sqrt(diagonal + crossed)
    return norms


def _softmax(
    scaled: Float[Numbers, "rows columns"], sink: float | None
) -> tuple[Float[Numbers, "rows columns"], Float[Numbers, " rows"]]:
    """The weights of each row, 0 where all of it is −∞, and what a sink takes of it."""
    logit = -math.inf if sink is None else sink
    peak = np.maximum(scaled.max(axis=1, keepdims=True), logit)
    peak = np.where(peak == -np.inf, 0, peak)
    exponentials, of_sink = np.exp(scaled - peak), np.exp(logit - peak)  # (rows, columns), (rows, 1)
    total = exponentials.sum(axis=1, keepdims=True) + of_sink
    total = np.where(total > 0, total, 1)
    return exponentials / total, (of_sink / total)[:, 0]


def _source_of(
    recording: Recording,
    choice: Choice,
    chosen_from: Literal["all", "layer", "head"] | None,
    compared: tuple[float | None, int | None],
) -> Source:
    told, origin = recording.layers[recording.find_layer(choice.layer)], recording.origin
    return Source(
        model=origin.model,
        revision=origin.revision,
        dtype=origin.dtype,
        stored=origin.stored,
        layers=len(recording.layers),
        told=choice.among,
        heads=told.heads,
        layer=choice.layer,
        path=told.path,
        head=choice.head,
        chosen_from=chosen_from,
        shares=choice.shares,
        difference=compared[0],
        compared=compared[1],
        missing=recording.partial,
    )


def _read_recording(given: Any) -> Recording:
    """A recording, of `softmap.recording` the one that its block left.

    Raises:
        TextError: something else.
    """
    from softmap.recorded import Recording

    recording = getattr(given, "recording", given)
    if not isinstance(recording, Recording):
        hint = "Give a sentence, softmap.record(...), softmap.self_attention(...), or softmap.example()."
        raise TextError("text", "a string, a recording, steps or softmap.example()", type(given).__name__, hint)
    return recording


def _tokens_of(recording: Recording) -> Tokens:
    """The text of a recording.

    Raises:
        RecordingError: a batch of several sequences; no text, or none but special tokens.
    """
    tokens = recording.tokens
    if tokens is None or all(tokens.special):
        got = "none" if tokens is None else "special tokens alone"
        hint = "rec[layer] gives its matrices all the same."
        if recording.partial:
            hint = "A text is written last, and this recording was cut off: rec[layer] gives its matrices all the same."
        raise RecordingError("recording", "the tokens of a text", got, hint)
    return tokens


def _as_it_is(recording: Recording) -> Recording:
    return recording


def _refuse_given(subject: str, expected: str, hint: str, **given: Any) -> None:
    """Refuse options that mean nothing here, rather than ignore them; None is one that was not given."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise ParameterError(subject, expected, " and ".join(names), f"{hint}; leave out {' and '.join(names)}.")


def _first_or_last(units: tuple[Unit, ...], *, last: bool) -> int:
    """The first unit that is no special token, or the last one."""
    words = [i for i, unit in enumerate(units) if not unit.special]
    return words[-1 if last else 0]


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
