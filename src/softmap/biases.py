"""What a model adds to the scaled scores: small objects, evaluated strip by strip, never queries x keys.

A bias answers one question: `values(head, query, key)`, for index tensors that broadcast, what is added there.

    biases.alibi(slopes)              −slope · |i − j|, with a slope for each head
    biases.relative(table)            a learnt number for each head and distance j − i
    biases.from_function(f)           f(head_index, query_index, key_index)
    biases.dense(values)              a matrix that one already has
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from softmap.errors import ArrayKindError, DtypeError, ParameterError, ShapeError
from softmap.tensors import read_floats, refuse_non_finite

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

__all__ = ["Bias", "alibi", "dense", "from_function", "relative"]


class Bias(ABC):
    """What is added to the scaled scores. −∞ hides a key; NaN and +∞ are refused when they are met."""

    @abstractmethod
    def values(
        self, head: Int[Tensor, "*shape"], query: Int[Tensor, "*shape"], key: Int[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """What is added for these heads, queries and keys: index tensors that broadcast, on one device."""

    def check(self, heads: int, queries: int, keys: int) -> None:
        """Refuse a matrix that this bias does not fit.

        Raises:
            ShapeError: as each bias says.
        """

    def strip(
        self, heads: range, rows: range, keys: range, device: torch.device | str = "cpu"
    ) -> Float[Tensor, "heads rows keys"]:
        """The bias of one block."""
        head, query, key = (torch.arange(r.start, r.stop, device=device) for r in (heads, rows, keys))
        values = self.values(head[:, None, None], query[:, None], key)
        return values.expand(len(heads), len(rows), len(keys))


def alibi(slopes: Any, offset: int = 0) -> Bias:
    """Attention with linear biases: −slope · |i + offset − j|.

    Press et al., 2022, "Train Short, Test Long", section 3, https://arxiv.org/abs/2108.12409.

    Args:
        slopes: one for each head, (heads,).
        offset: the key at which query 0 stands, as in masks.causal.
    """
    return _Alibi(_read("slopes", slopes, 1, "(heads)"), _read_place("offset", offset))


def relative(table: Any, zero: int | None = None, offset: int = 0) -> Bias:
    """A learnt number for each head and distance: table[head, j − i − offset + zero], the ends serving all beyond.

    Shaw et al., 2018, https://arxiv.org/abs/1803.02155. T5's buckets are a table too: its bucket function applied to
    every distance from −(keys − 1) to keys − 1.

    Args:
        table: (heads, distances).
        zero: the column of distance 0; the middle one unless given.
        offset: the key at which query 0 stands, as in masks.causal.
    """
    values = _read("table", table, 2, "(heads, distances)")
    width = values.shape[1]
    if zero is None:
        if width % 2 == 0:
            hint = f"Say which column is distance 0: zero={width - 1} if the last one is the token itself."
            raise ShapeError("table", "an odd number of distances, or zero=", f"shape {tuple(values.shape)}", hint)
        zero = width // 2
    place = _read_place("zero", zero)
    if not 0 <= place < width:
        raise ParameterError("zero", f"a column of the table, 0 to {width - 1}", str(place), "It holds distance 0.")
    return _Relative(values, place, _read_place("offset", offset))


def from_function(f: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Bias:
    """A bias of one's own: f(head_index, query_index, key_index) over index tensors that broadcast, giving floats.

    It is asked for one strip at a time, so f must work by index, and not hold a matrix.
    """
    if not callable(f):
        raise ArrayKindError(
            "f", "a function of three index tensors", type(f).__name__, "For a ready array of numbers: dense()."
        )
    return _FromFunction(f)


def dense(values: Any) -> Bias:
    """Numbers that one already has, (queries, keys) for all heads or (heads, queries, keys)."""
    tensor = read_floats("values", values)
    if tensor.ndim not in (2, 3):
        hint = "One sequence at a time: take values[0] of a batch."
        raise ShapeError("values", "(queries, keys) or (heads, queries, keys)", f"shape {tuple(tensor.shape)}", hint)
    return _Dense(tensor)


@dataclass(frozen=True, repr=False, eq=False)
class _Alibi(Bias):
    slopes: Tensor
    offset: int

    def check(self, heads: int, queries: int, keys: int) -> None:
        _check_heads("alibi(slopes)", len(self.slopes), heads)

    def values(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return -self.slopes.to(key.device)[head] * (query + self.offset - key).abs()

    def __repr__(self) -> str:
        return f"alibi({len(self.slopes)} heads)"


@dataclass(frozen=True, repr=False, eq=False)
class _Relative(Bias):
    table: Tensor
    zero: int
    offset: int

    def check(self, heads: int, queries: int, keys: int) -> None:
        _check_heads("relative(table)", len(self.table), heads)

    def values(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        column = (key - query - self.offset + self.zero).clamp(0, self.table.shape[1] - 1)
        return self.table.to(key.device)[head, column]

    def __repr__(self) -> str:
        return f"relative({self.table.shape[0]} heads, {self.table.shape[1]} distances)"


@dataclass(frozen=True, repr=False, eq=False)
class _FromFunction(Bias):
    f: Callable[[Tensor, Tensor, Tensor], Tensor]

    def values(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        added = self.f(head, query, key)
        shape = torch.broadcast_shapes(head.shape, query.shape, key.shape)
        if not isinstance(added, torch.Tensor) or not added.dtype.is_floating_point:
            got = str(added.dtype) if isinstance(added, torch.Tensor) else type(added).__name__
            raise DtypeError(repr(self), "a tensor of floats from f", got, "For True and False use a mask.")
        try:
            return added.detach().to(key.device).expand(shape)
        except RuntimeError as error:
            raise ShapeError(
                repr(self),
                f"floats of shape {tuple(shape)}, or that broadcast to it",
                f"shape {tuple(added.shape)}",
                "f must work index by index.",
            ) from error

    def __repr__(self) -> str:
        return f"from_function({getattr(self.f, '__name__', type(self.f).__name__)})"


@dataclass(frozen=True, repr=False, eq=False)
class _Dense(Bias):
    tensor: Tensor

    def check(self, heads: int, queries: int, keys: int) -> None:
        fitting = {(queries, keys), (1, queries, keys), (heads, queries, keys)}
        if tuple(self.tensor.shape) not in fitting:
            raise ShapeError(
                "dense(values)",
                f"shape ({queries}, {keys}) or ({heads}, {queries}, {keys}), as q and k have it",
                f"shape {tuple(self.tensor.shape)}",
                "Its rows are queries, its columns keys.",
            )

    def values(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        query, key = query.to(self.tensor.device), key.to(self.tensor.device)
        if self.tensor.ndim == 2:
            return self.tensor[query, key].to(head.device)
        own = (
            head.to(self.tensor.device)
            if self.tensor.shape[0] > 1
            else torch.zeros_like(head, device=self.tensor.device)
        )
        return self.tensor[own, query, key].to(head.device)

    def __repr__(self) -> str:
        return f"dense({tuple(self.tensor.shape)})"


def _check_heads(name: str, got: int, heads: int) -> None:
    if got != heads:
        raise ShapeError(name, f"one row for each of {heads} heads", f"{got}", "These are the query heads.")


def _read(name: str, value: Any, dimensions: int, axes: str) -> Tensor:
    tensor = read_floats(name, torch.tensor(value) if isinstance(value, list | tuple) else value)
    if tensor.ndim != dimensions or tensor.numel() == 0:
        raise ShapeError(
            name, f"{axes}, at least one of each", f"shape {tuple(tensor.shape)}", "One number for each head."
        )
    refuse_non_finite(name, tensor)
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _read_place(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise ParameterError(name, "a whole number", repr(value), "It counts tokens.") from error
