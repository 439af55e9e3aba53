"""Windows, frames and pictures that enter a layer as a larger batch than the model was given: each under its sequence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from makers import GROUPED, PICTURE, TEXT, VISION, Example, build, configure
from torch import nn
from zoo_masks import florence2

import softmap
from softmap.errors import ModelError
from softmap.models.owners import Owners, Part, Running


def two_florence2() -> Example:
    return florence2(2)


def several_pictures() -> Example:
    """A model of texts with two pictures each, which enter the model of pictures as a batch of four."""
    parts = {"text_config": {**TEXT, **GROUPED, "model_type": "llama"}, "vision_config": {**VISION, "image_size": 16}}
    model = build("idefics3", configure("idefics3", image_token_id=PICTURE, scale_factor=2, **parts))
    ids = torch.randint(3, 90, (2, 20))
    ids[:, 2:6] = ids[:, 8:12] = PICTURE
    return Example(
        model,
        {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(2, 2, 3, 16, 16)},
    )


def packed_pictures() -> Example:
    """A model of pictures of any size, which puts those of all texts into one row."""
    parts = {
        "text_config": {**TEXT, **GROUPED, "model_type": "llama"},
        "vision_config": {**VISION, "model_type": "pixtral"},
    }
    features = {"image_token_id": PICTURE, "vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
    model = build("pixtral", configure("llava", **parts, **features))
    ids = torch.randint(3, 90, (2, 20))
    ids[0, 1:10] = ids[1, 1:7] = PICTURE
    sizes = torch.tensor([[12, 12], [8, 12]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "image_sizes": sizes}
    return Example(model, {**inputs, "pixel_values": torch.randn(2, 3, 12, 12)})


def one_call_for_each_picture() -> Example:
    """A model of Qwen's kind, whose layers call once for each picture; two texts with a picture each."""
    rotary = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    sizes = {"depth": 2, "num_heads": 4, "hidden_size": 32, "in_channels": 3, "patch_size": 4}
    vision = {**sizes, "embed_dim": 32, "mlp_ratio": 2}
    marks = {"video_token_id": 97, "vision_start_token_id": 95, "vision_end_token_id": 96}
    words = {**TEXT, **GROUPED, "rope_parameters": rotary}
    config = configure("qwen2_vl", text_config=words, vision_config=vision, image_token_id=PICTURE, **marks)
    ids = torch.randint(3, 90, (2, 20))
    ids[:, 2], ids[0, 3:9], ids[1, 3:7] = 95, PICTURE, PICTURE
    grid = torch.tensor([[1, 4, 6], [1, 4, 4]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": (ids == PICTURE).int()}
    return Example(build("qwen2_vl", config), {**inputs, "pixel_values": torch.randn(40, 96), "image_grid_thw": grid})


MAKERS = [two_florence2, several_pictures, packed_pictures, one_call_for_each_picture]


def only(inputs: dict[str, Any], item: int) -> dict[str, Any]:
    found = {name: x[item : item + 1] for name, x in inputs.items()}
    if "image_grid_thw" in inputs:
        found["pixel_values"] = inputs["pixel_values"][[slice(0, 24), slice(24, 40)][item]]
    return found


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_two_sequences_are_recorded_as_each_by_itself(make):
    model, inputs = make()
    with torch.no_grad():
        own = model(**inputs)
    with softmap.recording(model) as both:
        ours = model(**inputs)
    assert torch.allclose(own[0], ours[0], atol=1e-4)
    assert len(both.sequences) == 2
    for item, sequence in enumerate(both.sequences):
        alone = softmap.record(only(inputs, item), model).sequences[0]
        assert [layer.path for layer in sequence.layers] == [layer.path for layer in alone.layers]
        for layer, expected in zip(sequence.layers, alone.layers, strict=True):
            assert layer.shape == expected.shape
            assert layer.difference is not None
            assert float((layer.matrix.dense() - expected.matrix.dense()).abs().max()) <= 1e-4
        assert sequence.tokens is not None


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_weights_of_one_sequence_are_far_from_those_of_another(make):
    model, inputs = make()
    first, second = (softmap.record(only(inputs, item), model).sequences[0].layers[0] for item in range(2))
    assert first.shape != second.shape or float((first.matrix.dense() - second.matrix.dense()).abs().max()) > 0.05


class Windows(nn.Module):
    """Cuts each of its sequences into two windows, and puts them in some order."""

    def __init__(self, owners: Owners, order: list[int]) -> None:
        super().__init__()
        self.owners, self.order, self.seen = owners, order, torch.empty(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        windows = x.unflatten(1, (2, -1)).flatten(0, 1)  # (batch * 2, tokens, d)
        windows = windows[self.order if len(x) == 2 else [0, 1]]
        self.owners.read((self, 0), windows[:, None])
        self.seen = windows[:, None]
        return x


@pytest.mark.parametrize(
    ("order", "expected"),
    [([0, 1, 2, 3], [0, 0, 1, 1]), ([0, 2, 1, 3], [0, 1, 0, 1]), ([3, 1, 2, 0], None), ([1, 0, 2, 3], None)],
    ids=["one sequence after the other", "by turns", "mixed", "windows of one in another order"],
)
def test_order_is_found_by_what_is_in_the_windows_or_nothing_is_said(order, expected):
    owners = Owners()
    module, x = Windows(owners, order), torch.randn(2, 6, 4)
    owners.begin_run(Running(module, (x,), {}))
    module(x)
    found = owners.of((module, 0), module.seen, 2)
    assert found == (None if expected is None else [Part(row, owner) for row, owner in enumerate(expected)])


def test_model_that_does_not_take_one_sequence_is_refused_with_what_works(monkeypatch):
    model, inputs = two_florence2()
    monkeypatch.setattr(Owners, "_read_alone", lambda self, batch: [])
    with pytest.raises(ModelError, match="record one sequence at a time"):
        softmap.record(inputs, model)


def test_random_numbers_of_the_process_are_drawn_as_without():
    model, inputs = two_florence2()
    torch.manual_seed(7)
    softmap.record(inputs, model)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(3))


def test_picture_that_several_texts_are_compared_with_is_recorded_with_each():
    model = build("clip", configure("clip", text_config={**TEXT, "eos_token_id": 2}, vision_config=VISION))
    ids, picture = torch.randint(3, 90, (3, 9)), torch.randn(1, 3, 12, 12)
    rec = softmap.record({"input_ids": ids, "pixel_values": picture}, model, check=True)
    assert len(rec.sequences) == 3
    for item in range(3):
        one = softmap.record({"input_ids": ids[item : item + 1], "pixel_values": picture}, model)
        own = rec.batch(item)
        assert [layer.path for layer in own.layers] == [layer.path for layer in one.layers]
        for matrix, alone in zip(own, one, strict=True):
            torch.testing.assert_close(matrix.dense(), alone.dense(), atol=2e-6, rtol=0)
        (picture_of,), (expected,) = own.sequences[0].pictures, one.sequences[0].pictures
        assert str(picture_of.places) == str(expected.places)


def test_two_pictures_that_three_texts_are_compared_with_are_refused():
    model = build("clip", configure("clip", text_config={**TEXT, "eos_token_id": 2}, vision_config=VISION))
    inputs = {"input_ids": torch.randint(3, 90, (3, 9)), "pixel_values": torch.randn(2, 3, 12, 12)}
    with pytest.raises(ModelError, match="record one sequence at a time"):
        softmap.record(inputs, model)
