"""What makes the tiny random models of the zoo, and the inputs that bring out what is special about their attention.

Nothing here is downloaded. Weights are spread wide enough for heads that look at some keys far more than at others, so
that a wrong mask, scale or order would be seen. Texts are a batch of two, one of them padded, longer than every window.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

LENGTH, SHORTER = 21, 16
"""Of the two texts; the shorter one is padded."""
ANSWER, SHORTER_ANSWER = 13, 9
"""Likewise, of what decoders read."""
VOCABULARY, PICTURE = 99, 98
"""How many token ids there are, and the one that stands for a part of a picture."""
WINDOW = 8

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {**SIZES, "vocab_size": VOCABULARY, "max_position_embeddings": 64, "pad_token_id": 0}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
VISION = {**SIZES, "image_size": 12, "patch_size": 4, "num_channels": 3}


class Example(NamedTuple):
    """A model in evaluation mode, set to eager attention, and what it is called with."""

    model: Any
    inputs: dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """An architecture of the zoo.

    Attributes:
        name: unique.
        remarks: what is special about its attention.
        make: makes the model and its inputs, the same ones each time.
        refused: the class of a module that softmap has to name when it refuses the model; empty where it records it.
        sinks_apart: whether its eager attention gives weights without the sinks, and scales its output by them.
        others: the class of its layers without softmax attention, or of attention that is left out; empty without any.
    """

    name: str
    remarks: str
    make: Callable[[], Example]
    refused: str = ""
    sinks_apart: bool = False
    others: str = ""


def text(
    name: str,
    side: str,
    remarks: str,
    /,
    *,
    architecture: str = "",
    width: float = 0.25,
    refused: str = "",
    sinks_apart: bool = False,
    others: str = "",
    inputs: Callable[[], dict[str, Any]] | None = None,
    **settings: Any,
) -> Entry:
    """A model that reads text: two texts padded on a side, unless `inputs` makes others."""

    def make() -> Example:
        model = build(name, configure(architecture or name, **{**TEXT, **settings}), width)
        return Example(model, inputs() if inputs else two_texts(side))

    return Entry(name, remarks, make, refused, sinks_apart, others)


def encoder_decoder(name: str, remarks: str, /, *, width: float = 0.25, refused: str = "", **settings: Any) -> Entry:
    """A model that reads a text and continues another, both padded on the right."""

    def make() -> Example:
        return Example(build(name, configure(name, **settings), width), two_texts("right") | an_answer())

    return Entry(name, remarks, make, refused)


def pictures(name: str, remarks: str, /, *, others: str = "", **settings: Any) -> Entry:
    """A model that looks at pictures: two of them."""

    def make() -> Example:
        model = build(name, configure(name, **{**VISION, **settings}))
        return Example(model, {"pixel_values": torch.randn(2, 3, 12, 12)})

    return Entry(name, remarks, make, others=others)


def two_towers(name: str, remarks: str, /, *, others: str = "") -> Entry:
    """A text tower and one of pictures, side by side."""

    def make() -> Example:
        parts = {"text_config": {**TEXT, "eos_token_id": 2}, "vision_config": VISION}
        model = build(name, configure(name, **parts))
        return Example(model, two_texts("right") | {"pixel_values": torch.randn(2, 3, 12, 12)})

    return Entry(name, remarks, make, others=others)


def pictures_in_text(
    name: str,
    remarks: str,
    /,
    *,
    words: dict[str, Any],
    vision: dict[str, Any],
    patches: int,
    shape: tuple[int, ...] = (2, 3, 12, 12),
    kinds: Callable[[Tensor], dict[str, Tensor]] = lambda ids: {},
    **settings: Any,
) -> Entry:
    """A model that reads texts with pictures in them: two texts, padded on the left, with a picture in each.

    Args:
        name: of the architecture.
        remarks: as in `Entry`.
        words: settings of the text model.
        vision: settings of the model of pictures.
        patches: how many tokens stand for a picture.
        shape: of the pictures.
        kinds: makes further inputs of the token ids.
        settings: further settings of the whole.
    """

    def make() -> Example:
        parts = {"text_config": {**TEXT, **GROUPED, **words}, "vision_config": {**VISION, **vision}}
        model = build(name, configure(name, image_token_id=PICTURE, **parts, **settings))
        inputs = two_texts("left", 24, 20)
        ids = inputs["input_ids"]
        ids[0, 2 : 2 + patches] = ids[1, 6 : 6 + patches] = PICTURE
        return Example(model, inputs | {"pixel_values": torch.randn(shape)} | kinds(ids))

    return Entry(name, remarks, make)


def qwen_pictures(name: str, remarks: str, /, **vision: Any) -> Entry:
    """A model of Qwen's kind, of pictures of any size: one text with two pictures, each of which sees itself alone."""

    def make() -> Example:
        rotary = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
        sizes = {"depth": 2, "num_heads": 4, "hidden_size": 32, "in_channels": 3, "patch_size": 4}
        parts = {"text_config": {**TEXT, **GROUPED, "rope_parameters": rotary}, "vision_config": {**sizes, **vision}}
        marks = {
            "image_token_id": PICTURE,
            "video_token_id": 97,
            "vision_start_token_id": 95,
            "vision_end_token_id": 96,
        }
        model = build(name, configure(name, **parts, **marks))
        ids = torch.randint(3, 90, (1, LENGTH))
        ids[0, [2, 10]], ids[0, 3:9], ids[0, 11:15] = 95, PICTURE, PICTURE
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": (ids == PICTURE).int()}
        grid = torch.tensor([[1, 4, 6], [1, 4, 4]])
        return Example(model, inputs | {"pixel_values": torch.randn(40, 96), "image_grid_thw": grid})

    return Entry(name, remarks, make)


def configure(architecture: str, /, **settings: Any) -> Any:
    """A configuration of that architecture."""
    from transformers import AutoConfig

    return AutoConfig.for_model(architecture, **settings)


def build(name: str, config: Any, width: float = 0.25, kind: Any = None) -> Any:
    """The base model of a configuration, or one of that class, with weights that the name determines."""
    from transformers import AutoModel

    torch.manual_seed(zlib.crc32(name.encode()))
    make = kind._from_config if kind else AutoModel.from_config
    model = make(config, attn_implementation="eager").eval()
    spread(model, width)
    return model


def spread(model: nn.Module, width: float) -> None:
    """Random numbers in place of all weights: matrices N(0, width²), embeddings N(0, 1), and noise on all others."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "norm" not in name:
            nn.init.normal_(parameter, std=width)
        else:
            parameter.data += (1.0 if "sinks" in name else 0.2) * torch.randn_like(parameter)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)


def two_texts(side: str, length: int = LENGTH, shorter: int = SHORTER) -> dict[str, Any]:
    """Token ids of two texts and their padding: on the left, on the right, or none ("")."""
    ids = torch.randint(3, 90, (2, length))
    if not side:
        return {"input_ids": ids}
    mask = torch.ones_like(ids)
    padded = slice(0, length - shorter) if side == "left" else slice(shorter, length)
    mask[1, padded] = ids[1, padded] = 0
    return {"input_ids": ids, "attention_mask": mask}


def an_answer() -> dict[str, Any]:
    """What a decoder reads, padded on the right."""
    return {f"decoder_{name}": value for name, value in two_texts("right", ANSWER, SHORTER_ANSWER).items()}


def packed_texts() -> dict[str, Any]:
    """Rows of three texts each, which are told apart by positions that start anew."""
    positions = torch.cat([torch.arange(n) for n in (9, 5, 7)]).expand(2, -1)
    return {**two_texts(""), "position_ids": positions, "use_cache": False}


def prefixed_texts() -> dict[str, Any]:
    """Texts with a mask of numbers: the first five tokens see each other, later ones what is before them."""
    seen = torch.ones(LENGTH, LENGTH).tril().bool()
    seen[:5, :5] = True
    hidden = torch.zeros(2, 1, LENGTH, LENGTH).masked_fill(~seen, torch.finfo(torch.float32).min)
    return {**two_texts(""), "attention_mask": hidden}
