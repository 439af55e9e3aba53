"""What a model that is set to eager gives back in a recording: its own function's output, and its attention weights."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from softmap.mechanism import PAGE
from softmap.models.chosen import chosen_strip
from softmap.models.implementations import kind_of
from softmap.models.masking import ModelMask
from softmap.models.standing import mask_as_asked

if TYPE_CHECKING:
    from torch import Tensor

    from softmap.models.attending import Call


def gives_weights(call: Call) -> bool:
    """Whether the model's own function would give weights: that of eager does."""
    return kind_of(call.implementation) == "eager" and call.plain is not None


def is_a_page(call: Call) -> bool:
    """Whether a head's weights are no more numbers than those of a page of tokens."""
    return call.q.shape[2] * call.k.shape[2] <= PAGE**2


def own_answer(call: Call) -> tuple[Tensor, Any]:
    """The output (batch, queries, heads, d_v) of the model's own eager function, and its weights, to the bit."""
    function = call.plain
    assert function is not None
    mask = mask_as_asked(call.implementation, call.mask.asked) if isinstance(call.mask, ModelMask) else call.mask
    indices = call.options.get("indices")
    if isinstance(mask, torch.Tensor) and indices is not None:  # a model set to eager hides the other keys in its mask
        hidden = ~torch.stack([chosen_strip(each, torch.arange(len(each)), call.k.shape[2]) for each in indices])
        mask = mask.masked_fill(hidden[:, None].to(mask.device), torch.finfo(call.q.dtype).min)
    answer: tuple[Tensor, Any] = function(call.module, call.q, call.k, call.v, mask, **call.options)
    return answer


def warn_of_weights(path: str, call: Call) -> None:
    """Say that weights that were asked for are not given."""
    warnings.warn(
        f"{path}: the attention weights of {call.q.shape[2]:,} queries x {call.k.shape[2]:,} keys were asked for and are "
        f"not returned, for a matrix of more than {PAGE} x {PAGE} is not made while the model is recorded. Take them "
        "from the recording, a row or a tile at a time, or run the model outside of the block.",
        stacklevel=2,
    )
