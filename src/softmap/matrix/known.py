"""Each row's logsumexp as a kernel's own sweep gives it: what later passes of the same kernel take off the scores.

Where a logsumexp is large, so are the scores, and each kernel rounds them in its own way: one that comes from elsewhere
serves where it is small, or where a few rows that are swept anew have the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from softmap import kernels
from softmap.forking import Lock
from softmap.kernels.contract import Known, Wanted
from softmap.kernels.part import of_rectangle
from softmap.kernels.sizes import LARGE, SWEPT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from softmap.kernels.contract import Problem

REUSED = 30.0
"""How large a logsumexp may be to serve other roundings: scores of this size round by 2e-6 at most."""
_SAMPLE = 64  # rows that are swept anew: a strip
_KEEPING = Lock()


class SweptRows:
    """The logsumexp of one head's rows, of which some are known.

    Args:
        problem: the head's matrix.
        sizes: how large the scores of its rows may be; None where none is large.
    """

    def __init__(self, problem: Problem, sizes: NDArray[np.float64] | None) -> None:
        self.problem, self._sizes = problem, sizes
        self._logsumexp = np.full(problem.shape[1], np.nan)  # NaN: not known

    @property
    def nbytes(self) -> int:
        """The bytes of what is kept."""
        return self._logsumexp.nbytes

    def give(self, logsumexp: NDArray[np.float64], rows: range) -> None:
        """Rows' logsumexp by whatever kernel, NaN where it is not known; what serves of it is kept."""
        size = np.where(np.isfinite(logsumexp), np.abs(logsumexp), 0)
        if self._sizes is not None:  # scores that are large may have a small logsumexp
            large = np.isfinite(logsumexp) & (self._sizes[rows.start : rows.stop] > LARGE)
            size = np.where(large, np.maximum(size, 2 * REUSED), size)
        if size.max() > REUSED and not self._has_the_same(logsumexp, rows, int(size.argmax())):
            logsumexp = np.where(size > REUSED, np.nan, logsumexp)
        self._keep(rows, logsumexp)

    def of(self, rows: range) -> Known | None:
        """What is to be taken off these rows' scores; None where they are so large that only tiles' arithmetic serves."""
        found = self._logsumexp[rows.start : rows.stop]
        unknown = np.flatnonzero(np.isnan(found))
        if len(unknown):
            first, last = (rows.start + int(unknown[end]) for end in (0, -1))
            self._keep(range(first, last + 1), self._swept(range(first, last + 1)))
        empty = np.isneginf(found)
        if not bool(((np.abs(found) <= SWEPT) | empty).all()):
            return None
        high = found.astype(np.float32).astype(np.float64)
        low = np.where(empty, 0, found) - np.where(empty, 0, high)
        return Known(torch.from_numpy(high)[None], torch.from_numpy(low)[None])

    def _has_the_same(self, logsumexp: NDArray[np.float64], rows: range, place: int) -> bool:
        """Whether a sweep of some rows about that place gives the same, to what scores of `REUSED` round by."""
        first = max(0, min(place, len(rows) - _SAMPLE))
        some = slice(first, min(first + _SAMPLE, len(rows)))
        own = self._swept(rows[some])
        return bool(np.allclose(own, logsumexp[some], rtol=1e-9, atol=2e-6))

    def _swept(self, rows: range) -> NDArray[np.float64]:
        whole = of_rectangle(self.problem, rows, range(self.problem.shape[2]))
        swept = kernels.sweep(whole, Wanted())
        found = swept.statistics.logsumexp[0].cpu().double().numpy()
        if swept.kernel == "strips":  # other rows among them are too large for the kernel that these are for
            return np.where(np.isneginf(found) | (np.abs(found) <= REUSED), found, np.inf)
        return found

    def _keep(self, rows: range, found: NDArray[np.float64]) -> None:
        """What is known stays as it is, so that passes made at any time agree."""
        with _KEEPING:
            own = self._logsumexp[rows.start : rows.stop]
            own[:] = np.where(np.isnan(own), found, own)
