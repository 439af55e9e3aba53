"""A recorded run's output next to that of the model as found: one more run, without softmap in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from softmap.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

MASKS = ("decoder_attention_mask", "attention_mask", "pixel_attention_mask")
KEPT_BESIDE = ("attentions", "past_key_values", "hidden_states")
"""What of an output is not compared: names that end so."""
ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-3, torch.float16: 3e-2, torch.bfloat16: 2e-1}
"""How far two runs of a deep model may be apart by rounding, relative to the largest number of an output."""


def compare(ours: Any, own: Any, inputs: Mapping[str, Any], name: str, dtype: torch.dtype = torch.float32) -> float:
    """The largest difference of two outputs at real tokens, relative to the largest number of each array.

    Args:
        ours: what the recorded run gave.
        own: what the model gives as it was found.
        inputs: what both were given.
        name: the model, as errors name it.
        dtype: what the model computes in, which its outputs may be wider than.

    Raises:
        ModelError: they differ by more than rounding, or in what there is.
    """
    some, others = dict(_arrays(ours)), dict(_arrays(own))
    shapes = [{path: tuple(array.shape) for path, array in each.items()} for each in (some, others)]
    if not some or shapes[0] != shapes[1]:
        expected = f"outputs of shapes {shapes[1]}, as without softmap" if others else "an output of numbers"
        raise ModelError(name, expected, f"{shapes[0]}", "Leave check out, or report this model.")
    worst = 0.0
    for path, array in some.items():
        difference = _difference(array, others[path], _real(array, path, inputs))
        most = max(ROUNDING.get(each, ROUNDING[torch.bfloat16]) for each in (array.dtype, dtype))
        if not difference <= most:
            got = f"{path} of the recorded run, which differs by {difference:.1e} of the largest number in it"
            hint = (
                f"Rounding makes at most {most:.0e}. The attention recorded is not what the model computes by itself."
            )
            raise ModelError(name, "the output of the model as it was found", got, hint)
        worst = max(worst, difference)
    return worst


def _arrays(output: Any, path: str = "output") -> Iterator[tuple[str, Tensor]]:
    """The arrays of numbers that a model returns, and its parts do."""
    if isinstance(output, torch.Tensor):
        if output.is_floating_point() and output.numel():
            yield path, output
    elif isinstance(output, Mapping):
        for name, value in output.items():
            if not str(name).endswith(KEPT_BESIDE):
                yield from _arrays(value, str(name) if path == "output" else f"{path}.{name}")
    elif isinstance(output, list | tuple):
        for i, value in enumerate(output):
            yield from _arrays(value, f"{path}[{i}]")


def _real(array: Tensor, path: str, inputs: Mapping[str, Any]) -> Tensor | None:
    """Which (sequence, token) of an output are no padding; None where nothing says so."""
    if array.ndim < 3:
        return None
    masks = [inputs.get(name) for name in MASKS if not (path.startswith("encoder") and name.startswith("decoder"))]
    for mask in masks:
        if not isinstance(mask, torch.Tensor) or mask.ndim != 2 or len(mask) != len(array):
            continue
        if array.shape[1] in (1, mask.shape[1]):
            return mask[:, -array.shape[1] :].bool()
    return None


def _difference(some: Tensor, others: Tensor, real: Tensor | None) -> float:
    if real is not None:
        some, others = some[real.to(some.device)], others[real.to(others.device)]
    if not some.numel():
        return 0.0
    some, others = some.float(), others.float()
    return float((some - others).abs().max() / others.abs().max().clamp_min(1e-6))
