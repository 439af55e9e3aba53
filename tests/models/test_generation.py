"""Recordings of runs that continue each other: caches, chunks and generation."""

from __future__ import annotations

import contextlib
from copy import deepcopy

import pytest
import torch
from decoders import VOCABULARY, assert_same_weights, eager, ids_of

import softmap
from softmap.errors import ModelError, ParameterError


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {}),
        ("mistral", {"sliding_window": 8}),
        ("gemma2", {"sliding_window": 8, "head_dim": 8}),
        ("gpt_oss", {"sliding_window": 8, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}),
    ],
)
def test_generation_is_one_matrix_of_all_queries_against_all_keys(make_decoder, kind, changes):
    model = make_decoder(kind, **changes)
    prompt = ids_of(11)
    with softmap.recording(model) as rec:
        output = model.generate(prompt, max_new_tokens=21, min_new_tokens=21, do_sample=False)
    read = output[:, :-1]  # the last one was made, and not read
    assert rec.layers[0].shape == (4, 31, 31)
    assert rec.tokens.ids == tuple(read[0].tolist())
    assert_same_weights(rec.recording, eager(model, input_ids=read).attentions)
    whole = softmap.record(read, model)
    for grown, at_once in zip(rec.layers, whole.layers, strict=True):
        torch.testing.assert_close(grown.summary.received, at_once.summary.received, atol=1e-4, rtol=0)
        torch.testing.assert_close(grown.summary.cells.sum, at_once.summary.cells.sum, atol=1e-4, rtol=0)


def test_generation_with_a_cache_of_fixed_size_is_the_same(llama):
    prompt = ids_of(9)
    with softmap.recording(llama) as rec:
        output = llama.generate(
            prompt,
            max_new_tokens=6,
            min_new_tokens=6,
            do_sample=False,
            cache_implementation="static",
            disable_compile=True,
        )
    assert_same_weights(rec.recording, eager(llama, input_ids=output[:, :-1]).attentions)


def test_generation_of_a_padded_batch_is_one_matrix_for_each_sequence(llama):
    ids = ids_of(8, batch=2)
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    with softmap.recording(llama) as rec:
        output = llama.generate(ids, attention_mask=mask, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    for item, first in ((0, 0), (1, 3)):
        alone = output[item : item + 1, first:-1]
        assert rec.batch(item).tokens.ids == tuple(alone[0].tolist())
        assert_same_weights(rec.batch(item), eager(llama, input_ids=alone).attentions)


def test_beam_search_is_refused_since_its_cache_changes_places(llama):
    with pytest.raises(ModelError, match="beam"), softmap.recording(llama):
        llama.generate(ids_of(6), max_new_tokens=12, num_beams=3, do_sample=False, early_stopping=False)


@pytest.mark.parametrize("chunk", [1, 5, 14, 100])
def test_chunks_give_the_matrix_of_the_whole(llama, chunk):
    ids = ids_of(14)
    rec = softmap.record(ids, llama, chunk=chunk)
    assert_same_weights(rec, eager(llama, input_ids=ids).attentions)
    assert repr(rec.layers[0].mask) == "causal(offset=0)"


def test_chunks_of_a_padded_batch_are_trimmed(make_decoder):
    model = make_decoder("mistral", sliding_window=4)
    ids = ids_of(13, batch=2)
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    rec = softmap.record({"input_ids": ids, "attention_mask": mask}, model, chunk=5)
    for item, first in ((0, 0), (1, 7)):
        attentions = eager(model, input_ids=ids[item : item + 1, first:]).attentions
        assert_same_weights(rec.batch(item), attentions)


def test_two_texts_in_one_recording_are_refused(llama):
    with pytest.raises(ModelError, match="continue at 5"), softmap.recording(llama):  # noqa: PT012  # the second raises
        llama(input_ids=ids_of(5), use_cache=False)
        llama(input_ids=ids_of(5), use_cache=False)


def test_run_that_failed_is_not_passed_over(llama):
    with pytest.raises(ModelError, match="one that failed"), softmap.recording(llama):  # noqa: PT012  # at its end
        output = llama(input_ids=ids_of(5), use_cache=True)
        with contextlib.suppress(IndexError):
            llama(input_ids=torch.tensor([[VOCABULARY + 5]]), past_key_values=output.past_key_values)


def test_chunks_of_a_model_without_a_cache_are_refused(bundled):
    with pytest.raises(ParameterError, match="decoder"):
        softmap.record("I love learning", bundled, chunk=2)


def test_chunks_are_written_too(llama, tmp_path):
    softmap.record(ids_of(12), llama, chunk=5, out=tmp_path / "run.softmap")
    assert_same_weights(softmap.load(tmp_path / "run.softmap"), eager(llama, input_ids=ids_of(12)).attentions)


@pytest.mark.parametrize("kind", ["bart", "t5", "whisper"])
def test_generation_of_an_encoder_decoder_is_a_matrix_of_each_kind(make_seq2seq, kind):
    model = make_seq2seq(kind)
    given = {"input_features": torch.randn(1, 8, 20)} if kind == "whisper" else {"input_ids": ids_of(9)}
    with softmap.recording(model) as rec:
        output = model.generate(**given, max_new_tokens=7, min_new_tokens=7, do_sample=False)
    read = output[:, :7] if kind != "whisper" else rec.target and torch.tensor([rec.target.ids])
    expected = eager(model, **given, decoder_input_ids=read)
    tuples = {
        ("encoder", "self"): expected.encoder_attentions,
        ("decoder", "self"): expected.decoder_attentions,
        ("decoder", "cross"): expected.cross_attentions,
    }
    for (part, of), attentions in tuples.items():
        found = [layer for layer in rec.layers if (layer.part, layer.kind) == (part, of)]
        assert len(found) == len(attentions)
        for layer, weights in zip(found, attentions, strict=True):
            torch.testing.assert_close(layer.matrix.dense(), weights[0], atol=2e-6, rtol=0)
    assert rec.target.ids == tuple(read[0].tolist())


@pytest.mark.parametrize("options", [{"num_beams": 2}, {"num_return_sequences": 2, "do_sample": True}])
def test_several_answers_to_one_input_are_refused(make_seq2seq, options):
    model = make_seq2seq("bart")
    with pytest.raises(ModelError, match="num_return_sequences=1"), softmap.recording(model):
        model.generate(ids_of(9), max_new_tokens=2, **options)


def test_samples_of_a_decoder_are_sequences_of_a_batch(llama):
    with softmap.recording(llama) as rec:
        output = llama.generate(ids_of(6), max_new_tokens=4, min_new_tokens=4, do_sample=True, num_return_sequences=3)
    for item in range(3):
        assert_same_weights(rec.batch(item), eager(llama, input_ids=output[item : item + 1, :-1]).attentions)


def test_generation_in_bfloat16_is_the_matrix_of_its_own_rounding(make_decoder):
    model = make_decoder().bfloat16()
    with softmap.recording(model) as rec:
        model.generate(ids_of(6), max_new_tokens=5, min_new_tokens=5, do_sample=False)
    layer = rec.layers[1]
    assert layer.q.dtype == torch.bfloat16
    scaled = (layer.q.double() @ layer.k.double().repeat_interleave(2, 0).mT * layer.scale).masked_fill(
        torch.ones(10, 10).triu(1).bool(), -torch.inf
    )
    torch.testing.assert_close(layer.matrix.dense().double(), scaled.softmax(-1), atol=1e-5, rtol=0)


def test_keys_that_change_between_runs_are_refused_whichever_they_are(llama):
    for layers in (None, [1]):
        with pytest.raises(ModelError, match="same keys"), softmap.recording(llama, layers=layers):  # noqa: PT012
            cache = llama(input_ids=ids_of(8), use_cache=True).past_key_values
            cache.layers[0].keys[:, :, 1:3] *= 0.9
            llama(input_ids=ids_of(1), past_key_values=cache)


def test_cache_that_changes_places_is_refused(llama):
    prompts = torch.tensor([[10, 11, 5], [10, 12, 5]])
    with pytest.raises(ModelError, match="same keys"), softmap.recording(llama, layers=[0]):  # noqa: PT012
        cache = llama(input_ids=prompts, use_cache=True).past_key_values
        cache.reorder_cache(torch.tensor([0, 0]))
        llama(input_ids=torch.tensor([[7], [8]]), past_key_values=cache)


def test_recording_keeps_its_keys_when_the_cache_is_used_again(llama):
    from transformers import StaticCache

    ids, cache = ids_of(8), StaticCache(config=llama.config, max_cache_len=12)
    with softmap.recording(llama) as rec:
        llama(input_ids=ids, past_key_values=cache)
    cache.reset()
    assert rec.layers[0].shape == (4, 8, 8)
    assert_same_weights(rec.recording, eager(llama, input_ids=ids).attentions)


@pytest.mark.parametrize("prompt", [5, 11])
@pytest.mark.parametrize("kind", ["mistral", "gemma2"])
def test_generation_with_a_cache_of_fixed_size_and_a_window_is_the_same(make_decoder, kind, prompt):
    model = make_decoder(kind, sliding_window=8, **({"head_dim": 8} if kind == "gemma2" else {}))
    with softmap.recording(model) as rec:
        output = model.generate(
            ids_of(prompt),
            max_new_tokens=9,
            min_new_tokens=9,
            do_sample=False,
            cache_implementation="static",
            disable_compile=True,
        )
    assert_same_weights(rec.recording, eager(model, input_ids=output[:, :-1]).attentions)


LAYERS = ["sliding_attention", "full_attention"]


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("qwen3", {"head_dim": 8}),
        ("cohere2", {"sliding_window": 4, "layer_types": LAYERS}),
        ("gemma3_text", {"head_dim": 8, "sliding_window": 5, "layer_types": LAYERS}),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    ],
)
def test_generation_of_layers_of_several_kinds_with_a_cache_of_fixed_size_is_the_same(
    make_decoder, kind, changes, count
):
    """Generation asks for the masks of such models before it runs them."""
    model = make_decoder(kind, **changes)
    model.set_attn_implementation("sdpa")
    options = {"do_sample": False, "cache_implementation": "static", "disable_compile": True, "eos_token_id": None}
    with softmap.recording(model) as rec:
        output = model.generate(ids_of(9), max_new_tokens=count, **options)
    model.set_attn_implementation("eager")
    attentions = [each for each in eager(model, input_ids=output[:, :-1]).attentions if each is not None]
    assert_same_weights(rec.recording, attentions)


def test_model_whose_masks_do_not_say_what_a_fixed_cache_holds_is_refused_with_what_works(make_decoder):
    options = {"max_new_tokens": 3, "cache_implementation": "static", "disable_compile": True, "eos_token_id": None}
    model = make_decoder("doge")
    with pytest.raises(ModelError, match="where the cache holds 9 tokens"), softmap.recording(model):
        model.generate(ids_of(9), **options)


def test_second_continuation_of_what_was_read_before_is_said_to_be_so(llama):
    with torch.no_grad():
        cache = llama(ids_of(7), use_cache=True).past_key_values
    with pytest.raises(ModelError, match="a second continuation"), softmap.recording(llama):  # noqa: PT012
        for _ in range(2):
            llama(ids_of(5), past_key_values=deepcopy(cache))


@pytest.mark.parametrize("options", [{"guidance_scale": 1.5}, {"guidance_scale": 1.5, "use_cache": False}])
def test_second_text_that_generate_reads_by_itself_is_said_to_be_so(llama, options):
    with pytest.raises(ModelError, match=r"in one generate\. .*guidance_scale"), softmap.recording(llama):
        llama.generate(ids_of(8), max_new_tokens=3, eos_token_id=None, **options)


def test_whisper_that_hears_a_second_window_is_refused_with_what_works(make_seq2seq):
    model = make_seq2seq("whisper")
    model.generation_config.no_timestamps_token_id = 50
    model.generation_config.is_multilingual = False
    with pytest.raises(ModelError, match=r"in one generate\. .*longer than its window"), softmap.recording(model):
        model.generate(torch.randn(1, 8, 50), return_timestamps=True, max_new_tokens=6)


def test_second_generate_is_a_second_text(llama):
    with pytest.raises(ModelError, match="a second text"), softmap.recording(llama):  # noqa: PT012  # the second raises
        for _ in range(2):
            llama.generate(ids_of(8), max_new_tokens=3, do_sample=False, eos_token_id=None)
