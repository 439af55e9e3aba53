from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

import softmap
from softmap.errors import ModelError, ParameterError, RowError, TextError
from softmap.story import softmax_gradient_norm

SENTENCE = "The embeddings disagreed."  # "embeddings" is three pieces


@pytest.fixture(scope="module")
def story(bundled):
    return softmap.explain(SENTENCE, bundled, layer=3, head=1, lang="en")


@pytest.fixture(scope="module")
def long_xlm_roberta(make_model, make_tokenizer):
    """A small model of random weights that takes 4,094 tokens."""
    return make_model("xlm-roberta", tokenizer=make_tokenizer(limit=4094), max_position_embeddings=4096)


@pytest.fixture(scope="module")
def example():
    return softmap.explain(softmap.example(), lang="en")


def test_words_of_several_pieces_are_merged_from_step_3_on(story):
    assert [word.label for word in story.words] == ["[CLS]", "The", "embeddings", "disagreed", ".", "[SEP]"]
    assert len(story.units) > len(story.words)
    assert story.steps.scores.shape == (len(story.units), len(story.units))
    assert story.weights.shape == (len(story.words), len(story.words))


def test_attention_to_a_word_is_the_sum_and_from_a_word_the_mean_of_its_pieces(story):
    word = story.words[2]
    pieces = slice(word.start, word.stop)
    weights = story.steps.weights
    assert story.weights[1, 2] == pytest.approx(weights[1, pieces].sum(), abs=1e-6)
    assert story.weights[2, 1] == pytest.approx(weights[pieces, 1].mean(), abs=1e-6)
    np.testing.assert_allclose(story.weights.sum(axis=1), 1, atol=1e-6)


def test_contributions_are_norms_of_the_weighted_value_vectors(story):
    i, j = 2, 3
    row, key = story.words[i], story.words[j]
    weights = story.steps.weights[row.start : row.stop].mean(axis=0)
    brought = sum(weights[t] * story.steps.v[t] for t in range(key.start, key.stop))
    assert story.norms[i, j] == pytest.approx(np.linalg.norm(brought), rel=1e-5)
    np.testing.assert_allclose(story.contributions.sum(axis=1), 1, atol=1e-6)


def test_value_vectors_of_a_word_add_up_to_its_output(story):
    """The contributions speak of the real output: the vectors whose lengths they are sum to it."""
    total = (story.steps.weights[:, :, None] * story.steps.v[None, :, :]).sum(axis=1)
    np.testing.assert_allclose(total, story.steps.output, atol=1e-6)


def test_tokens_shows_every_piece_from_step_1_to_4(bundled):
    story = softmap.explain(SENTENCE, bundled, layer=3, head=1, words=False, lang="en")
    assert [word.label for word in story.words] == list(story.tokens.pieces)
    np.testing.assert_array_equal(story.weights, story.steps.weights)


def test_head_left_open_is_the_one_in_which_words_look_most_at_other_words(bundled):
    story = softmap.explain("I love learning", bundled, lang="en")
    shares = story.source.shares
    assert story.source.chosen_from == "all"
    by_words = np.where(shares.to_neighbour < 0.8, shares.to_others, 0)
    assert by_words[story.source.layer, story.source.head] == by_words.max() > 0


def test_layer_given_alone_limits_the_choice_to_its_heads(bundled):
    story = softmap.explain("I love learning", bundled, layer=4, lang="en")
    assert story.source.layer == 4
    assert story.source.shares.to_others[4].argmax() == story.source.head


def test_layer_and_head_given_are_taken_without_measuring_others(story):
    assert (story.source.layer, story.source.head) == (3, 1)
    assert story.source.chosen_from is None
    assert story.source.shares is None


def test_largest_difference_from_the_model_is_part_of_the_story(story):
    assert 0 <= story.source.difference < 5e-6


def test_first_word_is_pointed_out_unless_another_is_asked_for(bundled, story):
    assert story.words[story.row].label == "The"
    asked = softmap.explain(SENTENCE, bundled, layer=3, head=1, row="disagreed")
    assert asked.words[asked.row].label == "disagreed"


def test_row_that_is_no_word_of_the_text_is_refused(bundled):
    with pytest.raises(RowError, match=r"row 'hate'.*a word of the text.*\[CLS\], I, love"):
        softmap.explain("I love learning", bundled, layer=0, head=0, row="hate")


def test_layer_the_model_has_not_is_refused(bundled):
    with pytest.raises(ParameterError, match="layer: expected a number from 0 to 5, got 6"):
        softmap.explain("I love learning", bundled, layer=6)


def test_bytes_are_refused_as_text(bundled):
    with pytest.raises(TextError, match="expected a string or softmap"):
        softmap.explain(b"I love learning", bundled)


@pytest.mark.parametrize("rows", [1, 4])
def test_gradient_norm_is_that_of_the_jacobian(rows):
    scores = torch.randn(rows, 5, dtype=torch.float64)
    expected = [
        torch.linalg.matrix_norm(torch.autograd.functional.jacobian(lambda s: s.softmax(-1), row)) for row in scores
    ]
    found = softmax_gradient_norm(scores.numpy())
    np.testing.assert_allclose(found, torch.stack(expected).numpy(), rtol=1e-10)


@pytest.mark.parametrize("gap", [0.0, 1.0, 15.0, 25.0, 40.0, 80.0])
def test_gradient_norm_keeps_its_digits_where_one_weight_is_nearly_1(gap):
    scores = [gap, 0.0, -1.0, 2.5]
    exact = [Fraction(math.exp(score)) for score in scores]
    weights = [value / sum(exact) for value in exact]
    jacobian = [w * ((i == j) - other) for i, w in enumerate(weights) for j, other in enumerate(weights)]
    expected = math.sqrt(sum(entry**2 for entry in jacobian))
    assert softmax_gradient_norm(np.array([scores]))[0] == pytest.approx(expected, rel=1e-9)


def test_division_is_what_separates_the_two_gradients(example):
    without, with_scale = example.gradient_norms
    np.testing.assert_allclose(without, softmax_gradient_norm(example.steps.scores))
    assert (with_scale > without).all()


def test_story_of_the_example_has_no_model_behind_it(example):
    assert example.source is None
    assert example.text == "I love learning"
    np.testing.assert_array_equal(np.rint(100 * example.weights[0]), [90, 7, 3])


def test_text_beyond_a_page_keeps_the_pointed_out_row_alone(long_xlm_roberta):
    text = "reading " * 700 + "needle"
    story = softmap.explain(text, long_xlm_roberta, layer=1, head=0, row="needle", lang="en")
    word = story.words[story.row]
    assert len(story.tokens) > 512
    assert story.queries == range(word.start, word.stop)
    assert story.steps.scores.shape == (word.pieces, len(story.tokens))
    assert story.weights.shape == (1, len(story.words))
    assert story.weights.sum() == pytest.approx(1, abs=1e-5)
    assert "the story tells the row of `needle` alone" in " ".join(str(story).split())
    assert '"queries"' in story.json()
    assert "needle" in story.html()


def test_row_of_a_long_text_equals_the_same_row_of_the_whole_matrix(long_xlm_roberta):
    text = "reading " * 700 + "needle"
    story = softmap.explain(text, long_xlm_roberta, layer=1, head=0, row="needle")
    from softmap.models.capture import capture

    dense = capture(long_xlm_roberta, story.tokens).head(1, 0).steps()
    np.testing.assert_allclose(story.steps.weights, dense.weights[story.queries.start : story.queries.stop], atol=1e-6)


def test_story_is_frozen_and_its_repr_short(story):
    with pytest.raises(dataclasses.FrozenInstanceError):
        story.row = 0
    assert len(repr(story)) < 200
    assert "layer 3, head 1" in repr(story)


def test_model_that_computes_something_else_is_refused(bundled):
    from transformers import AttentionInterface

    def doubled(*args, **kwargs):
        output, weights = AttentionInterface()["sdpa"](*args, **kwargs)
        return 2 * output, weights

    AttentionInterface.register("doubled", doubled)
    implementation = bundled.model.config._attn_implementation
    bundled.model.config._attn_implementation = "doubled"
    try:
        with pytest.raises(ModelError, match=r"layer 3, head 1: expected softmax\(q kᵀ"):
            softmap.explain("I love learning", bundled, layer=3, head=1)
    finally:
        bundled.model.config._attn_implementation = implementation


def test_loaded_model_without_its_tokenizer_is_refused_with_what_to_do(bundled):
    with pytest.raises(
        ModelError, match=r"got BertModel. Wrap .* softmap.models.LoadedModel\(model, tokenizer, name\)"
    ):
        softmap.explain("I love learning", bundled.model)
