"""The parameters of a question, read and checked: they come as strings, from anybody."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from softmap.errors import ParameterError, SoftmapError
from softmap.escaping import escaped

LONGEST = 200
"""Characters of a text that is looked for, at most."""


class Parameters:
    """What came with a question.

    Args:
        given: names and values.
        known: the names that the question knows.

    Raises:
        ParameterError: a name that it does not know.
    """

    def __init__(self, given: Mapping[str, str], known: Sequence[str]) -> None:
        self._given = given
        unknown = next((name for name in given if name not in known), None)
        if unknown is not None:
            expected = f"none but {', '.join(known)}" if known else "none"
            raise ParameterError("parameters", expected, shown(unknown), "Leave it out.")

    def text(self, name: str) -> str:
        """A text as it came.

        Raises:
            ParameterError: it is missing, or longer than `LONGEST`.
        """
        value = self._given.get(name)
        if value is None:
            raise ParameterError(name, "a value", "none", f"Say which: {name}=…")
        if len(value) > LONGEST:
            hint = "Ask for less."
            raise ParameterError(name, f"at most {LONGEST} characters", f"{len(value)}", hint)
        return value

    def choice(self, name: str, options: Sequence[str], default: str | None = None) -> str:
        """One of some words.

        Raises:
            ParameterError: it is missing without a default, or is another.
        """
        if default is not None and name not in self._given:
            return default
        value = self.text(name)
        if value not in options:
            raise ParameterError(name, " or ".join(options), shown(value), f"As in {name}={options[0]}.")
        return value

    def number(self, name: str, low: int, high: int, *, default: int | None = None, what: str = "") -> int:
        """A whole number.

        Args:
            name: the parameter.
            low: the smallest that it may be.
            high: the largest.
            default: what it is where it was left out; None where it has to be given.
            what: what it counts, for the error.

        Raises:
            ParameterError: it is missing, no whole number, or outside of these.
        """
        if default is not None and name not in self._given:
            return default
        value = self.text(name)
        number = int(value) if re.fullmatch("[0-9]{1,15}", value) else -1
        if not low <= number <= high:
            range_ = f"a whole number from {low} to {high}" if high > low else f"{low}, the only one"
            raise ParameterError(name, range_, shown(value), what or "It counts from 0.")
        return number

    def flag(self, name: str) -> bool:
        """1 or 0; 0 unless given.

        Raises:
            ParameterError: it is another.
        """
        return self.choice(name, ("0", "1"), "0") == "1"

    def pairs(self, name: str, most: int) -> list[tuple[str, str]]:
        """A comma list of pairs of numbers, as in "3.1,3.2": digits, not yet numbers.

        Raises:
            ParameterError: it is missing, no such list, or has more than `most`.
        """
        value = self._given.get(name, "")
        if value.count(",") >= most:
            raise ParameterError(name, f"at most {most}", f"{value.count(',') + 1}", "Ask for fewer heads.")
        found = [re.fullmatch(r"([0-9]{1,6})\.([0-9]{1,6})", pair) for pair in value.split(",")]
        pairs = [(pair[1], pair[2]) for pair in found if pair is not None]
        if len(pairs) < len(found):
            raise ParameterError(name, "layer.head, with commas between several", shown(value), "As in 3.1,3.2.")
        return pairs


def shown(value: str) -> str:
    """A value as an error quotes it."""
    return repr(value if len(value) <= 60 else f"{value[:59]}…")


def as_json(error: SoftmapError) -> dict[str, Any]:
    """An error as an answer."""
    parts = {name: escaped(getattr(error, name)) for name in ("subject", "expected", "got", "hint")}
    return {"error": {"message": str(error), **parts}}
