"""A layer's output next to that of the model's own attention function, in float32, at the same queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from softmap.errors import ModelError
from softmap.mechanism import PAGE
from softmap.models.attending import matrix_of
from softmap.models.chosen import chosen_strip
from softmap.models.implementations import kind_of, without_mask
from softmap.models.masking import EVERYTHING, ModelMask
from softmap.models.numbers import largest_score

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from softmap.models.attending import Call, Piece

    Output = Float[Tensor, "heads n d_v"]

NO_NUMBER = "The model computes something that is no number there; look at its weights, its mask and its dtype."
"""What to do next where q, k, v or an output has NaN or infinity."""
SAMPLE = 16
"""Rows of a long matrix that are compared."""


class Compared(NamedTuple):
    """What was compared.

    Attributes:
        chosen: the queries, (n,), numbers within the piece's.
        own: the model's own output of them, (heads, n, d_v).
        difference: how far ours is from it, at most.
    """

    chosen: Int[Tensor, " n"]
    own: Output
    difference: float


def compare(
    call: Call, item: int, piece: Piece, rows: range, keys: range, output: Output, path: str
) -> Compared | None:
    """Compare the output of one sequence with what the model's own function gives; None where there is none.

    Args:
        call: the call.
        item: the sequence's number in the batch.
        piece: what the call says of it.
        rows: the positions of all queries.
        keys: the positions of all keys.
        output: of the piece's queries.
        path: the layer, as errors name it.

    Raises:
        ModelError: it is further than rounding goes.
    """
    if (piece.rows, piece.keys) == (rows, keys) and max(len(rows), len(keys)) <= PAGE:
        _compare_unmasked(call, item, piece, output, path)
    chosen = rows_to_compare(len(piece.rows), len(piece.keys))
    chosen = chosen[~sees_nothing(piece, chosen)]
    own = own_output(call, item, rows, keys, chosen + piece.rows.start - rows.start) if len(chosen) else None
    if own is None:
        return None
    difference = float((output[:, chosen].float() - own).abs().max())
    if not difference <= tolerance(piece, own, output.dtype):
        raise _differs(call, piece, path, "the output of the model's own attention function", difference, own)
    return Compared(chosen, own, difference)


def _compare_unmasked(call: Call, item: int, piece: Piece, output: Output, path: str) -> None:
    """Compare a page that came without a mask with what the function that was found gives by its own flag.

    Raises:
        ModelError: it hides other keys.
    """
    function = without_mask(call.implementation)
    if call.mask is not None or function is None:
        return
    q, k, v = (array[item][None].float() for array in (call.q, call.k, call.v))
    bias = call.options.get("position_bias")
    mine = None if bias is None else bias[item if len(bias) > 1 else 0][None].float()
    own = function(call.module, q, k, v, None, **call.options | {"position_bias": mine})[0][0].detach().transpose(0, 1)
    difference = float((output.float() - own).abs().max())
    if not difference <= tolerance(piece, own, output.dtype):
        raise _differs(call, piece, path, f"the output of {call.implementation}", difference, own)


def own_output(call: Call, item: int, rows: range, keys: range, chosen: Int[Tensor, " n"]) -> Output | None:
    """The output of the model's own attention function at some queries of a sequence, in float32; None without one.

    Args:
        call: the call.
        item: the sequence's number in the batch.
        rows: the positions of all queries.
        keys: the positions of all keys.
        chosen: which queries, numbers within `rows`.
    """
    function = call.plain or without_mask(call.implementation)
    if function is None:
        return None
    options = dict(call.options)
    bias = options.get("position_bias")
    if bias is not None:
        options["position_bias"] = bias[item if len(bias) > 1 else 0][None, :, chosen].float()
    q, k, v = (array[item][None].float() for array in (call.q, call.k, call.v))
    strip = _strip(call, item, rows, keys, chosen)
    output: Tensor = function(call.module, q[:, :, chosen], k, v, strip, **options)[0]
    return output[0].detach().transpose(0, 1)  # (n, heads, d_v) -> (heads, n, d_v)


def _strip(call: Call, item: int, rows: range, keys: range, chosen: Int[Tensor, " n"]) -> Tensor | None:
    """What is added to the scores of some queries, (1, heads or 1, n, keys); bool as eager was given it."""
    lowest = torch.finfo(torch.float32).min
    indices = call.options.get("indices")
    picked = None if indices is None else chosen_strip(indices[item], chosen, len(keys))
    if isinstance(call.mask, torch.Tensor):
        strip = matrix_of(call.mask, item, len(rows), len(keys))[:, chosen.to(call.mask.device)]
        if strip.dtype == torch.bool and kind_of(call.implementation) != "eager":
            strip = torch.zeros_like(strip, dtype=torch.float32).masked_fill(~strip, lowest)
        if picked is not None:
            strip = strip.float().masked_fill(~picked.to(strip.device), lowest)
        return strip[None] if strip.dtype == torch.bool else strip[None].float()
    key = torch.arange(keys.start, keys.stop)
    if isinstance(call.mask, ModelMask):
        seen = call.mask.visible(item, (chosen + rows.start)[:, None], key)
        seen = seen & call.mask.padding(item, keys).visible(chosen[:, None], key - keys.start)
    else:
        rule = call.rule(item, rows, keys)[0]
        if rule is EVERYTHING and picked is None:
            return None
        seen = rule.build(rows, keys).visible(chosen[:, None], key - keys.start)
    seen = seen if picked is None else seen & picked
    return torch.zeros_like(seen, dtype=torch.float32).masked_fill(~seen, lowest)[None, None].to(call.q.device)


def sees_nothing(piece: Piece, chosen: Int[Tensor, " n"]) -> Tensor:
    """Which of some queries see no key in some head, (n,): models make of them whatever their dtype's lowest number does."""
    problem = piece.problem
    if problem.spans.exact and piece.added is None:
        return (problem.spans.stop <= problem.spans.start)[chosen]
    keys = torch.arange(len(piece.keys))
    seen = problem.mask.visible(chosen[:, None], keys).expand(len(chosen), len(keys))
    nothing = ~seen.any(1)
    if piece.added is not None:
        strip = piece.added[:, chosen.to(piece.added.device)].isneginf().cpu()
        nothing |= (strip | ~seen).all(-1).any(0)
    return nothing


def rows_to_compare(queries: int, keys: int) -> Int[Tensor, " n"]:
    """All rows of a page; some of a longer matrix, the last among them."""
    if queries <= PAGE and keys <= PAGE:
        return torch.arange(queries)
    chosen: Tensor = torch.linspace(0, queries - 1, min(queries, SAMPLE), dtype=torch.float64).round().long()
    return chosen


def tolerance(piece: Piece, own: Output, dtype: torch.dtype) -> float:
    """How far an output may be from the model's own by rounding alone: that of float32 grows with the scores."""
    scores = largest_score(piece.q, piece.k, piece.scale)
    if piece.added is not None:
        scores += float(piece.added.masked_fill(piece.added.isinf(), 0).abs().max())
    rounding = 2e-5 + 4 * torch.finfo(torch.float32).eps * scores
    if dtype != torch.float32:
        rounding += 4 * torch.finfo(dtype).eps
    return min(rounding, 0.1) * max(1e-6, float(own.abs().max()))


def _differs(call: Call, piece: Piece, path: str, expected: str, difference: float, own: Output) -> ModelError:
    scores = largest_score(piece.q, piece.k, piece.scale)
    if not torch.isfinite(own).all() or scores > torch.finfo(torch.float32).max:
        got = "NaN or infinity, of finite q, k and v"
        return ModelError(path, "scores and an output that float32 holds", got, NO_NUMBER)
    got = f"an output that differs by {difference:.1e}, where the largest number is {float(own.abs().max()):.1e}"
    hint = f"{type(call.module).__name__} does something that softmap does not know."
    of_booleans = isinstance(call.mask, torch.Tensor) and call.mask.dtype == torch.bool
    if of_booleans and kind_of(call.implementation) == "eager":
        hint = (
            "Eager attention adds a bool mask to the scores, as 0 and 1: give one of numbers, or set the model to sdpa."
        )
    return ModelError(path, expected, got, hint)
