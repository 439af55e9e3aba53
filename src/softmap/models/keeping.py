"""What is kept of a layer when its calls are over: its arrays, its statistics, and what its story needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from softmap import kernels
from softmap.errors import ModelError
from softmap.kernels.contract import Wanted
from softmap.matrix.inputs import level_grid, read_distance
from softmap.matrix.summary import summarize
from softmap.models.projections import biases_of
from softmap.recorded import Inside, RecordedLayer

if TYPE_CHECKING:
    from torch import Tensor

    from softmap.kernels import Swept
    from softmap.kernels.contract import Grid, Problem
    from softmap.matrix import Summary
    from softmap.models.growing import Growing

CELLS, MOST_CELLS = 64, 1024  # of a recording's map each way, at first and at most, unless it is said how many


@dataclass(frozen=True)
class Keeping:
    """What of a run is to be kept.

    Attributes:
        layers: which layers, by number; None for all.
        statistics: `AttentionMatrix.summary`'s options, of which `cells` is the most that the map has each way; None
            where no statistics are wanted.
        qk: whether q and k are kept.
        values: whether the values are kept.
        dtype: what q, k and v are kept in; None for the model's own.
        inside: whether the output of the model's own attention function is kept, and what entered each layer, x.
    """

    layers: Collection[int] | None = None
    statistics: Mapping[str, Any] | None = field(default_factory=dict)
    qk: bool = True
    values: bool = True
    dtype: torch.dtype | None = None
    inside: bool = False


def keep(growing: Growing, keeping: Keeping, name: str, **of: Any) -> RecordedLayer:
    """A layer of one sequence as it is kept.

    Args:
        growing: its calls.
        keeping: what is to be kept.
        name: the model, as errors name it.
        of: what else is known of the layer.

    Raises:
        ModelError: a sequence of padding alone; numbers that the dtype to keep them in does not hold.
    """
    path = f"{name}, {growing.path}"
    if not growing.blocks:
        hint = "Leave the empty sequence out of the batch."
        raise ModelError(path, "a real token in each sequence", "one of padding alone", hint)
    problem, v = growing.problem(), growing.values() if keeping.values else None
    summary, logsumexp = None, None
    if keeping.statistics is not None:
        swept = growing.swept if growing.calls == 1 else None
        if swept is None:
            with torch.no_grad():
                swept = kernels.sweep(problem, wanted_of(keeping.statistics, problem, None))
        summary, logsumexp = _summary(swept, keeping.statistics, problem), swept.statistics.logsumexp
    q, k, v = (_stored(path, letter, x, keeping.dtype) for letter, x in (("q", problem.q), ("k", problem.k), ("v", v)))
    rounded = q.dtype != problem.q.dtype
    return RecordedLayer(
        path=growing.path,
        shape=problem.shape,
        q=q if keeping.qk else None,
        k=k if keeping.qk else None,
        v=v,
        mask=problem.mask,
        scale=problem.scale,
        softcap=problem.softcap,
        sinks=problem.sinks,
        bias=problem.bias,
        summary=summary,
        logsumexp=None if rounded else logsumexp,
        largest=(float(q.abs().max()), float(k.abs().max())) if rounded else (problem.largest_q, problem.largest_k),
        difference=growing.difference,
        inside=_inside(growing, problem, v) if keeping.inside else None,
        **of,
    )


def wanted_of(options: Mapping[str, Any], problem: Problem, v: Tensor | None) -> Wanted:
    """What a sweep is to give for these options of `AttentionMatrix.summary`."""
    return Wanted(
        v=v,
        top=options.get("top", 8),
        entropy=options.get("entropy", True),
        distance=read_distance(options.get("distance"), problem),
        received=options.get("received", True),
        cells=_grid(options, problem),
    )


def _grid(options: Mapping[str, Any], problem: Problem) -> Grid | None:
    """The cells that are kept: a level of the map. Unless the options say, 64 each way, or as many as of 128 tokens."""
    _, queries, keys = problem.shape
    tokens = max(queries, keys)
    return level_grid(options.get("cells", min(max(CELLS, -(-tokens // 128)), MOST_CELLS)), queries, keys)


def _summary(swept: Swept, options: Mapping[str, Any], problem: Problem) -> Summary:
    """The statistics that are kept: all but the output."""
    swept = swept._replace(statistics=replace(swept.statistics, output=None))
    return summarize(swept, _grid(options, problem), problem.dtype, lambda tensor: tensor)


def _stored(path: str, name: str, x: Any, dtype: torch.dtype | None) -> Any:
    """q, k or v in the dtype that it is to be kept in, without the arrays that it is a part of."""
    if x is None:
        return None
    kept = x.to(dtype or x.dtype)
    if bool(kept.isinf().any()):
        got = f"{name} up to {float(x.abs().max()):.3g}"
        raise ModelError(path, f"numbers within {dtype}", got, "Keep them in another dtype, such as bfloat16.")
    return kept.contiguous() if kept.is_contiguous() else kept.clone(memory_format=torch.contiguous_format)


def _inside(growing: Growing, problem: Problem, v: Tensor | None) -> Inside:
    x, biases = growing.x, None
    if x is not None and v is not None:
        biases = biases_of(growing.module, x, (problem.q, problem.k, v))
    return Inside(growing.own, None if biases is None else x, biases or (), growing.compared)
