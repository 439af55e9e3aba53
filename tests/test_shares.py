"""Where the words of a text look, head by head: against a plain dense computation, and which head is chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import softmap
from softmap import shares as measuring
from softmap.errors import ParameterError, RecordingError
from softmap.mechanism import PAGE
from softmap.shares import Shares, check_head, choose, measure_shares, tellable
from softmap.words import units_of_tokens, units_of_words

TEXT = "The unbelievability of it all [SEP] didn't stop the cat 🙂"


def dense_shares(loaded, rec, units):
    """The same shares, word by word, from the weights that the model itself returns."""
    found = loaded.model.config._attn_implementation
    loaded.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            attentions = loaded.model(torch.tensor([rec.tokens.ids]), output_attentions=True).attentions
    finally:
        loaded.model.set_attn_implementation(found)
    weights = torch.stack(attentions)[:, 0].double().numpy()  # (layers, heads, tokens, tokens)
    words = [unit for unit in units if not unit.special]
    shares = np.zeros((3, *weights.shape[:2]))
    for word in words:
        row = weights[:, :, word.start : word.stop].mean(axis=2)  # (layers, heads, tokens)
        for unit in units:
            kind = 0 if unit.special else 1 if unit == word else 2
            shares[kind] += row[:, :, unit.start : unit.stop].sum(axis=2) / len(words)
    return shares


def measured(rec):
    """The shares of all layers, by words."""
    return measure_shares(rec.layers, units_of_words(rec.tokens))


def shares_of(to_special, to_others, to_neighbour=0.0):
    to_special, to_others = np.array(to_special, dtype=float), np.array(to_others, dtype=float)
    to_neighbour = np.broadcast_to(to_neighbour, to_others.shape)
    return Shares(to_special, 1 - to_special - to_others, to_others, to_neighbour, np.zeros_like(to_others))


@pytest.mark.parametrize("units_of", [units_of_words, units_of_tokens], ids=["words", "tokens"])
def test_shares_are_those_of_a_plain_dense_computation(bundled, run_through, units_of):
    rec = run_through(bundled, TEXT)
    units = units_of(rec.tokens)
    shares = measure_shares(rec.layers, units)
    expected = dense_shares(bundled, rec, units)
    np.testing.assert_allclose([shares.to_special, shares.to_itself, shares.to_others], expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(shares.to_special + shares.to_itself + shares.to_others, 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("architecture", ["llama", "gpt_oss"])
def test_shares_of_a_decoder_are_those_of_a_dense_computation(make_model, run_through, architecture):
    sizes = {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}
    loaded = make_model(architecture, **sizes)
    rec = run_through(loaded, "The unbelievable cat sat on a mat.")
    shares = measured(rec)
    expected = dense_shares(loaded, rec, units_of_words(rec.tokens))
    found = np.array([shares.to_special, shares.to_itself, shares.to_others])
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    has_sinks = architecture == "gpt_oss"
    assert (found.sum(axis=0).max() < 0.999) == has_sinks  # a sink takes its share of each row


@pytest.mark.slow
def test_shares_of_a_text_of_several_pages_are_those_of_a_dense_computation(make_model, make_tokenizer, run_through):
    tokenizer = make_tokenizer(limit=1200)
    loaded = make_model("roberta", tokenizer=tokenizer, max_position_embeddings=1202)
    rec = run_through(loaded, "I love the unbelievable cat on a mat. " * 100)
    assert len(rec.tokens) == 1102 > 2 * PAGE
    shares = measured(rec)
    expected = dense_shares(loaded, rec, units_of_words(rec.tokens))
    np.testing.assert_allclose([shares.to_special, shares.to_itself, shares.to_others], expected, rtol=0, atol=1e-5)
    layer = rec.layers[1]
    told = layer.matrix[2][layer.inside.rows] @ layer.v[2]
    difference = float((told - layer.inside.output[2]).abs().max())
    assert shares.difference[1, 2] == pytest.approx(difference, abs=1e-7)


def test_strips_of_any_height_give_the_same_shares(bundled, run_through, monkeypatch):
    rec = run_through(bundled, TEXT)
    whole = measured(rec)
    monkeypatch.setattr(measuring, "PAGE", 3)
    strips = measured(rec)
    for name in ("to_special", "to_itself", "to_others", "to_neighbour", "difference"):
        np.testing.assert_allclose(getattr(strips, name), getattr(whole, name), rtol=0, atol=1e-5)


def test_difference_is_that_of_the_worst_row_in_each_head(bundled, run_through):
    rec = run_through(bundled, TEXT)
    shares = measured(rec)
    assert 0 < shares.difference.max() <= 5e-6
    layer = rec.layers[2]
    told = layer.matrix[5].dense() @ layer.v[5]
    assert shares.difference[2, 5] == pytest.approx(float((told - layer.inside.output[5]).abs().max()), abs=1e-8)


def test_difference_tells_the_head_in_which_the_models_own_output_is_another(bundled, run_through):
    rec = run_through(bundled, TEXT)
    layer = rec.layers[4]
    output = layer.inside.output.clone()
    output[7, 3] += 0.25
    changed = replace(layer, inside=layer.inside._replace(output=output))
    shares = measure_shares([*rec.layers[:4], changed], units_of_words(rec.tokens))
    assert shares.difference[4, 7] == pytest.approx(0.25, abs=1e-5)
    assert np.delete(shares.difference.ravel(), 4 * 12 + 7).max() <= 5e-6


def test_difference_in_the_first_row_of_a_strip_is_told_and_one_of_values_in_half_precision(bundled, run_through):
    rec = run_through(bundled, "the cat sat")
    layer, units = rec.layers[0], units_of_words(rec.tokens)
    output = layer.inside.output.clone()
    output[7, 0] += 0.25
    changed = replace(layer, inside=layer.inside._replace(output=output))
    assert layer.inside.rows[0] == 0
    assert measure_shares([changed], units).difference[0, 7] == pytest.approx(0.25, abs=1e-5)
    halved = replace(layer, v=layer.v.half())
    assert 0 < measure_shares([halved], units).difference.max() < 1e-2


def test_difference_is_the_layers_where_it_is_not_known_which_rows_were_compared(bundled, run_through):
    rec = run_through(bundled, "the cat sat")
    layer = rec.layers[0]
    unknown = replace(layer, inside=layer.inside._replace(rows=None), difference=0.125)
    assert (measure_shares([unknown], units_of_words(rec.tokens)).difference == 0.125).all()


def test_choice_has_the_shares_of_all_that_could_be_chosen_and_says_how_far_it_is(make_model, run_through):
    rec = run_through(make_model(), "the cat sat")
    seen = []
    choice = choose(rec, units_of_words(rec.tokens), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 8), (8, 8)]
    np.testing.assert_array_equal(choice.shares.to_others, measured(rec).to_others)
    assert choice[:2] == choice.shares.best()


def test_difference_of_a_recording_is_its_layers_from_when_it_was_recorded(bundled):
    rec = softmap.record(TEXT, bundled, summary=False)
    assert all((measured(rec).difference == [[layer.difference] for layer in rec.layers]).all(axis=1))
    unknown = replace(rec.layers[2], difference=None)
    assert np.isnan(measure_shares([unknown], units_of_words(rec.tokens)).difference).all()


def test_text_of_one_word_looks_at_no_other_word(bundled, run_through):
    shares = measured(run_through(bundled, "unbelievability"))
    assert not shares.to_others.any()
    assert shares.best() == np.unravel_index(shares.to_special.argmin(), (6, 12))
    assert shares.best(layer=1) == (1, shares.to_special[1].argmin())


def test_best_head_is_the_one_that_looks_most_at_other_words(bundled, run_through):
    shares = measured(run_through(bundled, "I love learning"))
    by_words = np.where(shares.to_neighbour < 0.8, shares.to_others, -1)
    assert (by_words >= 0).any(axis=1).all()
    assert (by_words >= 0).any(axis=0).all()
    assert shares.best() == np.unravel_index(by_words.argmax(), (6, 12))
    for layer in range(6):
        assert shares.best(layer=layer) == (layer, by_words[layer].argmax())
    for head in range(12):
        assert shares.best(head=head) == (by_words[:, head].argmax(), head)


def test_neighbour_is_the_token_before_or_after_whichever_gets_more(bundled, run_through):
    rec = run_through(bundled, "I love learning")
    shares = measured(rec)
    for layer, head in ((0, 2), (3, 1), (5, 11)):
        weights = rec[layer, head].dense()
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


def test_progress_counts_heads_a_layer_at_a_time(make_model, run_through):
    rec = run_through(make_model(), "the cat sat")
    seen = []
    measure_shares(rec.layers, units_of_words(rec.tokens), lambda done, total: seen.append((done, total)))
    assert seen == [(4, 8), (8, 8)]


@pytest.mark.parametrize(("layer", "head"), [(None, None), (0, None), (None, 11), (5, 11), (0, 0), (np.int64(5), 0)])
def test_layer_and_head_the_model_has_are_let_through(bundled, run_through, layer, head):
    check_head(run_through(bundled, "cat"), layer, head)


@pytest.mark.parametrize(
    ("layer", "head", "message"),
    [
        (6, None, "layer: expected a number from 0 to 5, got 6. Layers count from 0."),
        (-1, 0, "layer: expected a number from 0 to 5, got -1. Layers count from 0."),
        (True, 0, "layer: expected a number from 0 to 5, got True. Layers count from 0."),
        ("3", 0, "layer: expected a number from 0 to 5, got '3'. Layers count from 0."),
        (None, 12, "head: expected a number from 0 to 11, got 12. Heads count from 0."),
        (5, -1, "head: expected a number from 0 to 11, got -1. Heads count from 0."),
        (6, 12, "layer: expected a number from 0 to 5, got 6. Layers count from 0."),
    ],
)
def test_layer_or_head_the_model_has_not_is_refused(bundled, run_through, layer, head, message):
    with pytest.raises(ParameterError) as refusal:
        check_head(run_through(bundled, "cat"), layer, head)
    assert str(refusal.value) == message


def test_of_an_encoder_decoder_the_encoder_can_be_told_and_others_are_refused_by_name(make_model, run_through):
    rec = run_through(make_model("bart", encoder_layers=2, decoder_layers=1), "the cat sat")
    assert len(rec) == 4
    assert tellable(rec) == (0, 1)
    assert choose(rec, units_of_words(rec.tokens)).among == (0, 1)
    with pytest.raises(ParameterError, match=r"number from 0 to 1, got 3\. That is decoder.*, decoder cross attention"):
        check_head(rec, 3, 0)
    with pytest.raises(ParameterError, match=r"got 2\. That is decoder.layers.0.self_attn, decoder self attention"):
        check_head(rec, 2, None)


def test_layers_that_can_be_told_are_listed_where_they_do_not_follow_each_other(bundled, run_through):
    rec = run_through(bundled, "the cat sat")
    layers = tuple(replace(layer, queries_of=None) if i in (1, 2) else layer for i, layer in enumerate(rec.layers))
    rec = replace(rec, sequences=(replace(rec.sequences[0], layers=layers),))
    assert choose(rec, units_of_words(rec.tokens), layer=4).layer == 4
    with pytest.raises(ParameterError, match="one of 0, 3, 4, 5, got 1"):
        check_head(rec, 1, None)


def test_layers_that_were_kept_go_by_their_numbers_in_the_model(bundled):
    rec = softmap.record(TEXT, bundled, layers=[1, 3])
    units = units_of_words(rec.tokens)
    assert tellable(rec) == (1, 3)
    choice = choose(rec, units, layer=3)
    assert (choice.layer, choice.among) == (3, (1, 3))
    assert choice.head == measure_shares(rec.layers, units).best(layer=1)[1]  # its row is the second
    assert choose(rec, units, head=2).layer in (1, 3)
    with pytest.raises(ParameterError, match="layer: expected one of 1, 3, got 0"):
        check_head(rec, 0, None)


def test_layers_of_several_numbers_of_heads_are_refused_unless_both_are_named(make_model, run_through):
    one, other = run_through(make_model(), "the cat"), run_through(make_model(num_attention_heads=8), "the cat")
    layers = tuple(replace(layer, number=i) for i, layer in enumerate(one.layers + other.layers))
    mixed = replace(one, sequences=(replace(one.sequences[0], layers=layers),))
    units = units_of_words(one.tokens)
    with pytest.raises(
        RecordingError,
        match=r"^layers to choose from: expected one number of heads, got 4 and 8\. Name both a layer and a head",
    ):
        choose(mixed, units, layer=0)
    assert choose(mixed, units, layer=2, head=7)[:3] == (2, 7, (0, 1, 2, 3))
    with pytest.raises(ParameterError, match="head: expected a number from 0 to 3, got 7"):
        choose(mixed, units, layer=0, head=7)


def test_recording_without_a_text_can_not_be_told(bundled):
    vit = softmap.record("the cat", bundled, summary=False)
    layers = tuple(replace(layer, queries_of=None, keys_of=None) for layer in vit.layers)
    with pytest.raises(
        RecordingError,
        match=r"^recording: expected a layer in which the tokens of the text look at each other, got none in BertModel\. "
        r"rec\[layer\] gives the matrices of the layers that there are\.$",
    ):
        tellable(replace(vit, sequences=(replace(vit.sequences[0], layers=layers),)))
