"""Sums and maxima of the weights over the cells of any rectangle, and which cells hold anything to see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch

from softmap import kernels
from softmap.kernels import cells_in
from softmap.kernels.contract import Cell, Cells, Wanted
from softmap.kernels.part import of_rectangle
from softmap.matrix.lookup import STRIP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool
    from torch import Tensor

    from softmap.kernels.contract import Problem
    from softmap.matrix.lookup import Lookup

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


def cells_of(lookup: Lookup, heads: Sequence[int], rectangle: Rectangle) -> Cells:
    """The sum and the maximum of the weights in each cell, (heads, down, across), in `Problem.dtype`.

    Raises:
        ParameterError: SOFTMAP_KERNEL names a kernel that cannot serve.
        NonFiniteError: a bias of NaN or +∞ that is met; scores beyond float64.
    """
    _, queries, keys = lookup.problem.shape
    whole = (rectangle.rows, rectangle.keys) == (range(queries), range(keys))
    if whole and not lookup.knows(heads):  # one pass gives the rows' logsumexp, too
        grid = Cell(rectangle.row_cell, rectangle.key_cell).grid(queries, keys)
        cells = lookup.sweep(heads, Wanted(cells=grid)).statistics.cells
        assert cells is not None
        return cells
    found = [_of_head(lookup, head, rectangle) for head in heads]
    return Cells(*(torch.cat(each) for each in zip(*found, strict=True)))


def _of_head(lookup: Lookup, head: int, rectangle: Rectangle) -> Cells:
    problem = lookup.of_head(head)
    kernel = kernels.cells_kernel(problem)
    known = lookup.known(head, rectangle.rows, kernel)
    if known is None:  # logits so large that only tiles tell a row's weights apart
        kernel = "strips"
        known = lookup.known(head, rectangle.rows, kernel)
        assert known is not None
    some = of_rectangle(problem, rectangle.rows, rectangle.keys)
    return kernels.cells(some, Cell(rectangle.row_cell, rectangle.key_cell), known, kernel)


def visible_cells(lookup: Lookup, rectangle: Rectangle) -> Bool[Tensor, "down across"]:
    """Which cells hold at least one pair of a query and a key that it may see, by the mask; on the CPU."""
    some = of_rectangle(lookup.problem, rectangle.rows, rectangle.keys)
    if some.spans.exact or some.seen is not None:
        return _from_spans(some, rectangle)
    return _from_strips(some, rectangle)


def _from_spans(problem: Problem, rectangle: Rectangle) -> Bool[Tensor, "down across"]:
    """Each row sees from its first key to its last; what lies between is seen where any of its keys is."""
    keys = problem.shape[2]
    seen = np.arange(keys) if problem.seen is None else np.flatnonzero(problem.seen.numpy())
    first, stop = (np.searchsorted(seen, ends.numpy()) for ends in problem.spans[:2])  # places among those seen
    (row,) = np.nonzero(first < stop)
    down, across = rectangle.shape
    left, right = (seen[places[row]] // rectangle.key_cell for places in (first, stop - 1))
    top = row // rectangle.row_cell * (across + 1)  # one cell more, where the last ones of a row of cells end
    opened, closed = (np.bincount(top + edge, minlength=down * (across + 1)) for edge in (left, right + 1))
    covered = (opened - closed).reshape(down, across + 1).cumsum(1)[:, :-1] > 0
    covered[:, np.bincount(seen // rectangle.key_cell, minlength=across) == 0] = False
    return torch.from_numpy(covered)


def _from_strips(problem: Problem, rectangle: Rectangle) -> Bool[Tensor, "down across"]:
    """The mask's booleans, one strip of rows at a time."""
    _, queries, keys = problem.shape
    cell = Cell(rectangle.row_cell, rectangle.key_cell)
    found = torch.zeros(rectangle.shape, dtype=torch.bool, device="cpu")
    for rows in cells_in.strips(queries, cell.rows, STRIP // keys):
        own = cells_in.from_edge(problem.spans.key_range(rows), cell.keys)
        if own:
            part = cells_in.reduce(problem.mask.strip(rows, own).to(torch.uint8), cell, torch.amax) > 0
            top, left = rows.start // cell.rows, own.start // cell.keys
            found[top : top + part.shape[0], left : left + part.shape[1]] |= part
    return found
