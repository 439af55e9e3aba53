"""Which query may see which key: small objects, evaluated strip by strip, never queries x keys.

A mask answers two questions. `visible(query, key)`: for index tensors of any shapes that broadcast, whether those
queries see those keys. `spans(queries, keys)`: for each query, the range of keys that can matter, and whether it sees
all of that range. Every mask of practice but arbitrary patterns is exact in its spans (causal, windows, chunks, padding
at the ends, packed documents), so that a kernel skips whole blocks and needs no booleans at all.

    masks.causal() & masks.padding(valid)
    masks.causal() | masks.prefix(16)
    masks.sliding_window(1023, 0)             the token itself and 1,023 before it

`&`, `|` and `~` compose; all objects are immutable.
"""

from __future__ import annotations

import enum
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from softmap.errors import ArrayKindError, DtypeError, ParameterError, ShapeError
from softmap.tensors import read_tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Int
    from torch import Tensor

__all__ = [
    "Block",
    "Mask",
    "Spans",
    "causal",
    "chunked",
    "dense",
    "documents",
    "from_function",
    "full",
    "padding",
    "prefix",
    "sliding_window",
]


class Block(enum.Enum):
    """What a mask leaves of a block of rows and keys."""

    NONE = "none"
    SOME = "some"
    ALL = "all"


class Spans(NamedTuple):
    """For each query the keys start:stop that can matter (int64 on the CPU; start = stop where it sees none).

    exact: whether each query sees every key of its span. Otherwise the booleans say which.
    """

    start: Int[Tensor, " queries"]
    stop: Int[Tensor, " queries"]
    exact: bool


class Mask(ABC):
    """Which query may see which key.

    Attributes:
        offset: the key at which query 0 stands, where the mask says so; None where it does not matter to it.
    """

    offset: int | None

    @abstractmethod
    def visible(self, query: Int[Tensor, "*shape"], key: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Whether the queries see the keys: index tensors that broadcast against each other, on one device."""

    @abstractmethod
    def spans(self, queries: int, keys: int) -> Spans:
        """For each of so many queries the range of so many keys that can matter."""

    def check(self, queries: int, keys: int) -> None:
        """Refuse a matrix that this mask does not fit.

        Raises:
            ShapeError: as each mask says.
        """

    def strip(self, rows: range, keys: range, device: torch.device | str = "cpu") -> Bool[Tensor, "rows keys"]:
        """The booleans of one block."""
        query = torch.arange(rows.start, rows.stop, device=device)[:, None]
        key = torch.arange(keys.start, keys.stop, device=device)[None, :]
        return self.visible(query, key).expand(len(rows), len(keys))

    def key_range(self, rows: range, queries: int, keys: int) -> range:
        """The keys that can matter to any of these rows."""
        start, stop, _ = self.spans(queries, keys)
        seeing = stop[rows.start : rows.stop] > start[rows.start : rows.stop]
        if not bool(seeing.any()):
            return range(0)
        return range(int(start[rows.start : rows.stop][seeing].min()), int(stop[rows.start : rows.stop][seeing].max()))

    def block(self, rows: range, block: range, queries: int, keys: int) -> Block:
        """Whether these rows see all, none or some of the keys of this block, in a matrix of queries x keys."""
        start, stop, exact = self.spans(queries, keys)
        first = start[rows.start : rows.stop].clamp(min=block.start)
        last = stop[rows.start : rows.stop].clamp(max=block.stop)
        if bool((first >= last).all()):
            return Block.NONE
        if exact:
            whole = bool(((first == block.start) & (last == block.stop)).all())
            return Block.ALL if whole else Block.SOME
        seen = self.strip(rows, block)
        return Block.ALL if bool(seen.all()) else Block.SOME if bool(seen.any()) else Block.NONE

    def __and__(self, other: object) -> Mask:
        return _And(self, other) if isinstance(other, Mask) else NotImplemented

    def __or__(self, other: object) -> Mask:
        return _Or(self, other) if isinstance(other, Mask) else NotImplemented

    def __invert__(self) -> Mask:
        return _Not(self)


def full() -> Mask:
    """Every query sees every key."""
    return _Full()


def causal(offset: int | None = None) -> Mask:
    """A query sees the key it stands at and all before it: query i sees keys j ≤ i + offset.

    Args:
        offset: the key at which query 0 stands. 0 where there are as many queries as keys; with a cache of past keys,
            keys − queries. It must be given where queries and keys differ in number.
    """
    return _Window(None, 0, _read_offset(offset), "causal()")


def sliding_window(left: int | None, right: int | None = 0, offset: int | None = None) -> Mask:
    """A query sees `left` keys before the one it stands at, that one, and `right` keys after it.

    Args:
        left: how many keys before it, at least 0; None for all. A model's window of w tokens is left = w − 1.
        right: how many keys after it, at least 0; None for all. The default, 0, is causal.
        offset: the key at which query 0 stands; must be given where queries and keys differ in number.
    """
    name = f"sliding_window({left}, {right})"
    return _Window(_read_count("left", left), _read_count("right", right), _read_offset(offset), name)


def chunked(size: int, offset: int | None = None) -> Mask:
    """A query sees the keys of its own chunk: (i + offset) // size equals j // size. Combine with causal() by &.

    Llama 4's local layers, https://ai.meta.com/blog/llama-4-multimodal-intelligence/.
    """
    if _read_count("size", size) is None or size < 1:
        raise ParameterError("size", "a whole number of at least 1", repr(size), "It is how many tokens a chunk has.")
    return _Chunked(int(size), _read_offset(offset))


def padding(valid: Any) -> Mask:
    """Every query sees the keys that are real tokens.

    Args:
        valid: booleans, or integers 0 and 1 as a tokenizer's attention_mask has them, (keys,).
    """
    return _Padding(_read_vector("valid", valid, boolean=True))


def documents(ids: Any, key_ids: Any = None) -> Mask:
    """A query sees the keys of its own document, as in packed sequences.

    Args:
        ids: the document each query belongs to, integers (queries,), in any order.
        key_ids: the same for the keys, (keys,); as ids unless given.
    """
    queries = _read_vector("ids", ids)
    return _Documents(queries, queries if key_ids is None else _read_vector("key_ids", key_ids))


def prefix(n: int) -> Mask:
    """Every query sees the first n keys. A prefix language model's mask is causal() | prefix(n)."""
    count = _read_count("n", n)
    if count is None:
        raise ParameterError("n", "a whole number of at least 0", "None", "It is how many keys the prefix has.")
    return _Prefix(count)


def from_function(f: Callable[[Tensor, Tensor], Tensor]) -> Mask:
    """A mask of one's own: f(query_index, key_index) over index tensors that broadcast, giving booleans.

    It is asked for one strip at a time, so f must work by index, and not hold a matrix.
    """
    if not callable(f):
        raise ArrayKindError(
            "f", "a function of two index tensors", type(f).__name__, "For a ready matrix of booleans: dense()."
        )
    return _FromFunction(f)


def dense(visible: Any) -> Mask:
    """A matrix of booleans that one already has, (queries, keys), True where a query sees a key."""
    matrix = read_tensor("visible", visible)
    if matrix.dtype != torch.bool:
        hint = "True means visible: give mask == 0 for a mask of 0 and −inf to add, mask.bool() for 0 and 1."
        raise DtypeError("visible", "booleans", str(matrix.dtype), hint)
    if matrix.ndim != 2:
        hint = "One matrix for all heads; heads that differ are matrices of their own."
        raise ShapeError("visible", "2 dimensions (queries, keys)", f"shape {tuple(matrix.shape)}", hint)
    return _Dense(matrix)


@dataclass(frozen=True, repr=False, eq=False)
class _Full(Mask):
    offset = None

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        return torch.ones((), dtype=torch.bool, device=key.device).expand(
            torch.broadcast_shapes(query.shape, key.shape)
        )

    def spans(self, queries: int, keys: int) -> Spans:
        return Spans(torch.zeros(queries, dtype=torch.int64), torch.full((queries,), keys), exact=True)

    def __repr__(self) -> str:
        return "full()"


@dataclass(frozen=True, repr=False, eq=False)
class _Window(Mask):
    left: int | None
    right: int | None
    offset: int | None
    name: str

    def check(self, queries: int, keys: int) -> None:
        _check_offset(self, self.name, queries, keys)

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
        here = torch.arange(queries) + (self.offset or 0)
        start = torch.zeros_like(here) if self.left is None else (here - self.left).clamp(0, keys)
        stop = torch.full_like(here, keys) if self.right is None else (here + self.right + 1).clamp(0, keys)
        return _spans(start, stop)

    def __repr__(self) -> str:
        return _with_offset(self.name, self.offset)


@dataclass(frozen=True, repr=False, eq=False)
class _Chunked(Mask):
    size: int
    offset: int | None

    def check(self, queries: int, keys: int) -> None:
        _check_offset(self, repr(self), queries, keys)

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        return (query + (self.offset or 0)) // self.size == key // self.size

    def spans(self, queries: int, keys: int) -> Spans:
        self.check(queries, keys)
        start = (torch.arange(queries) + (self.offset or 0)) // self.size * self.size
        return _spans(start.clamp(0, keys), (start + self.size).clamp(0, keys))

    def __repr__(self) -> str:
        return _with_offset(f"chunked({self.size})", self.offset)


@dataclass(frozen=True, repr=False, eq=False)
class _Padding(Mask):
    offset = None
    valid: Tensor

    def check(self, queries: int, keys: int) -> None:
        _check_length("padding(valid)", "valid", len(self.valid), keys, "keys")

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(query.shape, key.shape)
        return self.valid.to(key.device)[key].expand(shape)

    def spans(self, queries: int, keys: int) -> Spans:
        self.check(queries, keys)
        places = self.valid.cpu().nonzero()[:, 0]
        first, last = (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)
        exact = len(places) == last - first
        return Spans(torch.full((queries,), first), torch.full((queries,), last), exact)

    def __repr__(self) -> str:
        return f"padding({int(self.valid.sum())} of {len(self.valid)} keys)"


@dataclass(frozen=True, repr=False, eq=False)
class _Documents(Mask):
    offset = None
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
        ids, places = torch.unique(self.key_ids.cpu(), return_inverse=True)
        index = torch.arange(keys)
        first = torch.full((len(ids),), keys).scatter_reduce(0, places, index, "amin")
        last = torch.zeros(len(ids), dtype=torch.int64).scatter_reduce(0, places, index + 1, "amax")
        exact = bool((last - first == torch.bincount(places, minlength=len(ids))).all())
        own = torch.searchsorted(ids, self.query_ids.cpu()).clamp(max=len(ids) - 1)
        known = ids[own] == self.query_ids.cpu()
        return Spans(first[own] * known, last[own] * known, exact)

    def __repr__(self) -> str:
        return f"documents({len(torch.unique(self.key_ids))} in {len(self.key_ids)} keys)"


@dataclass(frozen=True, repr=False, eq=False)
class _Prefix(Mask):
    offset = None
    n: int

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        return (key < self.n).expand(torch.broadcast_shapes(query.shape, key.shape))

    def spans(self, queries: int, keys: int) -> Spans:
        return Spans(torch.zeros(queries, dtype=torch.int64), torch.full((queries,), min(self.n, keys)), exact=True)

    def __repr__(self) -> str:
        return f"prefix({self.n})"


@dataclass(frozen=True, repr=False, eq=False)
class _FromFunction(Mask):
    offset = None
    f: Callable[[Tensor, Tensor], Tensor]

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        seen = self.f(query, key)
        shape = torch.broadcast_shapes(query.shape, key.shape)
        if not isinstance(seen, torch.Tensor) or seen.dtype != torch.bool:
            got = str(seen.dtype) if isinstance(seen, torch.Tensor) else type(seen).__name__
            raise DtypeError(repr(self), "a tensor of booleans from f", got, "Compare in it, as in key <= query.")
        try:
            return seen.to(key.device).expand(shape)
        except RuntimeError as error:
            raise ShapeError(
                repr(self),
                f"booleans of shape {tuple(shape)}, or that broadcast to it",
                f"shape {tuple(seen.shape)} for query indices {tuple(query.shape)} and key indices {tuple(key.shape)}",
                "f must work index by index.",
            ) from error

    def spans(self, queries: int, keys: int) -> Spans:
        return Spans(torch.zeros(queries, dtype=torch.int64), torch.full((queries,), keys), exact=False)

    def __repr__(self) -> str:
        return f"from_function({getattr(self.f, '__name__', type(self.f).__name__)})"


@dataclass(frozen=True, repr=False, eq=False)
class _Dense(Mask):
    offset = None
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

    def spans(self, queries: int, keys: int) -> Spans:
        self.check(queries, keys)
        return Spans(torch.zeros(queries, dtype=torch.int64), torch.full((queries,), keys), exact=False)

    def __repr__(self) -> str:
        return f"dense({tuple(self.matrix.shape)})"


@dataclass(frozen=True, repr=False, eq=False)
class _And(Mask):
    one: Mask
    other: Mask

    @property
    def offset(self) -> int | None:  # type: ignore[override]  # derived here, given elsewhere
        return _shared_offset(self.one, self.other)

    def check(self, queries: int, keys: int) -> None:
        self.one.check(queries, keys)
        self.other.check(queries, keys)

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        return self.one.visible(query, key) & self.other.visible(query, key)

    def spans(self, queries: int, keys: int) -> Spans:
        one, other = self.one.spans(queries, keys), self.other.spans(queries, keys)
        start, stop = torch.maximum(one.start, other.start), torch.minimum(one.stop, other.stop)
        return _spans(start, stop, one.exact and other.exact)

    def __repr__(self) -> str:
        return f"({self.one!r} & {self.other!r})"


@dataclass(frozen=True, repr=False, eq=False)
class _Or(Mask):
    one: Mask
    other: Mask

    @property
    def offset(self) -> int | None:  # type: ignore[override]
        return _shared_offset(self.one, self.other)

    def check(self, queries: int, keys: int) -> None:
        self.one.check(queries, keys)
        self.other.check(queries, keys)

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        return self.one.visible(query, key) | self.other.visible(query, key)

    def spans(self, queries: int, keys: int) -> Spans:
        one, other = self.one.spans(queries, keys), self.other.spans(queries, keys)
        one_empty, other_empty = one.start >= one.stop, other.start >= other.stop
        start = torch.where(one_empty, other.start, torch.where(other_empty, one.start, one.start.minimum(other.start)))
        stop = torch.where(one_empty, other.stop, torch.where(other_empty, one.stop, one.stop.maximum(other.stop)))
        apart = (one.start > other.stop) | (other.start > one.stop)  # a gap between the two
        joined = bool((one_empty | other_empty | ~apart).all())
        return _spans(start, stop, one.exact and other.exact and joined)

    def __repr__(self) -> str:
        return f"({self.one!r} | {self.other!r})"


@dataclass(frozen=True, repr=False, eq=False)
class _Not(Mask):
    one: Mask

    @property
    def offset(self) -> int | None:  # type: ignore[override]
        return self.one.offset

    def check(self, queries: int, keys: int) -> None:
        self.one.check(queries, keys)

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        return ~self.one.visible(query, key)

    def spans(self, queries: int, keys: int) -> Spans:
        start, stop, exact = self.one.spans(queries, keys)
        nothing = torch.full_like(start, 0), torch.full_like(start, keys)
        if not exact:
            return Spans(*nothing, exact=False)
        empty, at_start, at_end = start >= stop, start == 0, stop == keys
        flipped_start = torch.where(empty | ~at_start, nothing[0], stop)
        flipped_stop = torch.where(empty | at_start | ~at_end, nothing[1], start)
        return _spans(flipped_start, flipped_stop, exact=bool((empty | at_start | at_end).all()))

    def __repr__(self) -> str:
        return f"~{self.one!r}"


def _spans(start: Tensor, stop: Tensor, exact: bool = True) -> Spans:
    """Spans whose empty ones are start = stop = 0, so that they never widen a strip."""
    seeing = stop > start
    return Spans(start * seeing, stop * seeing, exact)


def _shared_offset(one: Mask, other: Mask) -> int | None:
    """The offset of a composed mask; two parts that disagree are refused."""
    if one.offset is not None and other.offset is not None and one.offset != other.offset:
        raise ParameterError(
            "offset",
            f"one offset in the whole of ({one!r} with {other!r})",
            f"{one.offset} and {other.offset}",
            "It is the key at which query 0 stands.",
        )
    return one.offset if one.offset is not None else other.offset


def _with_offset(name: str, offset: int | None) -> str:
    return name if offset is None else f"{name[:-1]}{'' if name.endswith('()') else ', '}offset={offset})"


def _check_offset(mask: Mask, name: str, queries: int, keys: int) -> None:
    if mask.offset is None and queries != keys:
        raise ShapeError(
            name,
            "as many queries as keys, or an offset",
            f"{queries} queries and {keys} keys",
            "Say at which key query 0 stands: "
            f"offset={keys - queries} if the queries are the last tokens, offset=0 if they are the first.",
        )


def _check_length(name: str, argument: str, got: int, wanted: int, axis: str) -> None:
    if got != wanted:
        hint = "Give one entry for each key." if axis == "keys" else "Give one id for each query, and key_ids for keys."
        raise ShapeError(name, f"{wanted} entries, one for each of the {axis}", f"{got} in {argument}", hint)


def _read_count(name: str, value: Any) -> int | None:
    """A whole number of at least 0; None stays None."""
    if value is None:
        return None
    hint = "It counts tokens."
    try:
        number = operator.index(value)
    except TypeError as error:
        raise ParameterError(name, "a whole number of at least 0, or None", repr(value), hint) from error
    if isinstance(value, bool) or number < 0:
        raise ParameterError(name, "a whole number of at least 0, or None", repr(value), hint)
    return number


def _read_offset(value: Any) -> int | None:
    if value is None:
        return None
    hint = "It is the key at which query 0 stands: keys − queries where past keys are cached."
    try:
        number = operator.index(value)
    except TypeError as error:
        raise ParameterError("offset", "a whole number", repr(value), hint) from error
    if isinstance(value, bool):
        raise ParameterError("offset", "a whole number", repr(value), hint)
    return number


def _read_vector(name: str, value: Any, *, boolean: bool = False) -> Tensor:
    """A vector of integers, or of booleans, for which 0 and 1 may stand."""
    vector = read_tensor(name, torch.tensor(value) if isinstance(value, list | tuple) else value)
    if vector.ndim != 1 or vector.numel() == 0:
        hint = (
            "One sequence at a time: take one row of a batch." if vector.ndim == 2 else "Give one entry for each token."
        )
        raise ShapeError(name, "1 dimension with at least one entry", f"shape {tuple(vector.shape)}", hint)
    if vector.dtype.is_floating_point or vector.dtype.is_complex:
        wanted = "booleans, or integers 0 and 1" if boolean else "integers"
        hint = "True or 1 means a real token." if boolean else "Number the documents: 0, 0, 0, 1, 1."
        raise DtypeError(name, wanted, str(vector.dtype), hint)
    if not boolean:
        return vector.to(torch.int64)
    if vector.dtype != torch.bool and not bool(((vector == 0) | (vector == 1)).all()):
        wrong = vector[(vector != 0) & (vector != 1)][0]
        raise ParameterError(name, "booleans, or integers 0 and 1", str(int(wrong)), "True or 1 means a real token.")
    return vector.to(torch.bool)
