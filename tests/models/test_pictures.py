"""Where the patches of pictures stand is where the model puts them, and pictures look as they did."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
import transformers
from makers import GROUPED, PICTURE, SIZES, TEXT, VISION, build, configure, pictures_in_text, qwen_pictures
from zoo import ENTRIES, LLAMA

import softmap
from softmap.models import LoadedModel
from softmap.models.pictures import LEADING
from softmap.recorded.pictures import LONGEST

BY_NAME = {entry.name: entry for entry in ENTRIES}
OTHERS = (
    pictures_in_text(
        "vipllava", "", words=LLAMA, vision={"model_type": "clip_vision_model"}, patches=9, vision_feature_layers=[-1]
    ),
    pictures_in_text(
        "internvl",
        "",
        words={"model_type": "qwen2"},
        vision={"image_size": [16, 16], "patch_size": [4, 4]},
        patches=4,
        shape=(2, 3, 16, 16),
        downsample_ratio=0.5,
    ),
    qwen_pictures(
        "qwen3_vl_moe",
        "",
        out_hidden_size=32,
        intermediate_size=64,
        num_position_embeddings=16,
        deepstack_visual_indexes=[0],
    ),
)
IN_TEXT = {entry.name: entry for entry in (*ENTRIES, *OTHERS)}
TOWERS = {
    "vit": {},
    "vit_msn": {},
    "deit": {},
    "dinov2": {},
    "dinov2_with_registers": {"num_register_tokens": 3},
    "dinov3_vit": {"num_register_tokens": 4},
    "beit": {"use_relative_position_bias": True},
    "yolos": {"num_detection_tokens": 5, "image_size": [12, 12]},
    "ijepa": {},
    "siglip_vision_model": {},
    "clip_vision_model": {},
    "metaclip_2_vision_model": {},
    "chinese_clip_vision_model": {},
    "altclip_vision_model": {},
    "mlcd_vision_model": {"num_key_value_groups": 1},
    "aimv2_vision_model": {"use_head": False},
    "owlvit_vision_model": {},
    "owlv2_vision_model": {},
    "blip_2_vision_model": {},
    "instructblip_vision_model": {},
    "internvl_vision": {},
    "idefics3_vision": {},
    "smolvlm_vision": {},
    "pixtral": {},
}
CLASSES = {
    "metaclip_2_vision_model": "MetaClip2VisionModel",
    "altclip_vision_model": "AltCLIPVisionModel",
    "owlvit_vision_model": "OwlViTVisionModel",
    "owlv2_vision_model": "Owlv2VisionModel",
    "blip_2_vision_model": "Blip2VisionModel",
    "instructblip_vision_model": "InstructBlipVisionModel",
}
"""Those that AutoModel does not make."""
QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
OF_ANY_SHAPE = {"dinov2", "dinov2_with_registers", "dinov3_vit", "idefics3_vision", "pixtral"}


@cache
def tower(name):
    settings = configure(name, **{**VISION, **TOWERS[name]})
    kind = getattr(transformers, CLASSES[name]) if name in CLASSES else None
    return build(name, settings, kind=kind)


def record(model, **inputs):
    with softmap.recording(model) as rec, torch.no_grad():
        model(**inputs)
    return rec.recording


def moved(one, other, layer, name="q"):
    """The tokens whose queries in a layer differ between two recordings of one sequence."""
    first, second = (getattr(rec.layers[layer], name) for rec in (one, other))
    return (first - second).abs().amax((0, 2)).gt(1e-6).nonzero()[:, 0].tolist()


def bright(pixels, row, column, size=4):
    """Pictures of which one patch is another."""
    pixels = pixels.clone()
    pixels[..., row * size : (row + 1) * size, column * size : (column + 1) * size] += 1.5
    return pixels


@pytest.mark.parametrize("name", TOWERS)
def test_patch_stands_where_the_tower_puts_it(name):
    model, pixels = tower(name), torch.randn(1, 3, 12, 12)
    whole = record(model, pixel_values=pixels)
    tokens = whole.pictures[0].patches(whole.layers[0], "queries")
    assert tokens.shape == (3, 3)
    for row, column in ((0, 0), (0, 1), (1, 0), (2, 1)):
        other = record(model, pixel_values=bright(pixels, row, column))
        assert moved(whole, other, 0) == [int(tokens[row, column])]


def test_every_tower_that_is_known_is_tested():
    assert set(LEADING) == {*TOWERS, "siglip2_vision_model", *(f"{name}_vision" for name in QWEN)}


@pytest.mark.parametrize("name", sorted(OF_ANY_SHAPE))
def test_wide_picture_has_a_wide_grid(name):
    model, pixels = tower(name), torch.randn(1, 3, 8, 12)
    whole = record(model, pixel_values=pixels)
    tokens = whole.pictures[0].patches(whole.layers[0])
    assert tokens.shape == (2, 3)
    assert whole.pictures[0].pixels.shape == (8, 12, 3)
    assert moved(whole, record(model, pixel_values=bright(pixels, 1, 0)), 0) == [int(tokens[1, 0])]


def test_what_no_patch_covers_is_left_out_of_the_picture():
    rec = record(tower("dinov2"), pixel_values=torch.randn(1, 3, 15, 13))
    assert rec.pictures[0].pixels.shape == (12, 12, 3)
    assert rec.pictures[0].patches(rec.layers[0]).shape == (3, 3)


def test_each_sequence_of_a_batch_has_its_own_picture():
    rec = record(tower("vit"), pixel_values=torch.stack([torch.zeros(3, 12, 12), torch.rand(3, 12, 12)]))
    assert [len(sequence.pictures) for sequence in rec.sequences] == [1, 1]
    one, other = (rec.batch(i) for i in range(2))
    assert int(one.pictures[0].pixels.max()) == 0
    assert int(other.pictures[0].pixels.max()) == 255
    assert torch.equal(*(each.pictures[0].patches(each.layers[1]) for each in (one, other)))


def test_registers_and_cls_are_no_patches():
    rec = record(tower("dinov2_with_registers"), pixel_values=torch.randn(1, 3, 12, 12))
    assert rec.pictures[0].patches(rec.layers[0]).flatten().tolist() == list(range(4, 13))
    assert rec.layers[0].shape[1:] == (13, 13)


# In a text


def without_mixing(model):
    """A model whose tower's attention adds nothing, so that each of its tokens is what its patch made it."""
    path = next(path for path, _ in model.named_modules() if path in ("vision_tower", "vision_model", "visual"))
    for name, parameter in model.get_submodule(path).named_parameters():
        if any(f"{part}." in name for part in ("out_proj", "o_proj", "attn.proj", "projection_layer")):
            parameter.data.zero_()
    return model


def of_text(rec):
    """The first layer that reads text: its place in the recording."""
    return next(i for i, layer in enumerate(rec.layers) if layer.queries_of)


@pytest.mark.parametrize("name", ["llava", "vipllava", "paligemma", "gemma3", "idefics3", "smolvlm", "internvl"])
def test_patch_stands_in_the_text_where_the_model_puts_it(name):
    model, inputs = IN_TEXT[name].make()
    without_mixing(model)
    whole = record(model, **inputs)
    for sequence, row, column in ((0, 0, 1), (0, 1, 0), (1, 1, 1)):
        pixels, rec = inputs["pixel_values"].clone(), whole.batch(sequence)
        layer = of_text(rec)
        tokens = rec.pictures[0].patches(rec.layers[layer])
        size = pixels.shape[-1] // tokens.shape[1]
        pixels[sequence] = bright(pixels[sequence], row, column, size)
        other = record(model, **inputs | {"pixel_values": pixels}).batch(sequence)
        assert moved(rec, other, layer) == [int(tokens[row, column])]


@pytest.mark.parametrize("strategy", ["default", "full"])
def test_cls_in_the_text_is_no_patch(strategy):
    model, inputs = IN_TEXT["llava"].make()
    model.config.vision_feature_select_strategy = strategy
    inputs = {name: x[:1] for name, x in inputs.items()}
    if strategy == "full":
        inputs["input_ids"][0, 11] = PICTURE
    rec = record(model, **inputs)
    first = 3 if strategy == "full" else 2
    assert rec.pictures[0].patches(rec.layers[-1]).flatten().tolist() == list(range(first, first + 9))


def qwen_inputs(inputs, pictures):
    """The pictures, (height, width, 3) in bytes, as Qwen's own processor has them."""
    processor = transformers.Qwen2VLImageProcessor(patch_size=4, merge_size=2, do_resize=False)
    made = processor(images=pictures, return_tensors="pt")
    return inputs | {"pixel_values": made["pixel_values"], "image_grid_thw": made["image_grid_thw"]}, processor


@pytest.mark.parametrize("name", QWEN)
def test_patches_that_become_one_token_stand_where_the_model_puts_them(name):
    model, inputs = IN_TEXT[name].make()
    without_mixing(model)
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 200, (16, 24, 3), dtype=np.uint8), np.zeros((16, 16, 3), dtype=np.uint8)]
    given, processor = qwen_inputs(inputs, pictures)
    with softmap.recording(model, tokenizer=processor) as live:
        model(**given)
    whole = live.recording
    text = of_text(whole)
    for shown, pixels in zip(whole.pictures, pictures, strict=True):
        assert not shown.stretched
        assert np.array_equal(shown.pixels.numpy(), pixels)
    for picture, row, column in ((0, 0, 1), (0, 1, 0), (0, 3, 4), (1, 2, 3)):
        changed = [pixels.copy() for pixels in pictures]
        changed[picture][row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] += 50
        other = record(model, **qwen_inputs(inputs, changed)[0])
        tower, merged = (whole.pictures[picture].patches(whole.layers[i]) for i in (0, text))
        assert tower.shape == ((4, 6), (4, 4))[picture]
        assert merged.shape == ((2, 3), (2, 2))[picture]
        assert moved(whole, other, 0) == [int(tower[row, column])]
        assert moved(whole, other, text) == [int(merged[row // 2, column // 2])]


def test_windows_that_do_not_fill_the_picture_are_smaller_at_its_edges():
    model, inputs = IN_TEXT["qwen2_5_vl"].make()
    pixels = np.zeros((24, 40, 3), dtype=np.uint8)
    inputs["input_ids"] = torch.tensor([[3, *[PICTURE] * 15, 4]])
    inputs = {"input_ids": inputs["input_ids"]}
    given, _ = qwen_inputs(inputs, [pixels])
    given["mm_token_type_ids"] = (inputs["input_ids"] == PICTURE).int()
    whole = record(model, **given)
    tokens = whole.pictures[0].patches(whole.layers[0])
    assert sorted(tokens.flatten().tolist()) == list(range(60))
    for row, column in ((0, 4), (3, 9), (4, 0), (5, 9)):
        changed = pixels.copy()
        changed[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] = 200
        other = record(model, **given | qwen_inputs(inputs, [changed])[0])
        assert moved(whole, other, 0) == [int(tokens[row, column])]


def test_pictures_of_several_sizes_stand_side_by_side():
    model, inputs = IN_TEXT["llava with pixtral"].make()
    without_mixing(model)
    whole = record(model, **inputs)
    text = of_text(whole)
    assert [tuple(picture.pixels.shape) for picture in whole.pictures] == [(12, 12, 3), (8, 12, 3)]
    for picture, row, column in ((0, 2, 1), (1, 1, 2)):
        pixels = inputs["pixel_values"].clone()
        pixels[picture] = bright(pixels[picture], row, column)
        other = record(model, **inputs | {"pixel_values": pixels})
        for layer in (0, text):
            tokens = whole.pictures[picture].patches(whole.layers[layer])
            assert moved(whole, other, layer) == [int(tokens[row, column])]


def test_patches_of_pixtral_that_become_one_token_stand_where_the_model_puts_them():
    parts = {"text_config": {**TEXT, **GROUPED, **LLAMA}, "vision_config": {**VISION, "model_type": "pixtral"}}
    config = configure("mistral3", **parts, image_token_id=PICTURE, spatial_merge_size=2, vision_feature_layer=-1)
    model = without_mixing(build("mistral3", config))
    ids = torch.tensor([[5, 98, 98, 98, 6, 98, 98, 98, 7]])
    pixels, sizes = torch.randn(1, 3, 16, 24), torch.tensor([[16, 24]])
    whole = record(model, input_ids=ids, pixel_values=pixels, image_sizes=sizes)
    tokens = whole.pictures[0].patches(whole.layers[-1])
    assert tokens.tolist() == [[1, 2, 3], [5, 6, 7]]
    for row, column in ((0, 4), (3, 1)):
        other = record(model, input_ids=ids, pixel_values=bright(pixels, row, column), image_sizes=sizes)
        assert moved(whole, other, of_text(whole)) == [int(tokens[row // 2, column // 2])]


def test_rows_of_patches_with_a_token_between_them_are_told_apart():
    model, inputs = IN_TEXT["llava with pixtral"].make()
    ids = torch.tensor([[5, 98, 98, 98, 6, 98, 98, 98, 6, 98, 98, 98, 7]])
    rec = record(model, input_ids=ids, pixel_values=inputs["pixel_values"][:1], image_sizes=inputs["image_sizes"][:1])
    assert rec.pictures[0].patches(rec.layers[-1]).tolist() == [[1, 2, 3], [5, 6, 7], [9, 10, 11]]


def test_padded_rows_of_patches_have_the_grid_of_the_real_ones():
    model, _ = IN_TEXT["siglip2_vision_model"].make()
    pictures = [np.zeros((12, 12, 3), dtype=np.uint8), np.zeros((12, 8, 3), dtype=np.uint8)]
    pictures[1][4:8, 4:8] = 255
    rows = [torch.from_numpy(each).float().permute(2, 0, 1) / 127.5 - 1 for each in pictures]
    patches = [each.view(3, 3, 4, -1, 4).permute(1, 3, 2, 4, 0).reshape(-1, 48) for each in rows]
    padded = torch.stack([torch.nn.functional.pad(each, (0, 0, 0, 9 - len(each))) for each in patches])
    mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    shapes = torch.tensor([[3, 3], [3, 2]])
    rec = record(model, pixel_values=padded, spatial_shapes=shapes, pixel_attention_mask=mask).batch(1)
    assert np.array_equal(rec.pictures[0].pixels.numpy(), pictures[1])
    assert rec.pictures[0].patches(rec.layers[0]).tolist() == [[0, 1], [2, 3], [4, 5]]


def test_padded_text_counts_its_real_tokens():
    model, inputs = IN_TEXT["llava"].make()
    rec = record(model, **inputs).batch(1)
    ids = torch.tensor(rec.tokens.ids)
    tokens = rec.pictures[0].patches(rec.layers[-1])
    assert (ids[tokens] == PICTURE).all()
    assert int((ids == PICTURE).sum()) == 9


@pytest.mark.parametrize(
    ("name", "kind"),
    [("llava", "LlavaForConditionalGeneration"), ("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration")],
)
def test_generated_tokens_leave_the_patches_where_they_were(name, kind):
    example, inputs = IN_TEXT[name].make()
    model = build(name, example.config, kind=getattr(transformers, kind))
    inputs = {
        name: x if name in ("pixel_values", "image_grid_thw") and x.ndim == 2 else x[:1] for name, x in inputs.items()
    }
    expected = record(example, **inputs)
    with softmap.recording(model) as live:
        model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False, pad_token_id=0)
    rec = live.recording
    assert rec.layers[-1].shape[1] == expected.layers[-1].shape[1] + 2
    for one, other in zip(rec.pictures, expected.pictures, strict=True):
        assert torch.equal(one.patches(rec.layers[-1]), other.patches(expected.layers[-1]))
        assert torch.equal(one.patches(rec.layers[0]), other.patches(expected.layers[0]))


def test_decoder_beside_a_tower_looks_at_the_patches():
    parts = configure("vit", **VISION), configure("gpt2", **{**SIZES, "vocab_size": 99, "add_cross_attention": True})
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(*parts)
    model = build("captions", config, kind=transformers.VisionEncoderDecoderModel)
    rec = record(model, pixel_values=torch.randn(1, 3, 12, 12), decoder_input_ids=torch.tensor([[3, 4, 5]]))
    cross = next(layer for layer in rec.layers if layer.kind == "cross")
    own = next(layer for layer in rec.layers if layer.part == "decoder" and layer.kind == "self")
    picture = rec.pictures[0]
    assert picture.patches(cross, "keys").flatten().tolist() == list(range(1, 10))
    assert picture.patches(cross, "queries") is None
    assert picture.patches(own, "keys") is None
    assert picture.patches(rec.layers[0], "queries").flatten().tolist() == list(range(1, 10))


# What is not known


@pytest.mark.parametrize("name", ["bert", "t5", "whisper", "videomae", "mllama"])
def test_what_is_no_picture_of_its_own_gives_none(name):
    model, inputs = IN_TEXT[name].make()
    assert all(not sequence.pictures for sequence in record(model, **inputs).sequences)


def test_text_with_another_number_of_image_tokens_has_no_patches():
    model, inputs = IN_TEXT["llava"].make()
    model.config.image_token_id = model.config.image_token_index = 97  # not what stands in the text
    inputs["input_ids"][inputs["input_ids"] == PICTURE] = 5
    inputs["input_ids"][0, :2] = 97
    with softmap.recording(model.vision_tower) as live:
        model.vision_tower(pixel_values=inputs["pixel_values"])
    assert all(picture.places for sequence in live.recording.sequences for picture in sequence.pictures)
    from softmap.models.pictures import Seen, pictures_of

    found = pictures_of(Seen.of(model.config, inputs), model, inputs["input_ids"].tolist(), 2, None)
    assert [[place.of for place in picture.places] for own in found for picture in own] == [[None], [None]]


def test_tower_that_is_not_known_keeps_its_picture_without_patches(monkeypatch):
    monkeypatch.setattr("softmap.models.pictures.LEADING", {})
    rec = record(tower("vit"), pixel_values=torch.randn(1, 3, 12, 12))
    assert rec.pictures[0].places == ()
    assert rec.pictures[0].patches(rec.layers[0]) is None


def test_tower_of_another_number_of_tokens_has_no_patches(monkeypatch):
    monkeypatch.setitem(LEADING, "vit", (2, None))
    rec = record(tower("vit"), pixel_values=torch.randn(1, 3, 12, 12))
    assert rec.pictures[0].places == ()


def test_layers_that_were_left_out_have_no_places():
    model, inputs = IN_TEXT["llava"].make()
    rec = softmap.record(inputs, model, layers=[2, 3]).batch(0)
    assert [place.of for place in rec.pictures[0].places] == ["tokens"]


# How they look


def photograph(height=12, width=12):
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("known", ["processor", "directory"])
def test_normalisation_is_undone_where_it_is_known(known, tmp_path):
    processor = transformers.ViTImageProcessor(do_resize=False, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4])
    pixels = photograph()
    inputs = processor(images=pixels, return_tensors="pt")
    processor.save_pretrained(tmp_path)
    loaded = LoadedModel(tower("vit"), None, str(tmp_path))
    if known == "processor":
        loaded = LoadedModel(tower("vit"), processor, "a/model")
    rec = softmap.record(dict(inputs), loaded)
    assert not rec.pictures[0].stretched
    assert np.array_equal(rec.pictures[0].pixels.numpy(), pixels)


@pytest.mark.parametrize("file", ["{", "[]", '{"image_mean": ["a"], "image_std": 3}', '{"rescale_factor": 0.5}'])
def test_colours_are_stretched_where_normalisation_is_not_known(file, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(file)
    pixels = photograph()
    inputs = {"pixel_values": torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 60 - 2}
    rec = softmap.record(inputs, LoadedModel(tower("vit"), None, str(tmp_path)))
    assert rec.pictures[0].stretched
    assert np.abs(rec.pictures[0].pixels.numpy().astype(int) - pixels).max() <= 1


def test_normalisation_that_leads_beyond_all_colours_is_not_believed():
    processor = transformers.ViTImageProcessor(do_normalize=False)
    rec = softmap.record({"pixel_values": torch.randn(1, 3, 12, 12)}, LoadedModel(tower("vit"), processor, "a/model"))
    assert rec.pictures[0].stretched


def test_large_picture_is_kept_small():
    model = build("dinov2", configure("dinov2", **VISION | {"image_size": 64, "patch_size": 32}))
    rec = record(model, pixel_values=torch.randn(1, 3, 512, 1024))
    assert rec.pictures[0].pixels.shape == (LONGEST // 2, LONGEST, 3)
    assert rec.pictures[0].patches(rec.layers[0]).shape == (16, 32)


def test_processor_names_the_tokens_as_its_tokenizer_does():
    class Processor:
        image_processor = transformers.ViTImageProcessor()
        tokenizer = None

    model, inputs = IN_TEXT["llava"].make()
    rec = softmap.record(inputs, model, tokenizer=Processor()).batch(0)
    assert rec.tokens.pieces[0] == str(int(inputs["input_ids"][0, 0]))


# In files


@pytest.mark.parametrize("name", ["vit", "llava", "qwen2_5_vl"])
def test_pictures_are_as_before_when_they_are_opened_again(name, tmp_path):
    model, inputs = IN_TEXT[name].make()
    rec = record(model, **inputs)
    rec.save(tmp_path / "saved")
    softmap.record(inputs, model, out=tmp_path / "written")
    for path in ("saved", "written"):
        found = softmap.load(tmp_path / path)
        for one, other in zip(rec.sequences, found.sequences, strict=True):
            assert len(one.pictures) == len(other.pictures) > 0
            for a, b in zip(one.pictures, other.pictures, strict=True):
                assert torch.equal(a.pixels, b.pixels)
                assert a.stretched == b.stretched
                assert [(p.of, p.path, p.count) for p in a.places] == [(p.of, p.path, p.count) for p in b.places]
                assert all(torch.equal(p.tokens, q.tokens) for p, q in zip(a.places, b.places, strict=True))
