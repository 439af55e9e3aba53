"""Queries in consecutive runs, each with a mask of its own over some of the keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from softmap.errors import ShapeError
from softmap.masks.base import Mask, Spans, spans_of

if TYPE_CHECKING:
    from torch import Tensor


class Run(NamedTuple):
    """Consecutive queries that see by one mask.

    Attributes:
        queries: how many they are.
        keys: those that they may see at all.
        mask: which of these they see; its query 0 is the run's first, its key 0 the first of `keys`.
    """

    queries: int
    keys: range
    mask: Mask


@dataclass(frozen=True, repr=False, eq=False)
class Stacked(Mask):
    """The first run of queries sees by the first mask, and so on."""

    runs: tuple[Run, ...]
    offset: int | None = None

    def check(self, queries: int, keys: int) -> None:
        expected = sum(run.queries for run in self.runs), max(run.keys.stop for run in self.runs)
        if expected[0] != queries or expected[1] > keys:
            hint = "Each run of queries has a mask of its own."
            raise ShapeError(
                "stacked masks", f"{expected[0]} queries and {expected[1]} keys", f"{queries}, {keys}", hint
            )
        for run in self.runs:
            run.mask.check(run.queries, len(run.keys))

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        seen = torch.zeros((), dtype=torch.bool, device=key.device)
        for first, run in self._from():
            inside = (query >= first) & (query < first + run.queries) & (key >= run.keys.start) & (key < run.keys.stop)
            own_query = (query - first).clamp(0, run.queries - 1)
            own_key = (key - run.keys.start).clamp(0, len(run.keys) - 1)
            seen = seen | (inside & run.mask.visible(own_query, own_key))
        return seen

    def spans(self, queries: int, keys: int) -> Spans:
        self.check(queries, keys)
        found = [run.mask.spans(run.queries, len(run.keys)) for run in self.runs]
        start = torch.cat([spans.start + run.keys.start for spans, run in zip(found, self.runs, strict=True)])
        stop = torch.cat([spans.stop + run.keys.start for spans, run in zip(found, self.runs, strict=True)])
        return spans_of(start, stop, exact=all(spans.exact for spans in found))

    def _from(self) -> Iterator[tuple[int, Run]]:
        first = 0
        for run in self.runs:
            yield first, run
            first += run.queries

    def __repr__(self) -> str:
        shown = [f"{run.queries} queries of {run.mask!r}" for run in self.runs[:4]]
        return f"stacked({', '.join(shown)}{', ...' * (len(self.runs) > 4)})"
