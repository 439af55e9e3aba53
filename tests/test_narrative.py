from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import softmap
from softmap import masks
from softmap.language import describe_mask, describe_step_2
from softmap.mechanism import Steps
from softmap.narrative import narrate
from softmap.sections import Grid, percent, write
from softmap.telling import Added

TEXT = "The unbelievable cat sat on a mat."


def section(story, name):
    return next(part for part in narrate(story) if part.name == name)


@pytest.fixture(scope="module")
def example():
    return softmap.explain(softmap.example(), lang="en")


def test_sections_come_in_the_order_of_the_mechanism(example):
    names = [part.name for part in narrate(example)]
    assert names == ["source", "tokens", "projection", "scores", "scaled", "weights", "output", "agreement"]


def test_first_row_reads_90_7_and_3_percent(example):
    assert section(example, "weights").readings[0].text == "`I`: 90% itself, 7% `love`, 3% `learning`."


def test_every_row_of_the_scores_has_a_sentence(example):
    readings = section(example, "scores").readings
    assert [reading.row for reading in readings] == [0, 1, 2]
    assert readings[0].text.startswith("`I`'s query is most similar to its own key (110)")


def test_score_sentence_names_the_most_and_the_least_similar_key(bundled):
    story = softmap.explain("I love learning", bundled, layer=3, head=1, lang="en")
    for i, reading in enumerate(section(story, "scores").readings):
        scores = story.steps.scores[i]
        best, worst = story.units[scores.argmax()].label, story.units[scores.argmin()].label
        assert f"({scores.max():.2f})" in reading.text
        assert f"({scores.min():.2f})" in reading.text
        assert worst in reading.text
        assert ("its own key" in reading.text) == (best == story.units[i].label)


def test_step_2_says_the_root_and_the_measured_reason(example):
    rule, reason = section(example, "scaled").sentences
    assert "√64 = 8" in rule
    without, with_scale = (norms.mean() for norms in example.gradient_norms)
    assert f"{with_scale:.4f}" in reason
    assert f"{without:.0e}" in reason


def test_scale_that_is_not_the_usual_one_is_said(example):
    steps = softmap.self_attention(*softmap.example(), scale=1.0)
    told = section(replace(example, steps=steps), "scaled")
    assert told.title.endswith("scores × scale")
    assert "Every score is multiplied by 1 (1/√d_k would be 0.125)" in told.sentences[0]
    assert ", 1 times as large" in told.sentences[1]


def test_output_is_written_as_the_weighted_sum_of_the_values(example):
    formula = section(example, "output").sentences[1]
    assert formula == "z(`I`) = 0.90 v(`I`) + 0.07 v(`love`) + 0.03 v(`learning`)"


def test_special_tokens_are_named_and_keep_their_rows(bundled):
    story = softmap.explain("I love learning", bundled, layer=3, head=1, lang="en")
    assert "Special tokens, which stand for no word: [CLS], [SEP]." in section(story, "tokens").sentences[0]
    (grid,) = section(story, "weights").pictures
    assert grid.rows == ("[CLS]", "I", "love", "learning", "[SEP]") == grid.columns


def test_pieces_of_a_word_are_shown_and_the_merging_is_said(bundled):
    story = softmap.explain("The embeddings", bundled, layer=3, head=1, lang="en")
    pieces = " ".join(story.tokens.pieces[2:-1])
    assert f"`embeddings` is read in pieces: {pieces}." in section(story, "tokens").sentences
    assert "adds its pieces up" in section(story, "weights").sentences[1]


def test_words_the_model_does_not_know_are_named(bundled):
    story = softmap.explain("I ❤️ 爱 and 习", bundled, layer=0, head=0, lang="en")
    unknown = [
        story.text[slice(*span)] for span, no in zip(story.tokens.spans, story.tokens.unknown, strict=True) if no
    ]
    assert unknown
    assert all(piece == "[UNK]" for piece, no in zip(story.tokens.pieces, story.tokens.unknown, strict=True) if no)
    told = " ".join(section(story, "tokens").sentences)
    assert f"The model does not know {', '.join(f'`{word}`' for word in unknown)}: it reads [UNK] for each" in told


def test_words_that_read_the_same_are_told_apart_by_their_index(bundled):
    story = softmap.explain("the cat and the dog", bundled, layer=3, head=1, lang="en")
    readings = [reading.text for reading in section(story, "weights").readings]
    assert readings[1].startswith("`the` (:1): ")
    assert readings[4].startswith("`the` (:4): ")
    assert readings[2].startswith("`cat`: ")


def test_biases_are_in_the_formula_where_the_model_has_them(bundled, example):
    real = section(softmap.explain("I love learning", bundled, layer=3, head=1), "projection").pictures
    assert [picture.formula.split("   ")[0] for picture in real[1:]] == [f"{n} = x W_{n} + b_{n}" for n in "qkv"]
    assert section(example, "projection").pictures[1].formula.startswith("q = x W_q   ")


def test_all_pieces_of_the_pointed_out_word_are_pointed_out(bundled):
    story = softmap.explain("The embeddings of tokenization", bundled, layer=3, head=1, row="embeddings")
    word = story.words[story.row]
    assert word.pieces > 1
    for name in ("scores", "scaled"):
        assert section(story, name).pictures[0].pointed == range(word.start, word.stop)
    assert section(story, "weights").pictures[0].pointed == range(story.row, story.row + 1)


@pytest.mark.parametrize(
    ("asked", "among"),
    [({}, "from all heads"), ({"layer": 4}, "from the heads of layer 4"), ({"head": 7}, "the heads numbered 7 of all")],
)
def test_choice_says_what_it_was_made_from(bundled, asked, among):
    story = softmap.explain("I love learning", bundled, lang="en", **asked)
    assert among in section(story, "source").sentences[1]


def test_choice_among_heads_that_all_look_at_a_neighbour_says_so(bundled):
    story = softmap.explain("I love learning", bundled, lang="en")
    only_neighbours = replace(story.source.shares, to_neighbour=np.ones((6, 12)))
    told = section(replace(story, source=replace(story.source, shares=only_neighbours)), "source").sentences[1]
    assert "all of which look mainly at a neighbour" in told
    assert "not only at a neighbour" not in told


def test_gradients_that_are_both_nothing_are_not_said_to_differ():
    alone = Steps.from_qkv(np.ones((1, 4)), np.ones((1, 4)), np.ones((1, 4)))
    story = softmap.explain(softmap.example(), lang="en")
    word = story.words[:1]
    told = section(replace(story, steps=alone, units=word, words=word, queries=range(1)), "scaled").sentences[1]
    assert "is 0 without it and 0 with it, 1 times as large" in told


def test_backtick_in_the_text_stays_apart_from_the_marks_around_words(bundled):
    story = softmap.explain("a ` b", bundled, layer=0, head=0, lang="en")
    assert section(story, "weights").readings[2].text.startswith("`` ` ``: ")
    assert '<li data-word="2"><b>`</b>: ' in story.html()


def test_cut_text_says_how_many_tokens_and_where_it_starts(bundled):
    text = "word " * 510 + "omega " * 30
    story = softmap.explain(text, bundled, layer=0, head=0, truncate=True, lang="en")
    told = " ".join(section(story, "tokens").sentences)
    assert "its last 30 tokens were not read, from `omega omega" in told


def test_shares_below_half_a_percent_are_spoken_of_together(bundled):
    story = softmap.explain("I love learning", bundled, layer=0, head=2, lang="en")
    reading = section(story, "weights").readings[1].text
    assert reading == "`I`: 100% [CLS], <1% the other 4."


def test_head_that_looks_at_its_neighbour_alone_is_named(bundled):
    story = softmap.explain("I love learning", bundled, layer=0, head=2, lang="en")
    before = np.mean([story.steps.weights[i, i - 1] for i in range(1, 5)])
    assert f"a previous-token head: {percent(before)} of the weight" in section(story, "weights").sentences[1]
    other = softmap.explain("I love learning", bundled, layer=3, head=1, lang="en")
    assert len(section(other, "weights").sentences) == 1


def test_choice_of_the_head_is_said_with_its_reason_and_a_table(bundled):
    story = softmap.explain("I love learning", bundled, lang="en")
    told = section(story, "source")
    shares, here = story.source.shares, (story.source.layer, story.source.head)
    assert f"not only at a neighbour: {percent(shares.to_others[here])}" in told.sentences[1]
    (table,) = told.pictures
    assert table.values.shape == (6, 12)
    assert table.mark == here


def test_head_chosen_for_a_single_word_says_so(bundled):
    story = softmap.explain("attention", bundled, lang="en")
    assert "because the text has one word" in section(story, "source").sentences[1]


def test_last_section_says_how_closely_the_model_agrees(bundled, example):
    story = softmap.explain("I love learning", bundled, lang="en")
    told = section(story, "agreement").sentences[0]
    assert f"the model's own attention function to within {story.source.difference:.1e}" in told
    assert f"all 72 heads, {story.source.shares.difference.max():.1e}" in told
    assert "no model is involved" in section(example, "agreement").sentences[0]


# What models do besides


@pytest.fixture(scope="module")
def decoder(make_model):
    """The story of a causal layer of rotary attention."""
    return softmap.explain(TEXT, make_model("llama"), layer=1, head=2, lang="en")


@pytest.fixture(scope="module")
def capped(make_model):
    """The story of a layer with a window of 4 tokens and a soft cap."""
    sizes = {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4, "attn_logit_softcapping": 5.0}
    types = {"layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 8}
    return softmap.explain(TEXT, make_model("gemma2", **sizes, **types), layer=0, head=1, lang="en")


@pytest.fixture(scope="module")
def sinking(make_model):
    """The story of a layer with a sink, in both languages."""
    sizes = {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}
    story = softmap.explain(TEXT, make_model("gpt_oss", **sizes), layer=1, head=0, lang="en")
    return story, replace(story, language="zh")


@pytest.fixture(scope="module")
def biased(make_model):
    """The story of a layer that adds a bias for each distance."""
    return softmap.explain(TEXT, make_model("t5", d_kv=8, d_ff=64), layer=0, head=1, lang="en")


@pytest.mark.parametrize(
    ("mask", "seen"),
    [
        (masks.full(), ""),
        (masks.causal(), "itself and the tokens before it"),
        (masks.causal() & masks.sliding_window(3), "itself and the 3 tokens before it"),
        (masks.causal() & masks.sliding_window(9), "itself and the tokens before it"),  # no fewer than there are
        (masks.sliding_window(3, 2), "itself, the 3 tokens before it and the 2 after it"),
        (masks.sliding_window(None, 2), "itself, the 9 tokens before it and the 2 after it"),
        (masks.sliding_window(20, 20), ""),
        (masks.chunked(4) & masks.causal(), "itself and the tokens before it, within its own chunk of 4 tokens"),
        (masks.chunked(10), ""),
        (masks.causal() | masks.prefix(3), "itself and the tokens before it, as well as the first 3 tokens"),
        (masks.causal() | masks.full(), ""),
        (masks.documents([0] * 5 + [1] * 5), "the tokens of its own document"),
        (masks.padding([1] * 9 + [0]), "the tokens that are no padding"),
        (~masks.causal(), "what the model's own mask shows it, `~causal()`"),
    ],
    ids=repr,
)
def test_mask_is_said_in_words(mask, seen):
    assert describe_mask(mask, 10, "en") == seen
    assert bool(describe_mask(mask, 10, "zh")) == bool(seen)


def test_mask_of_a_decoder_is_said_and_shown(decoder):
    told = section(decoder, "scaled")
    assert told.title == "Step 2   scaled = scores / √d_k + mask"
    assert "each token sees itself and the tokens before it" in told.sentences[0]
    assert told.pictures[0].text(0, 1) == "−∞"


def test_most_and_least_similar_keys_are_those_that_are_seen(decoder):
    told = section(decoder, "scores")
    assert "of the keys that each token may see" in told.sentences[1]
    assert told.readings[0].text.startswith("[CLS]'s query meets one key alone, its own (")
    for i, reading in enumerate(told.readings[1:], start=1):
        seen = decoder.steps.scores[i, : i + 1]
        best, worst = decoder.units[seen.argmax()].label, decoder.units[seen.argmin()].label
        assert f"({write(seen.max(), 'number')})" in reading.text
        assert f"least to that of {worst if decoder.units[seen.argmin()].special else f'`{worst}`'} (" in reading.text
        assert ("its own key" in reading.text) == (best == decoder.units[i].label)


def test_keys_that_can_not_be_seen_are_not_spoken_of(decoder):
    readings = [reading.text for reading in section(decoder, "weights").readings]
    assert readings[0] == "[CLS]: 100% itself."
    assert not any("other" in text for text in readings[:2])
    assert section(decoder, "output").readings[0].text == "z([CLS]) comes 100% from itself."


def test_query_that_sees_one_other_key_or_none_says_so(example):
    scaled = example.steps.scaled.copy()
    scaled[0] = [-np.inf, 11.25, -np.inf]
    scaled[1] = -np.inf
    weights = np.array([[0, 1.0, 0], [0, 0, 0], example.steps.weights[2]])
    steps = replace(example.steps, scaled=scaled, weights=weights, output=weights @ example.steps.v)
    story = replace(example, steps=steps, row=1)
    readings = [reading.text for reading in section(story, "scores").readings]
    assert readings[0] == "`I`'s query meets one key alone, that of `love` (90)."
    assert readings[1] == "`love` may see no key."
    assert section(story, "weights").readings[1].text == "`love` may see no key."
    assert section(story, "output").sentences[1] == "z(`love`) = 0"
    assert story.unscaled_weights[1].tolist() == [0, 0, 0]
    assert "−∞" in str(story)
    story.figure()


def test_what_is_more_than_three_matrices_is_not_said_to_be_that(decoder):
    told = section(decoder, "projection")
    assert told.title == "q, k and v"
    assert "with all that the model does to make them" in told.sentences[0]
    assert not any(
        "W_" in getattr(picture, "formula", picture.name if isinstance(picture, Grid) else "")
        for picture in told.pictures
    )


def test_soft_cap_is_in_the_formula_and_said(capped):
    told = section(capped, "scaled")
    assert told.title == "Step 2   scaled = softcap(scores / √d_k) + mask"
    assert "5 · tanh(x / 5), so that none is beyond ±5" in told.sentences[0]
    assert "itself and the 3 tokens before it" in told.sentences[0]
    assert "without the scale (and all else as it is) the largest weight" in told.sentences[1]
    assert np.abs(capped.steps.scaled[np.isfinite(capped.steps.scaled)]).max() <= 5


def test_bias_is_in_the_formula_and_said_with_its_range(biased):
    told = section(biased, "scaled")
    assert told.title == "Step 2   scaled = scores × scale + bias"
    added = biased.steps.scaled - biased.steps.scores
    assert (
        f"a number for each distance between query and key (here from {added.min():.2f} to {added.max():.2f})"
        in told.sentences[0]
    )
    assert section(biased, "projection").pictures[1].formula.startswith("q = x W_q   ")


def test_bias_without_a_rule_is_one_of_pairs(example):
    added = Added(bias=softmap.biases.dense(np.ones((3, 3))))
    told = section(replace(example, added=added, unscaled=example.steps.scores + 1), "scaled")
    assert "a bias is added, a number for each query and key (here from 0.00 to 0.00)" in told.sentences[0]


def test_sink_is_said_with_its_logit_and_its_share(sinking):
    story, chinese = sinking
    told = section(story, "weights")
    assert told.title == "Step 3   weights = softmax([scaled, sink]), row by row"
    assert f"one learned logit ({story.added.sink:.2f} in this head)" in told.sentences[0]
    assert f"{percent(story.sink_shares.mean())} on average" in told.sentences[0]
    assert "sums to 1" not in " ".join(told.sentences)
    for i, reading in enumerate(told.readings):
        assert reading.text.endswith(f", {percent(story.sink_shares[i])} the sink.")
    (grid,) = told.pictures
    sums = story.weights.sum(axis=1)
    assert [grid.sum_text(i) for i in range(len(sums))] == [f"{total:.2f}" for total in sums]
    assert sums.min() < 0.95
    assert all("给汇。" in reading.text for reading in section(chinese, "weights").readings)


def test_encoder_decoder_says_which_layers_can_be_told_and_numbers_its_table_by_them(make_model):
    story = softmap.explain(TEXT, make_model("bart", encoder_layers=2, decoder_layers=1), lang="en")
    told = section(story, "source")
    assert "Of its 4 attention layers" in told.sentences[1]
    assert f": 0, 1. This one is encoder.layers.{story.source.layer}.self_attn" in told.sentences[1]
    assert told.pictures[0].rows == ("0", "1")
    numbers = replace(story.source, told=(2, 3), layer=3)
    table = section(replace(story, source=numbers), "source").pictures[0]
    assert table.rows == ("2", "3")
    assert table.mark == (1, story.source.head)


def test_text_without_special_tokens_is_told_without_them(make_model, make_tokenizer):
    loaded = make_model("gpt2", tokenizer=make_tokenizer("byte level", marks=False))
    story = softmap.explain("I love learning", loaded, lang="en")
    assert (
        section(story, "tokens").sentences[0] == f"The model reads {len(story.units)} tokens, none of which is special."
    )
    (table,) = section(story, "source").pictures
    assert "goes to other words" in table.name
    np.testing.assert_array_equal(table.values, story.source.shares.to_others)


def test_agreement_says_at_how_many_tokens_of_a_long_text_it_was_measured(make_model, make_tokenizer):
    loaded = make_model("llama", tokenizer=make_tokenizer(limit=1200), max_position_embeddings=1200)
    story = softmap.explain("I love the cat " * 150, loaded, layer=0, head=0, lang="en")
    assert "in float32, at 16 of 602 tokens)" in section(story, "agreement").sentences[0]


def test_agreement_of_a_recording_is_its_layers(bundled):
    rec = softmap.record("I love learning", bundled)
    story = softmap.explain(rec, lang="en")
    (told,) = section(story, "agreement").sentences
    worst = rec.layers[story.source.layer].difference
    assert (
        f"when it was recorded, this layer's output was that of the model's own attention function to within {worst:.1e}"
        in told
    )


def test_agreement_without_anything_to_compare_with_says_so(bundled):
    story = softmap.explain("I love learning", bundled, layer=3, head=1, lang="en")
    story = replace(story, source=replace(story.source, difference=None, compared=0))
    assert section(story, "agreement").sentences[0].startswith("Agreement: not compared")
    assert '"difference": null' in story.json()


def test_bias_of_rows_that_see_nothing_is_told_without_numbers():
    q, bias = np.ones((1, 2, 4), np.float32), softmap.biases.alibi([0.5])
    m = softmap.AttentionMatrix(q, q, mask=masks.from_function(lambda query, key: key < query), bias=bias)
    nothing, something = (describe_step_2(m[0].steps(rows=[row]), Added(bias=bias), 2, "en")[1] for row in (0, 1))
    assert "a bias is added, a number for each distance between query and key." in nothing
    assert "(here from -0.50 to -0.50)" in something
