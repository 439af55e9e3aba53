"""Checks of shapes and options, with errors that say which two things do not fit and how."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import Any

from softmap.arrays import Array, shape
from softmap.errors import ParameterError, ShapeError


def check_rank(name: str, array: Array | None, axes: tuple[str, ...]) -> None:
    """Refuse an array that has not one dimension for each of `axes`."""
    if array is None or len(array.shape) == len(axes):
        return
    hint = f"Its axes are {', '.join(axes)}."
    if len(array.shape) > len(axes):
        first = ", ".join(["0"] * (len(array.shape) - len(axes)))
        hint = f"One head of one sequence at a time: take {name}[{first}]."
    elif len(array.shape) == 1:
        hint = f"Its axes are {', '.join(axes)}; add the missing one, as in {name}[None, :]."
    dimensions = "1 dimension" if len(axes) == 1 else f"{len(axes)} dimensions"
    raise ShapeError(name, f"{dimensions} ({', '.join(axes)})", f"shape {shape(array)}", hint)


def check_fit(
    one: str, first: Array, first_axis: int, other: str, second: Array | None, second_axis: int, axis: str
) -> None:
    """Refuse two arrays whose sizes along a shared axis differ."""
    if second is None or first.shape[first_axis] == second.shape[second_axis]:
        return
    sizes = f"{first.shape[first_axis]} and {second.shape[second_axis]}"
    got = f"{sizes} ({one} has shape {shape(first)}, {other} has shape {shape(second)})"
    transposed = (
        other.startswith("w_") and second_axis == 0 and first.shape[first_axis] == second.shape[1 - second_axis]
    )
    hint = (
        f"{other} seems transposed (torch.nn.Linear keeps its weight as (out, in)): give {other}.T."
        if transposed
        else f"Axis {first_axis} of {one} and axis {second_axis} of {other} must have the same length."
    )
    raise ShapeError(f"{one} and {other}", f"the same {axis}", got, hint)


def check_causal(causal: bool, queries: int, keys: int) -> None:
    """Refuse causal where it is not plain which key is a query's own, or whether it is meant."""
    if not isinstance(causal, bool):
        raise ParameterError("causal", "True or False", repr(causal), "Leave it out to let every token see all.")
    if causal and queries != keys:
        raise ShapeError(
            "causal=True",
            "as many queries as keys",
            f"{queries} queries and {keys} keys",
            "Give the whole sequence's queries, or leave causal out.",
        )


def check_d_k(d_k: Any) -> int:
    """The dimension of the keys as a whole number of at least 1."""
    hint = "d_k is the dimension of the key vectors, as in d_k=64."
    try:
        number = operator.index(d_k)
    except TypeError as error:
        raise ParameterError("d_k", "a whole number", repr(d_k), hint) from error
    if isinstance(d_k, bool):
        raise ParameterError("d_k", "a whole number", str(d_k), hint)
    if number < 1:
        raise ParameterError("d_k", "a whole number of at least 1", str(number), hint)
    return number


def check_scale(scale: Any, d_k: int) -> float:
    """The factor of step 2: the one given, else 1/√d_k."""
    if scale is None:
        return 1 / math.sqrt(d_k)
    hint = f"It multiplies the scores; leave it out for 1/√d_k = {1 / math.sqrt(d_k):g}."
    if isinstance(scale, bool) or not isinstance(scale, Real):
        raise ParameterError("scale", "a finite number", f"{scale!r}, a {type(scale).__name__}", hint)
    try:
        factor = float(scale)
    except OverflowError as error:
        raise ParameterError("scale", "a finite number", "one beyond float64", hint) from error
    if not math.isfinite(factor):
        raise ParameterError("scale", "a finite number", str(factor), hint)
    return factor
