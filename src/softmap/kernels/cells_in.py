"""Cells of one size, counted from the corner of a matrix: strips that fit them, and a strip's numbers as cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Shaped
    from torch import Tensor

    from softmap.kernels.contract import Cell


def strips(queries: int, cell: int, height: int) -> Iterator[range]:
    """The rows in strips of about that height that are made of whole cells, or lie within one."""
    height = max(1, height)
    whole = cell * max(1, height // cell)
    for start in range(0, queries, whole):
        stop = min(start + whole, queries)
        step = whole if height >= cell else height
        yield from (range(first, min(first + step, stop)) for first in range(start, stop, step))


def from_edge(keys: range, cell: int) -> range:
    """The same keys, from the edge of a cell on."""
    return range(keys.start // cell * cell, keys.stop) if keys else keys


def reduce(
    numbers: Shaped[Tensor, "rows keys"], cell: Cell, how: Callable[[Tensor, int], Tensor]
) -> Shaped[Tensor, "down across"]:
    """Each cell's numbers as one; 0, with which the last cells are filled up, is to change nothing."""
    for axis, most in ((0, cell.rows), (1, cell.keys)):  # rows first: neighbours in memory go together
        size = min(most, numbers.shape[axis])
        missing = -numbers.shape[axis] % size
        filled = torch.nn.functional.pad(numbers, (0, missing) if axis == 1 else (0, 0, 0, missing))
        numbers = how(filled.unflatten(axis, (-1, size)), axis + 1)
    return numbers
