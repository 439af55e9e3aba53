"""Gradients in a recording: refused at the call that would need them, whoever turns them on."""

from __future__ import annotations

import pytest
import torch
from decoders import assert_same_weights, eager, ids_of
from torch.autograd import forward_ad

import softmap
from softmap.errors import ModelError

IDS = ids_of(7)
REFUSED = r"layers\.\d\.self_attn: expected a run without gradients"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("turn_on", [torch.enable_grad, lambda: torch.inference_mode(False)])
def test_gradients_turned_on_in_the_block_are_refused_at_the_call(make_decoder, dtype, implementation, turn_on):
    model = make_decoder().to(dtype)
    model.set_attn_implementation(implementation)
    with pytest.raises(ModelError, match=REFUSED), softmap.recording(model), turn_on():
        model(IDS, labels=IDS)


@pytest.mark.parametrize("name", ["q_proj", "k_proj", "v_proj"])
@pytest.mark.parametrize("for_good", [False, True])
def test_one_of_q_k_and_v_that_needs_gradients_is_enough(make_decoder, name, for_good):
    model = make_decoder().requires_grad_(False)
    getattr(model.model.layers[1].self_attn, name).requires_grad_(True)
    if for_good:
        model.set_attn_implementation("softmap")
        with pytest.raises(ModelError, match=f"one that needs them of {name[0]}"):
            model(IDS)
    with pytest.raises(ModelError, match=rf"layers\.1\.self_attn.*needs them of {name[0]}\."):  # noqa: SIM117
        with softmap.recording(model), torch.enable_grad():
            model(IDS)


def test_sinks_and_position_biases_that_need_gradients_are_refused(make_decoder, make_seq2seq):
    sizes = {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}
    for model, part in ((make_decoder("gpt_oss", **sizes), "sinks"), (make_seq2seq("t5"), "relative_attention_bias")):
        model.requires_grad_(False)
        for path, parameter in model.named_parameters():
            parameter.requires_grad_(part in path)
        inputs = {"decoder_input_ids": IDS} if part != "sinks" else {}
        argument = "s_aux" if part == "sinks" else "position_bias"
        refused = pytest.raises(ModelError, match=f"needs them of {argument}")
        with refused, softmap.recording(model), torch.enable_grad():
            model(input_ids=IDS, **inputs)


def test_a_frozen_model_is_recorded_whether_gradients_are_on_or_off(make_decoder):
    model = make_decoder().requires_grad_(False)
    with softmap.recording(model) as rec, torch.enable_grad():
        model(IDS)
    assert_same_weights(rec.recording, eager(model, input_ids=IDS).attentions)


def test_gradients_of_embeddings_are_refused_as_attribution_asks_for_them(make_decoder):
    """captum's Saliency turns gradients on by itself, for inputs that it has made need them."""
    model = make_decoder().requires_grad_(False)
    embeddings = model.get_input_embeddings()(IDS).requires_grad_(True)
    with pytest.raises(ModelError, match=REFUSED), softmap.recording(model), torch.autograd.set_grad_enabled(True):
        model(inputs_embeds=embeddings)


def test_what_a_checkpoint_runs_again_in_the_block_is_refused(make_decoder):
    model = make_decoder().train()
    (getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable)()
    loss = model(IDS, labels=IDS, use_cache=False).loss
    with pytest.raises(ModelError, match=REFUSED), softmap.recording(model):
        loss.backward()


def test_a_model_that_turns_gradients_on_itself_is_refused(make_decoder, monkeypatch):
    model = make_decoder()
    forward = model.model.forward

    def with_gradients(*args, **options):
        with torch.enable_grad():
            return forward(*args, **options)

    monkeypatch.setattr(model.model, "forward", with_gradients)
    with pytest.raises(ModelError, match=REFUSED):
        softmap.record(IDS, model)


def test_torch_func_is_refused(make_decoder):
    model = make_decoder()
    embeddings = model.get_input_embeddings()(IDS).detach()

    def total(x):
        return model(inputs_embeds=x).logits.sum()

    with pytest.raises(ModelError, match=REFUSED), softmap.recording(model):
        torch.func.grad(total)(embeddings)
    with pytest.raises(ModelError, match=r"tangents of q, k, v"), softmap.recording(model):
        torch.func.jvp(total, (embeddings,), (torch.ones_like(embeddings),))
    with pytest.raises(ModelError, match=r"tangents of q, k, v"), softmap.recording(model), forward_ad.dual_level():
        total(forward_ad.make_dual(embeddings, torch.ones_like(embeddings)))
    with pytest.raises(ModelError, match=r"one inside torch\.func\.vmap"), softmap.recording(model):
        torch.func.vmap(lambda row: model(row[None]).logits)(torch.cat([IDS, IDS]))


def test_gradients_are_what_they_were_once_the_block_is_left(make_decoder):
    model = make_decoder()
    model(IDS, labels=IDS).loss.backward()
    expected = model.model.layers[0].self_attn.q_proj.weight.grad.clone()
    model.zero_grad()
    softmap.record(IDS, model)
    model(IDS, labels=IDS).loss.backward()
    assert torch.equal(model.model.layers[0].self_attn.q_proj.weight.grad, expected)
