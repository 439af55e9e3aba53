"""A story -> what is said and shown, section by section, for any renderer to set on its page.

How wide a page is, and what to leave out where it is too narrow, is the renderer's business.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from softmap.language import describe_step_2, say
from softmap.mechanism import PAGE
from softmap.sections import Grid, Reading, Section, Strips, percent, write
from softmap.shares import POSITIONAL
from softmap.words import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float

    from softmap.sections import Style
    from softmap.story import Source, Story
    from softmap.words import Unit

    Numbers = np.ndarray[Any, Any]

FEW = 8
"""Numbers in a row that are shown as numbers, not as shades."""
TOP = 4
"""How many keys a sentence names before it speaks of the others."""


def narrate(story: Story) -> tuple[Section, ...]:
    """The story from where its numbers come from to how well they agree with the model."""
    tellers = (_source, _tokens, _projection, _scores, _scaled, _weights, _output, _agreement)
    return tuple(tell(story) for tell in tellers)


def quote(units: tuple[Unit, ...], i: int) -> str:
    """A word between backticks, which a renderer may set as it likes; a special token as it is.

    One of several that read the same is followed by its token's number, as `--row` takes it.
    """
    name = units[i].label if units[i].special else mark(units[i].label)
    return f"{name} (:{units[i].start})" if _counts(_Same(units))[units[i].label] > 1 else name


def mark(text: str) -> str:
    """Some text between backticks; two of them on each side where it has one of its own."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


class _Same:
    """Units by which tuple they are: a hash of all of a long text's would cost more than what it finds."""

    def __init__(self, units: tuple[Unit, ...]) -> None:
        self.units = units

    def __hash__(self) -> int:
        return id(self.units)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.units is self.units


@lru_cache(maxsize=8)
def _counts(same: _Same) -> Counter[str]:
    return Counter(unit.label for unit in same.units)


def headline(text: str, longest: int = 200) -> str:
    """The text on one line, its end left out where it is long."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _source(story: Story) -> Section:
    source, language = story.source, story.language
    if source is None:
        return Section("source", "", (say(language, f"source_{_whose(story)}", d_k=story.steps.d_k),))
    sentences = [
        say(
            language,
            "source",
            model=source.model,
            revision=f"@{source.revision[:8]}" if source.revision else "",
            dtype=source.dtype,
            layers=source.layers,
            heads=source.heads,
            layer=source.layer,
            head=source.head,
        ),
        *_of_recording(source, language),
    ]
    if source.shares is None or source.chosen_from is None:
        return Section("source", "", tuple(sentences))
    here = source.told.index(source.layer), source.head
    shares = {"special": source.shares.to_special, "itself": source.shares.to_itself, "others": source.shares.to_others}
    told = {name: percent(float(share[here])) for name, share in shares.items()}
    told["among"] = say(language, f"chosen_from_{source.chosen_from}", layer=source.layer, head=source.head)
    reason = "chosen" if source.shares.to_neighbour[here] < POSITIONAL else "chosen_positional"
    sentences.append(say(language, reason if source.shares.to_others.any() else "chosen_single", **told))
    has_special = any(unit.special for unit in story.units)
    table = Grid(
        say(language, "table" if has_special else "table_others"),
        tuple(map(str, source.told)),
        tuple(map(str, range(source.heads))),
        shares["special" if has_special else "others"],
        style="percent",
        mark=here,
        essential=True,
    )
    return Section("source", "", tuple(sentences), (table,))


def _whose(story: Story) -> str:
    """Whose numbers they are that no model gave."""
    return "example" if story.is_example else "own"


def _of_recording(source: Source, language: str) -> list[str]:
    """What is special about the layers that there are, and about what was kept of them."""
    sentences = []
    if len(source.told) < source.layers:
        told = ", ".join(map(str, source.told))
        sentences.append(say(language, "source_told", layers=source.layers, told=told, path=source.path))
    if source.told[-1] >= source.layers:
        sentences.append(say(language, "source_kept", layers=source.layers, path=source.path))
    if source.stored != source.dtype:
        sentences.append(say(language, "source_stored", stored=source.stored))
    if source.missing:
        sentences.append(say(language, "source_missing", missing=source.missing))
    return sentences


def _tokens(story: Story) -> Section:
    language, units = story.language, story.units
    special = sorted({unit.label for unit in units if unit.special})
    said = "tokens" if special else "tokens_plain" if story.source is None else "tokens_alone"
    sentences = [say(language, said, count=len(units), special=", ".join(special))]
    in_pieces = {
        word.label: " ".join(unit.label for unit in units[word.start : word.stop])
        for word in story.words
        if word.pieces > 1
    }
    for word, pieces in list(in_pieces.items())[:TOP]:
        sentences.append(say(language, "pieces", word=mark(word), pieces=pieces))
    if len(in_pieces) > TOP:
        sentences.append(say(language, "pieces_more", count=len(in_pieces) - TOP))
    unknown = dict.fromkeys(
        mark(printable(story.tokens.text[slice(*span)]))
        for span, is_unknown in zip(story.tokens.spans, story.tokens.unknown, strict=True)
        if is_unknown
    )
    if unknown:
        named = ", ".join(list(unknown)[:TOP]) + (", …" if len(unknown) > TOP else "")
        sentences.append(say(language, "unknown", words=named))
    if story.tokens.cut:
        start = mark(headline(story.tokens.cut_text, 40))
        sentences.append(say(language, "cut", count=story.tokens.cut, start=start))
    if len(story.queries) < len(units):
        row = quote(story.words, story.row)
        sentences.append(say(language, "long", count=len(units), page=PAGE, row=row))
    return Section("tokens", say(language, "tokens_title"), tuple(sentences))


def _projection(story: Story) -> Section:
    steps, language = story.steps, story.language
    pictures: list[Grid | Strips] = []
    for name in "xqkv":
        stage: Numbers | None = getattr(steps, name)
        if stage is None:
            continue
        of_queries = name == "q"
        labels = _labels(story.units[story.queries.start : story.queries.stop] if of_queries else story.units)
        rows, width = stage.shape
        formula = f"{name} {rows} × {width}"
        if name != "x" and steps.x is not None and story.biases is not None:
            d_model = steps.x.shape[1]
            bias = f" + b_{name}" if name in story.biases else ""
            formula = f"{name} = x W_{name}{bias}   {rows} × {width} = ({rows} × {d_model}) ({d_model} × {width})"
        pointed = _pointed_tokens(story, story.queries.start if of_queries else 0)
        if width <= FEW and rows <= FEW:
            columns = tuple(str(j) for j in range(width))
            pictures.append(Grid(formula, labels, columns, stage, pointed=pointed))
        else:
            pictures.append(Strips(name, formula, labels, stage, pointed))
    given = "_given" if story.biases is None else ""
    title = say(language, f"projection_title{given}")
    if story.source is None and not story.is_example:
        given = "_own" if steps.q is not None else "_values" if pictures else "_none"
    return Section("projection", title, (say(language, f"projection{given}"),), tuple(pictures))


def _scores(story: Story) -> Section:
    language, visible = story.language, np.isfinite(story.steps.scaled)
    grid = _token_grid(story, "scores", story.steps.scores)
    readings = tuple(
        Reading(i, _read_scores(story, query, story.steps.scores[i], visible[i], whole=grid.is_whole))
        for i, query in enumerate(story.queries)
    )
    sentences = [say(language, "scores")] + [say(language, "scores_visible")] * (not visible.all())
    return Section("scores", say(language, "scores_title"), tuple(sentences), (grid,), readings)


def _read_scores(
    story: Story, query: int, scores: Float[Numbers, " tokens"], visible: Bool[Numbers, " tokens"], *, whole: bool
) -> str:
    """The most and the least similar of the keys that a query may see."""
    if not visible.any():
        return say(story.language, "sees_nothing", query=quote(story.units, query))
    best, worst = int(np.where(visible, scores, -np.inf).argmax()), int(np.where(visible, scores, np.inf).argmin())
    own = best == query
    sentence = "one" if own and visible.sum() == 1 else "only" if visible.sum() == 1 else "self" if own else ""
    return say(
        story.language,
        f"scores_read_{sentence}".rstrip("_"),
        query=quote(story.units, query),
        best=quote(story.units, best),
        worst=quote(story.units, worst),
        high=write(float(scores[best]), "number", whole=whole),
        low=write(float(scores[worst]), "number", whole=whole),
    )


def _scaled(story: Story) -> Section:
    steps, language = story.steps, story.language
    formula, rule = describe_step_2(steps, story.added, len(story.units), language)
    largest = np.array([story.unscaled_weights.max(axis=1), steps.weights.max(axis=1)])  # (2, queries)
    gradients = np.array(story.gradient_norms)  # (2, queries)
    besides = story.unscaled is not None or story.added.sink is not None
    reason = say(
        language,
        "gradient",
        rest=say(language, "gradient_rest") if besides else "",
        w_without=write(float(largest[0].mean()), "precise"),
        w_with=write(float(largest[1].mean()), "precise"),
        g_without=write(float(gradients[0].mean()), "precise"),
        g_with=write(float(gradients[1].mean()), "precise"),
        change=_read_change(language, float(gradients[0].mean()), float(gradients[1].mean())),
    )
    table = Grid(
        say(language, "gradient_table"),
        _labels(story.units[story.queries.start : story.queries.stop]),
        tuple(say(language, f"{measure}_{when}") for measure in ("weight", "gradient") for when in ("before", "after")),
        np.concatenate([largest, gradients]).T,
        style="precise",
        pointed=_pointed_tokens(story, story.queries.start),
    )
    title = say(language, "scaled_title", formula=formula)
    return Section("scaled", title, (rule, reason), (_token_grid(story, "scaled", steps.scaled), table))


def _read_change(language: str, without: float, with_scale: float) -> str:
    if with_scale == without:
        return say(language, "gradient_changed", times="1")
    if with_scale >= 1e6 * without:
        return say(language, "gradient_grew_much")
    return say(language, "gradient_changed", times=f"{float(f'{with_scale / without:.3g}'):,g}")


def _weights(story: Story) -> Section:
    language = story.language
    sink = "" if story.added.sink is None else "_sink"
    mean = percent(float(story.sink_shares.mean()))
    sentences = [say(language, f"weights{sink}", logit=f"{story.added.sink or 0:.2f}", share=mean)]
    if story.merges_pieces:
        sentences.append(say(language, "merged"))
    for offset, share in story.neighbour_shares.items():
        if share >= POSITIONAL:
            name = "looks_back" if offset < 0 else "looks_ahead"
            sentences.append(say(language, name, share=percent(share)))
    grid = _word_grid(story, "weights", story.weights, "weight", sums=True)
    readings = _read_shares(story, story.weights, "weights_read", "share")
    return Section("weights", say(language, f"weights_title{sink}"), tuple(sentences), (grid,), readings)


def _output(story: Story) -> Section:
    language, steps = story.language, story.steps
    if steps.output is None or story.contributions is None:
        return Section("output", say(language, "output_title"), (say(language, "output_none"),))
    row = story.shown_words.index(story.row)
    weights = story.weights[row]
    keys, others = _worth_naming(weights, story.visible[row])
    terms = " + ".join(f"{weights[j]:.2f} v({quote(story.words, j)})" for j in keys) or "0"
    rest = " + …" if others else ""
    queries = story.units[story.queries.start : story.queries.stop]
    rows, width = steps.output.shape
    formula = f"output {rows} × {width} = ({rows} × {len(story.units)}) ({len(story.units)} × {width})"
    pictures = (
        Strips("output", formula, _labels(queries), steps.output, _pointed_tokens(story, story.queries.start)),
        _word_grid(story, say(language, "output_shares"), story.contributions, "percent"),
    )
    readings = _read_shares(story, story.contributions, "output_read", "brought")
    pieces = (say(language, "output_pieces"),) if any(story.words[j].pieces > 1 for j in (*keys, story.row)) else ()
    sentences = (say(language, "output"), *pieces, f"z({quote(story.words, story.row)}) = {terms}{rest}")
    return Section("output", say(language, "output_title"), sentences, pictures, readings)


def _agreement(story: Story) -> Section:
    source, language = story.source, story.language
    if source is None:
        return Section("agreement", "", (say(language, f"agreement_{_whose(story)}"),))
    if source.difference is None:
        return Section("agreement", "", (say(language, "agreement_none"),))
    difference = f"{source.difference:.1e}"
    if source.compared is None:
        return Section("agreement", "", (say(language, "agreement_recorded", difference=difference),))
    all_heads, where = "", ""
    if source.shares is not None:
        measured = source.shares.difference[~np.isnan(source.shares.difference)]
        worst = f"{max(source.difference, float(measured.max())):.1e}"
        all_heads = say(language, "agreement_all", count=len(measured), difference=worst)
    if source.compared < len(story.units):
        where = say(language, "agreement_some", rows=source.compared, count=len(story.units))
    sentence = say(language, "agreement", difference=difference, all_heads=all_heads, where=where)
    return Section("agreement", "", (sentence,))


def _read_shares(story: Story, shares: Float[Numbers, "rows words"], sentence: str, share: str) -> tuple[Reading, ...]:
    """Each row's largest shares by name, and the others together."""
    readings = []
    for i, word in enumerate(story.shown_words):
        query = quote(story.words, word)
        listed = _list_shares(story, shares[i], i, word, share)
        said = say(story.language, sentence if listed else "sees_nothing", query=query, shares=listed)
        readings.append(Reading(i, said))
    return tuple(readings)


def _list_shares(story: Story, row: Float[Numbers, " words"], i: int, word: int, share: str) -> str:
    language = story.language
    named, others = _worth_naming(row, story.visible[i])
    parts = [
        say(language, f"{share}_itself", percent=percent(float(row[j])))
        if j == word
        else say(language, share, percent=percent(float(row[j])), key=quote(story.words, j))
        for j in named
    ]
    if others:
        rest = percent(float(np.delete(row, named).sum()))
        parts.append(say(language, f"{share}_rest", percent=rest, count=others))
    if share == "share" and story.added.sink is not None:
        parts.append(say(language, "share_sink", percent=percent(float(story.sink_shares[i]))))
    return ("，" if language == "zh" else ", ").join(parts)


def _worth_naming(shares: Float[Numbers, " words"], visible: Bool[Numbers, " words"]) -> tuple[list[int], int]:
    """The largest shares, each of half a percent or more, and how many more can be seen: they are spoken of together."""
    keys = [int(j) for j in np.argsort(-shares, kind="stable") if visible[j]]
    worth = [j for j in keys if shares[j] >= 0.005] or keys[:1]
    named = worth if len(worth) == len(keys) <= TOP + 1 else worth[:TOP]
    return named, len(keys) - len(named)


def _token_grid(story: Story, name: str, values: Float[Numbers, "queries tokens"]) -> Grid:
    queries = story.units[story.queries.start : story.queries.stop]
    return Grid(
        name, _labels(queries), _labels(story.units), values, pointed=_pointed_tokens(story, story.queries.start)
    )


def _word_grid(
    story: Story, name: str, values: Float[Numbers, "shown_words words"], style: Style, *, sums: bool = False
) -> Grid:
    rows = tuple(story.words[i].label for i in story.shown_words)
    row = story.shown_words.index(story.row)
    return Grid(name, rows, _labels(story.words), values, style=style, pointed=range(row, row + 1), sums=sums)


def _pointed_tokens(story: Story, first: int) -> range:
    """The tokens of the pointed-out word, as rows of a matrix whose first row is token `first`."""
    word = story.words[story.row]
    return range(word.start - first, word.stop - first)


def _labels(units: Sequence[Unit]) -> tuple[str, ...]:
    return tuple(unit.label for unit in units)
