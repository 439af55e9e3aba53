"""What a manifest holds, read entry by entry, and the arrays beside it: each knows its place, so that errors name it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from softmap.errors import RecordingError, SoftmapError

if TYPE_CHECKING:
    from torch import Tensor, dtype

T = TypeVar("T")
_FAR = 1 << 60  # beyond every count there is
_HINT = "docs/reference/recording.md says what belongs there; take another copy of the recording."


class Entry(NamedTuple):
    """One entry of a manifest.

    Attributes:
        value: what stands there, as JSON has it.
        place: where, as in "layers[3].scale".
        file: the manifest's path.
    """

    value: Any
    place: str
    file: str

    def error(self, expected: str, got: str | None = None) -> RecordingError:
        """That something else stands there than was expected."""
        shown = type(self.value).__name__ if isinstance(self.value, dict | list) else repr(self.value)
        got = shown if got is None else got
        got = got if len(got) <= 120 else f"{got[:120]}…"
        return RecordingError(f"{self.file}: {self.place or 'its content'}", expected, got, _HINT)

    def fields(self, *names: str, optional: str | None = None) -> list[Entry]:
        """The entries of an object that has exactly these; one more may be left out, and is null then."""
        expected = f"an object of {', '.join(names)}"
        if not isinstance(self.value, dict):
            raise self.error(expected)
        if self.value.keys() - {optional} != set(names):
            raise self.error(expected, f"one of {', '.join(map(repr, self.value)) or 'nothing'}")
        names = names if optional is None else (*names, optional)
        return [self._replace(value=self.value.get(name), place=f"{self.place}.{name}".lstrip(".")) for name in names]

    def named(self) -> dict[str, Entry]:
        """The entries of an object of any."""
        if not isinstance(self.value, dict):
            raise self.error("an object")
        return {name: self._replace(value=value, place=f"{self.place}[{name!r}]") for name, value in self.value.items()}

    def items(self, count: int | None = None) -> list[Entry]:
        """The entries of a list, of so many where it is given."""
        if not isinstance(self.value, list) or len(self.value) != (len(self.value) if count is None else count):
            raise self.error("a list" if count is None else f"a list of {count}")
        return [self._replace(value=value, place=f"{self.place}[{i}]") for i, value in enumerate(self.value)]

    def text(self) -> str:
        """A string."""
        if not isinstance(self.value, str):
            raise self.error("a string")
        return self.value

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            raise self.error("true or false")
        return self.value

    def whole(self, least: int = 0) -> int:
        """A whole number of at least so much."""
        if type(self.value) is not int or not least <= self.value <= _FAR:
            raise self.error(f"a whole number of at least {least}" if least > -_FAR else "a whole number")
        return self.value

    def offset(self) -> int | None:
        """The key at which query 0 stands, where it is given."""
        return self.optional(lambda entry: entry.whole(-_FAR))

    def number(self) -> float:
        """A finite number."""
        if type(self.value) not in (int, float) or not abs(self.value) <= sys.float_info.max:
            raise self.error("a finite number")
        return float(self.value)

    def choice(self, *choices: str) -> Any:
        """One of some strings."""
        if not isinstance(self.value, str) or self.value not in choices:
            raise self.error(f"one of {', '.join(choices)}")
        return self.value

    def kind(self, *choices: str) -> str:
        """Which of some kinds an object says it is of."""
        if not isinstance(self.value, dict) or self.value.get("kind") not in choices:
            raise self.error(f"an object of kind {', '.join(choices)}")
        return str(self.value["kind"])

    def optional(self, read: Callable[[Entry], T]) -> T | None:
        """What `read` makes of it; None where it is null."""
        return None if self.value is None else read(self)

    def all_of(self, kind: type[T], of: str) -> tuple[T, ...]:
        """A list of one kind of value, looked at as one: it may have as many as there are tokens."""
        if not isinstance(self.value, list) or not set(map(type, self.value)) <= {kind}:
            raise self.error(f"a list of {of}")
        return tuple(self.value)

    def whole_numbers(self, least: int = 0, most: int = _FAR) -> tuple[int, ...]:
        """A list of whole numbers between two, likewise."""
        numbers = self.all_of(int, "whole numbers")
        if numbers and not least <= min(numbers) <= max(numbers) <= most:
            raise self.error(f"whole numbers from {least} to {most}", f"{min(numbers)} to {max(numbers)}")
        return numbers

    def making(self, make: Callable[[], T]) -> T:
        """What `make` gives of what stands here; its refusals are told as this entry's."""
        try:
            return make()
        except RecordingError:
            raise
        except SoftmapError as error:
            raise self.error(f"{error.expected} ({error.subject})", error.got) from error


class Arrays:
    """The arrays of one sequence in a layer's file, each of them taken once.

    Args:
        found: the arrays of the whole file by name; what is taken goes from it.
        owner: the layer that they are of.
        prefix: how the names of this sequence's begin.
    """

    def __init__(self, found: dict[str, Tensor], owner: Entry, prefix: str) -> None:
        self._found, self._owner, self._prefix = found, owner, prefix

    def find(self, name: str, dtypes: tuple[dtype, ...], *shape: int | None) -> Tensor | None:
        """An array, if it is there. None in its shape stands for any size.

        Raises:
            RecordingError: it has another dtype or shape.
        """
        array = self._found.pop(self._prefix + name, None)
        if array is None:
            return None
        fits = len(array.shape) == len(shape) and all(
            wanted in (None, size) for size, wanted in zip(array.shape, shape, strict=True)
        )
        if array.dtype not in dtypes or not fits:
            sizes = ", ".join("any" if size is None else str(size) for size in shape)
            expected = f"{' or '.join(str(kind).removeprefix('torch.') for kind in dtypes)} of shape ({sizes})"
            got = f"{str(array.dtype).removeprefix('torch.')} of shape {tuple(array.shape)}"
            raise self._owner.error(f"{expected} as {self._prefix}{name}", got)
        return array

    def take(self, name: str, dtypes: tuple[dtype, ...], *shape: int | None) -> Tensor:
        """An array that must be there.

        Raises:
            RecordingError: it is not, or has another dtype or shape.
        """
        array = self.find(name, dtypes, *shape)
        if array is None:
            raise self._owner.error(f"an array {self._prefix}{name}", "none")
        return array
