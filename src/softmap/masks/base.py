"""What every mask answers, and how masks compose."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import torch

from softmap.errors import ArrayKindError, ParameterError, ShapeError
from softmap.masks.reading import read_answer

if TYPE_CHECKING:
    from jaxtyping import Bool, Int
    from torch import Tensor


PARTS = 128
"""How many masks may be composed to one: each is asked for every strip, and one within the other."""


class Block(enum.Enum):
    """What a mask leaves of a block of rows and keys."""

    NONE = "none"
    SOME = "some"
    ALL = "all"


class Spans(NamedTuple):
    """For each query the keys start:stop that can matter (int64 on the CPU; 0:0 where it sees none).

    Attributes:
        start: the first key that can matter, (queries,).
        stop: one after the last key that can matter, (queries,).
        exact: whether each query sees every key of its span. Otherwise the booleans say which.
    """

    start: Int[Tensor, " queries"]
    stop: Int[Tensor, " queries"]
    exact: bool

    def key_range(self, rows: range | Int[Tensor, " n"]) -> range:
        """The keys that can matter to any of these rows (a range of consecutive ones, or indices)."""
        own = slice(rows.start, rows.stop) if isinstance(rows, range) else rows
        start, stop = self.start[own], self.stop[own]
        seeing = stop > start
        return range(int(start[seeing].min()), int(stop[seeing].max())) if bool(seeing.any()) else range(0)


def _checked_visible(visible: Callable[..., Any]) -> Callable[..., Tensor]:
    """The method `visible` of a mask, with what it gives refused where it is no booleans of the indices' shape."""

    @wraps(visible)
    def checked(self: Mask, query: Tensor, key: Tensor) -> Tensor:
        seen = visible(self, query, key)
        return read_answer(seen, (query, key), owner=repr(self), source=self._source, floats=False)

    return checked


def _checked_spans(spans: Callable[..., Any]) -> Callable[..., Spans]:
    """The method `spans` of a mask, with what it gives refused where it is no spans of such a matrix."""

    @wraps(spans)
    def checked(self: Mask, queries: int, keys: int) -> Spans:
        found = spans(self, queries, keys)
        if not isinstance(found, Spans):
            raise ArrayKindError(repr(self), "Spans from spans", type(found).__name__, "Give masks.Spans(...).")
        for name, ends in (("start", found.start), ("stop", found.stop)):
            _check_ends(f"{name} in the spans of {self!r}", ends, queries, keys)
        return found

    return checked


def _check_ends(name: str, ends: Any, queries: int, keys: int) -> None:
    """Refuse starts or stops of spans that are not one key for each query."""
    if not isinstance(ends, torch.Tensor) or ends.dtype != torch.int64 or ends.device.type != "cpu":
        got = f"{ends.dtype} on {ends.device}" if isinstance(ends, torch.Tensor) else type(ends).__name__
        raise ArrayKindError(name, "a torch tensor of int64 on the CPU", got, "torch.arange makes one.")
    if tuple(ends.shape) != (queries,):
        raise ShapeError(name, f"shape ({queries},)", f"shape {tuple(ends.shape)}", "There is one for each query.")
    low, high = (int(ends.min()), int(ends.max())) if queries else (0, 0)
    if low < 0 or high > keys:
        hint = f"End it in clamp(0, {keys})."
        raise ParameterError(name, f"keys from 0 to {keys}", f"{low} to {high}", hint)


class Mask(ABC):
    """Which query may see which key.

    A mask of one's own is a subclass with `visible`; with `spans` too, whole blocks of keys are skipped.

    Attributes:
        offset: the key at which query 0 stands, where the mask says so, else None.
    """

    offset: int | None = None
    _source = "visible"  # what answers, as errors name it

    def __init_subclass__(cls) -> None:  # so that a mask of one's own is looked at wherever it is asked
        super().__init_subclass__()
        if "visible" in cls.__dict__:
            cls.visible = _checked_visible(cls.visible)  # type: ignore[method-assign]  # the same, looked at
        if "spans" in cls.__dict__:
            cls.spans = _checked_spans(cls.spans)  # type: ignore[method-assign]

    @abstractmethod
    def visible(self, query: Int[Tensor, "*shape"], key: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Whether the queries see the keys.

        Args:
            query: indices of queries.
            key: indices of keys, on the same device; the two broadcast against each other.
        """

    def spans(self, queries: int, keys: int) -> Spans:
        """For each of so many queries the range of so many keys that can matter.

        Raises:
            ShapeError: the mask does not fit such a matrix, as `check` says.
        """
        self.check(queries, keys)
        return same_span(queries, 0, keys, exact=False)

    def split(self) -> tuple[Mask, Bool[Tensor, " keys"] | None]:
        """The mask as one that leaves the keys alone, and which keys any query may see; None where that is all of them.

        A key that is hidden from all queries leaves a hole in every span, while those of the rest may be exact.
        """
        return self, None

    def check(self, queries: int, keys: int) -> None:  # noqa: B027  # most masks fit every matrix
        """Refuse a matrix that this mask does not fit.

        Raises:
            ShapeError: as each mask says.
        """

    def placed(self, offset: int | None) -> Mask:
        """The same mask with query 0 at that key, where it depends on the place and was given none."""
        return self

    def strip(self, rows: range, keys: range, device: torch.device | str = "cpu") -> Bool[Tensor, "rows keys"]:
        """The booleans of one block.

        Args:
            rows: consecutive queries.
            keys: consecutive keys.
            device: where the booleans are to be.
        """
        query = torch.arange(rows.start, rows.stop, device=device)[:, None]
        key = torch.arange(keys.start, keys.stop, device=device)[None, :]
        return self.visible(query, key).expand(len(rows), len(keys))

    def key_range(self, rows: range, queries: int, keys: int) -> range:
        """The keys that can matter to any of these rows, in a matrix of queries x keys."""
        return self.spans(queries, keys).key_range(rows)

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

    @property
    def parts(self) -> int:
        """How many masks it is composed of; 1 for one that is not composed."""
        return 1

    def __and__(self, other: object) -> Mask:
        return And(*_parts(self, "&", other))

    def __or__(self, other: object) -> Mask:
        return Or(*_parts(self, "|", other))

    __rand__, __ror__ = __and__, __or__  # reached with what is no mask on the left: refused alike
    __array_ufunc__ = None  # so that NumPy leaves `array & mask` to them

    def __invert__(self) -> Mask:
        return Not(self, self.offset)

    def __bool__(self) -> NoReturn:  # `one and other` would be `other` alone, in silence
        raise ParameterError(repr(self), "&, | or ~", "and, or, not, or if", "Masks compose as one & other.")


@dataclass(frozen=True, repr=False, eq=False)
class Pair(Mask):
    """Two masks composed, which stand at one offset."""

    one: Mask
    other: Mask
    offset: int | None

    @cached_property
    def parts(self) -> int:  # counted once
        return self.one.parts + self.other.parts

    def check(self, queries: int, keys: int) -> None:
        self.one.check(queries, keys)
        self.other.check(queries, keys)

    def placed(self, offset: int | None) -> Mask:
        if self.offset is not None:
            return self
        return type(self)(self.one.placed(offset), self.other.placed(offset), offset)


class And(Pair):
    """Visible in both."""

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        return self.one.visible(query, key) & self.other.visible(query, key)

    def spans(self, queries: int, keys: int) -> Spans:
        one, other = self.one.spans(queries, keys), self.other.spans(queries, keys)
        start, stop = torch.maximum(one.start, other.start), torch.minimum(one.stop, other.stop)
        return spans_of(start, stop, exact=one.exact and other.exact)

    def split(self) -> tuple[Mask, Tensor | None]:
        (one, seen), (other, seen_too) = self.one.split(), self.other.split()
        if seen is None or seen_too is None:
            return And(one, other, self.offset), seen_too if seen is None else seen
        return And(one, other, self.offset), seen & seen_too

    def __repr__(self) -> str:
        return f"({self.one!r} & {self.other!r})"


class Or(Pair):
    """Visible in one of the two, or in both."""

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        return self.one.visible(query, key) | self.other.visible(query, key)

    def spans(self, queries: int, keys: int) -> Spans:
        one, other = self.one.spans(queries, keys), self.other.spans(queries, keys)
        one_empty, other_empty = one.start >= one.stop, other.start >= other.stop
        start = torch.where(one_empty, other.start, torch.where(other_empty, one.start, one.start.minimum(other.start)))
        stop = torch.where(one_empty, other.stop, torch.where(other_empty, one.stop, one.stop.maximum(other.stop)))
        apart = (one.start > other.stop) | (other.start > one.stop)  # a gap between the two
        joined = bool((one_empty | other_empty | ~apart).all())
        return spans_of(start, stop, exact=one.exact and other.exact and joined)

    def __repr__(self) -> str:
        return f"({self.one!r} | {self.other!r})"


@dataclass(frozen=True, repr=False, eq=False)
class Not(Mask):
    """Visible where the other is not."""

    one: Mask
    offset: int | None

    @property
    def parts(self) -> int:
        return self.one.parts

    def check(self, queries: int, keys: int) -> None:
        self.one.check(queries, keys)

    def placed(self, offset: int | None) -> Mask:
        return Not(self.one.placed(offset), offset) if self.offset is None else self

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        return ~self.one.visible(query, key)

    def spans(self, queries: int, keys: int) -> Spans:
        start, stop, exact = self.one.spans(queries, keys)
        if not exact:
            return same_span(queries, 0, keys, exact=False)
        # What is left of 0:keys is one span again only where start:stop touches an end (0:0 touches one).
        at_start, at_end = start == 0, stop == keys
        left_start = torch.where(at_start, stop, 0)
        left_stop = torch.where(~at_start & at_end, start, keys)
        return spans_of(left_start, left_stop, exact=bool((at_start | at_end).all()))

    def __invert__(self) -> Mask:
        return self.one  # whose spans may be exact where those of its complement are not

    def __repr__(self) -> str:
        return f"~{self.one!r}"


def spans_of(start: Tensor, stop: Tensor, *, exact: bool) -> Spans:
    """Spans whose empty ones are 0:0, so that they never widen a strip."""
    seeing = stop > start
    return Spans(start * seeing, stop * seeing, exact)


def same_span(queries: int, start: int, stop: int, *, exact: bool) -> Spans:
    """One span for all queries."""
    one = torch.tensor([start, stop], device="cpu")[:, None].expand(2, queries).contiguous()
    return Spans(one[0], one[1], exact)


def _parts(one: Mask, sign: str, other: object) -> tuple[Mask, Mask, int | None]:
    """Two masks that are to be composed, both at the offset that one of them was given, and that offset."""
    if not isinstance(other, Mask):
        hint = "masks.dense(...) makes one of a matrix of booleans, masks.padding(...) of an attention_mask."
        raise ArrayKindError(f"{one!r} {sign} …", "another mask", type(other).__name__, hint)
    if one.parts + other.parts > PARTS:
        hint = "One mask can say what many do: documents(ids), dense(booleans), or from_function(f)."
        raise ParameterError("masks", f"at most {PARTS} composed to one", f"{one.parts} {sign} {other.parts}", hint)
    if one.offset is not None and other.offset is not None and one.offset != other.offset:
        raise ParameterError(
            "offset",
            f"one offset in the whole of {one!r} {sign} {other!r}",
            f"{one.offset} and {other.offset}",
            "It is the key at which query 0 stands.",
        )
    offset = one.offset if one.offset is not None else other.offset
    return (one, other, None) if offset is None else (one.placed(offset), other.placed(offset), offset)
