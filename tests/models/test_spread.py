"""Models that accelerate has spread over devices and the disk: recorded as they were before."""

from __future__ import annotations

import accelerate
import pytest
import torch
from decoders import assert_same_weights, eager, ids_of

import softmap
from softmap.models.load import packaged_directory
from softmap.models.masking import ModelMask

KINDS = {
    "llama": {},
    "gemma2": {"sliding_window": 8, "head_dim": 8},
    "gpt_oss": {"sliding_window": 8, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
}


def over_cpu_and_disk(model, folder):
    parts = ["model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb", "lm_head"]
    places = {part: "disk" if part == "model.layers.1" else "cpu" for part in parts}
    accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=folder)


SPREAD = {
    "cpu": lambda model, folder: accelerate.cpu_offload(model, execution_device="cpu"),
    "disk": lambda model, folder: accelerate.disk_offload(model, folder, execution_device="cpu"),
    "both": over_cpu_and_disk,
}


@pytest.mark.parametrize(("spread", "kind"), [("cpu", kind) for kind in KINDS] + [("disk", "llama"), ("both", "llama")])
def test_spread_model_is_recorded_as_it_was_before(make_decoder, tmp_path, spread, kind):
    model, ids = make_decoder(kind, **KINDS[kind]), ids_of(12, batch=2)
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    given = {"input_ids": ids, "attention_mask": mask}
    expected, generated = eager(model, **given), model.generate(ids[:1], max_new_tokens=3, do_sample=False)
    SPREAD[spread](model, str(tmp_path))
    for _ in range(2):
        rec = softmap.record(given, model)
        assert_same_weights(rec.batch(0), expected.attentions, 0)
        assert_same_weights(rec.batch(1), expected.attentions, 1, slice(5, 12))
    with softmap.recording(model) as rec:
        output = model(**given)
    torch.testing.assert_close(output.logits[mask.bool()], expected.logits[mask.bool()], atol=1e-5, rtol=0)
    assert_same_weights(rec.batch(1), expected.attentions, 1, slice(5, 12))
    assert_same_weights(softmap.record(ids[:1], model, chunk=5), expected.attentions, 0)
    with softmap.recording(model) as rec:
        assert torch.equal(model.generate(ids[:1], max_new_tokens=3, do_sample=False), generated)
    assert_same_weights(softmap.record(generated[:, :-1], model), [layer.matrix.dense()[None] for layer in rec.layers])


def test_hooks_of_accelerate_stay_where_they_were(make_decoder):
    model = accelerate.cpu_offload(make_decoder(), execution_device="cpu")
    before = {path: vars(module).get("forward") for path, module in model.named_modules()}
    softmap.record(ids_of(5), model)
    assert {path: vars(module).get("forward") for path, module in model.named_modules()} == before


@pytest.mark.parametrize("places", ["cpu", {"embeddings": "cpu", "encoder": "disk", "pooler": "cpu"}, {"": "disk"}])
def test_model_that_is_loaded_over_devices_is_explained_as_ever(bundled, tmp_path, places):
    offload = {} if places == "cpu" else {"offload_folder": str(tmp_path)}
    spread = softmap.models.load(packaged_directory(), device_map=places, **offload)
    for layer, expected in zip(
        softmap.record("I love learning", spread).layers,
        softmap.record("I love learning", bundled).layers,
        strict=True,
    ):
        torch.testing.assert_close(layer.matrix.dense(), expected.matrix.dense(), atol=2e-6, rtol=0)
    story, expected = (softmap.explain("I love learning", model=each) for each in (spread, bundled))
    torch.testing.assert_close(story.weights, expected.weights, atol=2e-6, rtol=0)
    assert story.steps.x is not None


def test_mask_goes_along_to_another_device():
    mask = ModelMask(range(3), range(3), lambda b, h, q, k: k <= q, None, by_element=False, model="llama")
    assert accelerate.utils.send_to_device({"attention_mask": (mask,)}, "cpu")["attention_mask"][0] is mask
    assert not hasattr(mask, "no_attribute_of_tensors")
