"""How large the scores of each row may be, and what arithmetic they need for that.

    |q_i · k_j| · |scale| ≤ ‖q_i‖ · max_j ‖k_j‖ · |scale|

A score of size s is rounded by about s · 6e-8 in float32, and by s · 1e-16 in float64: in which way depends on the order
in which a product sums, and so on the kernel and on the shape of the tile. A weight is wrong by as much where the scores
of a row and its logsumexp are of two roundings. So

    size to     tiles, and strips                  compiled sweeps
    256         `Problem.dtype`                    float32
    10,000      float64                            float32
    1e8         float64                            none: strips serve
    beyond      float64, in slices whose sums are exact, so that there is one rounding only (slices.py)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from softmap.kernels.contract import Problem

LARGE = 256.0
"""Up to what size, and up to what scaled score, tiles of float32 differ by 2e-5 at most, however they were made."""
SWEPT = 1e4
"""Up to what size compiled sweeps serve, which compute in float32: it rounds scores by 1e-3 at most."""
SLICED = 1e8
"""From what size on the products of float64 differ by more than 1e-7."""
_AT_ONCE = 1 << 15  # numbers that are looked at together: few enough that torch wakes no threads for them


def row_sizes(problem: Problem) -> Float[Tensor, "heads queries"]:
    """What no scaled score of a row exceeds in magnitude, before soft cap and bias, float64 on the CPU.

    NaN and infinity do not count.
    """
    longest = _lengths(problem.k).amax(1, keepdim=True).repeat_interleave(problem.group, 0)  # (heads, 1)
    return (_lengths(problem.q) * longest * abs(problem.scale)).nan_to_num(nan=0, posinf=torch.inf)  # NaN: 0 · ∞


def _lengths(tensor: Float[Tensor, "heads tokens d"]) -> Float[Tensor, "heads tokens"]:
    found = torch.empty(tensor.shape[:2], dtype=torch.float64, device="cpu")
    step = max(1, _AT_ONCE // tensor.shape[2])
    for head, own in enumerate(tensor):
        for start in range(0, len(own), step):
            numbers = own[start : start + step].cpu().double().nan_to_num(0, 0, 0)
            largest = numbers.abs().amax().clamp(min=torch.finfo(torch.float64).tiny)
            length = torch.linalg.vector_norm(numbers / largest, dim=-1) * largest
            found[head, start : start + step] = length
    return found
