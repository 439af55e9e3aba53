"""The masks themselves. Their factories, which read and check the arguments, are in the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from softmap.errors import ShapeError
from softmap.masks.base import Mask, Spans, same_span, spans_of
from softmap.masks.reading import check_offset
from softmap.tensors import joint_shape

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, repr=False, eq=False)
class Full(Mask):
    """Everything."""

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        return torch.ones((), dtype=torch.bool, device=key.device).expand(joint_shape(query, key))

    def spans(self, queries: int, keys: int) -> Spans:
        return same_span(queries, 0, keys, exact=True)

    def __repr__(self) -> str:
        return "full()"


@dataclass(frozen=True, repr=False, eq=False)
class Window(Mask):
    """From `left` keys before the query's place to `right` after it; None for all of them."""

    name: str
    left: int | None
    right: int | None
    offset: int | None

    def check(self, queries: int, keys: int) -> None:
        check_offset(self, self.offset, queries, keys)

    def placed(self, offset: int | None) -> Mask:
        return replace(self, offset=offset) if self.offset is None else self

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        ahead = key - query - (self.offset or 0)  # how many tokens after the query the key comes
        seen = torch.ones_like(ahead, dtype=torch.bool)
        if self.left is not None:
            seen &= ahead >= -self.left
        if self.right is not None:
            seen &= ahead <= self.right
        return seen

    def spans(self, queries: int, keys: int) -> Spans:
        self.check(queries, keys)
        here = _places(queries, self.offset)
        start = torch.zeros_like(here) if self.left is None else (here - self.left).clamp(0, keys)
        stop = torch.full_like(here, keys) if self.right is None else (here + self.right + 1).clamp(0, keys)
        return spans_of(start, stop, exact=True)

    def __repr__(self) -> str:
        return _with_offset(self.name, self.offset)


@dataclass(frozen=True, repr=False, eq=False)
class Chunked(Mask):
    """The chunk of `size` tokens in which the query stands."""

    size: int
    offset: int | None

    def check(self, queries: int, keys: int) -> None:
        check_offset(self, self.offset, queries, keys)

    def placed(self, offset: int | None) -> Mask:
        return replace(self, offset=offset) if self.offset is None else self

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        return (query + (self.offset or 0)) // self.size == key // self.size

    def spans(self, queries: int, keys: int) -> Spans:
        self.check(queries, keys)
        start = _places(queries, self.offset) // self.size * self.size
        return spans_of(start.clamp(0, keys), (start + self.size).clamp(0, keys), exact=True)

    def __repr__(self) -> str:
        return _with_offset(f"chunked({self.size})", self.offset)


@dataclass(frozen=True, repr=False, eq=False)
class Padding(Mask):
    """The keys that are valid."""

    valid: Tensor

    def check(self, queries: int, keys: int) -> None:
        _check_length("padding(valid)", "valid", len(self.valid), keys, "keys")

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        return self.valid.to(key.device)[key].expand(joint_shape(query, key))

    def spans(self, queries: int, keys: int) -> Spans:
        self.check(queries, keys)
        places = self.valid.cpu().nonzero()[:, 0]
        first, last = (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)
        return same_span(queries, first, last, exact=len(places) == last - first)

    def split(self) -> tuple[Mask, Tensor | None]:
        return Full(), self.valid.cpu()

    def __repr__(self) -> str:
        return f"padding({int(self.valid.sum())} of {len(self.valid)} keys)"


@dataclass(frozen=True, repr=False, eq=False)
class Documents(Mask):
    """The keys of the query's own document."""

    query_ids: Tensor
    key_ids: Tensor

    def check(self, queries: int, keys: int) -> None:
        _check_length("documents(ids)", "ids", len(self.query_ids), queries, "queries")
        name = "ids" if self.key_ids is self.query_ids else "key_ids"
        _check_length("documents(ids)", name, len(self.key_ids), keys, "keys")

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        return self.query_ids.to(query.device)[query] == self.key_ids.to(key.device)[key]

    def spans(self, queries: int, keys: int) -> Spans:
        self.check(queries, keys)
        query_ids = self.query_ids.cpu()
        ids, document, count = torch.unique(self.key_ids.cpu(), return_inverse=True, return_counts=True)
        index = torch.arange(keys, device="cpu")
        first = torch.full_like(ids, keys).scatter_reduce(0, document, index, "amin")
        stop = torch.zeros_like(ids).scatter_reduce(0, document, index + 1, "amax")
        own = torch.searchsorted(ids, query_ids).clamp(max=len(ids) - 1)
        known = ids[own] == query_ids  # a document may have queries and no keys
        in_one_piece = (stop - first == count)[own] | ~known
        return Spans(first[own] * known, stop[own] * known, exact=bool(in_one_piece.all()))

    def __repr__(self) -> str:
        return f"documents({len(torch.unique(self.key_ids))} in {len(self.key_ids)} keys)"


@dataclass(frozen=True, repr=False, eq=False)
class Prefix(Mask):
    """The first n keys."""

    n: int

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        return (key < self.n).expand(joint_shape(query, key))

    def spans(self, queries: int, keys: int) -> Spans:
        return same_span(queries, 0, min(self.n, keys), exact=True)

    def __repr__(self) -> str:
        return f"prefix({self.n})"


@dataclass(frozen=True, repr=False, eq=False)
class FromFunction(Mask):
    """What a function of the indices says."""

    f: Callable[[Tensor, Tensor], Tensor]
    _source = "f"

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        return self.f(query, key)

    def __repr__(self) -> str:
        return f"from_function({getattr(self.f, '__name__', type(self.f).__name__)})"


@dataclass(frozen=True, repr=False, eq=False)
class Dense(Mask):
    """What a matrix of booleans says."""

    matrix: Tensor

    def check(self, queries: int, keys: int) -> None:
        if self.matrix.shape != (queries, keys):
            raise ShapeError(
                "dense(visible)",
                f"shape ({queries}, {keys}), as q and k have it",
                f"shape {tuple(self.matrix.shape)}",
                "Its rows are queries, its columns keys.",
            )

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        return self.matrix[query.to(self.matrix.device), key.to(self.matrix.device)].to(key.device)

    def strip(self, rows: range, keys: range, device: torch.device | str = "cpu") -> Tensor:
        return self.matrix[rows.start : rows.stop, keys.start : keys.stop].to(device)

    def __repr__(self) -> str:
        return f"dense({tuple(self.matrix.shape)})"


@dataclass(frozen=True, repr=False, eq=False)
class Runs(Mask):
    """Runs of consecutive keys for each query. No factory makes it: it is what a mask of any kind comes to in a file.

    Attributes:
        edges: where the runs begin and end, by turns, query by query: place (query, key) of a matrix with one key more
            is the number query · (keys + 1) + key. int64 on the CPU, (2 · runs,), each larger than the one before.
        queries: how many queries there are.
        keys: how many keys there are.
    """

    edges: Tensor
    queries: int
    keys: int
    offset: int | None = None

    def check(self, queries: int, keys: int) -> None:
        if (self.queries, self.keys) != (queries, keys):
            expected = f"shape ({queries}, {keys}), as q and k have it"
            raise ShapeError(repr(self), expected, f"shape ({self.queries}, {self.keys})", "It is of another matrix.")

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        place = (query * (self.keys + 1) + key).contiguous()
        return torch.searchsorted(self.edges.to(key.device), place, right=True) % 2 == 1

    def strip(self, rows: range, keys: range, device: torch.device | str = "cpu") -> Tensor:
        width, wide = len(keys) + 1, self.keys + 1
        first, last = torch.searchsorted(
            self.edges, torch.tensor([rows.start, rows.stop], device="cpu") * wide
        ).tolist()
        query, key = _split(self.edges[first:last], wide)
        place = (query - rows.start) * width + key.clamp(keys.start, keys.stop) - keys.start
        turns = torch.zeros(len(rows) * width, dtype=torch.uint8, device="cpu")  # only odd or even matters: it may wrap
        turns.index_add_(0, place, torch.ones_like(place, dtype=torch.uint8))
        counts = turns.view(len(rows), width).cumsum(1, dtype=torch.uint8)
        return (counts[:, :-1] % 2 == 1).to(device)

    def spans(self, queries: int, keys: int) -> Spans:
        self.check(queries, keys)
        query, key = _split(self.edges, keys + 1)
        start, stop = torch.zeros(2, queries, dtype=torch.int64, device="cpu")
        start.scatter_reduce_(0, query[::2], key[::2], "amin", include_self=False)
        stop.scatter_reduce_(0, query[1::2], key[1::2], "amax")
        return Spans(start, stop, exact=bool((query[2::2] > query[1:-1:2]).all()))

    def __repr__(self) -> str:
        return _with_offset(f"runs({len(self.edges) // 2} for {self.queries} queries)", self.offset)


def _places(queries: int, offset: int | None) -> Tensor:
    """Where the queries stand among the keys."""
    return torch.arange(queries, device="cpu") + (offset or 0)


def _split(places: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The query and the key of each place of a matrix so wide."""
    return places // width, places % width


def _with_offset(call: str, offset: int | None) -> str:
    if offset is None:
        return call
    return f"{call[:-1]}{'' if call.endswith('()') else ', '}offset={offset})"


def _check_length(name: str, argument: str, got: int, wanted: int, axis: str) -> None:
    if got != wanted:
        hint = "Give one entry for each key." if axis == "keys" else "Give one id for each query, and key_ids for keys."
        raise ShapeError(name, f"{wanted} entries, one for each of the {axis}", f"{got} in {argument}", hint)
