"""Two computations timed in turn, so that a slow moment of the machine meets both, and only their ratio is told."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

PAUSE = 0.02
"""Seconds before each call: torch's threads go on spinning for some milliseconds after their work, beside the next one."""


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
    start = time.perf_counter()
    ours()
    peer()
    pairs = max(3, min(60, int(seconds / (time.perf_counter() - start))))
    taken = [(_time(ours), _time(peer)) for _ in range(pairs)]
    ratios = sorted(one / other for one, other in taken)
    return Ratio(
        statistics.median(ratios),
        ratios[len(ratios) // 4],
        ratios[-1 - len(ratios) // 4],
        statistics.median(one for one, _ in taken),
        statistics.median(other for _, other in taken),
    )


def _time(call: Callable[[], object]) -> float:
    time.sleep(PAUSE)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
