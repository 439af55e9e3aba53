"""What every kernel is given and what it gives back.

One attention matrix of a head h, its query heads sharing key heads in groups of `group`:

    scores  = q[h] k[h // group]ᵀ                               step 1
    scaled  = softcap(scores · scale) + bias,  −∞ where masked   step 2
    weights = softmax of each row of [scaled, sink], without the sink's column   step 3
    output  = weights v[h // group]                              step 4

    softcap(s) = cap · tanh(s / cap)          Gemma 2, section 2, https://arxiv.org/abs/2408.00118
    sink: one learnt logit per head           gpt-oss, https://arxiv.org/abs/2508.10925
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from softmap.forking import cached_property
from softmap.kernels.sizes import LARGE, row_sizes
from softmap.tensors import largest

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from softmap.biases import Bias
    from softmap.masks import Mask, Spans


@dataclass(frozen=True, eq=False)
class Problem:
    """An attention matrix as its ingredients: all a kernel needs, and nothing of size queries x keys.

    Attributes:
        q: the queries, (heads, queries, d_k), any float dtype.
        k: the keys, (kv_heads, keys, d_k), of q's dtype and device; kv_heads divides heads.
        mask: which query may see which key.
        scale: what step 2 multiplies the scores by.
        softcap: the cap of the scaled scores, above 0, or None.
        sinks: one extra logit per head, (heads,), or None.
        bias: what is added to the scaled scores, or None.
        nan: whether NaN and infinity are let through, as NumPy would.
    """

    q: Float[Tensor, "heads queries d_k"]
    k: Float[Tensor, "kv_heads keys d_k"]
    mask: Mask
    scale: float
    softcap: float | None = None
    sinks: Float[Tensor, " heads"] | None = None
    bias: Bias | None = None
    nan: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(heads, queries, keys)."""
        return self.q.shape[0], self.q.shape[1], self.k.shape[1]

    @property
    def group(self) -> int:
        """How many query heads share a key head."""
        return self.q.shape[0] // self.k.shape[0]

    @property
    def offset(self) -> int:
        """The key position at which query 0 stands: distances are counted from there. 0 where it is not `placed`."""
        return self._given_offset or 0

    @property
    def placed(self) -> bool:
        """Whether it is known where the queries stand: an offset was given, or there are as many queries as keys."""
        return self._given_offset is not None or self.q.shape[1] == self.k.shape[1]

    @property
    def _given_offset(self) -> int | None:
        given = (part.offset for part in (self.mask, self.bias) if part is not None)
        return next((offset for offset in given if offset is not None), None)

    @cached_property
    def spans(self) -> Spans:
        """For each query the keys that can matter."""
        return self.mask.spans(*self.shape[1:])

    @cached_property
    def seen(self) -> Bool[Tensor, " keys"] | None:
        """The keys that any query sees, where they are needed: they and the spans then say all that the mask does."""
        if self.spans.exact:
            return None
        rest, seen = self.mask.split()
        return seen if seen is not None and rest.spans(*self.shape[1:]).exact else None

    @cached_property
    def largest_q(self) -> float:
        """The largest magnitude in q; infinity where there is NaN or infinity."""
        return largest(self.q)

    @cached_property
    def largest_k(self) -> float:
        """The largest magnitude in k; infinity where there is NaN or infinity."""
        return largest(self.k)

    @cached_property
    def size(self) -> float:
        """What no scaled score exceeds in magnitude, before soft cap and bias: what the rounding of scores goes by.

        NaN and infinity do not count. It is about that, by the lengths of q and k, where `bound` is far too large.
        """
        return self.rough_size if self.rough_size <= LARGE else float(row_sizes(self).max())

    @property
    def rough_size(self) -> float:
        """What `size` does not exceed, at a glance; NaN or infinity where there is one."""
        return self.largest_q * self.largest_k * self.q.shape[2] * abs(self.scale)

    def with_largest(self, q: float, k: float) -> Problem:
        """The same problem, of which these two are known, so that nothing reads all of q and k to find them."""
        self.__dict__.update(largest_q=q, largest_k=k)
        return self

    def as_part_of(self, whole: Problem) -> Problem:
        """The same problem, of which is known what holds of the whole: how large numbers are, and so their arithmetic."""
        self.__dict__.update(largest_q=whole.largest_q, largest_k=whole.largest_k, size=whole.size)
        return self

    @property
    def bound(self) -> float:
        """What no score exceeds in magnitude, before or after scaling; infinity where there is NaN or infinity."""
        return self.largest_q * self.largest_k * self.q.shape[2] * max(1.0, abs(self.scale))

    @property
    def dtype(self) -> torch.dtype:
        """What sums accumulate in and what is returned: float32, or float64 where q is."""
        return torch.promote_types(self.q.dtype, torch.float32)


@dataclass(frozen=True, eq=False)
class Wanted:
    """Which statistics a sweep is to give; logsumexp always comes.

    Attributes:
        v: the values, (kv_heads, keys, d_v), where the output is wanted.
        top: how many of the largest weights of each row; 0 for none.
        entropy: whether the rows' entropy is wanted.
        distance: whether the rows' mean distances are wanted.
        received: whether the keys' column sums are wanted.
        cells: the grid whose cells are to be summed, or None.
    """

    v: Float[Tensor, "kv_heads keys d_v"] | None = None
    top: int = 0
    entropy: bool = False
    distance: bool = False
    received: bool = False
    cells: Grid | None = None


class Grid(NamedTuple):
    """Edges of cells over the matrix: cell (a, b) has rows row_edges[a]:row_edges[a + 1], and keys likewise.

    The first edge is 0, the last one the number of queries or keys, and no cell is empty.
    """

    row_edges: tuple[int, ...]
    key_edges: tuple[int, ...]


class Known(NamedTuple):
    """Each row's logsumexp in two parts, which are taken off one by one: their sum may round the smaller one away.

    It is that of the row's whole matrix, of which a problem may be a part, and of the same kernel's scores: where these
    are large, each kernel rounds them in its own way.

    Attributes:
        high: its larger part, float64 on the CPU, (heads, queries), nats; −inf for a row that sees nothing.
        low: the rest.
    """

    high: Float[Tensor, "heads queries"]
    low: Float[Tensor, "heads queries"]


class Cell(NamedTuple):
    """How many rows and keys a cell has; cells are counted from the corner, and the last ones may be smaller."""

    rows: int
    keys: int

    def grid(self, queries: int, keys: int) -> Grid:
        """The edges of all cells of a matrix."""
        return Grid((*range(0, queries, self.rows), queries), (*range(0, keys, self.keys), keys))


class Top(NamedTuple):
    """The largest weights of each row, in falling order; ties go to the lower key.

    The order is that of the scaled scores, finer than the weights' where those round to the same number. A row that
    sees fewer keys than were asked for is filled up with weight 0 at key −1. NaN that is let through comes first.

    Attributes:
        weights: the weights, (heads, queries, top), probability.
        keys: where they are, (heads, queries, top), int64.
    """

    weights: Float[Tensor, "heads queries top"]
    keys: Int[Tensor, "heads queries top"]


class Distance(NamedTuple):
    """How far each row looks; i is the key at which the query stands.

    Attributes:
        signed: Σ_j w_ij (i − j), (heads, queries), tokens; back is positive.
        absolute: Σ_j w_ij |i − j|, (heads, queries), tokens.
    """

    signed: Float[Tensor, "heads queries"]
    absolute: Float[Tensor, "heads queries"]


class Cells(NamedTuple):
    """The sum and the largest of the weights in each cell of the grid."""

    sum: Float[Tensor, "heads cell_rows cell_keys"]
    max: Float[Tensor, "heads cell_rows cell_keys"]


@dataclass(frozen=True, eq=False)
class Statistics:
    """What a sweep gives, in `Problem.dtype` but for logsumexp; None for what was not wanted.

    A row that may see no key has weights 0, output 0, entropy 0, distances 0 and logsumexp −inf (with a sink: the
    sink's logit, which is then all there is).

    Attributes:
        logsumexp: ln Σ_j exp(scaled_ij), the sink's logit included, nats: weights = exp(scaled − logsumexp). In float64
            where the device has it: in float32 a logsumexp of 10,000 would leave weights wrong in the fourth digit.
        output: weights v, (heads, queries, d_v).
        entropy: −Σ_j w_ij ln w_ij over the keys, nats.
        top: the largest weights of each row and their keys.
        distance: how far each row looks, tokens.
        received: Σ_i w_ij, what each key receives, in queries.
        cells: sum and maximum of each cell of the grid.
    """

    logsumexp: Float[Tensor, "heads queries"]
    output: Float[Tensor, "heads queries d_v"] | None = None
    entropy: Float[Tensor, "heads queries"] | None = None
    top: Top | None = None
    distance: Distance | None = None
    received: Float[Tensor, "heads keys"] | None = None
    cells: Cells | None = None
