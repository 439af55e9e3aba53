"""Generation that drafts: what it rejects is no part of the recording, nor what a cache has dropped by hand.

And the reason that is given where runs do not continue each other.
"""

from __future__ import annotations

import copy

import pytest
import torch
from decoders import assert_same_weights, eager, ids_of
from transformers.cache_utils import Cache, QuantizedLayer

import softmap
from softmap.errors import ModelError

PROMPT = torch.tensor([[5, 6, 7, 8, 5, 6, 7, 8, 5, 6]])
KINDS = {"llama": {}, "mistral": {"sliding_window": 8}, "gemma2": {"sliding_window": 8, "head_dim": 8}}


def generate(model, prompt=PROMPT, count=12, **options):
    return model.generate(prompt, max_new_tokens=count, min_new_tokens=count, do_sample=False, **options)


def an_assistant(model):
    """Another model of the same vocabulary, some of whose drafts are rejected."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def assert_is_of(rec, model, read):
    assert rec.tokens.ids == tuple(read[0].tolist())
    assert_same_weights(rec.recording, eager(model, input_ids=read).attentions)
    whole = softmap.record(read, model)
    for layer, at_once in zip(rec.layers, whole.layers, strict=True):
        torch.testing.assert_close(layer.summary.received, at_once.summary.received, atol=1e-4, rtol=0)
        torch.testing.assert_close(layer.v, at_once.v, atol=1e-4, rtol=0)


@pytest.mark.parametrize("count", [2, 12])
@pytest.mark.parametrize("kind", list(KINDS))
def test_prompt_lookup_is_recorded_without_the_drafts_that_were_rejected(make_decoder, kind, count):
    model = make_decoder(kind, **KINDS[kind])
    expected = generate(model, count=count)
    with softmap.recording(model) as rec:
        output = generate(model, count=count, prompt_lookup_num_tokens=3)
    assert torch.equal(output, expected)
    assert_is_of(rec, model, output[:, :-1])


@pytest.mark.parametrize("kind", list(KINDS))
def test_assisted_decoding_is_recorded_without_the_drafts_that_were_rejected(make_decoder, kind):
    model = make_decoder(kind, **KINDS[kind])
    with softmap.recording(model) as rec:
        output = generate(model, assistant_model=an_assistant(make_decoder(kind, **KINDS[kind])))
    assert_is_of(rec, model, output[:, :-1])


@pytest.mark.parametrize("early", [True, False])
def test_drafts_that_a_model_makes_for_itself_are_passed_over(llama, early):
    with softmap.recording(llama) as rec:
        output = generate(llama, **({"assistant_early_exit": 1} if early else {"assistant_model": llama}))
    assert_is_of(rec, llama, output[:, :-1])
    assert "generate" not in vars(llama)


def test_prompt_lookup_of_a_padded_prompt_is_trimmed(llama):
    mask = torch.ones_like(PROMPT)
    mask[0, :3] = 0
    with softmap.recording(llama) as rec:
        output = generate(llama, attention_mask=mask, prompt_lookup_num_tokens=3)
    assert_is_of(rec, llama, output[:, 3:-1])


@pytest.mark.parametrize("kind", ["bart", "t5"])
@pytest.mark.parametrize("length", [9, 7])  # longer than what the decoder reads, and as long
def test_drafts_of_an_encoder_decoder_leave_its_encoder_as_it_is(make_seq2seq, kind, length):
    model, given = make_seq2seq(kind), ids_of(length)
    with softmap.recording(model) as rec:
        output = generate(model, given, count=7, assistant_model=an_assistant(make_seq2seq(kind)))
    read = output[:, :7]
    expected = eager(model, input_ids=given, decoder_input_ids=read)
    tuples = {
        ("encoder", "self"): expected.encoder_attentions,
        ("decoder", "self"): expected.decoder_attentions,
        ("decoder", "cross"): expected.cross_attentions,
    }
    for (part, of), attentions in tuples.items():
        found = [layer for layer in rec.layers if (layer.part, layer.kind) == (part, of)]
        for layer, weights in zip(found, attentions, strict=True):
            torch.testing.assert_close(layer.matrix.dense(), weights[0], atol=2e-6, rtol=0)
    assert rec.target.ids == tuple(read[0].tolist())
    assert rec.tokens.ids == tuple(given[0].tolist())


def test_tokens_that_a_cache_drops_by_hand_are_dropped_between_runs_and_at_the_end(llama):
    ids = ids_of(12)
    with softmap.recording(llama) as rec:
        cache = llama(input_ids=ids, use_cache=True).past_key_values
        cache.crop(-5)
        llama(input_ids=torch.tensor([[3, 4]]), past_key_values=cache)
        cache.crop(-3)  # back into the first run
        llama(input_ids=torch.tensor([[9, 10, 11]]), past_key_values=cache)
        cache.crop(-1)
    assert_is_of(rec, llama, torch.cat([ids[:, :6], torch.tensor([[9, 10]])], 1))


def test_statistics_of_chosen_layers_and_of_a_padded_batch_lose_dropped_tokens_too(llama):
    ids = ids_of(12, batch=2)
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    with softmap.recording(llama, layers=[1], statistics_only=True) as rec:
        cache = llama(input_ids=ids, attention_mask=mask, use_cache=True).past_key_values
        cache.crop(-4)
    weights = eager(llama, input_ids=ids, attention_mask=mask).attentions[1]
    received = rec.batch(1).layers[0].summary.received
    torch.testing.assert_close(received, weights[1, :, 5:8, 5:8].sum(1), atol=1e-4, rtol=0)
    assert rec.batch(1).tokens.ids == tuple(ids[1, 5:8].tolist())


def test_cache_that_is_reset_at_the_end_drops_nothing(llama):
    with softmap.recording(llama) as rec:
        llama(input_ids=PROMPT, use_cache=True).past_key_values.reset()
    assert rec.layers[0].shape == (4, 10, 10)


class Rounding(QuantizedLayer):
    """A cache layer that keeps its keys and values in 8 bits."""

    def _quantize(self, tensor, axis):
        unit = tensor.abs().amax() / 127
        return (tensor / unit).round(), unit

    def _dequantize(self, packed):
        return packed[0] * packed[1]


def twice(model):
    generate(model, count=3)
    generate(model, count=3)


def twice_in_batches(model):
    generate(model, count=3)
    generate(model, ids_of(7, batch=2), count=3)


def two_continuations(model):
    cache = model(input_ids=PROMPT, use_cache=True).past_key_values
    other = copy.deepcopy(cache)
    model(input_ids=ids_of(3), past_key_values=cache)
    model(input_ids=ids_of(4), past_key_values=other)


def prune(cache, kept):
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[:, :, kept], layer.values[:, :, kept]


def pruned(model):
    cache = model(input_ids=PROMPT, use_cache=True).past_key_values
    prune(cache, slice(4, None))
    model(input_ids=ids_of(3), past_key_values=cache)


def pruned_at_the_end(model):
    cache = model(input_ids=PROMPT, use_cache=True).past_key_values
    prune(cache, slice(0, None, 2))


def rounded(model):
    generate(model, past_key_values=Cache(layers=[Rounding(residual_length=4) for _ in range(2)]))


@pytest.mark.parametrize(
    ("run", "reason", "hint"),
    [
        (twice, "a second text", "by itself"),
        (twice_in_batches, "2 in a second batch", "in one call"),
        (lambda model: generate(model, use_cache=False), "the text anew", "use_cache=True"),
        (two_continuations, "a second continuation", "each continuation by itself"),
        (pruned, "has lost 4 tokens", r"cache\.crop"),
        (pruned_at_the_end, "lost 5 tokens before its end", r"cache\.crop"),
        (rounded, "Rounding, which rounds them", "own cache"),
        (lambda model: generate(model, num_beams=3), "of another sequence", "num_beams=1"),
    ],
)
def test_the_true_reason_is_given_where_runs_do_not_continue_each_other(llama, run, reason, hint):
    with pytest.raises(ModelError) as caught, softmap.recording(llama):
        run(llama)
    assert caught.match(reason)
    assert caught.match(hint)
    assert "num_return_sequences" not in str(caught.value)
