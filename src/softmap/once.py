"""A property that is computed once and kept, without a lock.

`functools.cached_property` of Python 3.10 and 3.11 holds one lock for all instances of a class while it computes: threads
wait for each other's, and a child that is forked meanwhile waits for ever. Here two threads that ask at the same time may
both compute; they get the same object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class once(Generic[T]):  # noqa: N801  # is used like functools.cached_property
    """A property that is computed when it is first asked for."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make, self._name = make, make.__name__
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> once[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> once[T] | T:
        """Return what was computed; afterwards the instance's own attribute hides this."""
        if instance is None:
            return self
        made = self._make(instance)
        kept: T = vars(instance).setdefault(self._name, made)
        return kept
