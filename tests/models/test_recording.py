"""Recordings of runs: caches, chunks, batches, selected layers, what is kept, and what is refused."""

from __future__ import annotations

import contextlib

import pytest
import torch

import softmap
from softmap.errors import DtypeError, ModelError, ParameterError, RecordingError, TextError

VOCABULARY = 60
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}


@pytest.fixture(scope="module")
def make_decoder():
    """A small random decoder, by the name of its architecture."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    def make(kind="llama", **changes):
        torch.manual_seed(0)
        config = CONFIG_MAPPING[kind](**SIZES | changes)
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()

    return make


@pytest.fixture(scope="module")
def llama(make_decoder):
    return make_decoder()


def ids_of(count, batch=1):
    return torch.randint(1, VOCABULARY, (batch, count), generator=torch.Generator().manual_seed(count))


def eager(model, **inputs):
    with torch.no_grad():
        return model(**inputs, output_attentions=True, use_cache=False)


def assert_same_weights(rec, attentions, item=0, real=slice(None)):
    assert len(rec) == len(attentions)
    for layer, weights in zip(rec, attentions, strict=True):
        torch.testing.assert_close(layer.dense(), weights[item, :, real, real], atol=2e-6, rtol=0)


def test_recording_holds_the_models_own_weights_and_output(llama):
    ids = ids_of(14)
    expected = eager(llama, input_ids=ids)
    with softmap.recording(llama) as rec:
        output = llama(input_ids=ids)
    torch.testing.assert_close(output.logits, expected.logits, atol=1e-5, rtol=0)
    assert_same_weights(rec.recording, expected.attentions)
    assert [layer.path for layer in rec.layers] == ["model.layers.0.self_attn", "model.layers.1.self_attn"]
    assert all(layer.difference < 1e-5 for layer in rec.layers)
    assert rec.tokens.ids == tuple(ids[0].tolist())


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


def test_padded_batch_is_trimmed_on_either_side(llama):
    ids = ids_of(10, batch=2)
    mask = torch.ones_like(ids)
    mask[0, 7:], mask[1, :4] = 0, 0
    expected = eager(llama, input_ids=ids, attention_mask=mask)
    rec = softmap.record({"input_ids": ids, "attention_mask": mask}, llama)
    assert_same_weights(rec.batch(0), expected.attentions, 0, slice(0, 7))
    assert_same_weights(rec.batch(1), expected.attentions, 1, slice(4, 10))
    with pytest.raises(RecordingError, match=r"rec\.batch\(0\)"):
        rec[0]
    with pytest.raises(ParameterError, match="from 0 to 1"):
        rec.batch(2)


def test_holes_in_a_mask_stay_in_the_matrix(llama):
    ids = ids_of(6)
    mask = torch.tensor([[1, 1, 0, 1, 1, 1]])
    expected = eager(llama, input_ids=ids, attention_mask=mask)
    rec = softmap.record({"input_ids": ids, "attention_mask": mask}, llama)
    seen = mask[0].bool()
    found = rec[0].dense()
    torch.testing.assert_close(found[:, seen], expected.attentions[0][0][:, seen], atol=2e-6, rtol=0)
    assert float(found[:, :, 2].abs().max()) == 0


def test_mask_that_the_user_made_is_taken_as_it_is(llama):
    ids = ids_of(6)
    mask = torch.ones(1, 1, 6, 6).tril().bool()
    mask[0, 0, 4, 1] = False
    rec = softmap.record({"input_ids": ids, "attention_mask": mask}, llama)
    added = torch.zeros(1, 1, 6, 6).masked_fill(~mask, torch.finfo(torch.float32).min)
    assert_same_weights(rec, eager(llama, input_ids=ids, attention_mask=added).attentions)


def test_chosen_layers_keep_their_numbers(llama):
    rec = softmap.record(ids_of(7), llama, layers=[1])
    assert len(rec) == 1
    assert_same_weights(rec, eager(llama, input_ids=ids_of(7)).attentions[1:])
    torch.testing.assert_close(rec[1].dense(), rec.layers[0].matrix.dense())
    with pytest.raises(ParameterError, match=r"kept, 1, got 0"):
        rec[0]
    with pytest.raises(ParameterError, match="numbers from 0 to 1"):
        softmap.record(ids_of(7), llama, layers=[5])


def test_what_is_kept_is_chosen(llama):
    ids = ids_of(7)
    without_values = softmap.record(ids, llama, keep_values=False).layers[0]
    assert without_values.v is None
    assert without_values.q is not None
    alone = softmap.record(ids, llama, statistics_only=True).layers[0]
    assert (alone.q, alone.k, alone.v) == (None, None, None)
    assert alone.summary.received.shape == (4, 7)
    with pytest.raises(RecordingError, match="statistics alone"):
        _ = alone.matrix
    plain = softmap.record(ids, llama, summary=False).layers[0]
    assert plain.summary is None
    few = softmap.record(ids, llama, summary={"top": 2, "cells": 0}).layers[0].summary
    assert few.top.weights.shape == (4, 7, 2)
    assert few.cells is None


def test_statistics_are_those_of_the_matrix(llama):
    layer = softmap.record(ids_of(9), llama).layers[1]
    weights = layer.matrix.dense()
    torch.testing.assert_close(layer.summary.received, weights.sum(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(layer.summary.entropy, torch.special.entr(weights).sum(-1), atol=1e-5, rtol=0)
    assert layer.summary.output is None


def test_rounded_arrays_say_so_and_their_rows_still_sum_to_one(llama):
    rec = softmap.record(ids_of(9), llama, dtype="bfloat16")
    layer = rec.layers[0]
    assert (rec.origin.dtype, rec.origin.stored) == ("float32", "bfloat16")
    assert layer.q.dtype == torch.bfloat16
    torch.testing.assert_close(layer.matrix.dense().sum(-1), torch.ones(4, 9), atol=1e-6, rtol=0)


def test_numbers_that_a_dtype_does_not_hold_are_refused(make_decoder):
    model = make_decoder()
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.mul_(1e6)
        model.model.layers[0].self_attn.k_proj.weight.mul_(1e-6)
    with pytest.raises(ModelError, match="float16"):
        softmap.record(ids_of(9), model, dtype="float16")


def test_model_that_computes_no_numbers_is_refused_by_layer(make_decoder):
    model = make_decoder()
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight[0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"layers\.1\.self_attn.*NaN"):
        softmap.record(ids_of(4), model)


def test_dropout_is_refused_where_the_model_is_the_users_to_set(make_decoder):
    model = make_decoder(attention_dropout=0.5).train()
    with pytest.raises(ModelError, match="evaluation mode"), softmap.recording(model):
        model(input_ids=ids_of(4))
    assert softmap.record(ids_of(4), model).layers[0].shape == (4, 4, 4)
    assert model.training


def test_layer_that_computes_something_else_is_found_out(make_decoder, monkeypatch):
    from transformers.models.llama import modeling_llama

    own = modeling_llama.eager_attention_forward

    def sharper(module, query, *rest, **options):
        return own(module, query * 1.1, *rest, **options)

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", sharper)
    with pytest.raises(ModelError, match="does something that softmap does not know"):
        softmap.record(ids_of(8), make_decoder())


def test_arguments_that_may_change_the_weights_are_refused(llama):
    with pytest.raises(ModelError, match="indices"), softmap.recording(llama):
        llama(input_ids=ids_of(4), indices=torch.zeros(1))


def test_model_that_is_set_to_softmap_computes_what_it_does_without_a_recording(make_decoder):
    model = make_decoder("gemma2", sliding_window=4, head_dim=8)
    ids = ids_of(12, batch=2)
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    expected = eager(model, input_ids=ids, attention_mask=mask).logits[mask.bool()]
    model.set_attn_implementation("softmap")
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask).logits[mask.bool()]
        generated = model.generate(ids[:1], max_new_tokens=5, do_sample=False)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    model.set_attn_implementation("eager")
    assert torch.equal(generated, model.generate(ids[:1], max_new_tokens=5, do_sample=False))


def test_recording_of_a_model_that_is_set_to_softmap_leaves_it_so(make_decoder):
    model = make_decoder()
    model.set_attn_implementation("softmap")
    softmap.record(ids_of(4), model)
    assert model.config._attn_implementation == "softmap"


def test_gradients_through_softmap_are_refused(make_decoder):
    model = make_decoder()
    model.set_attn_implementation("softmap")
    with pytest.raises(ModelError, match="without gradients"):
        model(input_ids=ids_of(4))


def test_model_that_is_being_recorded_is_not_recorded_twice(llama):
    with softmap.recording(llama) as rec:
        with pytest.raises(ModelError, match="not being recorded"):
            softmap.record(ids_of(4), llama)
        llama(input_ids=ids_of(4))
    assert rec.layers[0].shape == (4, 4, 4)


def test_live_recording_says_that_it_is_still_open(llama):
    with softmap.recording(llama) as rec:
        with pytest.raises(RecordingError, match="after the block"):
            _ = rec.layers
        llama(input_ids=ids_of(4))
    assert len(rec) == 2


def test_run_without_attention_is_refused(llama):
    with pytest.raises(ModelError, match="Call the model in the block"), softmap.recording(llama):
        pass


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("a text", TextError, "tokenizer"),
        ([], TextError, "whole numbers"),
        ([0.5], TextError, "whole numbers"),
        (object(), TextError, "a text, ids or a mapping"),
        ({"input_ids": "no ids"}, ModelError, "belong to this model"),
    ],
)
def test_what_is_no_input_is_refused(llama, given, error, words):
    with pytest.raises(error, match=words):
        softmap.record(given, llama)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"layers": []}, ParameterError, "numbers from 0"),
        ({"layers": [-1]}, ParameterError, "numbers from 0"),
        ({"dtype": "int8"}, DtypeError, "float16"),
        ({"chunk": 0}, ParameterError, "at least 1"),
        ({"summary": {"tops": 3}}, ParameterError, "tops"),
        ({"statistics_only": True, "summary": False}, ParameterError, "statistics"),
        ({"device": "cpu"}, ParameterError, "loaded already"),
    ],
)
def test_options_outside_their_values_are_refused(llama, options, error, words):
    with pytest.raises(error, match=words):
        softmap.record(ids_of(4), llama, **options)


def test_chunks_of_a_model_without_a_cache_are_refused(bundled):
    with pytest.raises(ParameterError, match="decoder"):
        softmap.record("I love learning", bundled, chunk=2)


def test_recording_written_while_it_runs_is_the_one_in_memory(llama, tmp_path):
    ids = ids_of(12, batch=2)
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    written = softmap.record(inputs, llama, out=tmp_path / "run.softmap")
    kept = softmap.record(inputs, llama)
    opened = softmap.load(tmp_path / "run.softmap")
    for item in range(2):
        for one in (written, opened):
            for layer, expected in zip(one.batch(item).layers, kept.batch(item).layers, strict=True):
                assert torch.equal(layer.q, expected.q)
                assert torch.equal(layer.summary.received, expected.summary.received)
                torch.testing.assert_close(layer.matrix.dense(), expected.matrix.dense(), atol=1e-6, rtol=0)
                assert (layer.number, layer.queries_of, layer.path) == (expected.number, "tokens", expected.path)
            assert one.batch(item).tokens == kept.batch(item).tokens


def test_chunks_are_written_too(llama, tmp_path):
    softmap.record(ids_of(12), llama, chunk=5, out=tmp_path / "run.softmap")
    assert_same_weights(softmap.load(tmp_path / "run.softmap"), eager(llama, input_ids=ids_of(12)).attentions)


def test_progress_tells_each_layer(llama):
    told = []
    softmap.record(ids_of(5), llama, progress=lambda done, total: told.append(done))
    assert told == [1, 2]


def test_sequence_of_padding_alone_is_refused(llama):
    mask = torch.ones(2, 5, dtype=torch.int64)
    mask[1] = 0
    with pytest.raises(ModelError, match="padding alone"):
        softmap.record({"input_ids": ids_of(5, batch=2), "attention_mask": mask}, llama)


def test_attention_function_of_somebodys_own_is_refused_rather_than_taken_for_the_usual_one(make_decoder):
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register("of_my_own", sdpa_attention_forward)
    AttentionMaskInterface.register("of_my_own", sdpa_mask)
    model = make_decoder()
    model.set_attn_implementation("of_my_own")
    with pytest.raises(ModelError, match="'of_my_own'"):
        softmap.record(ids_of(4), model)
    assert model.config._attn_implementation == "of_my_own"


def test_patches_are_no_tokens_even_where_there_are_as_many():
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = sizes | {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    vision = sizes | {"image_size": 8, "patch_size": 4}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision)).eval()
    rec = softmap.record({"input_ids": ids_of(5), "pixel_values": torch.randn(1, 3, 8, 8)}, model)
    told = {layer.path.partition(".")[0]: (layer.shape[1], layer.queries_of) for layer in rec.layers}
    assert told == {"text_model": (5, "tokens"), "vision_model": (5, None)}


@pytest.fixture(scope="module")
def make_seq2seq():
    """A small random encoder-decoder, by the name of its architecture."""
    from transformers import AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    bart = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4, "init_std": 0.3}
    bart |= {"decoder_attention_heads": 4, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": VOCABULARY}
    bart |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    bart |= {"forced_eos_token_id": None}
    t5 = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
    t5 |= {"vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    sounds = {"num_mel_bins": 8, "max_source_positions": 10, "begin_suppress_tokens": None, "suppress_tokens": None}

    def make(kind):
        torch.manual_seed(0)
        settings = t5 if kind == "t5" else bart | (sounds if kind == "whisper" else {})
        auto = AutoModelForSpeechSeq2Seq if kind == "whisper" else AutoModelForSeq2SeqLM
        return auto.from_config(CONFIG_MAPPING[kind](**settings), attn_implementation="eager").eval()

    return make


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


def test_lists_of_a_tokenizer_are_taken(llama):
    rec = softmap.record({"input_ids": [3, 4, 5], "attention_mask": [1, 1, 1]}, llama)
    assert rec.tokens.ids == (3, 4, 5)
    rec = softmap.record({"input_ids": [[0, 4, 5], [3, 4, 5]], "attention_mask": [[0, 1, 1], [1, 1, 1]]}, llama)
    assert [rec.batch(i).tokens.ids for i in range(2)] == [(4, 5), (3, 4, 5)]
    with pytest.raises(TextError, match="padding=True"):
        softmap.record({"input_ids": [[4, 5], [3, 4, 5]]}, llama)


def test_ids_for_an_encoder_decoder_come_with_the_start_of_its_decoder(make_seq2seq):
    model = make_seq2seq("t5")
    for given in (ids_of(6), {"input_ids": ids_of(6)}):
        assert softmap.record(given, model).target.ids == (0,)


def test_tokenizer_of_a_loaded_model_reads_and_names(bundled):
    rec = softmap.record("I love learning", bundled.model, tokenizer=bundled.tokenizer)
    assert rec.tokens == softmap.record("I love learning", bundled).tokens
    with pytest.raises(ParameterError, match="bring theirs"):
        softmap.record("I love learning", bundled, tokenizer=bundled.tokenizer)


def test_live_recording_is_iterated_as_the_recording_is(llama):
    with softmap.recording(llama) as rec:
        llama(input_ids=ids_of(4))
    assert [matrix.shape for matrix in rec] == [(4, 4, 4)] * 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": 1.5}, "numbers from 0"),
        ({"out": 5}, "name of a folder"),
        ({"summary": 3}, "True, False or a mapping"),
        ({"summary": {"top": -1}}, "top"),
        ({"summary": {"distance": "x"}}, "True or False"),
    ],
)
def test_options_of_the_wrong_kind_are_refused_before_the_model_runs(llama, options, words):
    with pytest.raises(ParameterError, match=words):
        softmap.record(ids_of(4), llama, **options)


def test_recording_that_is_refused_leaves_no_folder_behind(llama, tmp_path):
    with pytest.raises(ParameterError, match="numbers from 0 to 1"):
        softmap.record(ids_of(4), llama, layers=[99], out=tmp_path / "run.softmap")
    assert not (tmp_path / "run.softmap").exists()
    with pytest.raises(ModelError):
        softmap.record({"input_ids": torch.tensor([[VOCABULARY + 1]])}, llama, out=tmp_path / "run.softmap")
    assert not (tmp_path / "run.softmap").exists()


def test_keys_that_are_no_text_are_not_named_after_it(make_decoder):
    from zoo import ENTRIES

    (entry,) = (entry for entry in ENTRIES if entry.name == "mllama")
    made = entry.make()
    rec = softmap.record(made.inputs, made.model)
    told = {(layer.queries_of, layer.keys_of) for layer in rec.batch(0).layers if layer.kind == "cross"}
    assert told == {("tokens", None)}


def test_masks_that_a_user_makes_are_not_held_once_more_for_each_layer(make_decoder, tmp_path):
    import gc

    size = 600
    mask = torch.zeros(1, 1, size, size).masked_fill(
        torch.ones(size, size).triu(1).bool(), torch.finfo(torch.float32).min
    )
    held = []

    def look(done, total):
        gc.collect()
        large = {
            x.untyped_storage().data_ptr()
            for x in gc.get_objects()
            if type(x) is torch.Tensor and x.numel() >= size * size
        }
        held.append(len(large))

    inputs = {"input_ids": ids_of(size), "attention_mask": mask}
    softmap.record(inputs, make_decoder(num_hidden_layers=4), out=tmp_path / "run.softmap", progress=look)
    assert len(held) == 4
    assert held[3] <= held[1]


def test_numbers_that_a_user_adds_to_the_scores_are_a_bias_of_every_head(llama):
    ids, size = ids_of(9), 9
    mask = torch.zeros(1, 1, size, size).masked_fill(torch.ones(size, size).triu(1).bool(), -10_000.0)
    for added in (mask, mask + torch.randn(size, size)):
        rec = softmap.record({"input_ids": ids, "attention_mask": added}, llama)
        assert_same_weights(rec, eager(llama, input_ids=ids, attention_mask=added).attentions)
