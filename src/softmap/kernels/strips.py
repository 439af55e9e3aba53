"""Every statistic in torch operations on strips of rows: exact, on any device, in memory linear in tokens.

For each strip of rows and heads

    1. scaled, of the keys that can matter to it (a window costs its own keys only)
    2. weights = exp(scaled − largest) / total, logsumexp = largest + ln total
    3. what is wanted of those weights: final for a row, added up for keys and cells

What is added up over strips is added in float64 where the device has it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from softmap.kernels import cells_in, tile
from softmap.kernels.contract import Cells, Distance, Statistics, Top
from softmap.kernels.sizes import LARGE

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from softmap.kernels.contract import Cell, Grid, Known, Problem, Wanted
    from softmap.masks import Spans

    Strip = Float[Tensor, "heads rows keys"]

_BUDGET = 1 << 22  # weights of one strip, over all its heads: 16 MiB in float32


def sweep(problem: Problem, wanted: Wanted) -> Statistics:
    """Every statistic that is wanted, in `Problem.dtype`.

    Raises:
        NonFiniteError: a bias of NaN or +∞ where a query sees a key, or scores beyond float64.
    """
    wide = tile.widened(problem)
    wanted = wanted if wanted.v is None else replace(wanted, v=wanted.v.to(wide.dtype))
    found = _nothing_seen(wide, wanted)
    for rows in _row_strips(problem):
        # NaN and infinity reach what is hidden too, as 0 · NaN does in NumPy: no key is left out then.
        keys = range(problem.shape[2]) if problem.nan else problem.spans.key_range(rows)
        if keys:
            for heads in _head_strips(problem, len(rows) * len(keys)):
                _sweep_strip(wide, wanted, problem.spans, heads, rows, keys, found)
    return _cast(found, problem.dtype)


def cells(problem: Problem, cell: Cell, known: Known) -> Cells:
    """The cells of a part of a matrix whose rows' logsumexp is known, in `Problem.dtype`.

    Raises:
        NonFiniteError: as `sweep`.
    """
    dtype = tile.dtype_for(problem)
    if problem.q.device.type != "mps" and bool((known.high.abs().nan_to_num(0, 0, 0) > LARGE).any()):
        dtype = torch.float64  # as tiles are, which gave what is known
    heads, queries, keys = problem.shape
    shape = heads, -(-queries // cell.rows), -(-keys // cell.keys)
    found = Cells(*torch.zeros(2, *shape, dtype=dtype, device=problem.q.device))
    for rows in cells_in.strips(queries, cell.rows, _BUDGET // keys):
        seen = cells_in.from_edge(range(keys) if problem.nan else problem.spans.key_range(rows), cell.keys)
        for head in range(heads if seen else 0):
            own = range(head, head + 1)
            scores = tile.scores(problem, rows, seen, own, dtype)
            scaled = tile.scaled(problem, scores, rows, seen, own, problem.spans)
            weights = tile.weighed(scaled, *(part[own.start : own.stop, _slice(rows)] for part in known))[0]
            top, left = rows.start // cell.rows, seen.start // cell.keys
            parts = cells_in.reduce(weights, cell, torch.sum), cells_in.reduce(weights, cell, torch.amax)
            place = (head, slice(top, top + parts[0].shape[0]), slice(left, left + parts[0].shape[1]))
            found.sum[place] += parts[0]
            found.max[place] = found.max[place].maximum(parts[1])
    return Cells(*(each.to(problem.dtype) for each in found))


def refusal(problem: Problem, wanted: Wanted) -> str | None:
    """Why it cannot serve; it serves everything."""
    del problem, wanted
    return None


def _nothing_seen(problem: Problem, wanted: Wanted) -> Statistics:
    """The statistics of rows that see no key, for the strips to write into."""
    heads, queries, keys = problem.shape
    # MPS has no float64
    sums = problem.dtype if problem.q.device.type == "mps" else torch.float64

    def full(*shape: int, value: float = 0, dtype: torch.dtype = problem.dtype) -> Tensor:
        return torch.full(shape, value, dtype=dtype, device=problem.q.device)

    logsumexp = full(heads, queries, value=-torch.inf, dtype=sums)
    if problem.sinks is not None:
        logsumexp[:] = problem.sinks[:, None]
    grid = wanted.cells and (heads, len(wanted.cells.row_edges) - 1, len(wanted.cells.key_edges) - 1)
    top = heads, queries, wanted.top
    return Statistics(
        logsumexp=logsumexp,
        output=None if wanted.v is None else full(heads, queries, wanted.v.shape[2]),
        entropy=full(heads, queries) if wanted.entropy else None,
        top=Top(full(*top), full(*top, value=-1, dtype=torch.int64)) if wanted.top else None,
        distance=Distance(full(heads, queries), full(heads, queries)) if wanted.distance else None,
        received=full(heads, keys, dtype=sums) if wanted.received else None,
        cells=Cells(full(*grid, dtype=sums), full(*grid)) if grid else None,
    )


def _sweep_strip(
    problem: Problem, wanted: Wanted, spans: Spans, heads: range, rows: range, keys: range, found: Statistics
) -> None:
    """Write what one strip tells into what was found."""
    at = _slice(heads), _slice(rows)
    scaled = _scaled(problem, spans, heads, rows, keys)

    largest = scaled.amax(-1, keepdim=True)
    sink = None if problem.sinks is None else problem.sinks[at[0], None, None].to(scaled.dtype)
    if sink is not None:
        largest = torch.maximum(largest, sink)
    largest = largest.where(largest != -torch.inf, 0)  # a row that sees nothing: exp(−inf − 0) = 0
    shifted = scaled - largest
    weights = shifted.exp()
    total = weights.sum(-1, keepdim=True)
    if sink is not None:
        total += (sink - largest).exp()
    weights /= total.clamp(min=1)  # it is at least 1, the largest one's own, or 0 where nothing is seen
    high, log_total = (each[:, :, 0].to(found.logsumexp.dtype) for each in (largest, total.log()))
    found.logsumexp[at] = (high + log_total).where(high != torch.inf, torch.inf)
    if found.output is not None and wanted.v is not None:
        found.output[at] = _output(weights, wanted.v[:, _slice(keys)], heads, problem.group)
    if found.top is not None:
        _write_top(found.top, at, scaled, weights, keys.start, problem.nan)
    if found.entropy is not None:  # Σ w · (ln total − shifted): no two large numbers that cancel; 0 · −inf is to be 0
        surprise = (weights * shifted.clamp_(min=torch.finfo(shifted.dtype).min)).sum(-1)
        found.entropy[at] = weights.sum(-1) * total[:, :, 0].log().clamp(min=0) - surprise
    if found.distance is not None:
        behind = _arange(rows, weights)[:, None] + problem.offset - _arange(keys, weights)  # i − j
        found.distance.signed[at] = (weights * behind).sum(-1)
        found.distance.absolute[at] = (weights * behind.abs_()).sum(-1)
    if found.received is not None or found.cells is not None:
        _add_columns(found, wanted.cells, weights, at[0], rows, keys)


def _scaled(problem: Problem, spans: Spans, heads: range, rows: range, keys: range) -> Strip:
    """Steps 1 and 2: in float64 where a bias makes them so large that float32's rounding would show."""

    def made(dtype: torch.dtype) -> Strip:
        return tile.scaled(problem, tile.scores(problem, rows, keys, heads, dtype), rows, keys, heads, spans)

    scaled = made(problem.dtype)
    if problem.bias is None or problem.dtype == torch.float64 or problem.q.device.type == "mps":
        return scaled
    largest = scaled.amax(-1).abs()
    return made(torch.float64) if bool((largest.masked_fill(largest.isinf(), 0) > LARGE).any()) else scaled


def _output(weights: Strip, v: Float[Tensor, "kv_heads keys d_v"], heads: range, group: int) -> Tensor:
    """Step 4; the heads of a strip are whole groups, or some of one."""
    own = v[heads.start // group : (heads.stop - 1) // group + 1]
    stacked = weights.reshape(len(own), -1, weights.shape[2])
    return (stacked @ own.to(stacked.dtype)).reshape(*weights.shape[:2], v.shape[2])


def _write_top(
    top: Top, at: tuple[slice, slice], scaled: Strip, weights: Strip, first_key: int, whole_order: bool
) -> None:
    """The largest of each row by their scaled scores, ties to the lower key."""
    count = min(top.keys.shape[2], scaled.shape[2])
    if whole_order or count == scaled.shape[2]:  # torch.topk gives no order to NaN
        keys = scaled.argsort(dim=-1, descending=True, stable=True)[:, :, :count]
    else:
        keys = _largest(scaled, count)
    hidden = scaled.gather(-1, keys) == -torch.inf
    top.weights[at][:, :, :count] = weights.gather(-1, keys).masked_fill_(hidden, 0)
    top.keys[at][:, :, :count] = (keys + first_key).masked_fill_(hidden, -1)


def _largest(scaled: Strip, count: int) -> Tensor:
    """The keys of the largest, in falling order. topk takes any of equal ones, so rows where it had a choice are redone."""
    values, keys = scaled.topk(count)
    smallest = values[:, :, -1:]
    had_choice = ((scaled == smallest).sum(-1) > (values == smallest).sum(-1)) & (smallest[:, :, 0] != -torch.inf)
    if bool(had_choice.any()):
        row, least = scaled[had_choice], smallest[had_choice]  # (redone, keys), (redone, 1)
        above, equal = row > least, row == least
        room = count - above.sum(-1, keepdim=True)
        taken = above | (equal & (equal.cumsum(-1) <= room))
        keys[had_choice] = taken.nonzero()[:, 1].reshape(-1, count)
    keys = keys.sort(-1).values
    return keys.gather(-1, scaled.gather(-1, keys).argsort(dim=-1, descending=True, stable=True))


def _add_columns(found: Statistics, grid: Grid | None, weights: Strip, heads: slice, rows: range, keys: range) -> None:
    """Add a strip's columns to what the keys received, and to the cells: the rows of each cell first, then its keys."""
    edges = grid.row_edges if grid else (0, rows.stop)
    if grid:
        key_edges = torch.tensor(grid.key_edges[1:-1], device=weights.device)
        cell = torch.bucketize(torch.arange(keys.start, keys.stop, device=weights.device), key_edges, right=True)
    for number, start, stop in _pieces(edges, rows):
        part = weights[:, start - rows.start : stop - rows.start]
        sums = part.sum(1)
        if found.received is not None:
            found.received[heads, _slice(keys)] += sums
        if found.cells is not None:
            of_row = found.cells.sum[heads, number]
            of_row.index_add_(-1, cell, sums.to(of_row.dtype))
            found.cells.max[heads, number].scatter_reduce_(
                -1, cell.expand_as(sums), part.amax(1).to(found.cells.max.dtype), "amax"
            )


def _pieces(edges: tuple[int, ...], rows: range) -> Iterator[tuple[int, int, int]]:
    """The rows cut at the edges of cells: the cell, first row, and the row after the last."""
    for number in range(bisect_right(edges, rows.start) - 1, len(edges) - 1):
        if edges[number] >= rows.stop:
            return
        yield number, max(edges[number], rows.start), min(edges[number + 1], rows.stop)


def _row_strips(problem: Problem) -> Iterator[range]:
    """The rows in strips of at most `_BUDGET` weights (one row at least)."""
    queries, keys = problem.shape[1:]
    step = max(1, min(queries, _BUDGET // keys))
    for start in range(0, queries, step):
        yield range(start, min(start + step, queries))


def _head_strips(problem: Problem, weights: int) -> Iterator[range]:
    """Heads that fit the budget together, with so many weights each: whole groups, or one at a time."""
    heads = problem.shape[0]
    step = max(1, _BUDGET // weights)
    step = step - step % problem.group if step >= problem.group else 1
    for start in range(0, heads, step):
        yield range(start, min(start + step, heads))


def _cast(found: Statistics, dtype: torch.dtype) -> Statistics:
    def cast(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(dtype)

    return Statistics(
        logsumexp=found.logsumexp,
        output=cast(found.output),
        entropy=cast(found.entropy),
        top=found.top and Top(found.top.weights.to(dtype), found.top.keys),
        distance=found.distance and Distance(*(each.to(dtype) for each in found.distance)),
        received=cast(found.received),
        cells=found.cells and Cells(*(each.to(dtype) for each in found.cells)),
    )


def _slice(block: range) -> slice:
    return slice(block.start, block.stop)


def _arange(block: range, like: Tensor) -> Tensor:
    return torch.arange(block.start, block.stop, dtype=like.dtype, device=like.device)
