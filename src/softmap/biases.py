"""What a model adds to the scaled scores: small objects, evaluated strip by strip, never queries x keys.

A bias answers one question: `values(head, query, key)`, for index tensors that broadcast, what is added there.

    biases.alibi(slopes)              −slope · |i − j|, with a slope for each head
    biases.relative(table)            a learnt number for each head and distance j − i
    biases.from_function(f)           f(head_index, query_index, key_index)
    biases.dense(values)              a matrix that one already has

Examples:
    >>> from softmap import biases
    >>> biases.alibi([0.5, 0.25]).strip(range(1), range(3), range(3))
    tensor([[[ 0.0000, -0.5000, -1.0000],
             [-0.5000,  0.0000, -0.5000],
             [-1.0000, -0.5000,  0.0000]]])
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch

from softmap.errors import ParameterError, ShapeError
from softmap.masks.reading import check_function, check_offset, read_answer, read_count, read_list, read_offset
from softmap.tensors import read_floats, refuse_non_finite

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

__all__ = ["Bias", "alibi", "dense", "from_function", "relative"]


def _checked(values: Callable[..., Any]) -> Callable[..., Tensor]:
    """The method `values` of a bias, with what it gives refused where it is no floats of the indices' shape."""

    @wraps(values)
    def checked(self: Bias, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        added, indices = values(self, head, query, key), (head, query, key)
        return read_answer(added, indices, owner=repr(self), source=self._source, floats=True)

    return checked


class Bias(ABC):
    """What is added to the scaled scores. −∞ hides a key; NaN and +∞ are refused when they are met.

    A bias of one's own is a subclass with `values`.

    Attributes:
        offset: the key at which query 0 stands, where the bias says so, else None.
    """

    offset: int | None = None
    _source = "values"  # what answers, as errors name it

    def __init_subclass__(cls) -> None:  # so that a bias of one's own is looked at wherever it is asked
        super().__init_subclass__()
        if "values" in cls.__dict__:
            cls.values = _checked(cls.values)  # type: ignore[method-assign]

    @abstractmethod
    def values(
        self, head: Int[Tensor, "*shape"], query: Int[Tensor, "*shape"], key: Int[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """What is added for these heads, queries and keys.

        Args:
            head: indices of query heads.
            query: indices of queries.
            key: indices of keys; the three broadcast against each other, and are on one device.
        """

    def check(self, heads: int, queries: int, keys: int) -> None:  # noqa: B027  # some fit every matrix
        """Refuse a matrix that this bias does not fit.

        Raises:
            ShapeError: as each bias says.
        """

    def placed(self, offset: int | None) -> Bias:
        """The same bias with query 0 at that key, where it depends on the place and was given none.

        Raises:
            ParameterError: it was given another place.
        """
        if None not in (self.offset, offset) and self.offset != offset:
            expected, got = f"the mask's offset in {self!r}", f"{self.offset}, and {offset} in the mask"
            raise ParameterError("offset", expected, got, "It is the key at which query 0 stands.")
        return self

    def strip(
        self, heads: range, rows: range, keys: range, device: torch.device | str = "cpu"
    ) -> Float[Tensor, "heads rows keys"]:
        """The bias of one block.

        Args:
            heads: consecutive query heads.
            rows: consecutive queries.
            keys: consecutive keys.
            device: where the numbers are to be.
        """
        head, query, key = (torch.arange(r.start, r.stop, device=device) for r in (heads, rows, keys))
        values = self.values(head[:, None, None], query[:, None], key)
        return values.expand(len(heads), len(rows), len(keys))


def alibi(slopes: Any, offset: int | None = None) -> Bias:
    """Attention with linear biases: −slope · |i + offset − j|.

    Press et al., 2022, "Train Short, Test Long", section 3, https://arxiv.org/abs/2108.12409. Its slopes for n heads
    are 2^(−8/n), 2^(−16/n), …, 2^(−8).

    Args:
        slopes: one for each head, (heads,), in nats (what is added to a logit) per token.
        offset: the key at which query 0 stands; must be given, here or in the mask, where queries and keys differ in
            number.

    Raises:
        ArrayKindError: slopes that are not an array or a list.
        DtypeError: slopes that are not floating point.
        ShapeError: slopes of other than one dimension, or none.
        NonFiniteError: a slope that is NaN or infinite.
        ParameterError: an offset that is not a whole number.
    """
    return _Alibi(_read("slopes", slopes, 1, "(heads,)"), read_offset(offset))


def relative(table: Any, zero: int | None = None, offset: int | None = None) -> Bias:
    """A learnt number for each head and distance: table[head, j − i − offset + zero], the ends serving all beyond.

    Shaw et al., 2018, "Self-Attention with Relative Position Representations", section 3.2,
    https://arxiv.org/abs/1803.02155, for the clipped distance; one number each, as in T5, Raffel et al., 2020, section
    2.1, https://arxiv.org/abs/1910.10683. T5's buckets are a table too: its bucket function applied to every distance
    from −(keys − 1) to keys − 1.

    Args:
        table: (heads, distances), in nats (what is added to a logit).
        zero: the column of distance 0; the middle one unless given.
        offset: the key at which query 0 stands; must be given, here or in the mask, where queries and keys differ in
            number.

    Raises:
        ArrayKindError: a table that is not an array or a list.
        DtypeError: a table that is not floating point.
        ShapeError: a table of other than two dimensions, an empty one, or one without a middle column and no zero.
        NonFiniteError: NaN or infinity in the table.
        ParameterError: a number that is not whole, or a zero outside the table.
    """
    values = _read("table", table, 2, "(heads, distances)")
    return _Relative(values, _read_zero(zero, tuple(values.shape)), read_offset(offset))


def from_function(f: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Bias:
    """A bias of one's own.

    Args:
        f: f(head_index, query_index, key_index) over index tensors that broadcast, giving floats. It is asked for one
            strip at a time, so it must work by index, and not hold a matrix. Several threads may ask at once.

    Raises:
        ArrayKindError: not a function.
        ParameterError: a function of other arguments.

    Examples:
        >>> from softmap import biases
        >>> nearer = biases.from_function(lambda head, query, key: -((query - key) ** 2) / 2.0)
        >>> nearer.strip(range(1), range(1), range(4))
        tensor([[[ 0.0000, -0.5000, -2.0000, -4.5000]]])
    """
    hint = "Of a score_mod(score, b, h, q, k) of FlexAttention, give what it adds to a score."
    check_function(f, ("head_index", "query_index", "key_index"), hint)
    return _FromFunction(f)


def dense(values: Any) -> Bias:
    """Numbers that one already has. They are looked at, not copied.

    Args:
        values: (queries, keys) for all heads, or (heads, queries, keys).

    Raises:
        ArrayKindError: not an array.
        DtypeError: not floating point.
        ShapeError: of another number of dimensions.
    """
    tensor = read_floats("values", values)
    if tensor.ndim not in (2, 3):
        hint = "One sequence at a time: take values[0] of a batch."
        raise ShapeError("values", "(queries, keys) or (heads, queries, keys)", f"shape {tuple(tensor.shape)}", hint)
    return _Dense(tensor)


@dataclass(frozen=True, repr=False, eq=False)
class _Alibi(Bias):
    slopes: Tensor
    offset: int | None

    def check(self, heads: int, queries: int, keys: int) -> None:
        _check_heads("alibi(slopes)", len(self.slopes), heads)
        check_offset(self, self.offset, queries, keys)

    def placed(self, offset: int | None) -> Bias:
        return replace(self, offset=offset) if self.offset is None else super().placed(offset)

    def values(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        distance = (query + (self.offset or 0) - key).abs()
        return self.slopes.to(key.device)[head] * -distance

    def __repr__(self) -> str:
        return f"alibi({len(self.slopes)} heads{_and(self.offset)})"


@dataclass(frozen=True, repr=False, eq=False)
class _Relative(Bias):
    table: Tensor
    zero: int
    offset: int | None

    def check(self, heads: int, queries: int, keys: int) -> None:
        _check_heads("relative(table)", len(self.table), heads)
        check_offset(self, self.offset, queries, keys)

    def placed(self, offset: int | None) -> Bias:
        return replace(self, offset=offset) if self.offset is None else super().placed(offset)

    def values(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        distance = key - query - (self.offset or 0)
        column = (distance + self.zero).clamp(0, self.table.shape[1] - 1)
        return self.table.to(key.device)[head, column]

    def __repr__(self) -> str:
        return f"relative({self.table.shape[0]} heads, {self.table.shape[1]} distances{_and(self.offset)})"


@dataclass(frozen=True, repr=False, eq=False)
class _FromFunction(Bias):
    f: Callable[[Tensor, Tensor, Tensor], Tensor]
    _source = "f"

    def values(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.f(head, query, key)

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
        stack = self._stack()
        own, query, key = (index.to(stack.device) for index in (head, query, key))
        return stack[own if len(stack) > 1 else torch.zeros_like(own), query, key].to(head.device)

    def strip(self, heads: range, rows: range, keys: range, device: torch.device | str = "cpu") -> Tensor:
        block = self._stack()[:, rows.start : rows.stop, keys.start : keys.stop]
        if len(block) > 1:
            block = block[heads.start : heads.stop]
        return block.to(device).expand(len(heads), len(rows), len(keys))

    def _stack(self) -> Tensor:
        """The matrices, one for each head or one for all."""
        return self.tensor if self.tensor.ndim == 3 else self.tensor[None]

    def __repr__(self) -> str:
        return f"dense({tuple(self.tensor.shape)})"


def _and(offset: int | None) -> str:
    return "" if offset is None else f", offset={offset}"


def _check_heads(name: str, got: int, heads: int) -> None:
    if got != heads:
        raise ShapeError(name, f"one row for each of {heads} heads", f"{got}", "These are the query heads.")


def _read(name: str, value: Any, dimensions: int, axes: str) -> Tensor:
    tensor = read_floats(name, read_list(name, value, torch.float32))
    if tensor.ndim != dimensions or tensor.numel() == 0:
        hint = "There is one row for each head."
        raise ShapeError(name, f"{axes}, at least one of each", f"shape {tuple(tensor.shape)}", hint)
    refuse_non_finite(name, tensor, way_out="")
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _read_zero(zero: int | None, shape: tuple[int, ...]) -> int:
    width = shape[1]
    if zero is None:
        if width % 2 == 0:
            hint = f"Say which column is distance 0: zero={width - 1} if the last one is the token itself."
            raise ShapeError("table", "an odd number of distances, or zero=", f"shape {shape}", hint)
        return width // 2
    column = read_count("zero", zero)
    if column >= width:
        raise ParameterError("zero", f"a column of the table, 0 to {width - 1}", str(zero), "It holds distance 0.")
    return column
