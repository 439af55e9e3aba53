"""The matrix's exact numbers at any places, and each row's logsumexp, which is kept once it is known.

    weights = exp(scaled − logsumexp)     at any places, without the rest of their rows

A logsumexp is kept in float64, and taken off as the sum of two floats of the result's dtype: a row of large scores then
sums to 1 as closely as one of small scores.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from softmap import kernels
from softmap.biases import Bias
from softmap.errors import NonFiniteError
from softmap.kernels import Swept, tile
from softmap.kernels.contract import Statistics, Wanted
from softmap.tensors import joint_shape

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from softmap.kernels.contract import Problem
    from softmap.masks import Spans

Stage = Literal["scores", "scaled", "weights"]
STRIP = 1 << 22
"""How many numbers are computed at once: 16 MiB of float32."""
_KEEPING = threading.Lock()  # of all matrices, for it is held for a moment, and keeps none of them from being copied


class Lookup:
    """Numbers of one problem's matrix.

    Attributes:
        problem: the matrix, as its ingredients.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._kept: Tensor | None = None  # logsumexp, (heads, queries), float64 on the CPU, NaN where unknown

    @property
    def nbytes(self) -> int:
        """The bytes of what is held: q, k, the sinks and the logsumexp that are known."""
        held = (self.problem.q, self.problem.k, self.problem.sinks, self._kept)
        return sum(tensor.numel() * tensor.element_size() for tensor in held if tensor is not None)

    def known(self, heads: Sequence[int]) -> int:
        """Of how many rows of these heads the logsumexp is kept."""
        return 0 if self._kept is None else int((~self._kept[list(heads)].isnan()).sum())

    def values(
        self, stage: Stage, head: Int[Tensor, "*shape"], query: Int[Tensor, "*shape"], key: Int[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """The numbers at index tensors that broadcast, in `Problem.dtype`; work beyond the result is linear.

        Raises:
            NonFiniteError: a bias of NaN or +∞ that is met; scores or scaled beyond the range of the dtype.
        """
        shape = joint_shape(head, query, key)
        head, query, key = (
            index.reshape((1,) * (len(shape) - index.ndim) + index.shape) for index in (head, query, key)
        )
        of_keys = [d for d, size in enumerate(shape) if head.shape[d] == query.shape[d] == 1 and key.shape[d] == size]
        of_rows = [d for d in range(len(shape)) if d not in of_keys]
        if any(key.shape[d] > 1 for d in of_rows):
            return self._pairs(stage, *(index.expand(shape).reshape(-1) for index in (head, query, key))).reshape(shape)
        order = of_rows + of_keys
        rows = [shape[d] for d in of_rows] + [1] * len(of_keys)
        head, query = (index.permute(order).expand(rows).reshape(-1) for index in (head, query))
        table = self._tile(stage, head, query, key.permute(order).reshape(-1))  # (rows, keys)
        back = [order.index(d) for d in range(len(shape))]
        return table.reshape([shape[d] for d in order]).permute(back).contiguous()

    def logsumexp(self, head: Int[Tensor, " n"], query: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The logsumexp of rows, float64 on the CPU; those not yet known are computed and kept."""
        kept = self._keeping()
        unknown = kept[head, query].isnan()
        if bool(unknown.any()):
            rows = torch.stack((head[unknown], query[unknown])).unique(dim=1)
            for group in _groups(rows[0], rows[1]):
                self._find(group.heads, group.rows)
        return kept[head, query]

    def sweep(self, heads: Sequence[int], wanted: Wanted) -> Swept:
        """Statistics of some heads, in one pass, whose logsumexp is kept; `wanted.v` has all the key heads."""
        if list(heads) == list(range(self.problem.shape[0])):
            swept = kernels.sweep(self.problem, wanted)
            with _KEEPING:
                if self._kept is None:
                    self._kept = swept.statistics.logsumexp.to("cpu", torch.float64, copy=True)
                    return swept
        else:
            parts = [kernels.sweep(self._head(head), self._wanted(head, wanted)) for head in heads]
            ran = (" and ".join(dict.fromkeys(names)) for names in zip(*(part[1:] for part in parts), strict=True))
            swept = Swept(_joined([part.statistics for part in parts]), *ran)
        self._keep(heads, torch.arange(self.problem.shape[1], device="cpu"), swept.statistics.logsumexp)
        return swept

    def _tile(self, stage: Stage, head: Tensor, query: Tensor, key: Tensor) -> Float[Tensor, "rows keys"]:
        """Every one of these rows (head[n], query[n]) with every one of these keys."""
        table = torch.empty(len(query), len(key), dtype=self.problem.dtype, device=self.problem.q.device)
        if not table.numel():
            return table
        logsumexp = self.logsumexp(head, query) if stage == "weights" else None
        keys = as_range(key)
        for heads, rows, places in _groups(head, query):
            step = _height(len(heads) * len(key))
            for part, place in zip(rows.split(step), places.split(step, dim=1), strict=True):
                numbers = tile.scores(self._wide, as_range(part), keys, heads)
                if stage != "scores":
                    numbers = tile.scaled(self._wide, numbers, as_range(part), keys, heads)
                if logsumexp is not None:
                    numbers = _softmax(numbers, logsumexp[place])
                table[place.to(table.device)] = self._narrow(stage, numbers)
        return table

    def _pairs(self, stage: Stage, head: Tensor, query: Tensor, key: Tensor) -> Float[Tensor, " n"]:
        """Single places (head[n], query[n], key[n])."""
        found = torch.empty(len(head), dtype=self.problem.dtype, device=self.problem.q.device)
        logsumexp = self.logsumexp(head, query) if stage == "weights" else None
        for places in torch.arange(len(head), device="cpu").split(STRIP):
            numbers = tile.scores_at(self._wide, head[places], query[places], key[places])
            if stage != "scores":
                numbers = tile.scaled_at(self._wide, numbers, head[places], query[places], key[places])
            if logsumexp is not None:
                numbers = _softmax(numbers[:, None], logsumexp[places])[:, 0]
            found[places.to(found.device)] = self._narrow(stage, numbers)
        return found

    def _find(self, heads: Sequence[int], rows: Int[Tensor, " n"]) -> None:
        """Compute and keep the logsumexp of these rows of all these heads."""
        _, queries, keys = self.problem.shape
        height = _height(len(heads) * keys)
        if len(rows) > height and 2 * len(rows) >= queries:  # most of a large matrix: a whole pass is faster
            self.sweep(heads, Wanted())
            return
        for part in rows.split(height):
            self._keep(heads, part, self._logsumexp(heads, part))

    def _logsumexp(self, heads: Sequence[int], rows: Int[Tensor, " n"]) -> Float[Tensor, "heads n"]:
        start, stop = self.spans.start[rows], self.spans.stop[rows]
        seeing = stop > start
        keys = range(int(start[seeing].min()), int(stop[seeing].max())) if bool(seeing.any()) else range(1)
        scores = tile.scores(self._wide, as_range(rows), keys, heads)
        scaled = tile.scaled(self._wide, scores, as_range(rows), keys, heads, self.spans)
        peak = scaled.amax(-1)
        sinks = None if self.problem.sinks is None else self.problem.sinks[list(heads)].to(peak.dtype)[:, None]
        peak = peak if sinks is None else peak.maximum(sinks)
        peak = peak.masked_fill(peak == -torch.inf, 0)  # a row that sees nothing: exp(−∞ − 0) = 0
        total = (scaled - peak[..., None]).exp_().sum(-1)
        total = total if sinks is None else total + (sinks - peak).exp()
        return peak.cpu().double() + total.cpu().double().log()

    def _keep(self, heads: Sequence[int], rows: Int[Tensor, " n"], logsumexp: Float[Tensor, "heads n"]) -> None:
        """Keep what was not known: a logsumexp never changes, so that tiles taken at any time agree."""
        kept, found = self._keeping(), logsumexp.cpu().double()
        place = torch.tensor(list(heads), device="cpu")[:, None], rows[None]
        with _KEEPING:
            known = kept[place]
            kept[place] = known.where(~known.isnan(), found)

    def _keeping(self) -> Float[Tensor, "heads queries"]:
        """The table of what is kept, made when it is first needed."""
        with _KEEPING:
            if self._kept is None:
                self._kept = torch.full(self.problem.shape[:2], torch.nan, dtype=torch.float64, device="cpu")
            return self._kept

    def _narrow(self, stage: Stage, numbers: Tensor) -> Tensor:
        """Numbers computed in float64 so as not to overflow, in the result's dtype."""
        narrow = numbers.to(self.problem.dtype)
        if self._wide is self.problem or self.problem.nan or bool((narrow.isinf() == numbers.isinf()).all()):
            return narrow
        largest = float(numbers[narrow.isinf() & ~numbers.isinf()][0])
        hint = "Give q and k in float64; weights and statistics do not need it."
        raise NonFiniteError(stage, f"numbers within {self.problem.dtype}", f"{largest:.3g}", hint)

    def _head(self, head: int) -> Problem:
        """The problem of one head."""
        problem, shared = self.problem, head // self.problem.group
        return replace(
            problem,
            q=problem.q[head : head + 1],
            k=problem.k[shared : shared + 1],
            sinks=None if problem.sinks is None else problem.sinks[head : head + 1],
            bias=None if problem.bias is None else _HeadBias(problem.bias, head),
        )

    def _wanted(self, head: int, wanted: Wanted) -> Wanted:
        shared = head // self.problem.group
        return replace(wanted, v=None if wanted.v is None else wanted.v[shared : shared + 1])

    @cached_property
    def _wide(self) -> Problem:
        """The problem whose tiles do not overflow. Halves stay halves here: each tile widens its own."""
        return tile.widened(self.problem) if tile.may_overflow(self.problem) else self.problem

    @cached_property
    def spans(self) -> Spans:
        """The keys that can matter to each row."""
        return self.problem.mask.spans(*self.problem.shape[1:])


class _HeadBias(Bias):
    """The bias of one head, which is head 0 of its own problem."""

    def __init__(self, bias: Bias, head: int) -> None:
        self.bias, self.head = bias, head

    def values(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.bias.values(head + self.head, query, key)


class _Group(NamedTuple):
    """Heads of which the same rows are looked at, and where row (head, query) stands in the list they came from."""

    heads: list[int]
    rows: Int[Tensor, " rows"]
    places: Int[Tensor, "heads rows"]


def _groups(head: Int[Tensor, " n"], query: Int[Tensor, " n"]) -> list[_Group]:
    """A list of rows (head[n], query[n]) as few groups: one, where all heads have the same rows."""
    order = torch.argsort(head, stable=True)
    heads, counts = torch.unique_consecutive(head[order], return_counts=True)
    places = order.split(counts.tolist())
    rows = [query[place] for place in places]
    if rows and all(torch.equal(each, rows[0]) for each in rows):
        return [_Group(heads.tolist(), rows[0], torch.stack(places))]
    return [_Group([head], row, place[None]) for head, row, place in zip(heads.tolist(), rows, places, strict=True)]


def as_range(index: Int[Tensor, " n"]) -> range | Int[Tensor, " n"]:
    """A range where the index is one: it takes a view, not a copy."""
    if len(index) == 0 or not bool((index.diff() == 1).all()):
        return index
    return range(int(index[0]), int(index[-1]) + 1)


def _softmax(scaled: Float[Tensor, "*rows keys"], logsumexp: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows keys"]:
    """exp(scaled − logsumexp), the float64 logsumexp taken off in two parts."""
    logsumexp = logsumexp.masked_fill(logsumexp == -torch.inf, 0)  # all of such a row is −∞
    high = logsumexp.to(scaled.dtype)
    low = (logsumexp - high.double()).to(scaled.dtype)
    return scaled.sub_(high.to(scaled.device)[..., None]).sub_(low.to(scaled.device)[..., None]).exp_()


def _height(width: int) -> int:
    """How many rows of so many numbers one strip has."""
    return max(1, STRIP // max(1, width))


def _joined(parts: Sequence[Statistics]) -> Statistics:
    """The statistics of several heads as one."""
    names = [field.name for field in fields(Statistics)]
    return Statistics(**{name: _cat([getattr(part, name) for part in parts]) for name in names})


def _cat(values: list[Any]) -> Any:
    if values[0] is None:
        return None
    if isinstance(values[0], torch.Tensor):
        return torch.cat(values)
    return type(values[0])(*(torch.cat(parts) for parts in zip(*values, strict=True)))
