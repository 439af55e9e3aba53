"""What becomes of an attention function that is set while a recording is open: it counts, and no row is lost."""

from __future__ import annotations

import pytest
import torch
from decoders import assert_same_weights, eager, ids_of

import softmap
from softmap.errors import ModelError

PROMPT, MORE = ids_of(9), ids_of(3)


def the_model(model, name):
    model.set_attn_implementation(name)


def a_part_of_it(model, name):
    model.model.set_attn_implementation(name)


def its_configuration(model, name):
    model.config._attn_implementation = name


def its_internals(model, name):
    model.config._attn_implementation_internal = name


@pytest.mark.parametrize("setting", [the_model, a_part_of_it, its_configuration, its_internals])
@pytest.mark.parametrize("names", [("eager", "sdpa"), ("sdpa", "eager"), ("sdpa", "sdpa")])
def test_what_is_set_after_a_first_run_counts_and_every_row_is_recorded(make_decoder, setting, names):
    model = make_decoder()
    model.set_attn_implementation(names[0])
    with softmap.recording(model) as rec:
        cache = model(PROMPT, use_cache=True).past_key_values
        setting(model, names[1])
        output = model(MORE, past_key_values=cache, output_attentions=True)
    assert model.config._attn_implementation == names[1]
    model.set_attn_implementation("eager")
    expected = eager(model, input_ids=torch.cat([PROMPT, MORE], 1)).attentions
    assert_same_weights(rec.recording, expected)
    assert len(output.attentions) == (2 if names[1] == "eager" else 0)


def test_what_is_set_and_never_run_stays_set(make_decoder):
    model = make_decoder()
    with softmap.recording(model) as rec:
        model(PROMPT)
        model.set_attn_implementation("sdpa")
    assert model.config._attn_implementation == "sdpa"
    assert rec.layers[0].shape == (4, 9, 9)


def test_softmap_set_in_the_block_is_what_stands_in_already(make_decoder):
    model = make_decoder()
    with softmap.recording(model):
        model(PROMPT)
        model.set_attn_implementation("softmap")
    assert model.config._attn_implementation == "eager"


def test_one_of_several_configurations_that_is_set_is_recorded_too():
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = sizes | {"vocab_size": 60, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    vision = sizes | {"image_size": 8, "patch_size": 4}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision)).eval()
    with softmap.recording(model) as rec:
        model.set_attn_implementation({"vision_config": "eager"})
        model(input_ids=ids_of(5), pixel_values=torch.randn(1, 3, 8, 8))
    assert {layer.path.partition(".")[0] for layer in rec.layers} == {"text_model", "vision_model"}
    assert model.config.vision_config._attn_implementation == "eager"
    assert model.config.text_config._attn_implementation == "sdpa"


def test_what_a_hook_sets_in_the_midst_of_a_run_is_recorded(make_decoder):
    model = make_decoder()
    expected = eager(model, input_ids=PROMPT).attentions
    model.model.layers[0].register_forward_hook(lambda *_: the_model(model, "sdpa"))
    with softmap.recording(model) as rec:
        model(PROMPT)
    assert_same_weights(rec.recording, expected)
    assert model.config._attn_implementation == "sdpa"


def test_a_layer_with_a_configuration_of_its_own_is_recorded(make_decoder):
    import copy

    model = make_decoder()
    expected = eager(model, input_ids=PROMPT).attentions
    with softmap.recording(model) as rec:
        model.model.layers[1].self_attn.config = copy.deepcopy(model.config)
        model.model.layers[1].self_attn.config._attn_implementation = "sdpa"
        model(PROMPT)
    assert_same_weights(rec.recording, expected)
    assert model.model.layers[1].self_attn.config._attn_implementation == "sdpa"


def test_a_function_of_somebodys_own_that_is_set_in_the_block_is_refused_at_the_next_run(make_decoder):
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    AttentionInterface.register("of_another", sdpa_attention_forward)
    model = make_decoder()
    with pytest.raises(ModelError, match="'of_another'"), softmap.recording(model):  # noqa: PT012
        cache = model(PROMPT, use_cache=True).past_key_values
        model.set_attn_implementation("of_another")
        model(MORE, past_key_values=cache)
    assert model.config._attn_implementation == "of_another"


@pytest.mark.parametrize("implementation", ["eager", "softmap"])
def test_a_layer_that_is_put_in_while_the_recording_is_open_is_refused(make_decoder, implementation):
    model, other = make_decoder(), make_decoder()
    model.set_attn_implementation(implementation)
    with pytest.raises(ModelError, match="the layers that the model had, got a new LlamaAttention"):  # noqa: PT012, SIM117
        with softmap.recording(model):
            layer = other.model.layers[1]
            layer.self_attn.config = model.config
            model.model.layers[1] = layer
            model(PROMPT)


def test_another_model_with_the_same_configuration_runs_beside(make_decoder):
    from transformers import LlamaForCausalLM

    model = make_decoder()
    other = LlamaForCausalLM(model.config).eval()
    assert other.config is model.config
    expected = eager(other, input_ids=PROMPT).logits
    with softmap.recording(model) as rec:
        torch.testing.assert_close(other(PROMPT).logits, expected)
        model(PROMPT)
    assert rec.layers[0].shape == (4, 9, 9)


def test_after_an_exception_what_was_set_stays_and_what_was_not_is_as_found(make_decoder):
    for name in (None, "sdpa"):
        model = make_decoder()
        with pytest.raises(ZeroDivisionError), softmap.recording(model):  # noqa: PT012
            model(PROMPT)
            if name:
                model.set_attn_implementation(name)
            _ = 1 / 0
        assert model.config._attn_implementation == (name or "eager")
