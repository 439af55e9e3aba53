"""The compiled kernel, for CPUs: every statistic in one pass, with the output.

The C++ beside this file says how (strip.h first). It is built once for each instruction set; this module picks one,
hands it the arrays, and knows what it can't do.
"""

from __future__ import annotations

import threading
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from softmap.kernels import added
from softmap.kernels.contract import Cells, Distance, Statistics, Top
from softmap.kernels.reach import out_of_reach

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float
    from torch import Tensor

    from softmap.kernels.contract import Cell, Grid, Known, Problem, Wanted

WIDEST = 256  # d_k and d_v: a strip's q and output stay in the second-level cache
MOST_TOP = 64  # TOP_LIMIT in top.h
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
RESULTS = (
    *("logsumexp", "output", "entropy", "received"),
    *("top_weights", "top_keys", "signed_distance", "distance"),
)

_broken: dict[str, str] = {}  # the modules that are there but do not load, and why


@cache
def available() -> tuple[str, ...]:
    """The instruction sets usable here, fastest first; empty where the kernel was not built."""
    baseline = _module("baseline")
    if baseline is None:
        return ()
    usable = (name for name in ("avx512", "avx2") if getattr(baseline, f"runs_{name}")() and _module(name))
    return (*usable, "baseline")


def missing() -> str:
    """Why there is none."""
    if "baseline" in _broken:
        return f"the compiled kernel does not load: {_broken['baseline']}"
    return "the compiled kernel is not built (install softmap where a C++ compiler is)"


def broken(instructions: str) -> str:
    """What is wrong with the module of an instruction set that is there but does not load; empty where nothing is."""
    available()
    return f"does not load ({_broken[instructions]})" if instructions in _broken else ""


def refusal(problem: Problem, wanted: Wanted) -> str | None:
    """Why it cannot serve; None where it can."""
    widths = {"d_k": problem.q.shape[2], "d_v": 0 if wanted.v is None else wanted.v.shape[2]}
    reasons = {
        f"arrays on {problem.q.device.type}": problem.q.device.type != "cpu",
        f"{str(problem.q.dtype).removeprefix('torch.')} inputs": problem.q.dtype not in DTYPES,
        "NaN that is let through": problem.nan,
        **{f"{name} above {WIDEST}": width > WIDEST for name, width in widths.items()},
        f"top above {MOST_TOP}": wanted.top > MOST_TOP,
    }
    found = next((reason for reason, holds in reasons.items() if holds), None)
    return found or out_of_reach(problem, wanted)


def sweep(problem: Problem, wanted: Wanted, instructions: str) -> Statistics:
    """Every statistic that is wanted, in one pass over the matrix.

    The result does not depend on the number of threads, which is torch's.

    Args:
        problem: the matrix, of finite numbers whose scores stay within float32.
        wanted: what is to be given.
        instructions: one of `available()`.
    """
    heads, queries, keys = problem.shape

    def result(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="cpu")

    rows = (heads, queries)
    statistics = Statistics(
        logsumexp=result(*rows, dtype=torch.float64),
        output=None if wanted.v is None else result(*rows, wanted.v.shape[2]),
        entropy=result(*rows) if wanted.entropy else None,
        top=Top(result(*rows, wanted.top), result(*rows, wanted.top, dtype=torch.int64)) if wanted.top else None,
        distance=Distance(result(*rows), result(*rows)) if wanted.distance else None,
        received=result(heads, keys) if wanted.received else None,
        cells=_cells(heads, wanted.cells),
    )
    top, distance = statistics.top, statistics.distance
    _run(
        instructions,
        problem,
        v=wanted.v,
        grid=wanted.cells,
        cells=statistics.cells,
        logsumexp=statistics.logsumexp,
        output=statistics.output,
        entropy=statistics.entropy,
        top_weights=top and top.weights,
        top_keys=top and top.keys,
        signed_distance=distance and distance.signed,
        distance=distance and distance.absolute,
        received=statistics.received,
    )
    return statistics


def cells(problem: Problem, cell: Cell, known: Known, instructions: str) -> Cells:
    """The cells of a part of a matrix whose rows' logsumexp is known: one look at each tile."""
    grid = cell.grid(*problem.shape[1:])
    found = _cells(problem.shape[0], grid)
    assert found is not None
    _run(instructions, problem, grid=grid, cells=found, known=known)
    return found


def _run(
    instructions: str,
    problem: Problem,
    *,
    v: Float[Tensor, "kv_heads keys d_v"] | None = None,
    known: Known | None = None,
    grid: Grid | None = None,
    cells: Cells | None = None,
    **results: Tensor | None,
) -> None:
    """Let a module write the cells and the results."""
    module = _module(instructions)
    assert module is not None, instructions
    spans, seen = problem.spans, problem.seen if problem.bias is None else None
    module.sweep(
        q=_array(_rows_without_gaps(problem.q)),
        k=_array(_rows_without_gaps(problem.k)),
        v=None if v is None else _array(_rows_without_gaps(v)),
        scale=problem.scale,
        softcap=problem.softcap or 0.0,
        sinks=None if problem.sinks is None else _array(problem.sinks.float().contiguous()),
        start=_array(spans.start.contiguous()),
        stop=_array(spans.stop.contiguous()),
        offset=problem.offset,
        seen=None if seen is None else _array(seen.contiguous()),
        added=_added(problem, whole_rows=known is None) if added.needed(problem) else None,
        known_high=known and _array(known.high.contiguous()),
        known_low=known and _array(known.low.contiguous()),
        row_edges=grid and np.array(grid.row_edges, dtype=np.int64),
        key_edges=grid and np.array(grid.key_edges, dtype=np.int64),
        cell_sum=cells and _array(cells.sum),
        cell_max=cells and _array(cells.max),
        threads=torch.get_num_threads(),
        interruptible=threading.current_thread() is threading.main_thread(),
        **{name: _array(results.get(name)) for name in RESULTS},
    )


@cache
def _module(name: str) -> ModuleType | None:
    try:
        return import_module(f"softmap.kernels.fused._{name}")
    except ModuleNotFoundError:
        return None
    except ImportError as error:  # built for another system: reported, and served by another kernel
        _broken[name] = str(error)
        return None


def _cells(heads: int, grid: Grid | None) -> Cells | None:
    if grid is None:
        return None
    shape = (heads, len(grid.row_edges) - 1, len(grid.key_edges) - 1)
    return Cells(*(torch.empty(shape, dtype=torch.float32, device="cpu") for _ in range(2)))


def _array(tensor: Tensor | None) -> Any:
    """The tensor's memory as NumPy sees it, which is handed over sooner; bfloat16 it does not know."""
    return tensor if tensor is None or tensor.dtype == torch.bfloat16 else tensor.numpy()


def _rows_without_gaps(tensor: Tensor) -> Tensor:
    """The same numbers, copied only where a row's numbers do not lie next to each other."""
    return tensor if tensor.stride(2) == 1 or tensor.shape[2] == 1 else tensor.contiguous()


def _added(problem: Problem, *, whole_rows: bool) -> Callable[[int, int, int, int, int], Any]:
    """What the kernel's threads ask for of a strip."""
    inference = torch.is_inference_mode_enabled()  # a thread's own, and the kernel's threads ask too

    def of_strip(head: int, row_start: int, row_stop: int, key_start: int, key_stop: int) -> Any:
        rows, keys = range(row_start, row_stop), range(key_start, key_stop)
        with torch.inference_mode(inference), torch.no_grad():
            strip = added.added(problem, head, rows, keys, whole_rows=whole_rows)
        # As NumPy sees it: of a tensor the binding asks in Python, and an interrupt that comes just then would be lost.
        return _array(strip.contiguous())

    return of_strip
