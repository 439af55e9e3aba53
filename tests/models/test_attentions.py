"""The attention weights that a model gives in a recording: of eager attention the same as outside, to the bit."""

from __future__ import annotations

import warnings

import pytest
import torch
from decoders import VOCABULARY, eager, ids_of

import softmap
from softmap.mechanism import PAGE

KINDS = [
    ("llama", {}),
    ("mistral", {"sliding_window": 4}),
    ("gemma2", {"head_dim": 8, "sliding_window": 4, "attn_logit_softcapping": 5.0}),
    ("gpt_oss", {"sliding_window": 8, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}),
]
PADDED = torch.tensor([[1] * 12, [0] * 5 + [1] * 7])


def assert_same(found, expected):
    """The same attentions, in number, dtype and bits."""
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize(("kind", "changes"), KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mask", [None, PADDED])
def test_weights_and_output_in_a_block_are_those_of_outside(make_decoder, kind, changes, dtype, mask):
    model = make_decoder(kind, **changes).to(dtype)
    inputs = {"input_ids": ids_of(12, batch=2), "attention_mask": mask}
    expected = eager(model, **inputs)
    with softmap.recording(model) as rec:
        output = model(**inputs, output_attentions=True, use_cache=False)
    assert_same(output.attentions, expected.attentions)
    assert torch.equal(output.logits, expected.logits)
    assert len(rec.batch(0)) == 2


@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_weights_of_an_encoder_decoder_and_its_cross_attention_are_those_of_outside(make_seq2seq, kind):
    model = make_seq2seq(kind)
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, 6:] = 0
    inputs = {"input_ids": ids_of(9, batch=2), "attention_mask": mask, "decoder_input_ids": ids_of(4, batch=2)}
    expected = eager(model, **inputs)
    with softmap.recording(model):
        output = model(**inputs, output_attentions=True, use_cache=False)
    for name in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
        assert_same(output[name], expected[name])


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "vit"])
def test_weights_of_other_models_are_those_of_outside(make_model, architecture):
    from transformers import AutoConfig, AutoModel

    if architecture == "vit":
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        model = AutoModel.from_config(AutoConfig.for_model("vit", **sizes, image_size=12, patch_size=4)).eval()
        inputs = {"pixel_values": torch.randn(1, 3, 12, 12)}
    else:
        model, inputs = make_model(architecture).model, {"input_ids": torch.arange(3, 12)[None]}
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model(**inputs, output_attentions=True)
    with softmap.recording(model):
        output = model(**inputs, output_attentions=True)
    assert_same(output.attentions, expected.attentions)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize(("kind", "changes"), KINDS)
def test_weights_of_generation_are_those_of_outside(make_decoder, kind, changes, cache):
    model = make_decoder(kind, **changes)
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "disable_compile": True}
    options |= {"cache_implementation": cache, "output_attentions": True, "return_dict_in_generate": True}
    expected = model.generate(ids_of(7), **options)
    with softmap.recording(model) as rec:
        found = model.generate(ids_of(7), **options)
    assert torch.equal(found.sequences, expected.sequences)
    for one, other in zip(found.attentions, expected.attentions, strict=True):
        assert_same(one, other)
    assert rec.layers[0].shape == (4, 12, 12)


def test_a_configuration_that_asks_for_weights_gets_them(make_decoder):
    model = make_decoder()
    model.config.output_attentions = True
    with torch.no_grad():
        expected = model(ids_of(7))
    with softmap.recording(model):
        assert_same(model(ids_of(7)).attentions, expected.attentions)


def test_a_hook_on_a_layer_sees_the_weights_as_outside(make_decoder):
    model, seen = make_decoder(), []
    model.model.layers[1].self_attn.register_forward_hook(lambda module, args, output: seen.append(output[1]))
    eager(model, input_ids=ids_of(7))
    with softmap.recording(model):
        model(ids_of(7))
    assert_same(seen[1:], seen[:1])


def test_weights_under_autocast_are_those_of_outside(make_decoder):
    model = make_decoder()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = eager(model, input_ids=ids_of(7))
        with softmap.recording(model):
            output = model(ids_of(7), output_attentions=True, use_cache=False)
    assert_same(output.attentions, expected.attentions)


def test_sdpa_gives_no_weights_in_a_block_as_outside(make_decoder):
    model = make_decoder()
    model.set_attn_implementation("sdpa")
    outside = eager(model, input_ids=ids_of(7)).attentions
    with softmap.recording(model):
        inside = model(ids_of(7), output_attentions=True).attentions
    assert inside == outside == ()


def test_a_page_is_given_and_more_is_said(make_decoder):
    model = make_decoder(max_position_embeddings=600)
    expected = eager(model, input_ids=ids_of(PAGE)).attentions
    with softmap.recording(model):
        assert_same(model(ids_of(PAGE), output_attentions=True, use_cache=False).attentions, expected)
    with pytest.warns(UserWarning, match=r"self_attn: the attention weights of 513 queries x 513 keys") as told:  # noqa: SIM117
        with softmap.recording(model) as rec:
            assert model(ids_of(PAGE + 1), output_attentions=True).attentions == ()
    assert len(told) == 1
    assert rec.layers[1].shape == (4, 513, 513)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        softmap.record(ids_of(PAGE + 1), model)  # nobody asked for them


def test_few_queries_on_many_keys_are_less_than_a_page(make_decoder):
    model = make_decoder(max_position_embeddings=2000)
    ids = torch.randint(1, VOCABULARY, (1, 1000))
    with torch.no_grad():
        outputs = []
        for block in (False, True):
            cache = model(ids, use_cache=True).past_key_values
            if not block:
                outputs.append(model(ids_of(3), past_key_values=cache, output_attentions=True))
                continue
            with softmap.recording(model):
                outputs.append(model(ids_of(3), past_key_values=cache, output_attentions=True))
    assert_same(outputs[1].attentions, outputs[0].attentions)
