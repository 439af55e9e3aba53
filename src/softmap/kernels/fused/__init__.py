"""The compiled kernel, for CPUs: every statistic in one pass, with the output.

The C++ beside this file says how (strip.h first). It is built once for each instruction set; this module picks one,
hands it the arrays, and knows what it can't do.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from softmap.errors import NonFiniteError
from softmap.kernels.contract import Cells, Distance, Statistics, Top
from softmap.kernels.tile import may_overflow, scaled
from softmap.tensors import largest

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Bool, Float
    from torch import Tensor

    from softmap.kernels.contract import Cell, Grid, Known, Problem, Wanted
    from softmap.masks import Spans

WIDEST = 256  # d_k and d_v: a strip's q and output stay in the second-level cache
MOST_TOP = 64  # TOP_LIMIT in top.h
REACH = 1e38  # how large a bias may be
LARGEST = torch.finfo(torch.float32).max
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
    return found or _out_of_reach(problem, wanted)


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
    all_said = (spans.exact or seen is not None) and problem.bias is None
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
        added=None if all_said else _added(problem, spans, whole_rows=known is None),
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


def _out_of_reach(problem: Problem, wanted: Wanted) -> str | None:
    """Which numbers float32 as it is used here does not hold, though their dtype does."""
    if may_overflow(problem):
        return "scores that may overflow float32"
    if not _scale_fits(problem):
        return "a scale beyond float32's reach"
    if _denormals_count(problem):
        return "numbers so large that denormals count beside them"
    if not _values_fit(wanted):
        return "values whose sum may overflow float32"
    return None


def _factor(problem: Problem) -> float:
    """What q is multiplied by at first."""
    return abs(problem.scale) * (math.log2(math.e) if problem.softcap is None else 1 / problem.softcap)


def _scale_fits(problem: Problem) -> bool:
    """Whether q times the kernel's factor, and its products with k, stay within float32 as the scaled scores do.

    The factor is all that scores are multiplied by at first. One from 1e-18 to 1, as models have, leaves room enough on
    either side.
    """
    factor = _factor(problem)
    if factor <= 1:
        return factor >= 1e-18 or factor == 0
    bound = factor * max(1.0, problem.largest_q) * max(1.0, problem.largest_k * problem.q.shape[2])
    return bound < LARGEST / 4


def _denormals_count(problem: Problem) -> bool:
    """Whether denormals of q or k, which are 0 here, could move a scaled score by more than 1e-8."""
    most = 1e30 / (problem.q.shape[2] * max(1.0, _factor(problem)) * (problem.softcap or 1.0))
    return max(problem.largest_q, problem.largest_k) >= most


def _values_fit(wanted: Wanted) -> bool:
    """Whether the output stays finite before it is divided by the row's total, where a weight is up to 1."""
    v = wanted.v
    if v is None or torch.finfo(v.dtype).max * v.shape[1] < LARGEST / 4:
        return True
    return largest(v) * v.shape[1] < LARGEST / 4


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


def _added(problem: Problem, spans: Spans, whole_rows: bool) -> Callable[[int, int, int, int, int], Any]:
    """What is added to the scaled scores of a strip: the bias, and −∞ where the mask hides what its spans do not."""
    bias_alone = replace(problem, scale=1.0, softcap=None)  # of scores of 0, which need no cap
    inference = torch.is_inference_mode_enabled()  # a thread's own, and the kernel's threads ask too

    def added(head: int, row_start: int, row_stop: int, key_start: int, key_stop: int) -> Any:
        rows, keys = range(row_start, row_stop), range(key_start, key_stop)
        with torch.inference_mode(inference), torch.no_grad():
            strip = torch.zeros(len(rows), len(keys), dtype=torch.float32, device="cpu")
            if problem.bias is None:
                strip.masked_fill_(~problem.mask.strip(rows, keys), -torch.inf)
            else:
                strip = scaled(bias_alone, strip[None], rows, keys, [head], spans)[0]
                strip = _within_reach(strip, problem.bound) if whole_rows else _raised(strip)
        # As NumPy sees it: of a tensor the binding asks in Python, and an interrupt that comes just then would be lost.
        return _array(strip.contiguous())

    return added


def _within_reach(strip: Float[Tensor, "rows keys"], bound: float) -> Float[Tensor, "rows keys"]:
    """Leave room for the kernel's factor of log2(e). Models that hide keys by float32's lowest number keep their rule:
    a row that has nothing else is spread evenly, not empty.

    Args:
        strip: all that is added to these rows.
        bound: what no score exceeds in magnitude.
    """
    if float(strip.amax()) > REACH:
        hint = "Subtract a constant from the bias: only differences matter to a row."
        raise NonFiniteError("bias", f"numbers up to {REACH:g}", f"{float(strip.amax()):g}", hint)
    low = _too_low(strip)
    if not bool(low.any()):
        return strip
    highest = strip.amax(-1, keepdim=True)
    lost = low & (strip < highest) & (highest <= 2 * bound - REACH)  # raised, they would not stay far below
    if bool(lost.any()):
        hint = "Hide keys by −inf, or add a constant to the bias: only differences matter to a row."
        expected = f"numbers down to {-REACH:g} in a row that has none far above"
        raise NonFiniteError("bias", expected, f"{float(strip[lost][0]):g}", hint)
    return _raised(strip)


def _raised(strip: Float[Tensor, "rows keys"]) -> Float[Tensor, "rows keys"]:
    """The lowest numbers raised to where the factor leaves them finite."""
    return strip.masked_fill(_too_low(strip), -REACH)


def _too_low(strip: Float[Tensor, "rows keys"]) -> Bool[Tensor, "rows keys"]:
    return (strip < -REACH) & (strip != -torch.inf)
