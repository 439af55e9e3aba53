"""Where the words of a text look, head by head: against a plain dense computation, and which head is chosen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from softmap.errors import ParameterError
from softmap.shares import Shares, check_head, measure_shares
from softmap.mechanism import PAGE
from softmap.models.capture import capture
from softmap.tokens import tokenize
from softmap.words import units_of_tokens, units_of_words

TEXT = "The unbelievability of it all [SEP] didn't stop the cat 🙂"


def dense_shares(loaded, run, units):
    """The same shares, word by word, from the weights that the model itself returns."""
    found = loaded.model.config._attn_implementation
    loaded.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            attentions = loaded.model(torch.tensor([run.tokens.ids]), output_attentions=True).attentions
    finally:
        loaded.model.set_attn_implementation(found)
    weights = torch.stack(attentions)[:, 0].double().numpy()  # (layers, heads, tokens, tokens)
    words = [unit for unit in units if not unit.special]
    shares = np.zeros((3, *run.shape))
    for word in words:
        row = weights[:, :, word.start : word.stop].mean(axis=2)  # (layers, heads, tokens)
        for unit in units:
            kind = 0 if unit.special else 1 if unit == word else 2
            shares[kind] += row[:, :, unit.start : unit.stop].sum(axis=2) / len(words)
    return shares


def shares_of(to_special, to_others, to_neighbour=0.0):
    to_special, to_others = np.array(to_special, dtype=float), np.array(to_others, dtype=float)
    to_neighbour = np.broadcast_to(to_neighbour, to_others.shape)
    return Shares(to_special, 1 - to_special - to_others, to_others, to_neighbour, np.zeros_like(to_others))


@pytest.mark.parametrize("units_of", [units_of_words, units_of_tokens], ids=["words", "tokens"])
def test_shares_are_those_of_a_plain_dense_computation(bundled, units_of):
    run = capture(bundled, tokenize(bundled, TEXT))
    units = units_of(run.tokens)
    shares = measure_shares(run, units)
    expected = dense_shares(bundled, run, units)
    np.testing.assert_allclose([shares.to_special, shares.to_itself, shares.to_others], expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(shares.to_special + shares.to_itself + shares.to_others, 1, rtol=0, atol=1e-6)


def test_shares_of_a_text_of_several_pages_are_those_of_a_dense_computation(make_model, make_tokenizer):
    tokenizer = make_tokenizer(limit=1200)
    loaded = make_model("roberta", tokenizer=tokenizer, max_position_embeddings=1202)
    run = capture(loaded, tokenize(loaded, "I love the unbelievable cat on a mat. " * 100))
    assert len(run.tokens) == 1102 > 2 * PAGE
    units = units_of_words(run.tokens)
    shares = measure_shares(run, units)
    expected = dense_shares(loaded, run, units)
    np.testing.assert_allclose([shares.to_special, shares.to_itself, shares.to_others], expected, rtol=0, atol=1e-5)
    head = run.head(1, 2)
    assert shares.difference[1, 2] == max(head.difference(steps, rows) for rows, steps in head.strips())


def test_difference_is_that_of_the_worst_row_in_each_head(bundled):
    run = capture(bundled, tokenize(bundled, TEXT))
    shares = measure_shares(run, units_of_words(run.tokens))
    assert 0 < shares.difference.max() <= 5e-6
    head = run.head(2, 5)
    assert shares.difference[2, 5] == float((head.steps().output - head.output).abs().max())


def test_text_of_one_word_looks_at_no_other_word(bundled):
    run = capture(bundled, tokenize(bundled, "unbelievability"))
    shares = measure_shares(run, units_of_words(run.tokens))
    assert not shares.to_others.any()
    assert shares.best() == np.unravel_index(shares.to_special.argmin(), run.shape)
    assert shares.best(layer=1) == (1, shares.to_special[1].argmin())


def test_best_head_is_the_one_that_looks_most_at_other_words(bundled):
    run = capture(bundled, tokenize(bundled, "I love learning"))
    shares = measure_shares(run, units_of_words(run.tokens))
    by_words = np.where(shares.to_neighbour < 0.8, shares.to_others, -1)
    assert (by_words >= 0).any(axis=1).all()
    assert (by_words >= 0).any(axis=0).all()
    assert shares.best() == np.unravel_index(by_words.argmax(), run.shape)
    for layer in range(6):
        assert shares.best(layer=layer) == (layer, by_words[layer].argmax())
    for head in range(12):
        assert shares.best(head=head) == (by_words[:, head].argmax(), head)


def test_neighbour_is_the_token_before_or_after_whichever_gets_more(bundled):
    run = capture(bundled, tokenize(bundled, "I love learning"))
    shares = measure_shares(run, units_of_words(run.tokens))
    for layer, head in ((0, 2), (3, 1), (5, 11)):
        weights = run.head(layer, head).steps().weights
        expected = max(float(weights.diagonal(-1).mean()), float(weights.diagonal(1).mean()))
        assert shares.to_neighbour[layer, head] == pytest.approx(expected, abs=1e-6)


def test_head_that_looks_at_a_neighbour_alone_is_chosen_last():
    others = [[0.9, 0.5], [0.4, 0.3]]
    assert shares_of(np.zeros((2, 2)), others, [[0.95, 0.1], [0.1, 0.1]]).best() == (0, 1)
    assert shares_of(np.zeros((2, 2)), others, [[0.95, 0.9], [0.1, 0.1]]).best(layer=0) == (0, 0)


@pytest.mark.parametrize(
    ("wanted", "best"),
    [
        ({}, (1, 2)),
        ({"layer": 0}, (0, 1)),
        ({"head": 0}, (1, 0)),
        ({"layer": 0, "head": 0}, (0, 0)),
        ({"layer": 2}, (2, 0)),  # of equals, the first
    ],
)
def test_best_head_keeps_to_the_layer_and_head_that_are_given(wanted, best):
    shares = shares_of(np.zeros((3, 3)), [[0.1, 0.4, 0.3], [0.2, 0.3, 0.9], [0.0, 0.0, 0.0]])
    assert shares.best(**wanted) == best


def test_best_head_of_one_word_looks_least_at_special_tokens():
    shares = shares_of([[0.9, 0.2], [0.1, 0.3]], np.zeros((2, 2)))
    assert shares.best() == (1, 0)
    assert shares.best(layer=0) == (0, 1)
    assert shares.best(head=1) == (0, 1)


def test_progress_counts_every_head(make_model):
    loaded = make_model()
    run = capture(loaded, tokenize(loaded, "the cat sat"))
    seen = []
    measure_shares(run, units_of_words(run.tokens), lambda done, total: seen.append((done, total)))
    assert seen == [(done, 8) for done in range(1, 9)]


@pytest.mark.parametrize(("layer", "head"), [(None, None), (0, None), (None, 11), (5, 11), (0, 0)])
def test_layer_and_head_the_model_has_are_let_through(bundled, layer, head):
    check_head(capture(bundled, tokenize(bundled, "cat")), layer, head)


@pytest.mark.parametrize(
    ("layer", "head", "message"),
    [
        (6, None, "layer: expected a number from 0 to 5, got 6. Layers count from 0."),
        (-1, 0, "layer: expected a number from 0 to 5, got -1. Layers count from 0."),
        (None, 12, "head: expected a number from 0 to 11, got 12. Heads count from 0."),
        (5, -1, "head: expected a number from 0 to 11, got -1. Heads count from 0."),
        (6, 12, "layer: expected a number from 0 to 5, got 6. Layers count from 0."),
    ],
)
def test_layer_or_head_the_model_has_not_is_refused(bundled, layer, head, message):
    with pytest.raises(ParameterError) as refusal:
        check_head(capture(bundled, tokenize(bundled, "cat")), layer, head)
    assert str(refusal.value) == message
