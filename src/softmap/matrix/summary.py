"""What one pass over an attention matrix gives, in the caller's kind of array."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from softmap.arrays import Array, shape
from softmap.kernels.contract import Distance, Top

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from jaxtyping import Float
    from torch import Tensor

    from softmap.kernels import Swept
    from softmap.kernels.contract import Grid


class Cells(NamedTuple):
    """The zoomed-out map: cell (a, b) covers rows row_edges[a]:row_edges[a + 1], and keys likewise.

    Attributes:
        sum: the sum of the weights in each cell, (heads, cell_rows, cell_keys), probability mass.
        max: the largest of them, probability.
        row_edges: the queries at which cells begin, and the number of queries.
        key_edges: the same for the keys.
    """

    sum: Float[Array, "heads cell_rows cell_keys"]
    max: Float[Array, "heads cell_rows cell_keys"]
    row_edges: tuple[int, ...]
    key_edges: tuple[int, ...]


@dataclass(frozen=True, repr=False, eq=False)
class Summary:
    """Exact statistics of an attention matrix; None for what was not asked for, and for an unknown distance.

    Arrays are of the kind q is of, in float32, or float64 where q is; of a matrix without an axis of heads they have
    none. A query that sees no key has weights 0, output 0, entropy 0, distances 0 and logsumexp −∞ (with a sink: the
    sink's logit).

    Attributes:
        logsumexp: ln Σ_j exp(scaled_ij), the sink's logit included, (heads, queries), nats. In float64 where float32
            does not hold it, as of scores beyond 3e38.
        output: weights v, (heads, queries, d_v); where v was given.
        entropy: −Σ_j w_ij ln w_ij, (heads, queries), nats.
        top: `weights` and `keys` of the largest weights of each row, (heads, queries, top), in falling order; ties go
            to the lower key. A row that sees fewer keys is filled up with weight 0 at key −1.
        distance: `signed`, Σ_j w_ij (i − j), and `absolute`, Σ_j w_ij |i − j|, (heads, queries), tokens; i is the key
            at which the query stands. None where nobody said which that is.
        received: Σ_i w_ij, (heads, keys), queries.
        cells: `sum` and `max` of the weights in each cell of a grid, and its edges.
        kernel: what computed it, as in "strips".
        why: why nothing faster did; empty where there is nothing faster.
    """

    logsumexp: Float[Array, "heads queries"]
    output: Float[Array, "heads queries d_v"] | None
    entropy: Float[Array, "heads queries"] | None
    top: Top | None
    distance: Distance | None
    received: Float[Array, "heads keys"] | None
    cells: Cells | None
    kernel: str
    why: str

    def __repr__(self) -> str:
        found = ((field.name, getattr(self, field.name)) for field in fields(self))
        shown = [
            f"{name} {shape(value[0] if isinstance(value, tuple) else value)}"
            for name, value in found
            if value is not None and not isinstance(value, str)
        ]
        return f"Summary({', '.join(shown)}, kernel={self.kernel!r})"


def summarize(swept: Swept, grid: Grid | None, dtype: torch.dtype, give: Callable[[Tensor], Any]) -> Summary:
    """A sweep's statistics as the caller gets them, in one dtype: `give` turns each tensor into an array."""

    def cast(tensor: Tensor) -> Any:
        return give(tensor.to(dtype))

    found, logsumexp = swept.statistics, in_dtype(swept.statistics.logsumexp, dtype)
    cells = None
    if found.cells is not None and grid is not None:
        cells = Cells(cast(found.cells.sum), cast(found.cells.max), *grid)
    return Summary(
        logsumexp=give(logsumexp),
        output=None if found.output is None else cast(found.output),
        entropy=None if found.entropy is None else cast(found.entropy),
        top=None if found.top is None else Top(cast(found.top.weights), give(found.top.keys)),
        distance=None if found.distance is None else Distance(*map(cast, found.distance)),
        received=None if found.received is None else cast(found.received),
        cells=cells,
        kernel=swept.kernel,
        why=swept.why,
    )


def in_dtype(logsumexp: Float[Tensor, "heads queries"], dtype: torch.dtype) -> Float[Tensor, "heads queries"]:
    """Rows' logsumexp in the dtype of results, or as it is where that does not hold it: it would turn infinite."""
    narrow = logsumexp.to(dtype)
    return narrow if bool((narrow.isinf() == logsumexp.isinf()).all()) else logsumexp
