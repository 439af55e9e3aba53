"""A story in a terminal, with ``rich``: coloured where it can be, plain where it is piped or NO_COLOR is set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.color import Color
from rich.color_triplet import ColorTriplet
from rich.padding import Padding
from rich.style import Style
from rich.text import Text

from softmap.console import as_plain
from softmap.language import say
from softmap.narrative import headline, mark, narrate
from softmap.render import colors
from softmap.render.lines import break_lines
from softmap.sections import Grid, Section, Strips

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

    from softmap.story import Story

WIDEST = 100
"""Columns of a sentence, at most: longer lines are hard to read."""
LABEL = 14
"""Columns of a row's label, at most."""
TOP = 8
"""Keys of the pointed-out row that are shown where a matrix is too wide."""
STRIPS = 8
"""Tokens whose strips are shown."""
TALLEST = 40
"""Rows of a matrix, at most."""
NAME, BAR, SUM = 14, 24, 7
"""Columns of a column's label, at most; of the longest bar; of a row's sum."""
MARK, NO_MARK = "▸ ", "  "


class Page:
    """What ``rich`` prints for a story."""

    def __init__(self, story: Story) -> None:
        self.story = story

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text | Padding]:
        colored = console.color_system in ("truecolor", "256") and not console.no_color
        setter = _Setter(self.story.language, options.max_width, colored)
        yield Text(headline(self.story.text), style="bold")
        for section in narrate(self.story):
            yield from setter.section(section)


def as_text(story: Story, width: int = 80) -> str:
    """The story as plain text without colour."""
    return as_plain(Page(story), width)


class _Setter:
    """Sets sections on lines of a given width."""

    def __init__(self, language: str, width: int, colored: bool) -> None:
        self.language, self.width, self.colored = language, width, colored

    def section(self, section: Section) -> Iterator[Text | Padding]:
        yield Text()
        if section.title:
            yield Text(section.title, style="bold")
        for sentence in section.sentences:
            yield self._sentence(sentence)
        for picture in section.pictures:
            yield Text()
            yield from self._strips(picture) if isinstance(picture, Strips) else self._grid(picture)
        if section.readings:
            yield Text()
            yield from self._readings(section)

    def _sentence(self, sentence: str) -> Padding:
        return Padding(
            Text("\n".join(break_lines(sentence, lambda line: cell_len(line) <= min(self.width, WIDEST) - 2))),
            (0, 0, 0, 2),
        )

    def _readings(self, section: Section) -> Iterator[Text | Padding]:
        """A sentence a row where the rows are shown; else that of the row that is."""
        grid = next(picture for picture in section.pictures if isinstance(picture, Grid) and picture.pointed)
        shown = (
            section.readings
            if self._fits(self._with_fewer_digits(grid))
            else [r for r in section.readings if r.row in grid.pointed]
        )
        for reading in shown:
            yield self._sentence(reading.text)
        if len(shown) < len(section.readings):
            left = len(section.readings) - len(shown)
            yield self._sentence(say(self.language, "left_out_readings", count=left))

    # ---- matrices

    def _grid(self, grid: Grid) -> Iterator[Text | Padding]:
        yield Padding(Text(grid.name, style="italic"), (0, 0, 0, 2))
        grid = self._with_fewer_digits(grid)
        if grid.essential or self._fits(grid):
            yield from self._bands(grid)
        elif self._fits_across(grid):
            yield from self._bands(grid.pointed_alone())
            yield self._left_out(grid, len(grid.columns))
        else:
            yield from self._top_keys(grid)

    def _with_fewer_digits(self, grid: Grid) -> Grid:
        """The same matrix with one decimal or none, where that lets it fit."""
        narrower = (replace(grid, digits=digits) for digits in (2, 1, 0))
        return next((fitting for fitting in narrower if self._fits(fitting)), grid)

    def _fits(self, grid: Grid) -> bool:
        return len(grid.rows) <= TALLEST and self._fits_across(grid)

    def _fits_across(self, grid: Grid) -> bool:
        return len(grid.columns) * (_number_width(grid) + 1) <= self._room(grid)

    def _room(self, grid: Grid) -> int:
        """Columns of the page that are left for cells."""
        return self.width - len(MARK) - _label_width(grid.rows) - 1 - (SUM if grid.sums else 0)

    def _bands(self, grid: Grid) -> Iterator[Text]:
        """All rows and columns; in bands below each other where they do not fit side by side."""
        numbers, names = _number_width(grid), min(NAME, max(map(cell_len, grid.columns)))
        cell = max(numbers + 1, min(names + 1, self._room(grid) // len(grid.columns)))
        fitting = max(1, self._room(grid) // cell)
        for first in range(0, len(grid.columns), fitting):
            yield from self._band(grid, range(first, min(first + fitting, len(grid.columns))), cell)

    def _band(self, grid: Grid, columns: range, cell: int) -> Iterator[Text]:
        label = _label_width(grid.rows)
        sums = grid.sums and columns.stop == len(grid.columns)
        head = Text(NO_MARK + " " * (label + 1))
        for j in columns:
            head.append(_right(grid.columns[j], cell - 1) + " ", style="dim" if grid.essential else "")
        if sums:
            head.append(_right(say(self.language, "sum"), SUM - 1), style="dim")
        yield head
        shades = grid.heat()
        for i, name in enumerate(grid.rows):
            line = _row_label(name, label, marked=i in grid.pointed or (grid.mark or (None,))[0] == i)
            for j in columns:
                text = MARK[0] + grid.text(i, j) if (i, j) == grid.mark else grid.text(i, j)
                line.append(_right(text, cell - 1) + " ", style=self._ground(float(shades[i, j])))
            if sums:
                line.append(_right(grid.sum_text(i), SUM - 1), style="dim")
            yield line

    def _top_keys(self, grid: Grid) -> Iterator[Text | Padding]:
        """The pointed-out rows' largest entries, one a line with its place in the text, and what was left out."""
        for row in grid.pointed:
            values, shades = grid.values[row], np.nan_to_num(grid.heat()[row])
            keys = [int(j) for j in np.argsort(-values, kind="stable")[:TOP]]
            label = _label_width([grid.rows[row], *(grid.columns[j] for j in keys)])
            yield _row_label(grid.rows[row], label, marked=True)
            for j in keys:
                line = _row_label(grid.columns[j], label, marked=False)
                line.append(_right(grid.text(row, j), NAME) + " ")
                if grid.has_bars:
                    line.append("█" * round(shades[j] * BAR), style=self._ink(float(shades[j])))
                line.append(f"  :{j}", style="dim")
                yield line
        yield self._left_out(grid, min(TOP, len(grid.columns)))

    def _left_out(self, grid: Grid, keys: int) -> Padding:
        counts = {"left_out_rows": len(grid.rows) - len(grid.pointed), "left_out_keys": len(grid.columns) - keys}
        left = [say(self.language, name, count=count) for name, count in counts.items() if count]
        top = say(self.language, "left_out_top", count=keys) if keys < len(grid.columns) else ""
        rows = ", ".join(mark(grid.rows[i]) for i in grid.pointed)
        return self._sentence(say(self.language, "left_out", row=rows, keys=top, left=", ".join(left)))

    # ---- strips

    def _strips(self, strips: Strips) -> Iterator[Text | Padding]:
        shown = range(len(strips.labels)) if len(strips.labels) <= STRIPS else strips.pointed
        label = _label_width([strips.labels[i] for i in shown])
        room = self.width - len(MARK) - label - 1
        total = strips.values.shape[1]
        notes = [say(self.language, "strip_cut", shown=room, total=total)] if total > room else []
        notes.append(say(self.language, "strip_range", range=f"{strips.span:.3g}"))
        yield Padding(Text(strips.formula, style="italic").append(f"   {'; '.join(notes)}", style="dim"), (0, 0, 0, 2))
        for i in shown:
            line = _row_label(strips.labels[i], label, marked=i in strips.pointed)
            for value in strips.values[i, :room] / strips.span:
                line.append(*self._signed(float(value)))
            yield line
        if len(shown) < len(strips.labels):
            yield self._sentence(say(self.language, "other_tokens", count=len(strips.labels) - len(shown)))

    def _signed(self, value: float) -> tuple[str, Style]:
        if not self.colored:
            return colors.block(value), Style()
        return " ", Style(bgcolor=_rich(colors.signed(value)))

    # ---- colours

    def _ground(self, shade: float) -> Style:
        if not self.colored or math.isnan(shade):
            return Style()
        ground = colors.heat(shade)
        return Style(color=_rich(colors.on(ground)), bgcolor=_rich(ground))

    def _ink(self, shade: float) -> Style:
        return Style(color=_rich(colors.heat(0.35 + 0.5 * shade))) if self.colored else Style()


def _row_label(name: str, width: int, *, marked: bool) -> Text:
    line = Text(MARK if marked else NO_MARK, style="bold" if marked else "")
    return line.append(_right(name, width) + " ", style="bold" if marked else "")


def _label_width(labels: Sequence[str]) -> int:
    return min(LABEL, max(map(cell_len, labels)))


def _number_width(grid: Grid) -> int:
    """Columns of the longest number, and of the mark before one."""
    return max(cell_len(grid.text(i, j)) for i, j in _extremes(grid)) + (1 if grid.mark else 0)


def _extremes(grid: Grid) -> Iterable[tuple[int, int]]:
    """Where the longest numbers can stand: the smallest, the largest, and −∞."""
    for place in (
        int(grid.values.argmin()),
        int(grid.values.argmax()),
        int(np.where(np.isfinite(grid.values), grid.values, 0).argmin()),
    ):
        i, j = np.unravel_index(place, grid.values.shape)
        yield int(i), int(j)


def _right(text: str, width: int) -> str:
    """Set to the right in so many columns; what does not fit ends in an ellipsis."""
    if cell_len(text) > width:
        text = set_cell_size(text, width - 1) + "…"
    return " " * (width - cell_len(text)) + text


def _rich(color: colors.Color) -> Color:
    return Color.from_triplet(ColorTriplet(*color))
