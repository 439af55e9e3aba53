"""NumPy's indexing, without an array: an index becomes the places it means.

    m[0, 10:20, [3, 5]]   ->   head 0, queries 10 to 19, keys 3 and 5: one index tensor for each axis,
                               which broadcast against each other to the result's shape

In two steps. `expand` reads the index: for each axis a whole number, a slice or a tensor of whole numbers. `places`
lays them out along the result's dimensions, by NumPy's rules
(https://numpy.org/doc/stable/user/basics.indexing.html).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from types import EllipsisType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from softmap.errors import SoftmapError, TileError
from softmap.tensors import joint_shape, read_tensor

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

    Entry = int | slice | Int[Tensor, "*shape"]

HINT = "Indices are NumPy's: whole numbers, slices, ..., arrays of whole numbers, or booleans for rows."


class Index(NamedTuple):
    """An index that has been read.

    Attributes:
        entries: for each axis a slice, or whole numbers from 0 on.
        dots: before which entry a ... stood that takes no axis; None where there was none. NumPy counts arrays on
            either side of it as no neighbours.
    """

    entries: list[Entry]
    dots: int | None


def expand(index: Any, shape: Sequence[int], axes: Sequence[str]) -> Index:
    """Read what stands between the brackets.

    Args:
        index: what stands between the brackets.
        shape: the sizes of the axes.
        axes: their names, for errors.

    Raises:
        TileError: an index that NumPy would refuse too, or a new axis.
    """
    read = [_read(item) for item in (index if isinstance(index, tuple) else (index,))]
    dots = [place for place, item in enumerate(read) if isinstance(item, EllipsisType)]
    if len(dots) > 1:
        raise TileError("index", "at most one ...", f"{len(dots)}", "Write : for single axes.")
    used = sum(_axes_of(item) for item in read)
    if used > len(shape):
        raise TileError("index", f"at most {len(shape)} entries ({', '.join(axes)})", f"{used}", "Leave the rest out.")
    fill = dots[0] if dots else len(read)
    read[fill : fill + 1] = [slice(None)] * (len(shape) - used)

    entries: list[Entry] = []
    for item in read:
        axis = len(entries)
        if isinstance(item, torch.Tensor) and item.dtype == torch.bool:
            entries += _true_places(item, shape[axis : axis + item.ndim], axes[axis])
        else:
            entries.append(_within(item, shape[axis], axes[axis]))
    return Index(entries, sum(map(_axes_of, read[:fill])) if dots and used == len(shape) else None)


def places(index: Index, shape: Sequence[int]) -> tuple[Int[Tensor, "*shape"], ...]:
    """For each axis the places that are meant: index tensors that broadcast to the result's shape.

    A slice gives a dimension. Tensors broadcast against each other, and with whole numbers next to them; the dimensions
    that they give stand where the first of them stood if all are neighbours, and in front if not.

    Raises:
        TileError: tensors that do not broadcast.
    """
    entries, dots = index
    tensors = [entry for entry in entries if isinstance(entry, torch.Tensor)]
    try:
        block = len(joint_shape(*tensors))
    except ValueError as error:
        got = " and ".join(str(tuple(tensor.shape)) for tensor in tensors)
        hint = "For every row with every key: numpy.ix_(rows, keys)."
        raise TileError("index", "arrays whose shapes broadcast", got, hint) from error
    slices = [axis for axis, entry in enumerate(entries) if isinstance(entry, slice)]
    others = [axis for axis, entry in enumerate(entries) if not isinstance(entry, slice)]
    neighbours = all(after - before == 1 and after != dots for before, after in pairwise(others))
    ahead = sum(axis < others[0] for axis in slices) if tensors and neighbours else 0  # dimensions before the block
    behind = len(slices) - ahead

    found = []
    for axis, entry in enumerate(entries):
        if isinstance(entry, slice):
            place = torch.from_numpy(np.arange(*entry.indices(shape[axis])))
            order = slices.index(axis)
            after = len(slices) - order - 1 + (block if order < ahead else 0)
        else:
            place, after = torch.as_tensor(entry, device="cpu"), behind
        found.append(place.reshape((*place.shape, *[1] * after)))
    return tuple(found)


def _read(item: Any) -> Entry | EllipsisType:
    """What one item of an index is: a whole number, a slice, ..., or a tensor of whole numbers or booleans."""
    if isinstance(item, EllipsisType):
        return item
    if isinstance(item, slice):
        return _read_slice(item)
    if item is None or isinstance(item, bool | np.bool_):
        raise TileError("index", "heads, queries and keys", repr(item), "Add an axis to the result instead.")
    if isinstance(item, int):
        return item
    if not hasattr(item, "ndim"):  # a tensor of one number would pass for the number, and lose its shape
        with suppress(TypeError):
            return operator.index(item)
    return _read_array(item)


def _read_slice(item: slice) -> slice:
    try:
        bounds = [None if bound is None else operator.index(bound) for bound in (item.start, item.stop, item.step)]
    except TypeError as error:
        raise TileError("index", "a slice of whole numbers", repr(item), HINT) from error
    if bounds[2] == 0:
        raise TileError("index", "a slice with a step other than 0", repr(item), HINT)
    return slice(*bounds)


def _read_array(item: Any) -> int | Tensor:
    try:
        if isinstance(item, Sequence) and not isinstance(item, str | bytes):
            item = np.asarray(item)
            item = item if item.size else item.astype(np.int64)  # of lists without numbers in them, as NumPy reads them
        tensor = read_tensor("index", item).cpu()
    except (SoftmapError, ValueError) as error:
        raise TileError("index", "whole numbers, a slice or an array", f"{type(item).__name__}", HINT) from error
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex:
        raise TileError("index", "an array of whole numbers or booleans", str(tensor.dtype), HINT)
    if tensor.dtype == torch.bool:
        if tensor.ndim == 0:
            raise TileError("index", "heads, queries and keys", "a single boolean", HINT)
        return tensor
    if tensor.ndim == 0:
        return int(tensor.numpy())
    highest = int(tensor.numpy().max(initial=0))
    if highest > torch.iinfo(torch.int64).max:  # as int64 it would be counted from the end
        raise TileError("index", "an array of whole numbers below 2^63", f"{highest}", HINT)
    return tensor.to(torch.int64)


def _axes_of(item: Entry | EllipsisType) -> int:
    """How many axes an item takes."""
    if isinstance(item, EllipsisType):
        return 0
    return item.ndim if isinstance(item, torch.Tensor) and item.dtype == torch.bool else 1


def _true_places(mask: Tensor, sizes: Sequence[int], axis: str) -> list[Entry]:
    """Booleans stand for the places where they are true."""
    if tuple(mask.shape) != tuple(sizes):
        got = f"{tuple(mask.shape)}"
        raise TileError(f"index of the {axis}", f"booleans of shape {tuple(sizes)}", got, "One for each entry.")
    return list(mask.nonzero().unbind(1))


def _within(item: Entry | EllipsisType, size: int, axis: str) -> Entry:
    """Whole numbers counted from the end become those from the start."""
    assert not isinstance(item, EllipsisType)
    if isinstance(item, slice):
        return item
    lowest, highest = (item, item) if isinstance(item, int) else _bounds(item)
    if lowest < -size or highest >= size:
        wrong = lowest if lowest < -size else highest
        raise TileError(f"index of the {axis}", f"{-size} to {size - 1}", f"{wrong}", f"There are {size} {axis}.")
    if isinstance(item, int):
        return item % size
    return item if lowest >= 0 else item % size


def _bounds(tensor: Tensor) -> tuple[int, int]:
    return (int(tensor.min()), int(tensor.max())) if tensor.numel() else (0, -1)
