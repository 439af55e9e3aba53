"""What goes wrong inside softmap while a model runs is softmap's own, and is never blamed on what the model was given."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from traceback import extract_tb
from typing import Any, TypeVar

import torch

from softmap.errors import ModelError, SoftmapError

Function = TypeVar("Function", bound=Callable[..., Any])


def answering_for_itself(name: Callable[..., str]) -> Callable[[Function], Function]:
    """Make whatever a function raises an error that says it was raised in softmap.

    Args:
        name: what errors call the model, from the function's arguments.
    """

    def decorate(function: Function) -> Function:
        @wraps(function)
        def answering(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except (SoftmapError, OSError, MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                raise fault(name(*args, **kwargs), error) from error

        return answering  # type: ignore[return-value]  # it takes and gives the same

    return decorate


def fault(name: str, error: Exception) -> ModelError:
    """That softmap can't do with a model what it should."""
    last = extract_tb(error.__traceback__)[-1]
    got = f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
    hint = (
        "It was raised while softmap read this attention, not by what the model was given: softmap does not know such "
        "attention. Please report it with the model's class."
    )
    return ModelError(name, "attention that softmap can compute", got, hint)
