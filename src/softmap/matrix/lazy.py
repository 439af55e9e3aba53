"""An array that is computed where it is looked at: indexed as NumPy's are, and never stored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import array_api_compat as compat
import torch

from softmap.errors import SizeError
from softmap.matrix.indexing import Index, expand, places
from softmap.tensors import joint_shape

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Int
    from torch import Tensor
    from typing_extensions import Self

    from softmap.arrays import Array
    from softmap.matrix.inputs import Kind
    from softmap.matrix.lookup import Lookup, Stage

AXES = ("heads", "queries", "keys")
LIMIT = 1 << 30
"""Bytes of the largest result that is made without `dense()`."""


class LazyMatrix:
    """One stage of an attention matrix, (heads, queries, keys), or (queries, keys) of one head.

    An index that touches heads alone gives a matrix of them, which is lazy again and shares what is known. Any other
    gives numbers, in the shape that NumPy would give.
    """

    _stage: Stage
    _lookup: Lookup
    _heads: Int[Tensor, " heads"]  # those of the problem's heads that are in it
    _flat: bool  # whether there is no axis of heads
    _kind: Kind

    def _set(self, stage: Stage, lookup: Lookup, heads: Tensor, flat: bool, kind: Kind) -> None:
        self._stage, self._lookup, self._heads, self._flat, self._kind = stage, lookup, heads, flat, kind

    def _of_heads(self, heads: Tensor, flat: bool) -> Self:
        """The same stage of other heads."""
        other = object.__new__(type(self))
        other._set(self._stage, self._lookup, heads, flat, self._kind)
        return other

    @property
    def heads(self) -> int:
        """How many heads there are."""
        return len(self._heads)

    @property
    def queries(self) -> int:
        """How many queries there are: rows."""
        return self._lookup.problem.shape[1]

    @property
    def keys(self) -> int:
        """How many keys there are: columns."""
        return self._lookup.problem.shape[2]

    @property
    def shape(self) -> tuple[int, ...]:
        """(heads, queries, keys), or (queries, keys) of one head."""
        return (self.queries, self.keys) if self._flat else (self.heads, self.queries, self.keys)

    @property
    def ndim(self) -> int:
        """3, or 2 of one head."""
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        """The dtype of the numbers it gives: float32, or float64 where q is."""
        return self._sample().dtype

    @property
    def device(self) -> Any:
        """The device of the numbers it gives: q's."""
        return compat.device(self._sample())

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        read = expand(index, self.shape, AXES[-self.ndim :])
        if all(isinstance(entry, slice) and entry == slice(None) for entry in read.entries[-2:]):
            if self._flat or read.entries[0] == slice(None):
                return self
            heads = self._heads[places(Index(read.entries[:1], None), self.shape[:1])[0]]
            if heads.ndim == 0:
                return self._of_heads(heads[None], flat=True)
            if heads.ndim == 1 and len(heads):
                return self._of_heads(heads, flat=False)
        found = places(read, self.shape)
        self._refuse_large(joint_shape(*found))
        return self._kind.give(self._values(found))

    def dense(self) -> Array:
        """All of it at once, whatever its size."""
        return self._kind.give(self._values(places(Index([slice(None)] * self.ndim, None), self.shape)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if copy is False:
            raise ValueError("an attention matrix is never stored: as an array it is a copy")
        self._refuse_large(self.shape)
        array = self._values(places(Index([slice(None)] * self.ndim, None), self.shape)).numpy(force=True)
        return array if dtype is None else array.astype(dtype)

    def _values(self, found: Sequence[Tensor]) -> Tensor:
        head = self._heads[0] if self._flat else self._heads[found[0]]
        return self._lookup.values(self._stage, head, found[-2], found[-1])

    def _refuse_large(self, shape: Sequence[int]) -> None:
        """Refuse to make a result of more than `LIMIT` bytes."""
        size = math.prod(shape) * self._lookup.problem.dtype.itemsize
        if size > LIMIT:
            got = f"{size / (1 << 30):,.1f} GiB for a result of shape {tuple(shape)}"
            hint = "Take summary() for its statistics, or a smaller tile; dense() makes all of it whatever its size."
            raise SizeError(self._stage, "a result of at most 1 GiB", got, hint)

    def _sample(self) -> Array:
        problem = self._lookup.problem
        return self._kind.give(torch.zeros(1, dtype=problem.dtype, device=problem.q.device))


class StageView(LazyMatrix):
    """The scores or the scaled scores of an attention matrix, computed where they are looked at."""

    def __repr__(self) -> str:
        return f"{self._stage} of shape {self.shape}, {self.dtype}"
