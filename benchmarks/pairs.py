"""Two computations timed in turn, so that a slow moment of the machine meets both, and only their ratio is told.

A short call is timed warm: right after calls of its own kind that are not counted, for `WARM` seconds. By then the other
computation's threads have stopped spinning (torch's go on for some milliseconds after their work), all processors are
awake and the caches hold what this one needs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

WARM = 0.02
LONG = 1.0
"""Seconds from which on a call needs no warming: what is cold at its start is a small part of it."""


class Ratio(NamedTuple):
    """What one took ÷ what the other took: the median of the pairs, the middle half of them, and medians in seconds."""

    median: float
    low: float
    high: float
    ours: float
    peer: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def compare(ours: Callable[[], object], peer: Callable[[], object], seconds: float = 4.0) -> Ratio:
    """Time both in turn for about so many seconds, at least three pairs."""
    peer()  # the first calls make what later ones find ready
    once = _time(ours), _time(peer)
    pairs = max(3, min(60, int(seconds / sum(max(WARM, taken) + taken for taken in once))))
    taken = [
        tuple(_time_warm(call, first) for call, first in zip((ours, peer), once, strict=True)) for _ in range(pairs)
    ]
    ratios = sorted(one / other for one, other in taken)
    return Ratio(
        statistics.median(ratios),
        ratios[len(ratios) // 4],
        ratios[-1 - len(ratios) // 4],
        statistics.median(one for one, _ in taken),
        statistics.median(other for _, other in taken),
    )


def _time_warm(call: Callable[[], object], once: float) -> float:
    start = time.perf_counter()
    while once < LONG and time.perf_counter() - start < WARM:
        call()
    return _time(call)


def _time(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
