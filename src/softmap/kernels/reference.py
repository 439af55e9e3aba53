"""The specification: every statistic of the contract as its formula reads, dense and in float64.

Slow and large on purpose: all other kernels are tested against it, and it shares nothing with them
but the strips that masks and biases give. Whatever the inputs' dtype, its results are float64.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from softmap.kernels.contract import Cells, Distance, Statistics, Top

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from softmap.kernels.contract import Cell, Grid, Known, Problem, Wanted

    Matrix = Float[Tensor, "heads queries keys"]

LIMIT = 1 << 27  # weights it will hold: 1 GiB in float64


def sweep(problem: Problem, wanted: Wanted) -> Statistics:
    """Every statistic that is wanted, in float64."""
    group = problem.group
    scaled = step_2(problem)
    sinks = torch.full_like(scaled[:, :, :1], -torch.inf)
    if problem.sinks is not None:
        sinks[:] = problem.sinks.double()[:, None, None]
    with_sinks = torch.cat([scaled, sinks], dim=-1)
    logsumexp = with_sinks.logsumexp(-1)
    weights = with_sinks.softmax(-1)[:, :, :-1]
    weights = weights.where(logsumexp[:, :, None] != -torch.inf, 0)  # a row that sees nothing

    ahead = torch.arange(problem.shape[1])[:, None] + problem.offset - torch.arange(problem.shape[2])  # i − j
    ahead = ahead.to(weights)
    return Statistics(
        logsumexp=logsumexp,
        output=None if wanted.v is None else weights @ wanted.v.double().repeat_interleave(group, 0),
        entropy=torch.special.entr(weights).sum(-1) if wanted.entropy else None,
        top=_top(scaled, weights, wanted.top) if wanted.top else None,
        distance=Distance((weights * ahead).sum(-1), (weights * ahead.abs()).sum(-1)) if wanted.distance else None,
        received=weights.sum(-2) if wanted.received else None,
        cells=_cells(weights, wanted.cells) if wanted.cells else None,
    )


def cells(problem: Problem, cell: Cell, known: Known) -> Cells:
    """The cells of a part of a matrix whose rows' logsumexp is known, in float64."""
    high, low = (part[:, :, None].to(problem.q.device) for part in known)
    weights = (step_2(problem) - high.masked_fill(high == -torch.inf, 0) - low).exp()
    return _cells(weights, cell.grid(*problem.shape[1:]))


def step_2(problem: Problem) -> Matrix:
    """Steps 1 and 2: softcap(q kᵀ · scale) + bias, −∞ where masked."""
    heads, queries, keys = (range(size) for size in problem.shape)
    device = problem.q.device
    scaled = problem.q.double() @ problem.k.double().repeat_interleave(problem.group, 0).mT * problem.scale
    if problem.softcap is not None:
        scaled = problem.softcap * torch.tanh(scaled / problem.softcap)
    if problem.bias is not None:
        scaled = scaled + problem.bias.strip(heads, queries, keys, device).double()
    return scaled.masked_fill(~problem.mask.strip(queries, keys, device), -torch.inf)


def refusal(problem: Problem, wanted: Wanted) -> str | None:
    """Why it cannot serve; None where it can."""
    del wanted
    heads, queries, keys = problem.shape
    if problem.q.device.type == "mps":
        return "it needs float64, which this device has not"
    if not (problem.nan or problem.bound < torch.finfo(torch.float64).max / 4):
        return "scores that may overflow float64"
    return None if heads * queries * keys <= LIMIT else "it holds the whole matrix, which would be more than 1 GiB"


def _top(scaled: Matrix, weights: Matrix, count: int) -> Top:
    order = scaled.argsort(dim=-1, descending=True, stable=True)[:, :, :count]
    hidden = scaled.gather(-1, order) == -torch.inf
    keys = order.masked_fill(hidden, -1)
    largest = weights.gather(-1, order).masked_fill(hidden, 0)
    missing = (0, count - order.shape[-1])  # fewer keys than asked for
    return Top(torch.nn.functional.pad(largest, missing), torch.nn.functional.pad(keys, missing, value=-1))


def _cells(weights: Matrix, grid: Grid) -> Cells:
    heights, widths = ([stop - start for start, stop in pairwise(edges)] for edges in grid)

    def pool(reduce: Callable[[Tensor, int], Tensor]) -> Tensor:
        rows = torch.stack([reduce(part, 1) for part in weights.split(heights, 1)], 1)  # (heads, cell_rows, keys)
        return torch.stack([reduce(part, 2) for part in rows.split(widths, 2)], 2)

    return Cells(sum=pool(torch.sum), max=pool(torch.amax))
