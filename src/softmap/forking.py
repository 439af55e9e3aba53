"""What is shared between threads, so that a process forked while they compute can go on by itself.

A fork copies the memory of all threads and none of the others: a lock that one of them held stays held for ever. So locks
are made anew in the child, and a property that is computed once holds no lock while it is computed.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class Lock:
    """A lock, or one that its owner may take again, which is free in a forked child unless the forking thread holds it.

    Args:
        reentrant: whether the thread that holds it may take it again.
    """

    def __init__(self, *, reentrant: bool = False) -> None:
        self._make: Callable[[], Any] = threading.RLock if reentrant else threading.Lock
        self._lock = self._make()
        _locks.add(self)

    def __enter__(self) -> Self:
        self._lock.acquire()
        return self

    def __exit__(self, *raised: object) -> None:
        self._lock.release()

    def _renew(self) -> None:
        owned = getattr(self._lock, "_is_owned", None)  # of an RLock: what this thread holds, it will release
        if owned is None or not owned():
            self._lock = self._make()


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


class cached_property(Generic[T]):  # noqa: N801 (functools' name: it stands in its place)
    """A property that is computed once: functools', which before Python 3.12 holds one lock for all objects meanwhile.

    Threads that ask at the same time may each compute it, and get the same object.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function, self.__doc__ = function, function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> Self | T:
        if instance is None:
            return self
        kept: dict[str, Any] = instance.__dict__
        found: T = kept[self._name] if self._name in kept else kept.setdefault(self._name, self._function(instance))
        return found


def _after_fork() -> None:
    """Make the locks anew; leave torch on one thread, for those of its pool are gone and it would wait for them."""
    for lock in list(_locks):
        lock._renew()
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
