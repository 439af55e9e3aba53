"""What an attention matrix is made of, read and checked: q, k and v, what is added to the scores, and options."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from softmap import masks
from softmap.biases import Bias
from softmap.checks import check_scale
from softmap.errors import ArrayKindError, DtypeError, NonFiniteError, ParameterError, ShapeError
from softmap.kernels.contract import Cell, Grid, Problem
from softmap.masks import Mask
from softmap.masks.reading import read_list
from softmap.tensors import giver, read_floats, refuse_non_finite

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

HEADS_HINT = "Axes are (heads, tokens, d), or (tokens, d) for one head."


class Kind(NamedTuple):
    """The caller's kind of array.

    Attributes:
        library: its name, as in "numpy".
        give: turns a torch tensor into an array of it.
    """

    library: str
    give: Callable[[Tensor], Any]


def kind_of(value: Any) -> Kind:
    """The kind of an array, however its class is derived."""
    for library, base in (("torch", torch.Tensor), ("numpy", np.ndarray | np.generic)):
        if isinstance(value, base):
            return Kind(library, giver(value))
    return Kind(type(value).__module__.partition(".")[0], giver(value))


def read_problem(
    q: Any, k: Any, *, mask: Any, scale: Any, softcap: Any, sinks: Any, bias: Any, nan: Any
) -> tuple[Problem, Kind, bool]:
    """The problem, the kind of the arrays, and whether they came without an axis of heads.

    Raises:
        SoftmapError: as `AttentionMatrix` says.
    """
    if nan not in ("refuse", "propagate"):
        raise ParameterError("nan", '"refuse" or "propagate"', repr(nan), "It says what happens to NaN and infinity.")
    arrays = {"q": read_floats("q", q), "k": read_floats("k", k)}
    _refuse_mixture("q", arrays["q"], kind_of(q), "k", arrays["k"], kind_of(k))
    _check_ranks(arrays["q"], arrays["k"])
    flat = arrays["q"].ndim == 2
    queries, keys = (array[None] if flat else array for array in arrays.values())
    _check_sizes(queries, keys)
    mask, bias = _read_mask(mask), _read_bias(bias)
    if bias is not None:  # an offset given to one of the two holds for both
        mask, bias = mask.placed(bias.offset), bias.placed(mask.offset)
    problem = Problem(
        q=queries,
        k=keys,
        mask=mask,
        scale=check_scale(scale, queries.shape[2]),
        softcap=_read_softcap(softcap),
        sinks=_read_sinks(sinks, queries, flat, nan),
        bias=bias,
        nan=nan == "propagate",
    )
    if nan == "refuse" and math.inf in (problem.largest_q, problem.largest_k):
        for name, array in arrays.items():
            refuse_non_finite(name, array)
    problem.mask.check(*problem.shape[1:])
    if problem.bias is not None:
        problem.bias.check(*problem.shape)
    return problem, kind_of(q), flat


def read_values(v: Any, problem: Problem, kind: Kind, flat: bool) -> Float[Tensor, "kv_heads keys d_v"]:
    """The values with an axis of key heads; of one head alone (`flat`) they come without, and stand for all heads.

    Raises:
        SoftmapError: v of another kind, device, dtype, rank or size than k; NaN or infinity.
    """
    values = read_floats("v", v)
    _refuse_mixture("k", problem.k, kind, "v", values, kind_of(v))
    axes = "2 dimensions (keys, d_v)" if flat else "3 dimensions (kv_heads, keys, d_v)"
    if values.ndim != (2 if flat else 3):
        hint = "It has the axes that k has." if values.ndim < 4 else "One sequence at a time: v[0]."
        raise ShapeError("v", axes, f"shape {tuple(values.shape)}", hint)
    wanted = problem.k.shape[1:2] if flat else problem.k.shape[:2]
    if values.shape[:-1] != wanted or values.shape[-1] == 0:
        expected = ", ".join([*(str(size) for size in wanted), "d_v"])
        whole = "" if flat else " Some heads, as m[2:], take the v of the whole matrix: all key heads."
        hint = f"One value for each key; heads that share keys share values.{whole}"
        hint = hint if values.shape[-1] else "d_v is 0."
        raise ShapeError("v", f"shape ({expected}), as k has it", f"shape {tuple(values.shape)}", hint)
    if not problem.nan:
        refuse_non_finite("v", values)
    return values[None].expand(problem.k.shape[0], -1, -1) if flat else values


def read_count(name: str, value: Any, least: int | None, hint: str) -> int:
    """A whole number, of at least so many where there is a bound.

    Raises:
        ParameterError: something else.
    """
    wanted = "a whole number" if least is None else f"a whole number of at least {least}"
    if isinstance(value, bool | np.bool_):
        raise ParameterError(name, wanted, repr(value), hint)
    try:
        number = operator.index(value)
    except TypeError as error:
        raise ParameterError(name, wanted, repr(value), hint) from error
    if least is not None and number < least:
        raise ParameterError(name, wanted, repr(value), hint)
    return number


def read_grid(cells: Any, queries: int, keys: int) -> Grid | None:
    """The edges of a grid over the matrix: so many cells each way, or as many as there are queries and keys.

    Raises:
        ParameterError: neither a whole number nor a pair of them.
    """
    pair = read_cells(cells)
    if pair is None:
        return None
    down, across = min(pair[0], queries), min(pair[1], keys)
    return Grid(
        tuple(i * queries // down for i in range(down + 1)), tuple(i * keys // across for i in range(across + 1))
    )


def level_grid(cells: Any, queries: int, keys: int) -> Grid | None:
    """The edges of the finest level of a map that has at most so many cells each way: squares of 2^b tokens.

    Raises:
        ParameterError: as `read_grid`.
    """
    pair = read_cells(cells)
    if pair is None:
        return None
    size = 1
    while -(-queries // size) > pair[0] or -(-keys // size) > pair[1]:
        size *= 2
    return Cell(size, size).grid(queries, keys)


def read_cells(cells: Any) -> tuple[int, int] | None:
    """How many cells each way; None for none.

    Raises:
        ParameterError: neither a whole number nor a pair of them.
    """
    hint = "It is a grid over the whole matrix: cells=64 for 64 x 64 cells, (rows, keys) for others, 0 for none."
    single = cells is None or not isinstance(cells, tuple | list)
    if cells is None or (single and read_count("cells", cells, 0, hint) == 0):
        return None
    pair = (cells, cells) if single else tuple(cells)
    if len(pair) != 2:
        raise ParameterError("cells", "a whole number, or a pair (rows, keys)", repr(cells), hint)
    down, across = (read_count("cells", count, 1, hint) for count in pair)
    return down, across


def read_distance(wanted: bool | None, problem: Problem) -> bool:
    """Whether to give distances: unless said otherwise, where it is known at which key query 0 stands.

    Raises:
        ParameterError: they are wanted where it is not known.
    """
    if wanted and not problem.placed:
        _, queries, keys = problem.shape
        last = f"offset={keys - queries}"
        hint = (
            f"Say at which key query 0 stands: mask=masks.causal({last}), or masks.sliding_window(None, None, {last}), "
            f"which hides nothing, if the queries are the last tokens; offset=0 if they are the first."
        )
        got = f"{queries} queries and {keys} keys"
        raise ParameterError("distance", "as many queries as keys, or a mask or bias with an offset", got, hint)
    return problem.placed if wanted is None else bool(wanted)


def _refuse_mixture(one: str, first: Tensor, kind: Kind, other: str, second: Tensor, other_kind: Kind) -> None:
    names = f"{one} and {other}"
    if kind.library != other_kind.library:
        hint = f"Convert one of them, as in numpy.asarray({other}) or torch.as_tensor({other})."
        raise ArrayKindError(names, "arrays of one library", f"{kind.library} and {other_kind.library}", hint)
    if first.device != second.device:
        hint = f"Move one of them, as in {other}.to({one}.device)."
        raise ArrayKindError(names, "arrays on one device", f"{first.device} and {second.device}", hint)
    if first.dtype != second.dtype:
        hint = f"Convert one of them, as in {other}.to({one}.dtype) in torch or {other}.astype({one}.dtype) in NumPy."
        raise DtypeError(names, "arrays of one dtype", f"{first.dtype} and {second.dtype}", hint)


def _check_ranks(q: Tensor, k: Tensor) -> None:
    for name, array, axes in (("q", q, "(heads, queries, d_k)"), ("k", k, "(kv_heads, keys, d_k)")):
        if array.ndim in (2, 3):
            continue
        first = ", ".join(["0"] * (array.ndim - 3))
        hint = f"One sequence at a time: {name}[{first}]." if array.ndim > 3 else HEADS_HINT
        raise ShapeError(name, f"3 dimensions {axes}", f"shape {tuple(array.shape)}", hint)
    if q.ndim != k.ndim:
        name = "q" if q.ndim < k.ndim else "k"
        got = f"shapes {tuple(q.shape)} and {tuple(k.shape)}"
        raise ShapeError("q and k", "as many dimensions", got, f"Add the axis of heads: {name}[None].")


def _check_sizes(q: Tensor, k: Tensor) -> None:
    for name, array in (("q", q), ("k", k)):
        if array.numel() == 0:
            hint = "Give at least one head, one token and one dimension."
            raise ShapeError(name, "at least one element", f"shape {tuple(array.shape)}", hint)
    got = f"shapes {tuple(q.shape)} and {tuple(k.shape)}"
    if q.shape[2] != k.shape[2]:
        raise ShapeError("q and k", "the same d_k", f"{q.shape[2]} and {k.shape[2]} ({got})", HEADS_HINT)
    heads, kv_heads = q.shape[0], k.shape[0]
    if heads % kv_heads:
        fitting = ", ".join(str(count) for count in range(1, heads + 1) if heads % count == 0)
        hint = f"Grouped heads share keys evenly: {heads} heads take {fitting} key heads."
        raise ShapeError("q and k", "heads that kv_heads divides", f"{heads} and {kv_heads} ({got})", hint)


def _read_mask(mask: Any) -> Mask:
    if mask is None:
        return masks.full()
    if isinstance(mask, Mask):
        return mask
    if isinstance(mask, bool | str):
        hint = "For a causal mask: masks.causal(). The rest of them is in softmap.masks."
    elif hasattr(mask, "__array__") or hasattr(mask, "__dlpack__") or isinstance(mask, list | tuple):
        hint = "For booleans (queries, keys): masks.dense(mask). For a tokenizer's attention_mask: masks.padding(mask)."
    elif callable(mask):
        hint = (
            "For a function of query and key indices: masks.from_function(mask). Call masks.causal as masks.causal()."
        )
    else:
        hint = "Leave it out to let every query see every key."
    raise ParameterError("mask", "a mask of softmap.masks, or None", _describe(mask), hint)


def _read_bias(bias: Any) -> Bias | None:
    if bias is None or isinstance(bias, Bias):
        return bias
    if isinstance(bias, Mask):
        hint = "What may not be seen goes into mask=."
    elif callable(bias):
        hint = "For a function of head, query and key indices: biases.from_function(bias)."
    else:
        hint = "For an array of numbers to add: biases.dense(bias)."
    raise ParameterError("bias", "a bias of softmap.biases, or None", _describe(bias), hint)


def _read_softcap(softcap: Any) -> float | None:
    if softcap is None:
        return None
    hint = "Scaled scores become softcap · tanh(scaled / softcap); leave it out for none."
    if isinstance(softcap, bool) or not isinstance(softcap, Real):
        raise ParameterError("softcap", "a finite number above 0", f"{softcap!r}, a {type(softcap).__name__}", hint)
    cap = float(softcap)
    if not (math.isfinite(cap) and cap > 0):
        raise ParameterError("softcap", "a finite number above 0", str(cap), hint)
    if not 1e-30 <= cap <= 1e30:  # what float32 divides and multiplies by
        raise ParameterError("softcap", "a number from 1e-30 to 1e30", str(cap), hint)
    return cap


def _read_sinks(sinks: Any, q: Tensor, flat: bool, nan: str) -> Float[Tensor, " heads"] | None:
    if sinks is None:
        return None
    if isinstance(sinks, int | float) and not isinstance(sinks, bool):
        sinks = [sinks]
    logits = read_floats("sinks", read_list("sinks", sinks, torch.float64))
    if flat and logits.ndim == 0:
        logits = logits[None]
    if logits.shape != q.shape[:1]:
        hint = "They are learnt logits, one for each query head."
        raise ShapeError("sinks", f"shape ({q.shape[0]},)", f"shape {tuple(logits.shape)}", hint)
    if nan == "refuse":
        refuse_non_finite("sinks", logits)
    narrow = logits.to(torch.promote_types(q.dtype, torch.float32))
    beyond = logits[narrow.isinf() & logits.isfinite()]
    if len(beyond):
        hint = "A sink's weight is exp(sink − logsumexp); give logits of the size of the scaled scores."
        raise NonFiniteError("sinks", f"numbers within {narrow.dtype}", f"{float(beyond[0]):g}", hint)
    return narrow.to(q.device)


def _describe(value: Any) -> str:
    return repr(value) if isinstance(value, bool | str | int | float) else type(value).__name__
