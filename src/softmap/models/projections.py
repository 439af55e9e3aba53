"""Whether q, k and v are linear maps of what enters a layer, and nothing more: then the story can begin with x."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

NAMES = (("query", "key", "value"), ("q_lin", "k_lin", "v_lin"), ("q_proj", "k_proj", "v_proj"), ("q", "k", "v"))


def biases_of(
    module: nn.Module, x: Float[Tensor, "tokens d_model"], qkv: tuple[Float[Tensor, "heads tokens d"], ...]
) -> tuple[str, ...] | None:
    """Those of q, k and v that a bias is added to; None where they are more than x W + b (positions, norms)."""
    projections = _projections(module)
    if projections is None:
        return None
    stages = list(zip("qkv", projections, qkv, strict=True))
    if not all(_is_projection(projection, x, stage) for _, projection, stage in stages):
        return None
    return tuple(name for name, projection, _ in stages if projection.bias is not None)


def _projections(module: nn.Module) -> tuple[nn.Linear, ...] | None:
    for names in NAMES:
        found = tuple(getattr(module, name, None) for name in names)
        if all(isinstance(each, nn.Linear) for each in found):
            return found  # type: ignore[return-value]  # all are linear
    return None


def _is_projection(
    projection: nn.Linear, x: Float[Tensor, "tokens d_model"], stage: Float[Tensor, "heads tokens d"]
) -> bool:
    """Whether this stage is x W + b, to the dtype's rounding."""
    if x.shape[-1] != projection.in_features:
        return False
    with torch.no_grad():
        expected = projection(x.to(projection.weight.dtype))  # (tokens, d_model) -> (tokens, heads * d)
    got = stage.transpose(0, 1).flatten(1)  # (heads, tokens, d) -> (tokens, heads * d)
    if got.shape != expected.shape:
        return False
    rounding = max(torch.finfo(dtype).eps for dtype in (x.dtype, stage.dtype))  # autocast's products are of halves
    tolerance = (1e-4 + 4 * rounding) * expected.abs().max()
    return bool((got - expected).abs().max() <= tolerance)
