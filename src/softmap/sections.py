"""What a story's sections are made of: sentences, and numbers with labels, for any renderer to set on its page."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from softmap.forking import cached_property

if TYPE_CHECKING:
    from jaxtyping import Float

    Numbers = np.ndarray[Any, Any]

Style = Literal["number", "weight", "percent", "precise"]


@dataclass(frozen=True)
class Strips:
    """One row of many numbers for each token, to be shown as a strip of colours.

    Attributes:
        stage: its name in the vocabulary, such as ``q``.
        formula: how it came about, with shapes.
        labels: one a row.
        values: (rows, numbers).
        pointed: the rows that are pointed out, several where a word has pieces.
    """

    stage: str
    formula: str
    labels: tuple[str, ...]
    values: Float[Numbers, "rows numbers"]
    pointed: range

    @property
    def span(self) -> float:
        """The absolute value whose shade is the strongest: 99% of the numbers lie within."""
        return float(np.quantile(np.abs(self.values), 0.99)) or 1.0


@dataclass(frozen=True)
class Grid:
    """A matrix with a label for each row and column, to be shown as coloured numbers.

    Attributes:
        name: what it is: a stage's name, or a phrase.
        rows: the labels of the rows.
        columns: the labels of the columns.
        values: (rows, columns).
        style: how its numbers are written.
        pointed: the rows that are pointed out, several where a word has pieces; none where rows are not words.
        sums: whether each row's sum stands at its end.
        mark: a cell that is pointed out.
        essential: whether all of it must be shown, however narrow the page.
        digits: how many decimals its numbers have, where its style leaves that open.
    """

    name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: Float[Numbers, "rows columns"]
    style: Style = "number"
    pointed: range = range(0)
    sums: bool = False
    mark: tuple[int, int] | None = None
    essential: bool = False
    digits: int = 2

    def text(self, row: int, column: int) -> str:
        """One number as it is written."""
        return write(float(self.values[row, column]), self.style, whole=self.is_whole, digits=self.digits)

    def sum_text(self, row: int) -> str:
        """The sum of one row as it is written."""
        return write(float(self.values[row].sum()), self.style)

    def pointed_alone(self) -> Grid:
        """The pointed-out rows without the others."""
        rows = slice(self.pointed.start, self.pointed.stop)
        return replace(self, rows=self.rows[rows], values=self.values[rows], pointed=range(len(self.pointed)))

    def heat(self) -> Float[Numbers, "rows columns"]:
        """Each number as a shade from 0 to 1; −∞ as NaN, for none. Shares of a whole keep 0 and 1 as they are."""
        finite = np.isfinite(self.values)
        if self.style != "number":
            return np.where(finite, self.values, np.nan)
        low, high = self.limits or (0.0, 0.0)
        shades: Numbers = (np.where(finite, self.values, np.nan) - low) / ((high - low) or 1)
        return shades

    @property
    def limits(self) -> tuple[float, float] | None:
        """The smallest and the largest number; None where none is finite, as where no key may be seen."""
        finite = self.values[np.isfinite(self.values)]
        return (float(finite.min()), float(finite.max())) if finite.size else None

    @property
    def has_bars(self) -> bool:
        """Whether a bar from 0 can stand for a number: for shares of a whole, not for scores."""
        return self.style in ("weight", "percent")

    @cached_property
    def is_whole(self) -> bool:
        """Whether all its numbers are whole, and are written so."""
        finite = self.values[np.isfinite(self.values)]
        return bool((finite == np.rint(finite)).all())


@dataclass(frozen=True)
class Reading:
    """A sentence that reads one row of a section's matrix."""

    row: int
    text: str


@dataclass(frozen=True)
class Section:
    """A part of the story.

    Attributes:
        name: ``source``, ``tokens``, ``projection``, ``scores``, ``scaled``, ``weights``, ``output`` or ``agreement``.
        title: its heading; empty where it has none.
        sentences: what is said, before the pictures.
        pictures: what is shown.
        readings: a sentence for each row, after the pictures.
    """

    name: str
    title: str
    sentences: tuple[str, ...]
    pictures: tuple[Grid | Strips, ...] = ()
    readings: tuple[Reading, ...] = ()


def write(value: float, style: Style, *, whole: bool = False, digits: int = 2) -> str:
    """A number as it stands in a matrix."""
    if math.isinf(value):
        return "−∞"
    if style == "percent":
        return percent(value)
    if style == "weight":
        return f"{value:.2f}"
    if style == "precise":
        return "0" if value == 0 else f"{value:.4f}" if abs(value) >= 0.0005 else f"{value:.0e}"
    written = f"{value:.0f}" if whole else f"{value:.{digits if abs(value) < 100 else min(digits, 1)}f}"
    return written.removeprefix("-") if not written.strip("-0.") else written  # no −0


def percent(share: float) -> str:
    """A share as a whole percentage; one that would round to nothing as less than one."""
    return "<1%" if 0 < share < 0.005 else f"{100 * share:.0f}%"
