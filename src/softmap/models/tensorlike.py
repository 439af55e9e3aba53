"""What a mask does that a model uses itself, rather than hand it on: it becomes the tensor that others make of it.

An indexer that scores only visible keys, a mask made of values, two masks joined to one: such models index their mask,
compare it, and fill it. Up to a page that is done with the tensor that the model's own mask function would have made;
beyond, it would be a matrix of queries x keys, and is refused. What only asks for its outline (shape, dtype) makes none.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from softmap.errors import ModelError
from softmap.mechanism import PAGE

if TYPE_CHECKING:
    from torch import Tensor

OUTLINE = frozenset(
    ["dtype", "ndim", "dim", "size", "numel", "nelement", "layout", "requires_grad", "is_floating_point", "is_complex"]
)
"""What is known of a tensor without its numbers."""
ADDITION = ("add", "__add__", "__radd__")
ARITHMETIC = "sub rsub mul rmul truediv rtruediv and rand or ror xor rxor invert neg lt le gt ge abs pow rpow"
"""Operators of tensors; addition is a mask's own."""


class TensorLike:
    """A mask that becomes a tensor where a model uses it as one.

    Attributes:
        model: the kind of model that uses it, as errors name it.
        outline: its shape and dtype, as a tensor without numbers.
        device: where the tensor would be.
    """

    model: str
    device: torch.device

    @property
    @abstractmethod
    def outline(self) -> Tensor:
        """The tensor without its numbers, on the device "meta"."""

    @abstractmethod
    def make(self) -> Tensor:
        """The tensor, as the model's own mask function makes it."""

    @cached_property
    def _made(self) -> tuple[Tensor, int]:
        """The tensor, and how often it had been written to by then."""
        with torch.inference_mode(False):
            made = self.make()
        return made, made._version

    def tensor(self, use: str) -> Tensor:
        """The tensor, for a use that errors name.

        Raises:
            ModelError: it would be larger than a page.
        """
        self.refuse_beyond_a_page(use)
        return self._made[0]

    def refuse_beyond_a_page(self, use: str) -> None:
        """Refuse a use that needs the matrix, where that is larger than a page.

        Raises:
            ModelError: it is.
        """
        queries, keys = self.outline.shape[2:]
        if queries * keys > PAGE * PAGE:
            expected = f"a mask that is handed on to the attention function, or one of at most {PAGE} x {PAGE}"
            hint = "The model itself needs a matrix of queries x keys there: record a shorter text."
            raise ModelError(self.model, expected, f"a use of {use} of one of {queries} x {keys}", hint)

    @property
    def is_written_to(self) -> bool:
        """Whether the model has changed the tensor since: then the mask no longer says what the model sees."""
        made = self.__dict__.get("_made")
        return made is not None and made[0]._version != made[1]

    @abstractmethod
    def added_to(self, numbers: Tensor) -> Tensor:
        """A model's own bias with this mask, as numbers to add to the scores."""

    def __add__(self, other: Any) -> Any:
        return self.added_to(other) if isinstance(other, torch.Tensor) else self.tensor("its numbers") + other

    __radd__ = __add__

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(function, "__name__", "itself")
        if name in ADDITION and len(args) == 2 and isinstance(args[0], torch.Tensor) and not kwargs:
            return args[1].added_to(args[0])
        return function(*_as_tensors(args, name), **_as_tensors(dict(kwargs or {}), name))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(torch.Tensor, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if name in OUTLINE:
            return getattr(self.outline, name)
        if name.endswith("_"):
            self._refuse_writing(f"its {name}")
        return getattr(self.tensor(f"its {name}"), name)

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Itself where it is only moved, which changes nothing of what it says; else a tensor."""
        if "dtype" in kwargs or any(isinstance(arg, torch.dtype | torch.Tensor) for arg in args):
            return self.tensor("its to").to(*args, **kwargs)
        return self

    def contiguous(self) -> Any:
        """Itself: generation with a cache of fixed size asks for it."""
        return self

    def __getitem__(self, index: Any) -> Tensor:
        return self.tensor("its parts")[_as_tensors(index, "its parts")]

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        self._refuse_writing("its parts")

    def __len__(self) -> int:
        return self.outline.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tensor("its parts"))

    def __eq__(self, other: object) -> Any:
        if isinstance(other, int | float | torch.Tensor):
            return self.tensor("its numbers") == other
        return self is other

    def __ne__(self, other: object) -> Any:
        same = self == other
        return not same if isinstance(same, bool) else ~same

    __hash__ = object.__hash__

    def _refuse_writing(self, what: str) -> NoReturn:
        hint = "softmap can't follow what is written into a mask in place."
        raise ModelError(self.model, "a mask that is read", f"a write to it by {what}", hint)


def _as_tensors(value: Any, use: str) -> Any:
    """The value, with tensors in place of such masks."""
    if isinstance(value, TensorLike):
        return value.tensor(use)
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return type(value)(_as_tensors(part, use) for part in value)
    if type(value) is dict:
        return {name: _as_tensors(part, use) for name, part in value.items()}
    return value


def _arithmetic(name: str) -> Any:
    def operate(self: TensorLike, *others: Any) -> Any:
        return getattr(self.tensor(f"its {name}"), name)(*_as_tensors(others, name))

    operate.__name__ = name
    return operate


for _name in ARITHMETIC.split():
    setattr(TensorLike, f"__{_name}__", _arithmetic(f"__{_name}__"))
