"""The plain attention function that a model would call by itself: the default that its class hands to transformers.

A class asks ``ALL_ATTENTION_FUNCTIONS.get_interface(implementation, default)`` each time it runs. Most call their default
``eager_attention_forward``; some do not, and some have several in one file. So it is seen where it is asked for.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from transformers import AttentionInterface

_LOCK = threading.Lock()
_watchers = 0


@contextlib.contextmanager
def seeing_defaults(function: Callable[..., Any]) -> Iterator[None]:
    """Hand a registered attention function the default beside it, as `eager`, wherever it is asked for meanwhile."""
    global _watchers  # noqa: PLW0603  # the last one to leave puts the method back
    with _LOCK:
        _watchers += 1
        if _watchers == 1:
            AttentionInterface.get_interface = _with_default(_own, function)  # type: ignore[method-assign]
    try:
        yield
    finally:
        with _LOCK:
            _watchers -= 1
            if not _watchers:
                AttentionInterface.get_interface = _own  # type: ignore[method-assign]


def _with_default(method: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    def get_interface(self: AttentionInterface, attn_implementation: str, default: Callable[..., Any]) -> Any:
        found = method(self, attn_implementation, default)
        return partial(found, eager=default) if found is function else found

    return get_interface


_own = AttentionInterface.get_interface
