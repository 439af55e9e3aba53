"""Attention that softmap does not see: refused when it runs, listed where it stands beside what is seen."""

from __future__ import annotations

import pytest
import torch
from makers import GROUPED, SIZES, TEXT, VISION, build, configure, two_texts
from torch import nn
from zoo import ENTRIES

import softmap
from softmap.errors import ModelError
from softmap.models.unseen import names_softmax

PEFT = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

BY_NAME = {entry.name: entry for entry in ENTRIES}


def others_of(recording):
    return [(other.path, other.name, other.why) for other in recording.others]


def without_pictures(name):
    """A model of text and pictures, and a text alone."""
    model, inputs = BY_NAME[name].make()
    ids = inputs["input_ids"].clamp(max=90)
    return model, {"input_ids": ids, "attention_mask": inputs["attention_mask"]}


@PEFT
@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_softmax_of_an_adapter_is_listed(architecture):
    from peft import AdaptionPromptConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(configure(architecture, **TEXT, **GROUPED)).eval()
    adapted = get_peft_model(model, AdaptionPromptConfig(adapter_len=4, adapter_layers=1, task_type="CAUSAL_LM")).eval()
    for name, parameter in adapted.named_parameters():
        if "adaption" in name:
            parameter.data.normal_()
    rec = softmap.record(two_texts("right"), model, check=True)
    assert others_of(rec) == [("model.layers.1.self_attn", "AdaptedAttention", "a softmax of its own")]
    assert len(rec.batch(0).layers) == 2


@PEFT
def test_prefix_of_an_adapter_is_a_part_of_each_matrix():
    from peft import PrefixTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(configure("llama", **TEXT, **GROUPED)).eval()
    adapted = get_peft_model(model, PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")).eval()
    inputs = two_texts("")
    with torch.no_grad():
        own = adapted(**inputs).logits
    with softmap.recording(model) as rec:
        ours = adapted(**inputs).logits
    torch.testing.assert_close(ours, own, atol=1e-5, rtol=0)
    assert rec.batch(0).layers[0].shape[1:] == (21, 25)
    assert rec.others == ()


class Around(nn.Module):
    """A module around an attention layer that adds to its output, or chooses by a softmax."""

    def __init__(self, inner, how):
        super().__init__()
        self.inner, self.how, self.softmax = inner, how, nn.Softmax(dim=-1)
        self.keys = nn.Parameter(torch.randn(5, 32))

    def forward(self, hidden_states, *args, **kwargs):
        output, *rest = self.inner(hidden_states, *args, **kwargs)
        scores = hidden_states @ self.keys.T
        return output + self.of(scores), *rest

    def of(self, scores):
        if self.how == "attention":
            return self.softmax(scores).to(torch.float32).contiguous() @ self.keys
        if self.how == "torch's":
            q, k = scores[:, None], torch.eye(5).expand(len(scores), 1, 5, 5)
            return nn.functional.scaled_dot_product_attention(q, k, self.keys.expand(len(scores), 1, 5, 32))[:, 0]
        weights, chosen = self.softmax(scores).topk(2)  # a choice of experts
        return (weights[..., None] * self.keys[chosen]).sum(-2)


@pytest.mark.parametrize(("how", "listed"), [("attention", True), ("torch's", True), ("experts", False)])
def test_module_around_a_layer_is_listed_where_its_softmax_multiplies_values(how, listed):
    model, inputs = BY_NAME["llama"].make()
    model.layers[1].self_attn = Around(model.layers[1].self_attn, how)
    rec = softmap.record(inputs, model, check=True)
    assert others_of(rec) == [("layers.1.self_attn", "Around", "a softmax of its own")] * listed
    assert [layer.path for layer in rec.batch(0).layers] == ["layers.0.self_attn", "layers.1.self_attn.inner"]


def test_softmax_of_a_program_in_the_block_is_its_own_business():
    model, inputs = BY_NAME["llama"].make()
    outside = Around(nn.Identity(), "attention")
    with softmap.recording(model) as rec:
        model(**inputs)
        outside.of(torch.randn(2, 5))
        torch.softmax(torch.randn(2, 3, 4, 4), -1) @ torch.randn(2, 3, 4, 4)
    assert rec.others == ()


def test_tower_that_did_not_run_is_listed_so(tmp_path):
    model, inputs = without_pictures("llava")
    rec = softmap.record(inputs, model, check=True, out=tmp_path / "run")
    assert others_of(rec) == [("vision_tower", "CLIPVisionModel", "did not run")]
    assert others_of(softmap.load(tmp_path / "run")) == others_of(rec)
    from softmap.recorded.listing import list_layers

    assert "vision_tower (CLIPVisionModel: did not run)" in str(list_layers(rec))


def test_part_that_is_run_by_itself_leaves_the_other_unlisted_but_named():
    model, inputs = BY_NAME["clip"].make()
    with softmap.recording(model) as rec:
        model.get_image_features(pixel_values=inputs["pixel_values"])
    assert others_of(rec) == [("text_model", "CLIPTextModel", "did not run")]


def janus():
    vision = {**VISION, "projection_dim": 32, "depth": 1}
    codes = {"embed_dim": 8, "num_embeddings": 16, "base_channels": 32, "channel_multiplier": [1, 1]}
    codes |= {"num_res_blocks": 1, "latent_channels": 8, "projection_dim": 32, "image_token_embed_dim": 32}
    text = {**TEXT, **GROUPED, "model_type": "llama"}
    parts = {"text_config": text, "vision_config": vision, "vq_config": {**codes, "num_patches": 3}}
    return build("janus", configure("janus", **parts, image_token_id=98))


def granite_speech():
    from transformers import GraniteSpeechForConditionalGeneration

    sound = {"input_dim": 16, "num_layers": 1, "hidden_dim": 32, "num_heads": 4, "dim_head": 8, "output_dim": 8}
    reader = {**SIZES, "model_type": "blip_2_qformer", "encoder_hidden_size": 32, "vocab_size": 99}
    text = {**TEXT, "num_key_value_heads": 2, "model_type": "granite"}
    parts = {"text_config": text, "encoder_config": {**sound, "context_size": 8}, "projector_config": reader}
    config = configure("granite_speech", **parts, audio_token_index=98, has_lora_adapter=False)
    return build("granite_speech", config, kind=GraniteSpeechForConditionalGeneration)


def deepseek_vl_hybrid():
    sharp = {**SIZES, "model_type": "sam_vision_model", "image_size": 32, "patch_size": 8, "output_channels": 16}
    parts = {
        "text_config": {**TEXT, **GROUPED, "model_type": "llama"},
        "vision_config": {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False},
        "high_res_vision_config": {**sharp, "global_attn_indexes": [1], "window_size": 2, "mlp_dim": 64},
    }
    return build("deepseek_vl_hybrid", configure("deepseek_vl_hybrid", **parts, image_token_id=98))


@pytest.mark.parametrize(
    ("make", "still"),
    [
        (janus, ["vision_model", "vqmodel"]),
        (granite_speech, ["model.encoder", "model.projector"]),
        (deepseek_vl_hybrid, ["high_res_vision_model", "vision_model"]),
    ],
)
def test_model_with_attention_that_could_not_be_seen_is_recorded_where_that_does_not_run(make, still):
    rec = softmap.record(two_texts("left"), make(), check=True)
    assert others_of(rec) == [(path, name, "did not run") for path, name, _ in others_of(rec)]
    assert [other.path for other in rec.others] == still
    assert rec.origin.checked <= 1e-5


def test_the_same_model_is_refused_where_that_runs(tmp_path):
    model = deepseek_vl_hybrid()
    with pytest.raises(ModelError, match=r"these would not be seen: layers\.0\.attn \(SamVisionAttention\)"):
        softmap.record({"pixel_values": torch.randn(1, 3, 32, 32)}, _with_text_layer(model), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _with_text_layer(model):
    """The tower that can't be seen, with a layer that can beside it: else it is refused before it runs."""
    tower = (
        model.high_res_vision_model.vision_encoder if hasattr(model.high_res_vision_model, "vision_encoder") else None
    )
    tower = tower or model.high_res_vision_model
    tower.beside = model.language_model.layers[0]
    return tower


def bridgetower():
    words = {**TEXT, "hidden_size": 64, "pad_token_id": 1, "type_vocab_size": 1}
    vision = {**SIZES, "hidden_size": 64, "image_size": 16, "patch_size": 4}
    whole = {**SIZES, "hidden_size": 64, "contrastive_hidden_size": 16}
    model = build("bridgetower", configure("bridgetower", **whole, text_config=words, vision_config=vision))
    patches = {"pixel_values": torch.randn(2, 3, 16, 16), "pixel_mask": torch.ones(2, 16, 16).long()}
    return model, two_texts("right") | patches


def test_one_row_of_a_mask_is_meant_for_all_queries():
    model, inputs = bridgetower()
    found = softmap.record(inputs, model, check=True)
    assert {other.name for other in found.others} == {
        "BridgeTowerResidualAttention"
    }  # torch's own, in its picture tower
    assert found.origin.checked <= 1e-5
    padded = found.batch(1).layers[0]
    assert padded.shape[1:] == (16, 16)


@pytest.mark.parametrize(
    ("name", "module", "expected"),
    [
        ("bert", "encoder.layer.0.attention.self", False),
        ("gpt2", "h.0.attn", True),
        ("bloom", "h.0.self_attention", True),
    ],
)
def test_code_that_names_a_softmax_is_found(name, module, expected):
    model, _ = BY_NAME[name].make()
    assert names_softmax(type(model.get_submodule(module))) == expected


def test_nothing_of_the_bundled_model_is_watched(bundled):
    assert not [part for part in bundled.model.modules() if names_softmax(type(part))]
