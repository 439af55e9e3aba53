"""Sums and maxima of the weights over the cells of any rectangle, one strip of rows at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from softmap.kernels.contract import Grid, Wanted
from softmap.matrix.lookup import STRIP, Lookup

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Float
    from torch import Tensor

How = Literal["sum", "max"]


class Rectangle(NamedTuple):
    """Some rows and keys, and the size of the cells that they are cut into, counted from the corner.

    The last cells are smaller where the size does not divide.
    """

    rows: range
    keys: range
    row_cell: int
    key_cell: int

    @property
    def shape(self) -> tuple[int, int]:
        """How many cells there are, (down, across)."""
        return -(-len(self.rows) // self.row_cell), -(-len(self.keys) // self.key_cell)


def blocks(lookup: Lookup, heads: Sequence[int], rectangle: Rectangle, how: How) -> Float[Tensor, "heads down across"]:
    """The sum or the maximum of the weights in each cell, in `Problem.dtype`."""
    _, queries, keys = lookup.problem.shape
    whole = (rectangle.rows, rectangle.keys) == (range(queries), range(keys))
    if whole and queries * keys > STRIP:  # what a sweep is made for
        edges = Grid((*range(0, queries, rectangle.row_cell), queries), (*range(0, keys, rectangle.key_cell), keys))
        cells = lookup.sweep(heads, Wanted(cells=edges)).statistics.cells
        assert cells is not None
        return cells.sum if how == "sum" else cells.max
    return torch.stack([_of_head(lookup, head, rectangle, how) for head in heads])


def _of_head(lookup: Lookup, head: int, rectangle: Rectangle, how: How) -> Float[Tensor, "down across"]:
    rows = torch.arange(rectangle.rows.start, rectangle.rows.stop, device="cpu")
    own = torch.full_like(rows, head)
    lookup.logsumexp(own, rows)  # all at once: many of them take one sweep
    problem = lookup.problem
    found = torch.zeros(rectangle.shape, dtype=problem.dtype, device=problem.q.device)
    for strip in _strips(rectangle):
        keys = _seen(lookup, strip, rectangle)
        if not len(keys):
            continue
        query = torch.arange(strip.start, strip.stop, device="cpu")
        key = torch.arange(keys.start, keys.stop, device="cpu")
        weights = lookup.values("weights", own[0], query[:, None], key)
        cells = _reduce(_reduce(weights, 1, rectangle.key_cell, how), 0, rectangle.row_cell, how)
        top = (strip.start - rectangle.rows.start) // rectangle.row_cell
        left = (keys.start - rectangle.keys.start) // rectangle.key_cell
        place = found[top : top + cells.shape[0], left : left + cells.shape[1]]
        place.copy_(place + cells if how == "sum" else place.maximum(cells))
    return found


def _strips(rectangle: Rectangle) -> Iterator[range]:
    """The rows in strips that are made of whole cells, or lie within one."""
    rows, cell = rectangle.rows, rectangle.row_cell
    height = max(1, STRIP // len(rectangle.keys))
    whole = cell * max(1, height // cell)
    for start in range(rows.start, rows.stop, whole):
        stop = min(start + whole, rows.stop)
        step = whole if height >= cell else height
        yield from (range(first, min(first + step, stop)) for first in range(start, stop, step))


def _seen(lookup: Lookup, strip: range, rectangle: Rectangle) -> range:
    """The keys of the rectangle that these rows may see, from the edge of a cell on."""
    keys, cell = rectangle.keys, rectangle.key_cell
    if lookup.problem.nan:  # a row of NaN has NaN where it sees nothing, too
        return keys
    seen = lookup.problem.spans.key_range(strip)
    first = max(keys.start, seen.start)
    return range(keys.start + (first - keys.start) // cell * cell, min(keys.stop, seen.stop))


def _reduce(weights: Float[Tensor, "rows keys"], axis: int, cell: int, how: How) -> Float[Tensor, "rows keys"]:
    """Each `cell` neighbours along an axis as one; 0, with which the last ones are filled up, changes neither."""
    cell = min(cell, weights.shape[axis])
    missing = -weights.shape[axis] % cell
    filled = torch.nn.functional.pad(weights, (0, missing) if axis == 1 else (0, 0, 0, missing))
    apart: Tensor = filled.unflatten(axis, (-1, cell))
    return apart.sum(axis + 1) if how == "sum" else apart.amax(axis + 1)
