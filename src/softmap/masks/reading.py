"""Reading what masks, and biases too, are made of."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from softmap.errors import ArrayKindError, DtypeError, ParameterError, ShapeError
from softmap.tensors import joint_shape, read_tensor

FAR = 1 << 60  # tokens: beyond every sequence, and sums of a few of it stay within int64


def read_count(name: str, value: Any, least: int = 0) -> int:
    """A whole number of at least `least`; those beyond every sequence are all the same.

    Raises:
        ParameterError: it is none, or below.
    """
    number = _whole(value)
    if number is None or number < least:
        raise ParameterError(name, f"a whole number of at least {least}", repr(value), "It counts tokens.")
    return min(number, FAR)


def read_offset(value: Any) -> int | None:
    """A whole number of any sign; None stays None.

    Raises:
        ParameterError: it is none, or beyond every sequence.
    """
    if value is None:
        return None
    number = _whole(value)
    if number is None or abs(number) > FAR:
        hint = "It is the key at which query 0 stands: keys − queries where past keys are cached."
        expected = "a whole number" if number is None else f"a whole number from {-FAR} to {FAR} (2^60)"
        raise ParameterError("offset", expected, repr(value), hint)
    return number


def check_offset(subject: object, offset: int | None, queries: int, keys: int) -> None:
    """Refuse to guess where the queries stand among the keys.

    Raises:
        ShapeError: queries and keys differ in number, and there is no offset.
    """
    if offset is None and queries != keys:
        raise ShapeError(
            repr(subject),
            "as many queries as keys, or an offset",
            f"{queries} queries and {keys} keys",
            "Say at which key query 0 stands: "
            f"offset={keys - queries} if the queries are the last tokens, offset=0 if they are the first.",
        )


def read_valid(valid: Any) -> torch.Tensor:
    """A vector of booleans, for which 0 and 1 may stand; a copy, so that the mask stays what it is.

    Raises:
        ShapeError: not one dimension, or empty.
        DtypeError: neither booleans nor integers.
        ParameterError: an integer other than 0 and 1.
    """
    vector = _read_vector("valid", valid)
    expected, meaning = "booleans, or integers 0 and 1", "True or 1 means a real token"
    if vector.dtype.is_floating_point or vector.dtype.is_complex:
        hint = f"{meaning}; of a mask of 0 and −inf to add, give valid == 0."
        raise DtypeError("valid", expected, str(vector.dtype), hint)
    wrong = vector[(vector != 0) & (vector != 1)]
    if len(wrong):
        raise ParameterError("valid", expected, str(int(wrong[0])), f"{meaning}; of token ids, give ids != padding id.")
    return vector.to(torch.bool, copy=True)


def read_ids(name: str, ids: Any) -> torch.Tensor:
    """A vector of integers, as int64; a copy, so that the mask stays what it is.

    Raises:
        ShapeError: not one dimension, or empty.
        DtypeError: not integers.
    """
    vector = _read_vector(name, ids)
    if vector.dtype == torch.bool:
        raise DtypeError(name, "integers", "booleans", "Which tokens are real is said by padding(valid).")
    if vector.dtype.is_floating_point or vector.dtype.is_complex:
        raise DtypeError(name, "integers", str(vector.dtype), "Number the documents: 0, 0, 0, 1, 1.")
    return vector.to(torch.int64, copy=True)


def check_function(f: Callable[..., Any], arguments: tuple[str, ...], hint: str) -> None:
    """Refuse what cannot be called with so many index tensors.

    Args:
        f: what was given.
        arguments: what it will be called with.
        hint: what to do with a function of other arguments.

    Raises:
        ArrayKindError: it is no function.
        ParameterError: it takes other arguments.
    """
    if not callable(f):
        expected = f"a function f({', '.join(arguments)})"
        raise ArrayKindError("f", expected, type(f).__name__, "For a ready array: dense().")
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):  # some built in functions have none to look at
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise ParameterError("f", f"f({', '.join(arguments)})", f"f{signature}", hint) from error


def read_list(name: str, value: Any, dtype: torch.dtype | None = None) -> Any:
    """A list or tuple of numbers as a tensor; anything else as it is.

    Raises:
        ArrayKindError: a list of something else, or with rows that differ in length.
    """
    if not isinstance(value, list | tuple):
        return value
    try:
        return torch.tensor(value, dtype=dtype, device="cpu")
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        reason = str(error).rstrip(".")
        raise ArrayKindError(name, "a list of numbers", f"one that is not ({reason})", "Give an array.") from error


def read_answer(
    answer: Any, indices: tuple[torch.Tensor, ...], *, owner: str, source: str, floats: bool
) -> torch.Tensor:
    """What a mask or a bias answers for indices that broadcast, in their shape and on their device.

    Args:
        answer: what it gave.
        indices: what it was asked for.
        owner: the mask or bias, as errors name it.
        source: what gave it, as errors name it.
        floats: whether floats are wanted, not booleans.

    Raises:
        DtypeError: something else than a tensor of those.
        ShapeError: a shape that does not broadcast to the indices'.
    """
    kind, shape = ("floats" if floats else "booleans"), joint_shape(*indices)
    if not isinstance(answer, torch.Tensor) or not (
        answer.dtype.is_floating_point if floats else answer.dtype == torch.bool
    ):
        got = str(answer.dtype) if isinstance(answer, torch.Tensor) else type(answer).__name__
        hint = (
            "For True and False use a mask; for whole numbers, .float()."
            if floats
            else "Compare in it, as in key <= query."
        )
        raise DtypeError(owner, f"a tensor of {kind} from {source}", got, hint)
    try:
        return answer.detach().to(indices[-1].device).expand(shape)
    except RuntimeError as error:
        asked = ", ".join(str(tuple(index.shape)) for index in indices)
        got = f"shape {tuple(answer.shape)} for indices of shapes {asked}"
        hint = f"{source} must work index by index."
        raise ShapeError(owner, f"{kind} of shape {shape}, or that broadcast to it", got, hint) from error


def _whole(value: Any) -> int | None:
    """The whole number that a value is, if it is one (True and False are not)."""
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _read_vector(name: str, value: Any) -> torch.Tensor:
    vector = read_tensor(name, read_list(name, value))
    if vector.ndim != 1 or vector.numel() == 0:
        hint = f"One sequence at a time: take {name}[0]." if vector.ndim == 2 else "Give one entry for each token."
        raise ShapeError(name, "1 dimension with at least one entry", f"shape {tuple(vector.shape)}", hint)
    return vector
