"""Calls of a module's method, however it is entered: ``module.forward(...)`` too, which runs past the module's hooks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


class Watch:
    """Who is told of the calls.

    Attributes:
        before: called with the module and its arguments.
        after: called with the module, its positional arguments and its output: None after an exception.
        open: whether anybody still listens.
    """

    def __init__(self, before: Callable[..., None], after: Callable[..., None]) -> None:
        self.before, self.after = before, after
        self.open = True

    def __deepcopy__(self, memo: dict[int, Any]) -> Watch:
        """One that nobody listens to: a copy of the module is another module."""
        copied = Watch(self.before, self.after)
        copied.open = False
        return copied


@contextlib.contextmanager
def watching_calls(
    module: nn.Module, before: Callable[..., None], after: Callable[..., None], method: str = "forward"
) -> Iterator[None]:
    """See each call of a module's method. What stood in its place before, as accelerate's does, is put back."""
    found, own = vars(module).get(method), getattr(module, method)
    watch = Watch(before, after)
    watched = update_wrapper(partial(_call, own, watch, module), own)
    setattr(module, method, watched)  # an attribute of this module, in front of its class's method
    try:
        yield
    finally:
        watch.open = False
        if vars(module).get(method) is watched:  # else somebody put theirs around it, and passes through it
            delattr(module, method)
            if found is not None:
                setattr(module, method, found)


def _call(own: Callable[..., Any], watch: Watch, module: nn.Module, /, *args: Any, **kwargs: Any) -> Any:
    if not watch.open:
        return own(*args, **kwargs)
    output = None
    try:
        watch.before(module, args, kwargs)
        output = own(*args, **kwargs)
        return output
    finally:
        watch.after(module, args, output)
