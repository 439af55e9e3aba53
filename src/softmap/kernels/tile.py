"""Steps 1 and 2 of any tile of the matrix, and of single pairs: what all kernels in torch operations compute with.

A tile is some heads, rows and keys, each a range or an index tensor. Nothing here is larger than the tile, but for the
few keys and queries that it is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import torch

from softmap.errors import NonFiniteError
from softmap.kernels import slices
from softmap.kernels.part import PartBias
from softmap.kernels.sizes import LARGE, SLICED
from softmap.tensors import joint_shape

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from softmap.biases import Bias
    from softmap.kernels.contract import Problem
    from softmap.masks import Spans

    Index = range | Int[Tensor, " n"]

_STEEPEST = 1e28  # what float32 may be multiplied by, or by 1 over it: its subnormal numbers are then below 1e-10
_PAIRS = 1 << 22  # numbers of q that the places of one turn may take: 16 MiB in float32


def may_overflow(problem: Problem, dtype: torch.dtype | None = None) -> bool:
    """Whether the scores, before or after scaling, could leave the range of a dtype: `Problem.dtype` unless given.

    Differences of two scores must fit too, hence the factor of 4. A scale that brings small scores up from where the
    dtype has few digits, or large ones down by less than it holds, is out of its range as well.
    """
    dtype = problem.dtype if dtype is None else dtype
    if not problem.bound < torch.finfo(dtype).max / 4:
        return True
    return dtype == torch.float32 and problem.scale != 0 and not 1 / _STEEPEST <= abs(problem.scale) <= _STEEPEST


def dtype_for(problem: Problem, size: float = LARGE) -> torch.dtype:
    """The dtype to compute in: `Problem.dtype`, or float64 where that may overflow, or scores are beyond that size.

    Raises:
        NonFiniteError: scores that float64 does not hold either, or that need float64 on a device without it.
    """
    if problem.q.device.type == "mps" or problem.dtype == torch.float64:
        if may_overflow(problem) and not problem.nan:
            _refuse(problem, problem.dtype)
        return problem.dtype
    if not may_overflow(problem):
        return torch.float64 if problem.size > size else problem.dtype
    if may_overflow(problem, torch.float64) and not problem.nan:
        _refuse(problem, torch.float64)
    return torch.float64


def _refuse(problem: Problem, dtype: torch.dtype) -> NoReturn:
    size = f"magnitudes up to {problem.largest_q:.3g} and {problem.largest_k:.3g}, scale {problem.scale:.3g}"
    hint = "Divide them first" if dtype == torch.float64 else "This device has no float64: move them to the CPU"
    raise NonFiniteError("q and k", f"scores within {dtype}", size, f"{hint}.")


def widened(problem: Problem) -> Problem:
    """The same problem with q and k in the dtype to compute in, as `dtype_for` says."""
    dtype = dtype_for(problem)
    return replace(problem, q=problem.q.to(dtype), k=problem.k.to(dtype)).as_part_of(problem)


def scores(
    problem: Problem,
    rows: Index,
    keys: Index,
    heads: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "heads rows keys"]:
    """Step 1 of a tile: q kᵀ.

    Args:
        problem: the matrix.
        rows: the tile's queries.
        keys: the tile's keys.
        heads: the tile's heads; all of them unless given.
        dtype: what to compute in, as `dtype_for` says; `Problem.dtype` unless given.
    """
    dtype = problem.dtype if dtype is None else dtype
    heads = range(problem.shape[0]) if heads is None else heads
    own = [head // problem.group for head in heads]  # the key head of each
    q = _take(_heads(problem.q, heads), rows).to(dtype)
    shared = sorted(set(own))
    together = len(own) // len(shared) if shared else 1
    if own != [head for head in shared for _ in range(together)]:  # groups cut apart: each head brings its keys
        shared, together = own, 1
    k = _take(_heads(problem.k, shared), keys).to(dtype)
    stacked = q.reshape(len(shared), together * q.shape[1], q.shape[2])  # one product serves all heads of a key head
    with torch.autocast(q.device.type, enabled=False):  # whose halves would lose what float32 is for
        found = slices.product(stacked, k) if _is_sliced(problem, dtype) else stacked @ k.mT
    return found.reshape(len(own), q.shape[1], k.shape[1])


def scaled(
    problem: Problem,
    scores: Float[Tensor, "heads rows keys"],
    rows: Index,
    keys: Index,
    heads: Sequence[int] | None = None,
    spans: Spans | None = None,
) -> Float[Tensor, "heads rows keys"]:
    """Step 2 of a tile: softcap(scores · scale) + bias, −∞ where masked. The scores are left as they are.

    Args:
        problem: the matrix.
        scores: step 1 of the same tile.
        rows: the tile's queries.
        keys: the tile's keys.
        heads: the tile's heads; all of them unless given.
        spans: the mask's spans of the whole matrix, where the caller has them: they may save the booleans.

    Raises:
        NonFiniteError: a bias of NaN or +∞ where a query sees a key.
    """
    device = scores.device
    query, key = _index(rows, device)[:, None], _index(keys, device)
    head = _index(range(problem.shape[0]) if heads is None else heads, device)[:, None, None]
    return _adjusted(problem, scores, head, query, key, _hidden(problem, rows, keys, spans, device))


def weighed(
    scaled: Float[Tensor, "*rows keys"], high: Float[Tensor, "*rows"], low: Float[Tensor, "*rows"]
) -> Float[Tensor, "*rows keys"]:
    """Step 3 of a tile, in place: exp((scaled − high) − low), of rows whose logsumexp is known in two parts."""
    high = high.masked_fill(high == -torch.inf, 0)  # all of such a row is −∞
    for part in (high, low):
        scaled.sub_(part.to(scaled.dtype).to(scaled.device)[..., None])
    return scaled.exp_()


def scores_at(
    problem: Problem,
    heads: Int[Tensor, "*shape"],
    rows: Int[Tensor, "*shape"],
    keys: Int[Tensor, "*shape"],
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "*shape"]:
    """Step 1 of single places: index tensors that broadcast; in the dtype that `scores` takes."""
    dtype = problem.dtype if dtype is None else dtype
    shape = joint_shape(heads, rows, keys)
    heads, rows, keys = (index.to(problem.q.device).expand(shape).reshape(-1) for index in (heads, rows, keys))
    found = torch.empty(len(rows), dtype=dtype, device=problem.q.device)
    for part in torch.arange(len(rows), device=found.device).split(max(1, _PAIRS // problem.q.shape[2])):
        q = problem.q[heads[part], rows[part]].to(dtype)
        k = problem.k[heads[part] // problem.group, keys[part]].to(dtype)
        found[part] = slices.products(q, k) if _is_sliced(problem, dtype) else (q * k).sum(-1)
    return found.reshape(shape)


def scaled_at(
    problem: Problem,
    scores: Float[Tensor, "*shape"],
    heads: Int[Tensor, "*shape"],
    rows: Int[Tensor, "*shape"],
    keys: Int[Tensor, "*shape"],
) -> Float[Tensor, "*shape"]:
    """Step 2 of single places: index tensors that broadcast to the shape of the scores.

    Raises:
        NonFiniteError: a bias of NaN or +∞ where a query sees a key.
    """
    head, query, key = (index.to(scores.device) for index in (heads, rows, keys))
    return _adjusted(problem, scores, head, query, key, ~problem.mask.visible(query, key))


def _is_sliced(problem: Problem, dtype: torch.dtype) -> bool:
    """Whether the order in which a product sums would show, so that there may be none."""
    return dtype == torch.float64 and problem.size > SLICED


def _adjusted(
    problem: Problem, scores: Tensor, head: Tensor, query: Tensor, key: Tensor, hidden: Bool[Tensor, "*shape"] | None
) -> Tensor:
    """Step 2 for indices that broadcast to the shape of the scores."""
    scaled = scores * problem.scale
    if problem.softcap is not None:
        scaled = scaled.div_(problem.softcap).tanh_().mul_(problem.softcap)
    if problem.bias is not None:
        added = problem.bias.values(head, query, key).to(scaled.device, scaled.dtype)
        if hidden is not None:  # what is added where no query looks does not matter, whatever the tile's bounds
            added = added.masked_fill(hidden, -torch.inf)
        if not problem.nan:
            _refuse_bias(added, *_in_the_whole(problem.bias, head, query, key))
        scaled += added
    return scaled if hidden is None else scaled.masked_fill_(hidden, -torch.inf)


def _in_the_whole(bias: Bias, head: Tensor, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Indices as errors name them."""
    return (head + bias.head, query + bias.query, key + bias.key) if isinstance(bias, PartBias) else (head, query, key)


def _refuse_bias(added: Tensor, head: Tensor, query: Tensor, key: Tensor) -> None:
    if added.numel() == 0 or bool(added.amax() < torch.inf):  # NaN is the largest of all, and not below infinity
        return
    shape = joint_shape(head, query, key)
    first = (~(added < torch.inf)).expand(shape).nonzero()[0].unbind()
    place = ", ".join(str(int(index.expand(shape)[first])) for index in (head, query, key))
    raise NonFiniteError(
        "bias",
        "finite numbers, or −inf to hide a key",
        f"{float(added.expand(shape)[first])} at bias[{place}] (head, query, key)",
        'Look at how that number was made. nan="propagate" lets it through.',
    )


def _hidden(
    problem: Problem, rows: Index, keys: Index, spans: Spans | None, device: torch.device
) -> Bool[Tensor, "rows keys"] | None:
    """What the mask hides of a tile; None where that is nothing."""
    if spans is not None and spans.exact:
        own = _index(rows, spans.start.device)
        start, stop = spans.start[own, None], spans.stop[own, None]
        if isinstance(keys, range) and len(keys) and bool((start <= keys[0]).all() & (stop > keys[-1]).all()):
            return None
        key = _index(keys, device)
        return (key < start.to(device)) | (key >= stop.to(device))
    if isinstance(rows, range) and isinstance(keys, range) and rows.step == keys.step == 1:
        return ~problem.mask.strip(rows, keys, device)
    return ~problem.mask.visible(_index(rows, device)[:, None], _index(keys, device))


def _index(index: Sequence[int] | Tensor, device: torch.device) -> Int[Tensor, " n"]:
    if isinstance(index, torch.Tensor):
        return index.to(device)
    if isinstance(index, range):
        return torch.tensor(index, device=device) if index.step < 0 else torch.arange(*_bounds(index), device=device)
    return torch.tensor(index, dtype=torch.int64, device=device)


def _take(tensor: Float[Tensor, "heads tokens d"], index: Index) -> Float[Tensor, "heads n d"]:
    """Some tokens of q or k; a view where they are a rising range."""
    if isinstance(index, range) and index.step > 0:
        start, stop, step = _bounds(index)
        return tensor[:, start:stop:step]
    return tensor[:, _index(index, tensor.device)]


def _heads(tensor: Float[Tensor, "heads tokens d"], heads: Sequence[int]) -> Float[Tensor, "n tokens d"]:
    """Some heads; a view where they follow each other, as they do in every sweep."""
    if len(heads) and list(heads) == list(range(heads[0], heads[0] + len(heads))):
        return tensor[heads[0] : heads[0] + len(heads)]
    return tensor[torch.tensor(heads, dtype=torch.int64, device=tensor.device)]


def _bounds(index: range) -> tuple[int, int, int]:
    """Start, stop and step of a rising range, never backwards: range(3, 0) is empty."""
    return index.start, max(index.start, index.stop), index.step
