"""The kernels behind one call: the fastest that can serve, with its name and why it was not a faster one.

    reference   float64, dense: the specification
    strips      torch operations on strips of rows, on any device
    fused       compiled, for CPUs, in one version for each instruction set
    gpu         in Triton, for NVIDIA's GPUs

The environment variable SOFTMAP_KERNEL forces one of `report()`'s names, or "fused" for its best instruction set. gpu is
taken in no other way, until it has been measured on a GPU.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import torch

from softmap.errors import ParameterError
from softmap.kernels import fused, gpu, reach, reference, strips  # now: a child that is forked later may not be able to
from softmap.kernels.contract import Wanted

if TYPE_CHECKING:
    from softmap.kernels.contract import Cell, Cells, Known, Problem, Statistics

VARIABLE = "SOFTMAP_KERNEL"
UNMEASURED = f"with {VARIABLE}=gpu alone, until it was measured on a GPU"
INSTRUCTIONS = ("avx512", "avx2", "baseline")  # what a fused kernel may be compiled for, fastest first


class Swept(NamedTuple):
    """What a sweep gave, and what ran.

    Attributes:
        statistics: what was wanted.
        kernel: the kernel that ran, as in "fused (avx512)".
        why: why no faster one did, or that it was forced; empty where it was the fastest there is.
    """

    statistics: Statistics
    kernel: str
    why: str


class Report(NamedTuple):
    """One kernel, for `softmap info`: its name, whether it is usable here, and a remark."""

    name: str
    usable: bool
    remark: str


def sweep(problem: Problem, wanted: Wanted) -> Swept:
    """Every statistic that is wanted, by the fastest kernel that can serve.

    Raises:
        ParameterError: SOFTMAP_KERNEL names no kernel, or one that cannot serve.
        NonFiniteError: a bias of NaN or +∞ where a query sees a key, or scores beyond float64.
    """
    forced = os.environ.get(VARIABLE)
    with torch.no_grad(), torch.autocast(problem.q.device.type, enabled=False):
        if forced:
            return _sweep_forced(problem, wanted, forced)
        why = _fused_refusal(problem, wanted)
        if not why:
            best = fused.available()[0]
            found = fused.sweep(problem, wanted, best)
            if not reach.is_rounded(problem, found):
                return Swept(found, f"fused ({best})", _passed_over(best))
            why = reach.ROUNDED
        return Swept(strips.sweep(problem, wanted), "strips", why + _gpu_not_taken(problem, wanted))


def cells(problem: Problem, cell: Cell, known: Known, kernel: str) -> Cells:
    """Sum and maximum of each cell of a part of a matrix whose rows' logsumexp is known, by one of `cells_kernel`'s."""
    with torch.no_grad(), torch.autocast(problem.q.device.type, enabled=False):
        if kernel == "strips":
            return strips.cells(problem, cell, known)
        if kernel == "gpu":
            try:
                return gpu.cells(problem, cell, known)
            except gpu.TritonRefusedError as error:
                raise _refused(kernel, str(error)) from error
        if kernel == "reference":
            return reference.cells(problem, cell, known)
        return fused.cells(problem, cell, known, kernel.removeprefix("fused-"))


def cells_kernel(problem: Problem) -> str:
    """The kernel that makes the cells of parts of a matrix whose rows' logsumexp is known: the fastest that can serve.

    Raises:
        ParameterError: as `sweep`.
    """
    first, forced = first_choice(), os.environ.get(VARIABLE)
    if first == "strips":
        return first
    kernel = {"reference": reference, "gpu": gpu}.get(first, fused)
    why = kernel.refusal(problem, Wanted())
    if forced:
        _refuse(forced, why)
    return "strips" if why else first


def report() -> list[Report]:
    """Every kernel by the name that SOFTMAP_KERNEL takes, the fastest first, and whether it is usable here."""
    usable, no_gpu = fused.available(), gpu.missing()
    missing = "this build or this processor does not have it" if usable else fused.missing()
    return [
        *(
            Report(f"fused-{each}", each in usable, "" if each in usable else fused.broken(each) or missing)
            for each in INSTRUCTIONS
        ),
        Report("strips", True, "torch operations, on any device"),
        Report("gpu", no_gpu is None, no_gpu or f"Triton, {UNMEASURED}"),
        Report("reference", True, "float64 and dense: for small matrices"),
    ]


def first_choice() -> str:
    """The kernel that a sweep tries first: the one that SOFTMAP_KERNEL names, else the fastest that is usable here.

    Raises:
        ParameterError: SOFTMAP_KERNEL names no kernel, or one that is not usable here.
    """
    name, usable = os.environ.get(VARIABLE), fused.available()
    if not name:
        return f"fused-{usable[0]}" if usable else "strips"
    names = ["fused", *(each.name for each in report())]
    if name not in names:
        raise ParameterError(VARIABLE, f"one of {', '.join(names)}", repr(name), "Unset it to let softmap choose.")
    if name == "gpu":
        _refuse(name, gpu.missing())
    if name in ("gpu", "reference", "strips"):
        return name
    if not usable:
        _refuse(name, fused.missing())
    instructions = name.partition("-")[2] or usable[0]
    if instructions not in usable:
        _refuse(name, fused.broken(instructions) or f"this build or this processor has {', '.join(usable)} only")
    return f"fused-{instructions}"


def _sweep_forced(problem: Problem, wanted: Wanted, name: str) -> Swept:
    """The kernel that SOFTMAP_KERNEL names, and never another."""
    why, first = f"{VARIABLE}={name}", first_choice()
    if first in ("gpu", "reference", "strips"):
        kernel = {"gpu": gpu, "reference": reference, "strips": strips}[first]
        _refuse(name, kernel.refusal(problem, wanted))
        try:
            found = kernel.sweep(problem, wanted)
        except gpu.TritonRefusedError as error:
            raise _refused(name, str(error)) from error
        ran = first
    else:
        _refuse(name, _fused_refusal(problem, wanted))
        instructions = first.removeprefix("fused-")
        found, ran = fused.sweep(problem, wanted, instructions), f"fused ({instructions})"
    if first not in ("reference", "strips") and reach.is_rounded(problem, found):
        raise _refused(name, reach.ROUNDED)
    return Swept(found, ran, why)


def _gpu_not_taken(problem: Problem, wanted: Wanted) -> str:
    """Why the GPU's kernels were not taken; empty where the arrays are not on a GPU of theirs."""
    if problem.q.device.type != gpu.device_type():
        return ""
    return f"; gpu: {gpu.missing() or gpu.unsupported(problem, wanted) or UNMEASURED}"


def _passed_over(best: str) -> str:
    """Which faster instruction sets were built and do not load, and why."""
    faster = {each: fused.broken(each) for each in INSTRUCTIONS[: INSTRUCTIONS.index(best)]}
    return "; ".join(f"fused-{each} {why}" for each, why in faster.items() if why)


def _refuse(name: str, why: str | None) -> None:
    if why:
        raise _refused(name, why)


def _refused(name: str, why: str) -> ParameterError:
    hint = "Unset it to let softmap choose, or set it to strips, which serves everything."
    return ParameterError(VARIABLE, "a kernel that can serve here", f"{name}: {why}", hint)


def _fused_refusal(problem: Problem, wanted: Wanted) -> str | None:
    """Why the fused kernel cannot serve; None where it can."""
    return fused.refusal(problem, wanted) if fused.available() else fused.missing()
