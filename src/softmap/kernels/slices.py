"""Products that are rounded once, whatever the order in which they are summed: q kᵀ of any tile, of numbers of any size.

Each row of q and k is cut into three slices of whole numbers, so short that no sum of their products needs more than the
53 bits of float64:

    q = 2^e (q₁ + 2^−b q₂ + 2^−2b q₃),  |q₁| ≤ 2^b        k likewise
    q kᵀ = 2^(e + e') (q₁k₁ᵀ  +  2^−b (q₁k₂ᵀ + q₂k₁ᵀ)  +  2^−2b (q₁k₃ᵀ + q₂k₂ᵀ + q₃k₁ᵀ))

Every product in brackets is exact, in any order. What is left out is 2^−3b, at most 2^−57, of the largest products.

Ozaki, Ogita, Oishi and Rump, 2012, "Error-free transformations of matrix multiplication",
https://doi.org/10.1007/s11075-011-9478-1
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class Sliced(NamedTuple):
    """Vectors as slices of whole numbers.

    Attributes:
        parts: the slices, the largest first, each (..., n, d).
        unit: what each vector's numbers are multiples of in the first slice, a power of 2, (..., n, 1).
        step: how much finer a slice is than the one before it.
    """

    parts: tuple[Tensor, Tensor, Tensor]
    unit: Tensor
    step: float


def product(q: Float[Tensor, "*batch n d"], k: Float[Tensor, "*batch m d"]) -> Float[Tensor, "*batch n m"]:
    """Compute q kᵀ of float64, to which NaN and infinity go through as in the plain product."""
    a, b = _slice(q), _slice(k)
    found = _joined(lambda left, right: left @ right.mT, a, b) * (a.unit * b.unit.mT)
    if bool(a.unit.isfinite().all()) and bool(b.unit.isfinite().all()):
        return found
    plain = q @ k.mT
    return found.where(plain.isfinite(), plain)


def products(q: Float[Tensor, "n d"], k: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Compute q[i] · k[i]: the same numbers that `product` has there."""
    a, b = _slice(q), _slice(k)
    found = _joined(lambda left, right: (left * right).sum(-1), a, b) * (a.unit * b.unit)[:, 0]
    plain = (q * k).sum(-1)
    return found.where(plain.isfinite(), plain)


def _joined(multiply: Callable[[Tensor, Tensor], Tensor], a: Sliced, b: Sliced) -> Tensor:
    (a1, a2, a3), (b1, b2, b3) = a.parts, b.parts
    second = multiply(torch.cat([a1, a2], -1), torch.cat([b2, b1], -1))
    third = multiply(torch.cat([a1, a2, a3], -1), torch.cat([b3, b2, b1], -1))
    return multiply(a1, b1) + (second + third * a.step) * a.step


def _slice(x: Float[Tensor, "*batch n d"]) -> Sliced:
    bits = (52 - max(1, x.shape[-1] - 1).bit_length()) // 2
    step = 2.0**-bits
    largest = x.abs().amax(-1, keepdim=True)
    mantissa = torch.frexp(largest).mantissa
    power = torch.where(largest > 0, largest / mantissa, 1.0)  # 2^e, with largest in [2^(e−1), 2^e)
    rest, parts = x / power, []
    rest = rest / step
    for _ in range(3):
        whole = rest.round()
        parts.append(whole)
        rest = (rest - whole) / step
    return Sliced((parts[0], parts[1], parts[2]), power * step, step)
