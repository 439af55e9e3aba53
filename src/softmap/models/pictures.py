"""The pictures that a model reads: made back from its input, with the tokens that their patches are.

Where patches stand is part of how a model is built, so it is said here model by model, and held against the numbers of
tokens of the run. A model that is not here, and a picture that does not fit, has no patches: better none than wrong ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from softmap.recorded.pictures import LONGEST, Picture, Place

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor
    from transformers import PreTrainedModel

    from softmap.recorded import RecordedLayer

    Range = tuple[Tensor, Tensor]

LEADING: Mapping[str, tuple[int, str | None]] = {
    **dict.fromkeys(("vit", "vit_msn", "dinov2", "beit", "yolos", "mlcd_vision_model"), (1, None)),
    **dict.fromkeys(("clip_vision_model", "metaclip_2_vision_model", "chinese_clip_vision_model"), (1, None)),
    **dict.fromkeys(("altclip_vision_model", "internvl_vision", "blip_2_vision_model"), (1, None)),
    **dict.fromkeys(("instructblip_vision_model", "owlvit_vision_model", "owlv2_vision_model"), (1, None)),
    **dict.fromkeys(("dinov2_with_registers", "dinov3_vit"), (1, "num_register_tokens")),
    "deit": (2, None),
    **dict.fromkeys(("siglip_vision_model", "siglip2_vision_model", "ijepa", "aimv2_vision_model"), (0, None)),
    **dict.fromkeys(("idefics3_vision", "smolvlm_vision", "pixtral"), (0, None)),
    **dict.fromkeys(("qwen2_vl_vision", "qwen2_5_vl_vision", "qwen3_vl_vision", "qwen3_vl_moe_vision"), (0, None)),
}
"""By kind of tower, the tokens before the first patch: so many (CLS, distillation), and as many as a setting says."""
TRAILING = {"yolos": "num_detection_tokens"}
"""Likewise, those after the last patch."""
MERGED = {
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "mistral3"), "spatial_merge_size"),
    **dict.fromkeys(("idefics3", "smolvlm"), "scale_factor"),
    **dict.fromkeys(("llava", "vipllava", "paligemma", "gemma3", "internvl"), None),
}
"""Models in whose text stand the patches, and the setting that says how many each way become one token."""
TILED = ("idefics3", "smolvlm")
"""Models that read several pictures as (batch, pictures, 3, height, width), of which those of zeros are padding."""
BLOCKS = {"qwen2_vl_vision", "qwen2_5_vl_vision", "qwen3_vl_vision", "qwen3_vl_moe_vision"}
"""Towers in which the patches that become one token stand together."""
CAPTIONS = "vision-encoder-decoder"
"""A tower of pictures with a decoder of text beside it, whose keys are all of the tower's tokens."""
EXACT = 0.02
"""How far beyond 0 to 1 the colours may be, by rounding, where the normalisation that is undone was the right one."""


class Frame(NamedTuple):
    """One picture as the model reads it.

    Attributes:
        pixels: (3, height, width), normalised.
        order: which of the tower's patches of this picture stands where, (rows, columns); None where that is not known.
    """

    pixels: Float[Tensor, "3 height width"]
    order: Int[Tensor, "rows columns"] | None


@dataclass(eq=False)
class Seen:
    """What a run of a model was given to see.

    Attributes:
        config: of the model, or of the part of one, that was called.
        given: its arguments.
    """

    config: Any
    given: Mapping[str, Any]

    @property
    def vision(self) -> Any:
        """The settings of what sees the pictures."""
        if self.config.model_type == CAPTIONS:
            return self.config.encoder
        return getattr(self.config, "vision_config", self.config)

    @classmethod
    def of(cls, config: Any, given: Mapping[str, Any]) -> Seen | None:
        """The pictures among the arguments of a model, or of a tower that is called by itself; None without any."""
        names = {name: name for name in ("pixel_values", "image_grid_thw", "spatial_shapes", "image_sizes")}
        if config.model_type in BLOCKS:
            names |= {"pixel_values": "hidden_states", "image_grid_thw": "grid_thw"}
        taken = {name: given.get(called) for name, called in names.items()}
        return cls(config, taken) if isinstance(taken["pixel_values"], torch.Tensor) else None


def pictures_of(
    seen: Seen, model: PreTrainedModel, texts: Sequence[Sequence[int]], batch: int, normalisation: Range | None
) -> list[list[Picture]]:
    """The pictures of each sequence, with all places in which their patches may stand (`that_fit` chooses).

    Args:
        seen: what the run was given.
        model: the whole model.
        texts: the real token ids of each sequence; none where no text was read.
        batch: how many sequences there are.
        normalisation: the mean and standard deviation of each colour that were taken from the input; None where that is
            not known.
    """
    frames = _frames(seen)
    shown = [_picture(frame, normalisation) for frame in frames]
    found: list[dict[int, list[Place]]] = [{} for _ in range(batch)]  # of each sequence: the places of its pictures
    for places in (_in_tower(seen.vision, model, frames, batch), _in_text(model.config, seen.vision, frames, texts)):
        for sequence, number, place in places:
            found[sequence].setdefault(number, []).append(place)
    if not any(found) and batch > len(frames) == 1:  # one that all texts are compared with
        found = [{0: [place for *_, place in _in_tower(seen.vision, model, frames, 1)]} for _ in range(batch)]
    if not any(found) and (batch == 1 or len(frames) == batch):
        found = [{i: [] for i in range(len(frames))}] if batch == 1 else [{i: []} for i in range(batch)]
    return [[replace(shown[number], places=tuple(places)) for number, places in sorted(own.items())] for own in found]


def that_fit(pictures: Sequence[Picture], layers: Sequence[RecordedLayer]) -> tuple[Picture, ...]:
    """The pictures, each with those of its places whose tokens are queries or keys of a layer."""
    sides: tuple[Literal["queries", "keys"], ...] = ("queries", "keys")
    return tuple(
        replace(picture, places=tuple(p for p in picture.places if any(p.holds(x, s) for x in layers for s in sides)))
        for picture in pictures
    )


def normalisation_of(tokenizer: Any, name: str) -> Range | None:
    """What is known of how a model's pictures were normalised: by its processor, or by the file beside its weights.

    Args:
        tokenizer: a processor, or anything else.
        name: the model's directory or hub id, of which the files on this machine are looked at.

    Returns:
        Mean and standard deviation of red, green and blue, of colours from 0 to 1; None where it is not known.
    """
    processor = getattr(tokenizer, "image_processor", tokenizer)
    names = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
    said = {name: getattr(processor, name) for name in names if getattr(processor, name, None) is not None}
    said = said or _settings(name)
    if not said or not said.get("do_rescale", True) or not math.isclose(said.get("rescale_factor", 1 / 255), 1 / 255):
        return None
    if not said.get("do_normalize", True):
        return torch.zeros(3), torch.ones(3)
    try:
        mean, std = (torch.as_tensor(said[name], dtype=torch.float32) for name in ("image_mean", "image_std"))
        return mean.expand(3), std.expand(3)
    except (KeyError, TypeError, ValueError, RuntimeError):
        return None


def _settings(name: str) -> dict[str, Any]:
    """What a model's files say of its pictures; nothing where there are none on this machine."""
    from transformers.utils.hub import cached_file

    for file in ("preprocessor_config.json", "processor_config.json"):
        try:
            path = cached_file(name, file, local_files_only=True, _raise_exceptions_for_missing_entries=False)
            said = {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # no such name, or no JSON
            continue
        if isinstance(said, dict) and said:
            inner = said.get("image_processor", said)
            return inner if isinstance(inner, dict) else {}
    return {}


# ---- the model's input -> pictures


def _frames(seen: Seen) -> list[Frame]:
    pixels, vision = seen.given["pixel_values"].detach().float().cpu(), seen.vision
    grids, shapes, sizes = (seen.given.get(name) for name in ("image_grid_thw", "spatial_shapes", "image_sizes"))
    if pixels.ndim == 2 and grids is not None and vision.model_type in BLOCKS:
        return list(_of_blocks(pixels, grids.tolist(), vision))
    if pixels.ndim == 3 and shapes is not None and vision.model_type == "siglip2_vision_model":
        return [_of_patches(*each, vision.patch_size) for each in zip(pixels, shapes.tolist(), strict=True)]
    if pixels.ndim == 5 and seen.config.model_type in TILED:
        pixels = pixels.flatten(0, 1)
        pixels = pixels[(pixels != 0).flatten(1).any(1)]
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        return []
    whole = [pixels.shape[2:]] * len(pixels)
    whole = whole if sizes is None or vision.model_type != "pixtral" else torch.as_tensor(sizes).tolist()
    return [_of_pixels(each[:, :height, :width], vision) for each, (height, width) in zip(pixels, whole, strict=True)]


def _of_pixels(pixels: Float[Tensor, "colours height width"], vision: Any) -> Frame:
    """A picture that comes as one, of which the patches are taken row by row."""
    pixels = pixels.expand(3, -1, -1)
    patch = getattr(vision, "patch_size", None)
    down, across = patch if isinstance(patch, list | tuple) and len(patch) == 2 else (patch, patch)
    if vision.model_type not in LEADING or not isinstance(down, int) or not isinstance(across, int):
        return Frame(pixels, None)
    rows, columns = pixels.shape[1] // down, pixels.shape[2] // across
    order = torch.arange(rows * columns).view(rows, columns)
    return Frame(pixels[:, : rows * down, : columns * across], order if order.numel() else None)


def _of_patches(patches: Float[Tensor, "most numbers"], shape: list[int], size: int) -> Frame:
    """One of SigLIP 2's pictures, which come as rows of patches (height, width, colours), and padding after them."""
    rows, columns = shape
    pixels = patches[: rows * columns].view(rows, columns, size, size, 3)
    order = torch.arange(rows * columns).view(rows, columns)
    return Frame(pixels.permute(4, 0, 2, 1, 3).reshape(3, rows * size, columns * size), order)


def _of_blocks(patches: Float[Tensor, "patches numbers"], grids: list[list[int]], vision: Any) -> Iterator[Frame]:
    """Qwen's pictures, which come as patches (colours, times, height, width), block by block of those that become one."""
    size, merge, start = vision.patch_size, vision.spatial_merge_size, 0
    for times, rows, columns in grids:
        own, start = patches[start : start + times * rows * columns], start + times * rows * columns
        order = _block_by_block(rows, columns, (merge,))
        pixels = own.view(len(own), -1, vision.temporal_patch_size, size, size)[: rows * columns, :, 0][order]
        if vision.model_type == "qwen2_5_vl_vision":
            order = _block_by_block(rows, columns, (vision.window_size // merge // size * merge, merge))
        shown = pixels.permute(2, 0, 3, 1, 4).reshape(-1, rows * size, columns * size)
        yield Frame(shown.expand(3, -1, -1), order if times == 1 else None)


def _block_by_block(rows: int, columns: int, sizes: tuple[int, ...]) -> Int[Tensor, "rows columns"]:
    """Which place each patch has where they stand in blocks, the larger blocks first; those at the edges are smaller."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    rank, inner_row, inner_column = torch.zeros_like(row), row, column
    for size in (*sizes, 1):
        most = max(rows, columns)
        rank = (rank * most + inner_row // size) * most + inner_column // size
        inner_row, inner_column = inner_row % size, inner_column % size
    return rank.flatten().argsort().argsort().view(rows, columns)


def _picture(frame: Frame, normalisation: Range | None) -> Picture:
    """A picture as it is kept."""
    pixels = frame.pixels.nan_to_num()
    longest = max(pixels.shape[1:])
    if longest > LONGEST:
        size = [max(1, round(side * LONGEST / longest)) for side in pixels.shape[1:]]
        pixels = torch.nn.functional.interpolate(pixels[None], size, mode="area")[0]
    low, high = pixels.min(), pixels.max()
    if normalisation is not None:
        mean, std = (each[:, None, None] for each in normalisation)
        undone = pixels * std + mean
        if float(undone.min()) >= -EXACT and float(undone.max()) <= 1 + EXACT:
            return Picture(_as_bytes(undone), stretched=False)
    return Picture(_as_bytes((pixels - low) / (high - low if high > low else 1)), stretched=True)


def _as_bytes(colours: Float[Tensor, "3 height width"]) -> Any:
    return (colours.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()


# ---- where their patches stand


def _leading(vision: Any) -> int:
    count, more = LEADING[vision.model_type]
    return count + (getattr(vision, more) if more else 0)


def _in_tower(vision: Any, model: PreTrainedModel, frames: list[Frame], batch: int) -> Iterator[tuple[int, int, Place]]:
    """(sequence, picture, place) in the tower that sees them: one after the other in a single sequence, or one in each."""
    known = vision.model_type in LEADING and all(frame.order is not None for frame in frames)
    if not known or (batch > 1 and len(frames) != batch):
        return
    path = next(path for path, each in model.named_modules() if isinstance(getattr(each, "config", None), type(vision)))
    paths = [path, "decoder"] if model.config.model_type == CAPTIONS else [path]
    leading, trailing = _leading(vision), getattr(vision, TRAILING.get(vision.model_type, ""), 0)
    orders = [frame.order for frame in frames if frame.order is not None]
    counts = [leading + order.numel() + trailing for order in orders]
    for number, order in enumerate(orders):
        first = sum(counts[:number]) if batch == 1 else 0
        count = sum(counts) if batch == 1 else counts[number]
        for each in paths:
            yield (0 if batch == 1 else number), number, Place(None, each, count, first + leading + order)


def _in_text(
    config: Any, vision: Any, frames: list[Frame], texts: Sequence[Sequence[int]]
) -> Iterator[tuple[int, int, Place]]:
    """(sequence, picture, place) in a decoder's text, whose image tokens are filled one after the other."""
    sizes = [_merged(config, vision, frame) for frame in frames] if config.model_type in MERGED else []
    if not sizes or None in sizes:
        return
    marker = getattr(config, "image_token_id", getattr(config, "image_token_index", None))
    slots = [(i, at) for i, ids in enumerate(texts) for at, each in enumerate(ids) if each == marker]
    wanted = [skipped + rows * columns for skipped, rows, columns in filter(None, sizes)]
    if len(slots) != sum(wanted):
        return
    for number, (skipped, rows, columns) in enumerate(filter(None, sizes)):
        own = slots[sum(wanted[:number]) + skipped : sum(wanted[: number + 1])]
        sequences, tokens = {i for i, _ in own}, torch.tensor([at for _, at in own])
        if len(sequences) == 1:
            (sequence,) = sequences
            yield sequence, number, Place("tokens", "", len(texts[sequence]), tokens.view(rows, columns))


def _merged(config: Any, vision: Any, frame: Frame) -> tuple[int, int, int] | None:
    """How many tokens of a picture stand in the text before its patches, and their grid; None where that is not known."""
    if frame.order is None or vision.model_type not in LEADING:
        return None
    rows, columns = frame.order.shape
    if config.model_type == "gemma3":
        each = rows / math.isqrt(config.mm_tokens_per_image)
    elif config.model_type == "internvl":
        each = 1 / config.downsample_ratio
    else:
        name = MERGED[config.model_type]
        each = 1 if name is None else getattr(config, name, None) or getattr(vision, name)
    if each != int(each) or rows % each or columns % each:
        return None
    select = getattr(config, "vision_feature_select_strategy", None)
    dropped = 1 if select == "default" or config.model_type == "vipllava" else 0
    skipped = _leading(vision) - dropped
    if skipped < 0 or (each > 1 and skipped):
        return None
    return skipped, rows // int(each), columns // int(each)
