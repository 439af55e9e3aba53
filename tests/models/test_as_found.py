"""What is recorded is what the attention function that a model was set to does, and a check says so."""

from __future__ import annotations

import pytest
import torch
from makers import LENGTH, configure, two_texts
from verify import difference_of_output, eager_weights
from zoo import ENTRIES

import softmap
from softmap.errors import ModelError
from softmap.models.checking import compare
from softmap.models.implementations import leaves_mask_out

BY_NAME = {entry.name: entry for entry in ENTRIES}


@pytest.fixture
def paligemma():
    """A model that makes a causal mask, and sets its layers not to be causal; its inputs without their types."""
    model, inputs = BY_NAME["paligemma"].make()
    del inputs["token_type_ids"]
    return model, inputs | {"attention_mask": torch.ones_like(inputs["attention_mask"])}


@pytest.mark.parametrize(("implementation", "sees_later_keys"), [("sdpa", True), ("eager", False)])
def test_mask_that_the_attention_function_goes_without_hides_nothing(paligemma, implementation, sees_later_keys):
    model, inputs = paligemma
    model.set_attn_implementation(implementation)
    with torch.no_grad():
        own = model(**inputs)
    with softmap.recording(model) as rec:
        ours = model(**inputs)
    assert difference_of_output(ours, own, inputs) <= 1e-5
    weights = rec.batch(0).layers[-1].matrix.dense()
    assert bool((weights.triu(1) > 0).any()) == sees_later_keys


def test_text_that_a_model_of_pictures_reads_is_recorded_as_it_runs_by_itself(paligemma):
    model, inputs = paligemma
    model.set_attn_implementation("sdpa")
    rec = softmap.record(inputs["input_ids"][:1, 12:], model, check=True)
    assert rec.origin.checked <= 1e-5


@pytest.mark.parametrize("name", ["bert", "llama", "mistral", "moonshine", "t5", "clip", "qwen2_vl"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_without_padding_the_output_is_that_of_either_attention_function(name, implementation):
    model, inputs = BY_NAME[name].make()
    inputs = {key: torch.ones_like(x) if key.endswith("attention_mask") else x for key, x in inputs.items()}
    model.set_attn_implementation(implementation)
    assert softmap.record(inputs, model, check=True).origin.checked <= 1e-5


def test_layer_that_is_not_causal_by_its_flag_alone_is_seen_so():
    model, inputs = BY_NAME["llama"].make()
    inputs = {"input_ids": inputs["input_ids"]}
    model.set_attn_implementation("sdpa")
    for layer in model.layers:
        layer.self_attn.is_causal = False  # as retrievers made of decoders do
    rec = softmap.record(inputs, model, check=True)
    assert rec.origin.checked <= 1e-5
    assert repr(rec.batch(0).layers[0].mask) == "full()"
    with eager_weights(model) as seen, torch.no_grad():
        model.set_attn_implementation("eager")
        model(**inputs)
    assert bool((seen[0].weights.triu(1) == 0).all())  # eager attention would not show it
    assert repr(softmap.record(inputs, model).batch(0).layers[0].mask) != "full()"


def test_configuration_that_names_no_attention_function_runs_without_masks():
    model, inputs = BY_NAME["llama"].make()
    model.config._attn_implementation = None
    with torch.no_grad():
        own = model(**inputs)
    with softmap.recording(model) as rec:
        ours = model(**inputs)
    assert difference_of_output(ours, own, {}) <= 1e-5
    assert repr(rec.batch(0).layers[0].mask) == "full()"
    assert model.config._attn_implementation is None


def test_library_is_asked_whether_a_mask_is_left_out():
    from transformers.masking_utils import bidirectional_mask_function, causal_mask_function

    asked = {"batch_size": 1, "q_length": 4, "kv_length": 4, "q_offset": 0, "kv_offset": 0}
    asked |= {"mask_function": causal_mask_function, "allow_is_causal_skip": True, "dtype": torch.float32}
    assert leaves_mask_out("sdpa", asked)
    assert not leaves_mask_out("eager", asked)
    assert leaves_mask_out(None, asked)
    assert not leaves_mask_out("sdpa", asked | {"attention_mask": torch.tensor([[True, True, True, False]])})
    assert not leaves_mask_out("sdpa", asked | {"local_size": 3})
    assert not leaves_mask_out("sdpa", asked | {"allow_is_causal_skip": False})
    both_ways = {"mask_function": bidirectional_mask_function, "allow_is_bidirectional_skip": True}
    assert leaves_mask_out("eager", asked | both_ways)


def test_soft_cap_that_sdpa_does_not_take_is_refused():
    model, inputs = BY_NAME["gemma2"].make()
    for part in model.modules():
        if hasattr(part, "config"):
            part.config._attn_implementation_internal = "sdpa"
    with pytest.raises(ModelError, match="options that sdpa applies, got softcap"):
        softmap.record(inputs, model)


def set_to_flash(model):
    """As a model is where flash attention is installed."""
    for part in model.modules():
        if hasattr(part, "config"):
            part.config._attn_implementation_internal = "flash_attention_2"


def test_flash_attention_takes_the_window_and_what_is_causal_from_the_layer():
    model, inputs = BY_NAME["mistral"].make()
    expected = softmap.record(inputs, model)
    set_to_flash(model)
    rec = softmap.record(inputs, model)
    alone = softmap.record(inputs["input_ids"][:1], model)  # without a mask
    for one, layer, other in zip(rec.batch(0).layers, alone.layers, expected.batch(0).layers, strict=True):
        torch.testing.assert_close(one.matrix.dense(), other.matrix.dense())
        torch.testing.assert_close(layer.matrix.dense(), other.matrix.dense())


def test_mask_of_which_flash_attention_takes_the_padding_only_is_refused():
    model, inputs = BY_NAME["gemma3"].make()
    set_to_flash(model)
    with pytest.raises(ModelError, match="expected a mask that flash_attention_2 applies, got"):
        softmap.record(inputs, model)


def test_difference_from_the_model_as_found_is_kept_and_shown(tmp_path):
    model, inputs = BY_NAME["bert"].make()
    rec = softmap.record(inputs, model, check=True, out=tmp_path / "run")
    assert 0 <= rec.origin.checked <= 1e-5
    opened = softmap.load(tmp_path / "run")
    assert opened.origin.checked == rec.origin.checked
    from softmap.recorded.listing import list_layers

    assert "checked" in str(list_layers(opened))
    assert softmap.record(inputs, model).origin.checked is None


@pytest.fixture
def looks_at_its_name():
    """A model whose code does something else by the name of its attention function."""
    from transformers import BertModel

    class Named(BertModel):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            if self.config._attn_implementation == "sdpa":
                output.last_hidden_state = 2 * output.last_hidden_state
            return output

    torch.manual_seed(0)
    settings = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    return Named._from_config(configure("bert", **settings, vocab_size=99), attn_implementation="sdpa").eval()


def test_run_that_differs_from_the_model_as_found_is_refused_when_checked(looks_at_its_name, tmp_path):
    inputs = two_texts("right")
    softmap.record(inputs, looks_at_its_name)
    with pytest.raises(ModelError, match=r"last_hidden_state of the recorded run, which differs by 5\.0e-01"):
        softmap.record(inputs, looks_at_its_name, check=True, out=tmp_path / "run")
    with pytest.raises(softmap.errors.RecordingError):
        softmap.load(tmp_path / "run")


def test_padding_is_not_compared():
    ids = torch.ones(2, LENGTH, 4)
    mask = torch.ones(2, LENGTH)
    mask[1, 3:] = 0
    other = ids.clone()
    other[1, 5] = 9
    assert compare({"logits": ids}, {"logits": other}, {"attention_mask": mask}, "m") == 0
    other[1, 2] = 9
    with pytest.raises(ModelError, match="logits of the recorded run"):
        compare({"logits": ids}, {"logits": other}, {"attention_mask": mask}, "m")


def test_check_allows_for_the_rounding_of_what_the_model_computes_in(make_decoder):
    """As accelerate prepares a model: autocast inside of its forward, and outputs in float32."""
    model = make_decoder()
    inner = model.forward

    def forward(*args, **kwargs):
        with torch.autocast("cpu", torch.bfloat16):
            output = inner(*args, **kwargs)
        output.logits = output.logits.float()
        return output

    model.forward = forward
    assert softmap.record(torch.arange(1, 20)[None], model, check=True).origin.checked < 0.1
