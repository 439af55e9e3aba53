"""A part of a matrix as a problem of its own: some heads, rows and keys, with their own mask and bias.

Nothing is copied, and what is known of the whole is known of the part: its spans, and the largest of q and k.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from softmap.biases import Bias
from softmap.masks.base import Mask, Spans, spans_of

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool
    from torch import Tensor

    from softmap.kernels.contract import Problem


class PartBias(Bias):
    """The bias of a part: its head, query and key 0 are these ones of the whole."""

    bias: Bias

    def __init__(self, bias: Bias, head: int, query: int = 0, key: int = 0) -> None:
        self.bias, self.head, self.query, self.key = bias, head, query, key
        if isinstance(bias, PartBias):  # a part of a part is one of the whole
            self.bias = bias.bias
            self.head, self.query, self.key = bias.head + head, bias.query + query, bias.key + key
        self.offset = None if bias.offset is None else bias.offset + query - key

    def values(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.bias.values(head + self.head, query + self.query, key + self.key)


class PartMask(Mask):
    """The mask of a part, whose spans were cut out of the whole one's."""

    def __init__(self, mask: Mask, spans: Spans, query: int, key: int) -> None:
        self.mask, self.query, self.key, self._spans = mask, query, key, spans
        self.offset = None if mask.offset is None else mask.offset + query - key

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        return self.mask.visible(query + self.query, key + self.key)

    def strip(self, rows: range, keys: range, device: torch.device | str = "cpu") -> Tensor:
        return self.mask.strip(_shifted(rows, self.query), _shifted(keys, self.key), device)

    def spans(self, queries: int, keys: int) -> Spans:
        del queries, keys
        return self._spans

    def __repr__(self) -> str:
        return f"part({self.mask!r})"


def of_heads(problem: Problem, heads: range) -> Problem:
    """Neighbouring heads: whole groups, or some of one."""
    first = heads.start // problem.group
    found = replace(
        problem,
        q=problem.q[heads.start : heads.stop],
        k=problem.k[first : (heads.stop - 1) // problem.group + 1],
        sinks=None if problem.sinks is None else problem.sinks[heads.start : heads.stop],
        bias=None if problem.bias is None else PartBias(problem.bias, heads.start),
    )
    found.__dict__.update(spans=problem.spans, seen=problem.seen)
    return found


def of_rectangle(problem: Problem, rows: range, keys: range) -> Problem:
    """Some rows and keys of all heads."""
    spans, seen = _cut(problem, rows, keys)
    found = replace(
        problem,
        q=problem.q[:, rows.start : rows.stop],
        k=problem.k[:, keys.start : keys.stop],
        mask=PartMask(problem.mask, spans, rows.start, keys.start),
        bias=None if problem.bias is None else PartBias(problem.bias, 0, rows.start, keys.start),
    )
    found.__dict__.update(spans=spans, seen=seen)
    return found.as_part_of(problem)


def _cut(problem: Problem, rows: range, keys: range) -> tuple[Spans, Bool[Tensor, " keys"] | None]:
    """The spans of a rectangle, and the keys of it that any query sees, where that is needed."""
    whole, seen = problem.spans, problem.seen
    start, stop = (
        ends[rows.start : rows.stop].clamp(keys.start, keys.stop) - keys.start for ends in (whole.start, whole.stop)
    )
    own = None if seen is None else seen[keys.start : keys.stop]
    without_holes = own is not None and bool(own.all())
    return spans_of(start, stop, exact=whole.exact or without_holes), None if without_holes else own


def _shifted(block: range, by: int) -> range:
    return range(block.start + by, block.stop + by)
