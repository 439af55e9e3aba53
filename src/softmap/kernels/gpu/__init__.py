"""The kernels for NVIDIA's GPUs, in Triton: every statistic in two passes, in memory linear in tokens.

So far they were run in Triton's interpreter alone, on a CPU: no figure of a GPU has been taken yet.

    rows.py       pass one, over the queries: output, logsumexp, entropy, distances, where the largest weights are
    top.py        the largest weights, from the few blocks of keys that have them
    columns.py    pass two, over the keys, the logsumexp known: what each key receives, and cells
    tiles.py      what they share: steps 1 and 2 of one tile, in registers
    plan.py       the arrays as the passes read them, how large a tile is, and which strips of rows they go over

No sum is left to the order in which programs happen to run: the same call gives the same bits. Products of float16 and
bfloat16 are exact in float32, those of float32 are not rounded to TF32; the weights are rounded to v's dtype before they
are multiplied with it, as in FlashAttention, so that an output is exact to that dtype's rounding, all else to float32's.
"""

from __future__ import annotations

import math
import os
from contextlib import contextmanager, nullcontext
from functools import cache
from itertools import pairwise
from subprocess import CalledProcessError
from typing import TYPE_CHECKING

import torch

from softmap.kernels.contract import Cells, Distance, Statistics, Top
from softmap.kernels.reach import out_of_reach

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from torch import Tensor

    from softmap.kernels.contract import Cell, Grid, Known, Problem, Wanted
    from softmap.kernels.gpu.plan import Plan, Strip

WIDEST = 256  # d_k and d_v
MOST_TOP = 64
OLDEST = (8, 0)  # the compute capability that has bfloat16 and asynchronous copies: Ampere
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
COLUMNS = 1 << 26  # bytes of sums and maxima by key that are kept at a time: 64 MiB
MOST_PROGRAMS = 65_535  # in a grid's second and third direction
LN2 = math.log(2)


NOT_THERE = ("Failed to find", "Triton Error [CUDA]")
"""How RuntimeErrors of Triton begin where a machine lacks what it takes to launch a kernel, such as a C compiler."""


class TritonRefusedError(RuntimeError):
    """Triton could not compile a pass for this GPU, or the GPU has not the room that it takes."""


@cache
def missing() -> str | None:
    """Why there is none; None where it is usable on some device."""
    if not interpreted() and not torch.cuda.is_available():
        return "there is no CUDA GPU"
    if torch.version.hip:
        return "it was never run on AMD's GPUs"
    try:
        import triton
    except ImportError:
        return "Triton is not installed (pip install triton)"
    del triton
    return None


def interpreted() -> bool:
    """Whether Triton runs kernels on the CPU, one operation at a time, to find their errors."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def device_type() -> str:
    """Where arrays have to be."""
    return "cpu" if interpreted() else "cuda"


def refusal(problem: Problem, wanted: Wanted) -> str | None:
    """Why it cannot serve; None where it can. Looks at all of q, k and v."""
    return unsupported(problem, wanted) or out_of_reach(problem, wanted)


def unsupported(problem: Problem, wanted: Wanted) -> str | None:
    """Why it cannot serve arrays of this kind, whatever numbers they hold; None where it can."""
    device = problem.q.device
    widths = {"d_k": problem.q.shape[2], "d_v": 0 if wanted.v is None else wanted.v.shape[2]}
    reasons = {
        f"arrays on {device.type}": device.type != device_type(),
        f"{str(problem.q.dtype).removeprefix('torch.')} inputs": problem.q.dtype not in DTYPES,
        "bfloat16, of which the interpreter multiplies the bits": interpreted() and problem.q.dtype == torch.bfloat16,
        "NaN that is let through": problem.nan,
        **{f"{name} above {WIDEST}": width > WIDEST for name, width in widths.items()},
        f"top above {MOST_TOP}": wanted.top > MOST_TOP,
    }
    found = next((reason for reason, holds in reasons.items() if holds), None)
    if found is None and device.type == "cuda" and torch.cuda.get_device_capability(device) < OLDEST:
        found = f"{torch.cuda.get_device_name(device)}, which is older than Ampere"
    return found


def sweep(problem: Problem, wanted: Wanted) -> Statistics:
    """Every statistic that is wanted.

    Raises:
        NonFiniteError: a bias of NaN or +∞ where a query sees a key, or one out of reach.
        TritonRefusedError: Triton could not compile it.
    """
    from softmap.kernels.gpu.plan import Plan

    with _on(problem.q.device), _triton_may_refuse():
        return _sweep(Plan(problem, wanted.v), problem, wanted)


def _sweep(plan: Plan, problem: Problem, wanted: Wanted) -> Statistics:
    heads, queries, keys = problem.shape
    largest, total = plan.new(heads, queries), plan.new(heads, queries)
    output = None if wanted.v is None else plan.new(heads, queries, wanted.v.shape[2])
    entropy = plan.new(heads, queries) if wanted.entropy else None
    distance = Distance(plan.new(heads, queries), plan.new(heads, queries)) if wanted.distance else None
    top = _no_top(plan, wanted.top) if wanted.top else None
    received = plan.new(heads, keys, dtype=torch.float64).zero_() if wanted.received else None
    cells = _no_cells(plan, wanted.cells)
    blocks, known = plan.blocks(wanted.top), plan.known()
    for strip in plan.strips():
        plan.rows(strip, largest, total, output, entropy, distance, blocks)
        if top is not None and blocks is not None:
            plan.top(strip, largest, total, blocks, top)
        if received is not None or cells is not None:
            own = slice(strip.heads.start, strip.heads.stop), slice(strip.rows.start, strip.rows.stop)
            _keep(known, own, largest[own], total[own].log2())
            _add_columns(plan, strip, known, wanted.cells, received, cells)
    return Statistics(
        logsumexp=_logsumexp(plan, largest, total),
        output=output,
        entropy=entropy,
        top=top,
        distance=distance,
        received=None if received is None else received.float(),
        cells=None if cells is None else Cells(cells.sum.float(), cells.max),
    )


def cells(problem: Problem, cell: Cell, known: Known) -> Cells:
    """The cells of a part of a matrix whose rows' logsumexp is known: one look at each tile."""
    from softmap.kernels.gpu.plan import Plan

    plan, grid = Plan(problem, None), cell.grid(*problem.shape[1:])
    first, second = (part.to(problem.q.device, torch.float64).contiguous() / LN2 for part in known)
    high = first.float()
    known_rows = plan.known()
    _keep(known_rows, (slice(None), slice(None)), high, (first - high + second).float())
    found = _no_cells(plan, grid)
    assert found is not None
    with _on(problem.q.device), _triton_may_refuse():
        for strip in plan.strips(whole_rows=False):
            _add_columns(plan, strip, known_rows, grid, None, found)
    return Cells(found.sum.float(), found.max)


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the GPU that is current, which may be another than that of the arrays."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def _triton_may_refuse() -> Iterator[None]:
    from triton.errors import TritonError

    try:
        yield
    except (TritonError, CalledProcessError) as error:
        raise _refused(error) from error
    except RuntimeError as error:  # torch's own, such as that the memory is full, are not Triton's
        if str(error).startswith(NOT_THERE):
            raise _refused(error) from error
        raise


def _refused(error: Exception) -> TritonRefusedError:
    return TritonRefusedError(f"Triton: {' '.join(str(error).split())[:200]}")


def _logsumexp(plan: Plan, largest: Tensor, total: Tensor) -> Tensor:
    """Of each row, float64, in nats; where nothing was added to a sink, it is the sink's own."""
    found: Tensor = (largest.double() + total.double().log2()) * LN2
    if plan.problem.sinks is None or plan.sinks is None:
        return found
    alone = (largest == plan.sinks[:, None]) & (total == 1)
    return found.where(~alone, plan.problem.sinks.double()[:, None])


def _no_top(plan: Plan, count: int) -> Top:
    shape = *plan.problem.shape[:2], count
    return Top(plan.new(*shape), plan.new(*shape, dtype=torch.int64))


def _no_cells(plan: Plan, grid: Grid | None) -> Cells | None:
    if grid is None:
        return None
    shape = plan.problem.shape[0], len(grid.row_edges) - 1, len(grid.key_edges) - 1
    return Cells(plan.new(*shape, dtype=torch.float64).zero_(), plan.new(*shape).zero_())


def _keep(known: tuple[Tensor, Tensor], own: tuple[slice, slice], high: Tensor, low: Tensor) -> None:
    """Fill in some rows' logsumexp; 0 where a row sees nothing, and −∞ stands in both parts or in their difference."""
    seen = high > -torch.inf
    known[0][own], known[1][own] = high.where(seen, 0), low.where(seen, 0)


def _add_columns(
    plan: Plan,
    strip: Strip,
    known: tuple[Tensor, Tensor],
    grid: Grid | None,
    received: Tensor | None,
    cells: Cells | None,
) -> None:
    """Add a strip's columns to what the keys received, and to the cells, some bands of rows at a time."""
    edges = grid.row_edges if grid else (0, plan.problem.shape[1])
    bands = [
        (number, max(first, strip.rows.start), min(stop, strip.rows.stop))
        for number, (first, stop) in enumerate(pairwise(edges))
        if first < strip.rows.stop and stop > strip.rows.start
    ]
    own = slice(strip.heads.start, strip.heads.stop)
    heads = len(strip.heads)
    at_once = max(1, min(COLUMNS // (8 * heads * plan.problem.shape[2]), MOST_PROGRAMS // heads))
    for start in range(0, len(bands), at_once):
        some = bands[start : start + at_once]
        sums, maxima = plan.columns(strip, known, [*(first for _, first, _ in some), some[-1][2]], cells is not None)
        if received is not None:
            received[own] += sums.sum(1, dtype=torch.float64)
        if cells is not None and grid is not None:
            place = own, slice(some[0][0], some[-1][0] + 1)
            sums, maxima = plan.cells(sums, maxima, grid.key_edges)
            cells.sum[place] += sums
            cells.max[place] = cells.max[place].maximum(maxima)
