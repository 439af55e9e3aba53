"""Recordings of a run: batches, masks, selected layers, what is kept, and what is refused."""

from __future__ import annotations

import pytest
import torch
from decoders import VOCABULARY, assert_same_weights, eager, ids_of
from transformers import (
    AutoModel,
    BertConfig,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    GPT2Config,
    OPTConfig,
    RobertaConfig,
)

import softmap
from softmap.errors import DtypeError, ModelError, ParameterError, RecordingError, TextError
from softmap.models import LoadedModel

SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 20}


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
    with pytest.raises(ModelError, match="adds a bool mask to the scores"):  # what eager attention does with one
        softmap.record({"input_ids": ids, "attention_mask": mask}, llama)
    llama.set_attn_implementation("sdpa")
    rec = softmap.record({"input_ids": ids, "attention_mask": mask}, llama)
    llama.set_attn_implementation("eager")
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
        ([1, 2, 9999], TextError, "expected numbers from 0 to 59 for LlamaForCausalLM, got 9999"),
        ([1, -1], TextError, "got -1"),
    ],
)
def test_what_is_no_input_is_refused(llama, given, error, words):
    with pytest.raises(error, match=words):
        softmap.record(given, llama)


def test_more_ids_than_a_model_has_positions_are_refused():
    config = GPT2Config(n_layer=1, n_head=2, n_embd=8, n_positions=64, vocab_size=100)
    with pytest.raises(
        TextError, match=r"at most 64 tokens for GPT2Model, got 70 tokens\. Give fewer, as in ids\[:64\]"
    ):
        softmap.record([1] * 70, AutoModel.from_config(config).eval())


def test_padding_takes_no_position():
    roberta = AutoModel.from_config(RobertaConfig(max_position_embeddings=18, pad_token_id=1, **SMALL)).eval()
    assert softmap.record([3] * 10 + [1] * 10, roberta)[0].shape == (2, 20, 20)
    with pytest.raises(TextError, match="at most 16 tokens"):
        softmap.record([3] * 17, roberta)


def test_only_the_table_of_positions_that_ids_meet_limits_them():
    encoder, decoder = (BertConfig(max_position_embeddings=limit, **SMALL) for limit in (64, 16))
    config = EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id = 2
    both = EncoderDecoderModel(config).eval()
    assert softmap.record([3] * 30, both)[0].shape == (2, 30, 30)
    with pytest.raises(TextError, match="at most 64 tokens"):
        softmap.record([3] * 65, both)


def test_positions_that_count_from_an_offset_limit_ids_too():
    config = OPTConfig(
        vocab_size=20, hidden_size=8, ffn_dim=8, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=16,
        word_embed_proj_dim=8,
    )  # fmt: skip
    opt = AutoModel.from_config(config).eval()
    assert softmap.record([3] * 16, opt)[0].shape == (2, 16, 16)
    with pytest.raises(TextError, match="at most 16 tokens"):
        softmap.record([3] * 17, opt)


class Wrapped(torch.nn.Module):
    """A model as an adapter's library wraps it: a module of its own, which hands on what it has not."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.inner, name)

    def forward(self, input_ids=None, attention_mask=None, **options):
        return self.inner(input_ids=input_ids, attention_mask=attention_mask, **options)


def test_a_model_that_is_wrapped_is_recorded(llama):
    rec = softmap.record(ids_of(6), LoadedModel(Wrapped(llama), None, "wrapped"))
    assert_same_weights(rec, eager(llama, input_ids=ids_of(6)).attentions)


def test_a_module_that_is_no_model_of_transformers_is_refused():
    alike = torch.nn.Linear(2, 2)
    alike.config = GPT2Config()
    for given in (
        torch.nn.Linear(2, 2),
        LoadedModel(torch.nn.Linear(2, 2), None, "mine"),
        LoadedModel(alike, None, ""),
    ):
        with pytest.raises(ModelError, match="expected a PreTrainedModel of transformers, got Linear"):
            softmap.record([1, 2], given)


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


@pytest.mark.slow
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


def test_keys_that_a_token_does_not_see_are_not_among_those_that_it_looks_at(llama):
    rec = softmap.record(ids_of(9), llama)
    assert [each.key for each in rec.top(0, 5, layer=0, head=0)] == [0]
    assert {each.key for each in rec.top(3, 9, layer=0, head=0)} == {0, 1, 2, 3}
