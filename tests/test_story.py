from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

import softmap
from softmap.errors import ParameterError, RecordingError, RowError, TextError
from softmap.story import softmax_gradient_norm

SENTENCE = "The embeddings disagreed."  # "embeddings" is three pieces
TEXT = "The unbelievable cat sat on a mat."
DECODERS = {
    "gpt2": {},
    "llama": {"num_key_value_heads": 2},
    "gemma2": {
        **{"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4, "attn_logit_softcapping": 5.0},
        **{"query_pre_attn_scalar": 8, "layer_types": ["sliding_attention", "full_attention"]},
    },
    "gpt_oss": {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
}


@pytest.fixture(scope="module")
def story(bundled):
    return softmap.explain(SENTENCE, bundled, layer=3, head=1, lang="en")


@pytest.fixture(scope="module")
def long_xlm_roberta(make_model, make_tokenizer):
    """A small model of random weights that takes 4,094 tokens."""
    return make_model("xlm-roberta", tokenizer=make_tokenizer(limit=4094), max_position_embeddings=4096)


@pytest.fixture(scope="module")
def make_decoder(make_model):
    """A small decoder of random weights, by its architecture."""
    return lambda architecture, **changes: make_model(architecture, **DECODERS[architecture], **changes)


@pytest.fixture(scope="module")
def recording(bundled):
    """What `softmap.record` keeps of the sentence."""
    return softmap.record(SENTENCE, bundled)


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
    with pytest.raises(TextError, match="expected a string, a recording, steps or softmap"):
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
    layer = softmap.record(text, long_xlm_roberta, summary=False).layers[1]
    weights = (layer.q[0].double() @ layer.k[0].double().T * layer.scale).softmax(-1)
    rows = slice(story.queries.start, story.queries.stop)
    np.testing.assert_allclose(story.steps.weights, weights[rows], atol=1e-6)
    np.testing.assert_allclose(story.steps.output, (weights @ layer.v[0].double())[rows], atol=1e-5)
    assert (story.steps.x, story.biases) == (None, ("q", "k", "v"))
    assert story.source.compared == 16
    assert story.source.difference < 5e-6


def test_story_is_frozen_and_its_repr_short(story):
    with pytest.raises(dataclasses.FrozenInstanceError):
        story.row = 0
    assert len(repr(story)) < 200
    assert "layer 3, head 1" in repr(story)


def test_model_without_its_tokenizer_is_refused_with_what_to_do(bundled):
    with pytest.raises(
        TextError, match=r"a model with its tokenizer.*softmap.models.LoadedModel\(model, tokenizer, name"
    ):
        softmap.explain("I love learning", bundled.model)


# Recordings


def test_story_of_a_recording_has_the_numbers_of_the_text_s_own(bundled, recording):
    of_text = softmap.explain(SENTENCE, bundled, row="embeddings", lang="en")
    story = softmap.explain(recording, row="embeddings", lang="en")
    assert (story.source.layer, story.source.head) == (of_text.source.layer, of_text.source.head)
    assert (story.text, story.words, story.row) == (of_text.text, of_text.words, of_text.row)
    for stage in ("q", "k", "v", "scores", "scaled", "weights", "output"):
        np.testing.assert_allclose(getattr(story.steps, stage), getattr(of_text.steps, stage), rtol=0, atol=1e-4)
    assert (story.steps.x, story.biases) == (None, None)  # a recording keeps neither


def test_recording_from_files_is_told_as_it_was(recording, tmp_path):
    recording.save(tmp_path / "run")
    told = softmap.explain(softmap.load(tmp_path / "run"), layer=3, head=1, lang="en")
    before = softmap.explain(recording, layer=3, head=1, lang="en")
    np.testing.assert_allclose(told.steps.weights, before.steps.weights, rtol=0, atol=1e-6)
    assert told.source.difference == recording.layers[3].difference
    assert told.source.compared is None
    assert str(told) == str(before)


def test_recording_of_ones_own_run_is_told(bundled):
    tokens = softmap.explain(SENTENCE, bundled, layer=0, head=0).tokens
    with softmap.recording(bundled) as rec, torch.no_grad():
        bundled.model(input_ids=torch.tensor([tokens.ids]))
    story = softmap.explain(rec, layer=3, head=1)
    assert story.tokens.pieces == tokens.pieces
    assert story.words[story.row].label == "the"


def test_recording_of_ids_alone_is_told_by_their_numbers(bundled):
    from softmap.models import LoadedModel

    rec = softmap.record([101, 1045, 2293, 4083, 102], LoadedModel(bundled.model, None, "no words"))
    story = softmap.explain(rec, layer=3, head=1, row="2293", lang="en")
    assert [word.label for word in story.words] == ["101", "1045", "2293", "4083", "102"]
    assert story.row == 2


def test_values_that_were_not_kept_leave_the_output_out(bundled):
    story = softmap.explain(softmap.record(SENTENCE, bundled, keep_values=False), layer=3, head=1, lang="en")
    assert (story.steps.v, story.steps.output, story.norms, story.contributions) == (None, None, None, None)
    assert "there is no output to tell" in str(story)
    assert "z(" not in str(story)
    assert '"contributions": null' in story.json()
    assert "no output to tell" in story.html()
    story.figure()


def test_recording_of_some_layers_says_which_they_are_in_the_model(bundled):
    story = softmap.explain(softmap.record(SENTENCE, bundled, layers=[2, 5]), lang="en", layer=5)
    assert (story.source.layers, story.source.layer, story.source.told) == (2, 5, (2, 5))
    assert story.source.path == "encoder.layer.5.attention.self"
    told = " ".join(str(story).split())
    assert "2 layers of 12 heads. This is layer 5," in told
    assert (
        "holds 2 of the model's attention layers, by their numbers in the model. This one is encoder.layer.5." in told
    )
    assert [line.split()[-13] for line in str(story).splitlines() if line.count("%") == 12] == ["2", "5"]


def test_layer_of_a_recording_has_the_numbers_that_the_models_own_has(bundled, recording):
    some = softmap.explain(softmap.record(SENTENCE, bundled, layers=[1, 3]), layer=3, head=1)
    whole = softmap.explain(recording, layer=3, head=1)
    np.testing.assert_allclose(some.steps.weights, whole.steps.weights, rtol=0, atol=1e-5)
    with pytest.raises(ParameterError, match="layer: expected one of 1, 3, got 0"):
        softmap.explain(softmap.record(SENTENCE, bundled, layers=[1, 3]), layer=0)


def test_recording_that_was_cut_off_before_its_text_was_written_is_refused(recording):
    sequences = (dataclasses.replace(recording.sequences[0], tokens=None),)
    with pytest.raises(RecordingError, match=r"the tokens of a text, got none\. A text is written last"):
        softmap.explain(dataclasses.replace(recording, sequences=sequences, partial="layers from 6 on"))


def test_recording_in_another_dtype_says_that_its_numbers_are_rounded(bundled):
    story = softmap.explain(softmap.record(SENTENCE, bundled, dtype="float16"), layer=3, head=1, lang="en")
    assert story.steps.q.dtype == np.float32
    assert "keeps q, k and v in float16" in " ".join(str(story).split())


def test_recording_that_was_cut_off_says_what_is_missing(recording):
    story = softmap.explain(dataclasses.replace(recording, partial="layers from 6 on"), layer=3, head=1, lang="en")
    assert "The recording is incomplete: layers from 6 on." in str(story)


def test_batch_of_several_sequences_is_refused(bundled):
    rec = softmap.record(torch.tensor([[101, 1045, 102], [101, 2293, 102]]), bundled)
    with pytest.raises(RecordingError, match=r"expected one sequence, got a batch of 2.*rec.batch\(0\)"):
        softmap.explain(rec)
    assert softmap.explain(rec.batch(1)).words[1].label == "love"


def test_recording_of_statistics_alone_is_refused(bundled):
    rec = softmap.record(SENTENCE, bundled, statistics_only=True)
    for asked in ({}, {"layer": 3, "head": 1}):
        with pytest.raises(RecordingError, match="expected q and k in the recording, got statistics alone"):
            softmap.explain(rec, **asked)


def test_recording_without_a_text_is_refused(recording):
    silent = dataclasses.replace(recording.sequences[0], tokens=None)
    with pytest.raises(RecordingError, match="expected the tokens of a text, got none"):
        softmap.explain(dataclasses.replace(recording, sequences=(silent,)))


def test_recording_of_special_tokens_alone_is_refused(bundled):
    with pytest.raises(RecordingError, match="expected the tokens of a text, got special tokens alone"):
        softmap.explain(softmap.record([101, 102], bundled))


@pytest.mark.parametrize(
    ("given", "named"), [({"model": "x"}, "model"), ({"truncate": True, "model": "x"}, "model and truncate")]
)
def test_model_beside_a_recording_is_refused(recording, given, named):
    with pytest.raises(ParameterError, match=f"a recording: expected neither model nor truncate, got {named}"):
        softmap.explain(recording, **given)


def test_recording_that_is_still_open_is_refused(bundled):
    with softmap.recording(bundled) as rec:
        with pytest.raises(RecordingError, match="a block that was left, got one that is open"):
            softmap.explain(rec)
        bundled.model(input_ids=torch.tensor([[101, 2293, 102]]))


# What models do besides


@pytest.mark.parametrize("architecture", DECODERS)
def test_decoder_is_told_with_its_own_weights(make_decoder, architecture):
    loaded = make_decoder(architecture)
    ids = torch.tensor([softmap.explain(TEXT, loaded, layer=0, head=0).tokens.ids])
    loaded.model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = loaded.model(ids, output_attentions=True).attentions
    for layer in (0, 1):
        story = softmap.explain(TEXT, loaded, layer=layer, head=2, lang="en")
        np.testing.assert_allclose(story.steps.weights, attentions[layer][0, 2], rtol=0, atol=2e-6)
        assert story.source.difference < 2e-6
        assert story.source.compared == len(story.tokens)
        assert (story.steps.x, story.biases) == (None, None)


def test_of_a_decoder_the_last_word_is_pointed_out_which_sees_all(make_decoder):
    story = softmap.explain(TEXT, make_decoder("llama"), lang="en")
    assert story.words[story.row].label == "."
    assert story.visible[story.row, : story.row + 1].all()
    asked = softmap.explain(TEXT, make_decoder("llama"), row="cat")
    assert asked.words[asked.row].label == "cat"


def test_words_see_what_any_of_their_tokens_see(make_decoder):
    story = softmap.explain(TEXT, make_decoder("gemma2"), layer=0, head=0)  # a window of 4 tokens
    labels = [word.label for word in story.words]
    assert labels[:4] == ["[CLS]", "The", "unbelievable", "cat"]  # unbelievable has three tokens
    assert story.visible[2].tolist() == [True, True, True, *[False] * (len(labels) - 3)]
    assert story.visible[3].tolist() == [False, False, True, True, *[False] * (len(labels) - 4)]


def test_row_of_a_decoder_s_long_text_equals_that_of_the_whole_matrix(make_decoder, make_tokenizer):
    loaded = make_decoder("gemma2", tokenizer=make_tokenizer(limit=1200), max_position_embeddings=1200)
    text = "I love the cat " * 180 + "mat"
    for layer in (0, 1):
        story = softmap.explain(text, loaded, layer=layer, head=3)
        assert story.queries == range(721, 722)
        assert story.words[story.row].label == "mat"
        ids = torch.tensor([story.tokens.ids])
        loaded.model.set_attn_implementation("eager")
        with torch.no_grad():
            weights = loaded.model(ids, output_attentions=True).attentions[layer][0, 3, 721]
        np.testing.assert_allclose(story.steps.weights[0], weights, rtol=0, atol=2e-6)
        assert "mat" in str(story)


def test_sink_takes_its_share_of_every_row(make_decoder):
    story = softmap.explain(TEXT, make_decoder("gpt_oss"), layer=1, head=0, lang="en")
    sink = np.exp(story.added.sink)
    expected = sink / (np.exp(story.steps.scaled.astype(float)).sum(axis=1) + sink)
    assert expected.min() > 0
    np.testing.assert_allclose(story.steps.weights.sum(axis=1), 1 - expected, rtol=1e-5)
    np.testing.assert_allclose(story.sink_shares[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(story.sink_shares[2], expected[2:5].mean(), rtol=1e-5)  # a word of three tokens
    unscaled = np.where(np.isfinite(story.steps.scaled), story.steps.scores, -np.inf).astype(float)
    of_scores = np.exp(unscaled) / (np.exp(unscaled).sum(axis=1, keepdims=True) + sink)
    np.testing.assert_allclose(story.unscaled_weights, of_scores, rtol=0, atol=1e-6)


def test_without_the_scale_all_else_stays_as_the_model_has_it(make_decoder):
    story = softmap.explain(TEXT, make_decoder("gemma2"), layer=0, head=1)
    capped = 5.0 * np.tanh(story.steps.scores.astype(float) / 5.0)
    capped[~np.isfinite(story.steps.scaled)] = -np.inf
    expected = torch.from_numpy(capped).softmax(-1)
    np.testing.assert_allclose(story.unscaled_weights, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(story.gradient_norms[0], softmax_gradient_norm(capped), rtol=1e-3, atol=1e-6)


def test_without_the_scale_a_bias_is_added_as_it_is(make_model):
    story = softmap.explain(TEXT, make_model("t5", d_kv=8, d_ff=64), layer=0, head=1)
    assert story.steps.scale == 1
    np.testing.assert_allclose(story.unscaled, story.steps.scaled, rtol=0, atol=1e-5)
    assert not np.allclose(story.steps.scores, story.steps.scaled, atol=1e-3)


def test_values_may_be_narrower_than_keys(make_model):
    ranks = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1}
    more = {"num_key_value_heads": 4, "moe_intermediate_size": 16, "first_k_dense_replace": 1}
    story = softmap.explain(TEXT, make_model("deepseek_v3", **ranks, **experts, **more), layer=1, head=3, lang="en")
    assert (story.steps.q.shape[1], story.steps.k.shape[1], story.steps.v.shape[1]) == (12, 12, 6)
    assert story.steps.d_k == 12
    total = (story.steps.weights[:, :, None] * story.steps.v[None]).sum(axis=1)
    np.testing.assert_allclose(total, story.steps.output, atol=1e-6)
    assert story.source.difference < 2e-6
    assert "v 12 × 6" in str(story)


def test_of_an_encoder_decoder_the_encoder_is_told(make_model):
    loaded = make_model("bart", encoder_layers=2, decoder_layers=1)
    story = softmap.explain(TEXT, loaded, lang="en")
    assert story.source.told == (0, 1)
    assert story.source.layers == 4
    assert story.source.path == f"encoder.layers.{story.source.layer}.self_attn"
    assert story.source.shares.to_others.shape == (2, 4)
    with pytest.raises(ParameterError, match=r"number from 0 to 1, got 2\. That is decoder"):
        softmap.explain(TEXT, loaded, layer=2)


@pytest.mark.parametrize("sink", [-3.0, 0.0, 2.5])
def test_gradient_norm_beside_a_sink_is_that_of_the_jacobian(sink):
    scores = torch.randn(4, 5, dtype=torch.float64)

    def weights(row):
        return torch.cat([row, torch.tensor([sink])]).softmax(-1)[:-1]

    expected = [torch.linalg.matrix_norm(torch.autograd.functional.jacobian(weights, row)) for row in scores]
    np.testing.assert_allclose(softmax_gradient_norm(scores.numpy(), sink), torch.stack(expected), rtol=1e-10)


def test_gradient_norm_of_hidden_keys_is_that_of_the_others():
    scores = np.array([[1.0, -np.inf, 2.0, -np.inf], [3.0, -np.inf, -np.inf, -np.inf], [-np.inf] * 4])
    found = softmax_gradient_norm(scores)
    np.testing.assert_allclose(found[0], softmax_gradient_norm(np.array([[1.0, 2.0]])))
    assert found[1:].tolist() == [0, 0]  # one key alone, and none
    assert softmax_gradient_norm(scores, 0.5)[2] == 0
