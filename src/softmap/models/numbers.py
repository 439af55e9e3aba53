"""A mask of numbers that a model adds to its scores -> which keys it hides, and what is added to the others.

Models write all kinds of numbers where a key is to be hidden: −inf, the lowest of their dtype, −10000. What they hide is
decided by arithmetic:

1. A query whose every number is about the lowest of the dtype sees nothing: a score added to it is lost in rounding.
2. Every score lies between −bound and bound. A key whose number is more than 2 · bound + 104 below the largest of its
   row has a weight of less than e⁻¹⁰⁴, which is 0 in float32: it is hidden.
3. Any other number is added to the scaled score as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

UNDERFLOW = 104.0
"""e to the power of minus this is 0 in float32, whose smallest number is 2^-149."""


@dataclass(frozen=True, eq=False)
class Numbers:
    """A mask of numbers of one sequence, read for layers whose scores have one bound or another.

    Attributes:
        added: what is added to the scores, (heads or 1, queries, keys).
    """

    added: Float[Tensor, "heads queries keys"]
    _read: list[tuple[float, float, Bool[Tensor, "heads queries keys"]]] = field(default_factory=list)

    def hidden(self, bound: float) -> Bool[Tensor, "heads queries keys"]:
        """Which keys are hidden from which queries, where no scaled score is beyond the bound.

        Bounds between which no number lies give one tensor.
        """
        most = 2 * bound + UNDERFLOW
        for low, high, hidden in self._read:
            if low <= most < high:
                return hidden
        lowest = self.added <= torch.finfo(self.added.dtype).min / 2
        numbers = self.added.float()
        below = (numbers.amax(-1, keepdim=True) - numbers).masked_fill(lowest, torch.inf)  # (heads, queries, keys)
        hidden = lowest | (below > most)
        low = float(below.masked_fill(hidden, 0).max())
        high = float(below.masked_fill(~hidden, torch.inf).min())
        self._read.append((low, high, hidden))
        return hidden


def largest_score(q: Float[Tensor, "heads queries d"], k: Float[Tensor, "heads keys d"], scale: float) -> float:
    """A bound of the absolute scaled scores."""
    if not q.numel() or not k.numel():
        return 0.0
    longest = [float(array.float().norm(dim=-1).max()) for array in (q, k)]
    return longest[0] * longest[1] * abs(scale)
