"""The errors softmap raises: each says what was expected, what came, and what to do next."""

from __future__ import annotations

from softmap.escaping import escaped


class SoftmapError(Exception):
    """Base of every error softmap raises on purpose.

    Its message reads ``{subject}: expected {expected}, got {got}. {hint}``, and the four parts stay
    readable as attributes. What does not show in them stands in the message as escapes.

    Examples:
        >>> raise ShapeError("x", "2 dimensions (tokens, d_model)", "shape (3,)", "Add one: x[None, :].")
        Traceback (most recent call last):
        softmap.errors.ShapeError: x: expected 2 dimensions (tokens, d_model), got shape (3,). Add one: x[None, :].
    """

    def __init__(self, subject: str, expected: str, got: str, hint: str) -> None:
        super().__init__(subject, expected, got, hint)
        self.subject = subject
        self.expected = expected
        self.got = got
        self.hint = hint

    def __str__(self) -> str:
        return escaped(f"{self.subject}: expected {self.expected}, got {self.got}. {self.hint}")


class ArrayKindError(SoftmapError, TypeError):
    """Something that is not an array, or arrays of several libraries or devices together."""


class DtypeError(SoftmapError, TypeError):
    """An array whose numbers are not real floating point."""


class ShapeError(SoftmapError, ValueError):
    """An array of the wrong rank, an empty one, or two whose sizes do not fit."""


class NonFiniteError(SoftmapError, ValueError):
    """NaN or infinity, in an array that was given or in a stage that overflowed."""


class ParameterError(SoftmapError, ValueError):
    """An option outside the values it may take."""


class TileError(SoftmapError, IndexError):
    """An index of a matrix that no place of it has."""


class SizeError(SoftmapError, MemoryError):
    """A result too large to be made without being asked for by name."""


class TextError(SoftmapError, ValueError):
    """A text that is empty, too long for the model, or not valid UTF-8."""


class RowError(SoftmapError, LookupError):
    """A word that does not occur in the text, or occurs several times."""


class ModelError(SoftmapError, RuntimeError):
    """A model that can't be found, loaded or looked into."""


class RecordingError(SoftmapError, RuntimeError):
    """A recording that lacks what was asked of it, or files that are none, damaged or cut off."""
