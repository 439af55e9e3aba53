"""How the passes are launched: the arrays as they read them, how large a tile is, which strips of rows they go over."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.functional import pad

from softmap.forking import cached_property
from softmap.kernels.added import REACH, added, needed
from softmap.kernels.gpu import interpreted
from softmap.kernels.gpu.columns import cells_pass, columns_pass
from softmap.kernels.gpu.rows import rows_pass
from softmap.kernels.gpu.top import top_pass

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from softmap.kernels.contract import Distance, Problem, Top

LOG2E = math.log2(math.e)
ADDED = 1 << 24  # numbers that are added to the scores of one strip: 64 MiB
PROCESSORS = 1 if interpreted() else 128  # how many blocks of rows can be at work at once, about
LOWEST, HIGHEST = 16, 128  # how many rows or keys a tile has; tensor cores want no fewer
LANES = 1024  # columns that one program makes a cell of at a time


class Strip(NamedTuple):
    """Some heads and rows, and what is added to their scaled scores.

    Attributes:
        heads: the heads.
        rows: the rows.
        added: (1 or heads, rows, keys), nats, or None.
    """

    heads: range
    rows: range
    added: Float[Tensor, "some rows keys"] | None


class Tile(NamedTuple):
    """How much one program has in its registers."""

    rows: int
    keys: int
    warps: int
    stages: int

    def for_rows(self, rows: int, heads: int) -> Tile:
        """A lower one where a GPU would have more processors than there are blocks of rows."""
        tile = self
        while tile.rows > LOWEST and -(-rows // tile.rows) * heads < PROCESSORS:
            tile = tile._replace(rows=tile.rows // 2, warps=max(4, tile.warps // 2))
        return tile


class Plan:
    """One matrix, ready to be launched."""

    def __init__(self, problem: Problem, v: Float[Tensor, "kv_heads keys d_v"] | None) -> None:
        self.problem = problem
        self._device = problem.q.device
        self._q, self._k = _without_gaps(problem.q), _without_gaps(problem.k)
        self._v = None if v is None else _without_gaps(v)
        self._spans = problem.spans
        self._start, self._stop = (ends.to(self._device, torch.int32).contiguous() for ends in self._spans[:2])
        seen = problem.seen if problem.bias is None else None
        self._seen = None if seen is None else pad(seen.to(self._device, torch.int8), (0, HIGHEST))
        self.sinks = None if problem.sinks is None else problem.sinks.float().clamp(-REACH, REACH) * LOG2E
        self._widths = {"d_k": problem.q.shape[2], "K_WIDTH": _padded(problem.q.shape[2])}
        self._tile = _tile_of(problem.q.dtype, max(problem.q.shape[2], 0 if v is None else v.shape[2]))
        self._column_tile = _column_tile_of(problem.q.dtype, problem.q.shape[2])

    def new(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Room for a result."""
        return torch.empty(shape, dtype=dtype, device=self._device)

    def strips(self, *, whole_rows: bool = True) -> Iterator[Strip]:
        """All heads and rows; in parts where something is added to the scores that would be as large as the matrix.

        Args:
            whole_rows: whether the matrix has all keys of its rows, and not only a part.
        """
        problem = self.problem
        heads, queries, keys = problem.shape
        if not needed(problem):
            yield Strip(range(heads), range(queries), None)
            return
        step = max(1, min(queries, ADDED // keys))
        for start in range(0, queries, step):
            rows = range(start, min(start + step, queries))
            if problem.bias is None:
                yield Strip(range(heads), rows, added(problem, 0, rows, range(keys), whole_rows=whole_rows)[None])
                continue
            for head in range(heads):
                own = added(problem, head, rows, range(keys), whole_rows=whole_rows)
                yield Strip(range(head, head + 1), rows, own[None])

    def rows(
        self,
        strip: Strip,
        largest: Tensor,
        total: Tensor,
        output: Tensor | None,
        entropy: Tensor | None,
        distance: Distance | None,
        blocks: Int[Tensor, "heads queries best"] | None,
    ) -> None:
        """Pass one; with `blocks`, in which of them the largest weights are."""
        tile = self._tile.for_rows(len(strip.rows), len(strip.heads))
        rows_pass[(-(-len(strip.rows) // tile.rows), len(strip.heads))](
            **self._inputs(strip),
            v=self._of_key_heads(self._v, strip),
            sinks=None if self.sinks is None else self.sinks[strip.heads.start :],
            largest_to=_from(largest, strip),
            total_to=_from(total, strip),
            output_to=_from(output, strip),
            entropy_to=_from(entropy, strip),
            signed_to=_from(distance and distance.signed, strip),
            absolute_to=_from(distance and distance.absolute, strip),
            blocks_to=_from(blocks, strip),
            v_head=0 if self._v is None else self._v.stride(0),
            v_row=0 if self._v is None else self._v.stride(1),
            last_row=strip.rows.stop,
            offset=self.problem.offset,
            d_v=1 if self._v is None else self._v.shape[2],
            V_WIDTH=16 if self._v is None else _padded(self._v.shape[2]),
            ROWS=tile.rows,
            BEST=1 if blocks is None else blocks.shape[2],
            UNIT=2.0**15 if self._v is not None and self._v.dtype == torch.float16 else 1.0,
            HAS_SINKS=self.sinks is not None,
            HAS_OUTPUT=output is not None,
            HAS_ENTROPY=entropy is not None,
            HAS_DISTANCE=distance is not None,
            HAS_AHEAD=distance is not None and self._looks_ahead,
            HAS_TOP=blocks is not None,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )

    def known(self) -> tuple[Tensor, Tensor]:
        """Room for each row's logsumexp in two parts, as pass two reads it: a whole tile also where rows end in it."""
        heads, queries, _ = self.problem.shape
        high, low = self.new(2, heads * queries + HIGHEST).zero_()[:, : heads * queries]
        return high.view(heads, queries), low.view(heads, queries)

    def blocks(self, top: int) -> Int[Tensor, "heads queries best"] | None:
        """Room for the blocks in which so many of the largest weights are."""
        return self.new(*self.problem.shape[:2], _power(top), dtype=torch.int32) if top else None

    def top(self, strip: Strip, largest: Tensor, total: Tensor, blocks: Tensor, top: Top) -> None:
        """The largest weights of each row, from the blocks that have them."""
        rows = 32 if interpreted() else 1  # each row has parts of its own: beside another it would wait for both's
        top_pass[(-(-len(strip.rows) // rows), len(strip.heads))](
            **self._inputs(strip),
            largest_of=_from(largest, strip),
            total_of=_from(total, strip),
            blocks_of=_from(blocks, strip),
            weights_to=_from(top.weights, strip),
            keys_to=_from(top.keys, strip),
            last_row=strip.rows.stop,
            top=top.weights.shape[2],
            ROWS=rows,
            BEST=blocks.shape[2],
            STEP=min(64, self._widths["K_WIDTH"]),
            num_warps=max(1, blocks.shape[2] * self._tile.keys // 512),
        )

    def columns(
        self, strip: Strip, known: tuple[Tensor, Tensor], edges: list[int], maxima: bool
    ) -> tuple[Float[Tensor, "heads bands keys"], Float[Tensor, "heads bands keys"]]:
        """Pass two: the sum, and the largest, of each band's weights by key. `known` is what `known` gave, filled."""
        bands, keys = len(edges) - 1, self.problem.shape[2]
        sums = self.new(len(strip.heads), bands, keys)
        largest = torch.empty_like(sums) if maxima else sums
        first_of, last_of = self._rows_by_block
        tile = self._column_tile
        # a band of fewer rows than a tile has would leave the rest of it idle
        rows = min(tile.rows, max(16, _power(max(stop - start for start, stop in pairwise(edges)))))
        latest_start, earliest_stop = self._spans_by_block(rows)
        columns_pass[(-(-keys // tile.keys), bands, len(strip.heads))](
            **self._inputs(strip) | {"KEYS": tile.keys},
            high_of=_from(known[0], strip),
            low_of=_from(known[1], strip),
            band_edges=torch.tensor(edges, dtype=torch.int32, device=self._device),
            first_of=first_of,
            last_of=last_of,
            latest_start=latest_start,
            earliest_stop=earliest_stop,
            sum_to=sums,
            max_to=largest,
            ROWS=rows,
            HAS_MAX=maxima,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
        return sums, largest

    def cells(
        self, sums: Float[Tensor, "heads bands keys"], maxima: Float[Tensor, "heads bands keys"], edges: tuple[int, ...]
    ) -> tuple[Float[Tensor, "heads bands cells"], Float[Tensor, "heads bands cells"]]:
        """The columns of each band as cells."""
        heads, bands, keys = sums.shape
        found = self.new(heads, bands, len(edges) - 1), self.new(heads, bands, len(edges) - 1)
        key_edges = torch.tensor(edges, dtype=torch.int32, device=self._device)
        cells_pass[(len(edges) - 1, heads * bands)](sums, maxima, key_edges, *found, keys, KEYS=LANES)
        return found

    def _inputs(self, strip: Strip) -> dict[str, Any]:
        """What every pass over tiles is given."""
        problem, first = self.problem, strip.heads.start
        _, queries, keys = problem.shape
        q, k = self._q[first:], self._of_key_heads(self._k, strip)
        assert k is not None
        capped = problem.softcap is not None
        cap = problem.softcap or 1.0
        return {
            "q": q,
            "k": k,
            "start_of": self._start,
            "stop_of": self._stop,
            "seen": self._seen,
            "added": strip.added,
            "q_head": q.stride(0),
            "q_row": q.stride(1),
            "k_head": k.stride(0),
            "k_row": k.stride(1),
            "added_head": 0 if strip.added is None or len(strip.added) == 1 else strip.added.stride(0),
            "first_row": strip.rows.start,
            "queries": queries,
            "last_key": keys,
            "group": problem.group if len(strip.heads) == problem.shape[0] else 1,
            "factor": problem.scale / cap if capped else LOG2E * problem.scale,
            "cap": LOG2E * cap,
            **self._widths,
            "KEYS": self._tile.keys,
            "CAPPED": capped,
            "HAS_SEEN": self._seen is not None,
            "HAS_ADDED": strip.added is not None,
        }

    def _of_key_heads(self, of: Tensor | None, strip: Strip) -> Tensor | None:
        """From the key head on that a strip's first head has; a strip has all heads, or one."""
        return None if of is None else of[strip.heads.start // self.problem.group :]

    @cached_property
    def _looks_ahead(self) -> bool:
        """Whether any query sees keys after the one at which it stands."""
        start, stop = self._spans.start, self._spans.stop
        here = torch.arange(len(start), device="cpu") + self.problem.offset
        return bool(((stop - 1 > here) & (start < stop)).any())

    @cached_property
    def _rows_by_block(self) -> tuple[Int[Tensor, " blocks"], Int[Tensor, " blocks"]]:
        """The first row that may see a key of each block of keys, and one after the last; there may be gaps between."""
        keys = self.problem.shape[2]
        start, stop = self._spans.start, self._spans.stop
        empty = start >= stop
        reached = stop.where(~empty, 0).cummax(0).values  # by this row and those before
        left = start.where(~empty, keys).flip(0).cummin(0).values.flip(0)  # by this row and those after
        edges = torch.arange(0, keys, self._column_tile.keys, device="cpu")
        first = torch.searchsorted(reached, edges, right=True)
        last = torch.searchsorted(left, edges + self._column_tile.keys)
        return first.to(self._device, torch.int32), last.to(self._device, torch.int32)

    def _spans_by_block(self, rows: int) -> tuple[Int[Tensor, " row_blocks"], Int[Tensor, " row_blocks"]]:
        """Of each block of so many rows the latest start, and the earliest stop; those beyond the last row leave both."""
        beyond = -len(self._start) % rows
        start, stop = (pad(ends, (0, beyond), value=value) for ends, value in ((self._start, 0), (self._stop, 1 << 30)))
        return start.view(-1, rows).amax(1), stop.view(-1, rows).amin(1)


# By what Triton's assembler counts for sm_80, sm_89 and sm_90 each fits the 99 KiB that the smallest of them gives a
# program. Which sizes are the fastest is not measured yet.


def _tile_of(dtype: torch.dtype, width: int) -> Tile:
    """How large a tile of pass one is for such numbers and such rows."""
    if interpreted():
        return Tile(32, 16, 1, 1)
    if dtype == torch.float32:
        return Tile(32, 32, 8, 2 if width <= 128 else 1)
    return Tile(128, 64, 8, 2) if width <= 128 else Tile(64, 32, 8, 2)


def _column_tile_of(dtype: torch.dtype, width: int) -> Tile:
    """How large one of pass two is."""
    if interpreted():
        return Tile(16, 32, 1, 1)
    if dtype == torch.float32:
        return Tile(32, 32, 8, 2 if width <= 128 else 1)
    return Tile(64, 128, 8, 2) if width <= 128 else Tile(64, 64, 8, 2)


def _from(of: Tensor | None, strip: Strip) -> Tensor | None:
    """A result from a strip's first head on; its rows are counted from the matrix's first."""
    return None if of is None else of[strip.heads.start :]


def _without_gaps(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(2) == 1 or tensor.shape[2] == 1 else tensor.contiguous()


def _padded(width: int) -> int:
    """The width of a tile: a power of two, 16 at least, as tensor cores want it."""
    return max(16, _power(width))


def _power(count: int) -> int:
    return 1 << (count - 1).bit_length()
