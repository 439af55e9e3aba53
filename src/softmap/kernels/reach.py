"""Which numbers float32 does not hold as compiled kernels compute in it, though their dtype does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from softmap.kernels.sizes import SWEPT
from softmap.tensors import largest

if TYPE_CHECKING:
    from softmap.kernels.contract import Problem, Statistics, Wanted

LARGEST = torch.finfo(torch.float32).max
ROUNDED = "scores so large that float32's rounding shows"


def out_of_reach(problem: Problem, wanted: Wanted) -> str | None:
    """What is out of float32's reach; None where nothing is."""
    if not problem.bound < LARGEST / 4:
        return "scores that may overflow float32"
    if not _scale_fits(problem):
        return "a scale beyond float32's reach"
    if _denormals_count(problem):
        return "numbers so large that denormals count beside them"
    if not _values_fit(wanted):
        return "values whose sum may overflow float32"
    if problem.size > SWEPT:
        return ROUNDED
    return None


def is_rounded(problem: Problem, statistics: Statistics) -> bool:
    """Whether the rows of a sweep in float32 turned out so large that its rounding shows, as under a large bias."""
    found = statistics.logsumexp
    return problem.dtype == torch.float32 and bool((found.abs().masked_fill(found.isinf(), 0) > SWEPT).any())


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
