"""What compiled kernels have added to the scaled scores of a strip, where the spans of the mask do not say it all.

It is the bias, and −∞ where the mask hides what its spans do not: whatever a mask and a bias are, a kernel need not know.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from softmap.errors import NonFiniteError
from softmap.kernels.tile import scaled

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from softmap.kernels.contract import Problem

REACH = 1e38  # how large a bias may be


def needed(problem: Problem) -> bool:
    """Whether the spans, and the keys that any query sees, leave something to say."""
    return problem.bias is not None or not (problem.spans.exact or problem.seen is not None)


def added(problem: Problem, head: int, rows: range, keys: range, *, whole_rows: bool) -> Float[Tensor, "rows keys"]:
    """What is added to a strip of one head, float32, on q's device.

    Args:
        problem: the matrix.
        head: the head; where there is no bias, all of them have the same.
        rows: the strip's queries.
        keys: the strip's keys.
        whole_rows: whether the matrix has all keys of its rows, and not only a part.

    Raises:
        NonFiniteError: a bias of NaN or +∞ where a query sees a key, or one out of reach.
    """
    device = problem.q.device
    strip = torch.zeros(len(rows), len(keys), dtype=torch.float32, device=device)
    if problem.bias is None:
        return strip.masked_fill_(~problem.mask.strip(rows, keys, device), -torch.inf)
    bias_alone = replace(problem, scale=1.0, softcap=None)  # of scores of 0, which need no cap
    strip = scaled(bias_alone, strip[None], rows, keys, [head], problem.spans)[0]
    return _within_reach(strip, problem.bound) if whole_rows else _raised(strip)


def _within_reach(strip: Float[Tensor, "rows keys"], bound: float) -> Float[Tensor, "rows keys"]:
    """Leave room for the kernel's factor of log2(e). Models that hide keys by float32's lowest number keep their rule:
    a row that has nothing else is spread evenly, not empty.

    Args:
        strip: all that is added to these rows.
        bound: what no score exceeds in magnitude.
    """
    if float(strip.amax()) > REACH:
        hint = "Subtract a constant from the bias: only differences matter to a row."
        raise NonFiniteError("bias", f"numbers up to {REACH:g}", f"{float(strip.amax()):g}", hint)
    low = _too_low(strip)
    if not bool(low.any()):
        return strip
    highest = strip.amax(-1, keepdim=True)
    lost = low & (strip < highest) & (highest <= 2 * bound - REACH)  # raised, they would not stay far below
    if bool(lost.any()):
        hint = "Hide keys by −inf, or add a constant to the bias: only differences matter to a row."
        expected = f"numbers down to {-REACH:g} in a row that has none far above"
        raise NonFiniteError("bias", expected, f"{float(strip[lost][0]):g}", hint)
    return _raised(strip)


def _raised(strip: Float[Tensor, "rows keys"]) -> Float[Tensor, "rows keys"]:
    """The lowest numbers raised to where the factor leaves them finite."""
    return strip.masked_fill(_too_low(strip), -REACH)


def _too_low(strip: Float[Tensor, "rows keys"]) -> Bool[Tensor, "rows keys"]:
    return (strip < -REACH) & (strip != -torch.inf)
