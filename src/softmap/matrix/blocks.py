"""Sums and maxima of the weights over the cells of any rectangle, and which cells hold anything to see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from softmap import kernels
from softmap.kernels.contract import Cell, Cells, Wanted
from softmap.kernels.part import of_rectangle

if TYPE_CHECKING:
    from collections.abc import Sequence

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
