"""A story as a figure to print: the pointed-out word's lines to all words, and the matrices of steps 1 to 3.

Text is measured first, then set where it fits; all lengths are inches, from the top left corner.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, Normalize, PowerNorm
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from softmap.language import say
from softmap.narrative import narrate
from softmap.render.fonts import FONTS, choose_fonts, drawing_style
from softmap.render.sheet import ACCENT, INK, MUTED, RULE, Sheet
from softmap.sections import Grid, percent, write

if TYPE_CHECKING:
    from jaxtyping import Float
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from softmap.story import Story
    from softmap.words import Unit

    Numbers = np.ndarray[Any, Any]
    Look = dict[str, Any]

SLATE = LinearSegmentedColormap.from_list("slate", ["#f5f6f8", "#d3d8e0", "#a0a9b8", "#6a7589", "#3b4558"])
BLUE = LinearSegmentedColormap.from_list("blue", ["#f3f6fc", "#cadaf3", "#8fb2e6", "#4f82d0", "#2457a8", "#12316b"])
"""Pale to deep in one hue each, so that they read the same in grey: weights are blue, scores are not."""

WIDTH, WIDEST, MARGIN, GAP = 7.2, 12.6, 0.1, 0.3
"""A figure is as wide as two columns of a paper, and wider where labels need it."""
LARGEST_NUMBERS, LARGEST_TABLE = 12, 32
"""Columns of a matrix with a number in each cell, and with a label at each column; a larger one is a picture."""
TOP = 12
"""How many keys are drawn of a sentence too long for the sheet."""
LONGEST_LABEL = 12


def as_figure(story: Story) -> Figure:
    """The sentence twice with lines from one word to all, above the matrices of steps 1 to 3."""
    matrices, source = _read(story)
    labels = (unit.label for unit in (*story.units, *story.words))
    sentences = (sentence for matrix in matrices for sentence in (matrix.title, matrix.caption))
    with drawing_style(choose_fonts({*"".join((*labels, *sentences, source))})):
        sheet = Sheet(WIDTH)
        lines = _choose_lines(sheet, story)
        sheet.width = max(WIDTH, sum(lines.slots) + 2 * MARGIN)
        layout = _lay_out(sheet, matrices)
        sheet.width = max(sheet.width, layout.width)
        top = _draw_heading(sheet, story, source)
        top = _draw_lines(sheet, story, lines, top)
        sheet.finish(_draw_matrices(sheet, matrices, layout, top))
    return sheet.figure


def save_figure(story: Story, path: str | os.PathLike[str] | IO[bytes], format: str) -> None:
    """Write the figure as ``svg``, ``pdf`` or ``png``: text stays text, and the bytes are the same every time."""
    figure = as_figure(story)
    dateless = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(format)
    with drawing_style(FONTS[:1]):
        figure.savefig(path, format=format, dpi=200, bbox_inches="tight", pad_inches=MARGIN, metadata=dateless)


@dataclass(frozen=True)
class _Matrix:
    """One of the steps with what stands around it; `framed` are the rows of the pointed-out word."""

    name: str
    title: str
    caption: str
    grid: Grid
    rows: tuple[Unit, ...]
    columns: tuple[Unit, ...]
    framed: range


def _read(story: Story) -> tuple[tuple[_Matrix, ...], str]:
    """What the narrative says of steps 1 to 3, and of where the numbers come from."""
    sections = {section.name: section for section in narrate(story)}
    queries = story.units[story.queries.start : story.queries.stop]
    words = tuple(story.words[i] for i in story.shown_words)
    matrices = []
    for name in ("scores", "scaled", "weights"):
        section, grid = sections[name], sections[name].pictures[0]
        assert isinstance(grid, Grid)
        if name == "weights":
            around = " ".join(section.sentences), grid, words, story.words, grid.pointed
        else:  # step 2 goes on to say why: not here
            around = section.sentences[0], grid, queries, story.units, grid.pointed
        matrices.append(_Matrix(name, section.title, *around))
    return tuple(matrices), sections["source"].sentences[0]


def _draw_heading(sheet: Sheet, story: Story, source: str) -> float:
    title = say(story.language, "figure_title", row=_quote(story.words[story.row]))
    sheet.write(MARGIN, 0.3, title, 12, weight="bold", color=INK)
    return sheet.write_lines(MARGIN, 0.5, source, 7, sheet.width - 2 * MARGIN)


# the sentence twice


@dataclass(frozen=True)
class _Key:
    """What a line leads to: a word, or all the words left out together, which have no index."""

    index: int | None
    label: str
    note: str
    share: float
    muted: bool


@dataclass(frozen=True)
class _Lines:
    """The keys, the width of each one's place, and the size of the type."""

    keys: tuple[_Key, ...]
    slots: tuple[float, ...]
    size: float


def _choose_lines(sheet: Sheet, story: Story) -> _Lines:
    """To all words where they fit on a page side by side, else to those with the largest weights."""
    weights: Float[Numbers, " words"] = story.weights[story.shown_words.index(story.row)]
    if len(weights) <= 2 * LARGEST_TABLE:
        lines = _space(sheet, _keys(story, weights, range(len(weights))))
        if sum(lines.slots) <= WIDEST:
            return lines
    largest = sorted(np.argsort(-weights, kind="stable")[:TOP].tolist())
    share = max(0.0, float(weights.sum() - weights[largest].sum()))
    note = say(story.language, "share_rest", percent=percent(share), count=len(weights) - len(largest))
    return _space(sheet, (*_keys(story, weights, largest), _Key(None, "…", note, share, muted=True)))


def _keys(story: Story, weights: Float[Numbers, " words"], indices: Iterable[int]) -> tuple[_Key, ...]:
    shares = {j: float(weights[j]) for j in indices}
    return tuple(
        _Key(j, _short(story.words[j].label), percent(share), share, story.words[j].special)
        for j, share in shares.items()
    )


def _space(sheet: Sheet, keys: tuple[_Key, ...]) -> _Lines:
    size = 9 if len(keys) <= 12 else 7.5 if len(keys) <= 24 else 6.5
    widths = (max(sheet.measure(key.label, size, "bold"), sheet.measure(key.note, size - 1)) for key in keys)
    slots = [width + size / 64 for width in widths]
    air = min(0.8, max(0.0, 0.6 * WIDTH - sum(slots)) / len(slots))  # a short sentence is set wide
    return _Lines(keys, tuple(slot + air for slot in slots), size)


def _draw_lines(sheet: Sheet, story: Story, lines: _Lines, top: float) -> float:
    """The queries above, the keys below: from the pointed-out word a band that splits by its weights."""
    left, upper, lower = (sheet.width - sum(lines.slots)) / 2, top + 0.2, top + 1.25
    middles = [left + end - slot / 2 for end, slot in zip(accumulate(lines.slots), lines.slots, strict=True)]
    whole = lines.keys[-1].index is not None
    start = middles[story.row] if whole else sheet.width / 2
    row, size = story.words[story.row], lines.size
    sheet.write(start, upper, _short(row.label), size, ha="center", weight="bold", color=ACCENT)
    widths = [max(0.4, 9 * key.share) for key in lines.keys]  # points
    ends = accumulate(widths, initial=-sum(widths) / 2)
    for key, x, width, end in zip(lines.keys, middles, widths, ends, strict=False):
        if whole and key.index != story.row:
            sheet.write(x, upper, key.label, size, ha="center")
        curve = _curve(start + (end + width / 2) / 72, upper + 0.07, x, lower - 0.16)
        look: Look = {"edgecolor": MUTED if key.index is None else ACCENT, "alpha": 0.4 + 0.45 * key.share}
        sheet.ground.add_patch(PathPatch(curve, fill=False, linewidth=width, label=key.label, **look))
        sheet.write(x, lower, key.label, size, ha="center", color=MUTED if key.muted else INK)
        strong = key.share >= 0.05 and key.index is not None
        sheet.write(x, lower + 0.16, key.note, size - 1, ha="center", color=INK if strong else MUTED)
    if whole:
        return lower + 0.16
    shown = len(lines.keys) - 1
    others = say(story.language, "left_out_keys", count=len(story.words) - shown)
    caption = say(story.language, "figure_left_out", count=shown, left=others)
    return sheet.write_lines(MARGIN, lower + 0.45, caption, 7, sheet.width - 2 * MARGIN)


def _curve(x: float, y: float, to_x: float, to_y: float) -> Path:
    """Leaves one word and reaches the other upright."""
    middle = (y + to_y) / 2
    return Path([(x, y), (x, middle), (to_x, middle), (to_x, to_y)], [Path.MOVETO] + 3 * [Path.CURVE4])


# the matrices


@dataclass(frozen=True)
class _Layout:
    """How the matrices stand on the sheet, all three alike.

    Attributes:
        cell: the width and height of a cell.
        block: the width of a matrix with its row labels and caption.
        stub, head: the width of its row labels, the height of its column labels.
        rotation, size: of its labels, in degrees and points.
        labels, numbers: whether each column has a label, each cell its number.
        stacked: whether they stand one below another, as few rows of many columns do.
    """

    cell: tuple[float, float]
    block: float
    stub: float
    head: float
    rotation: int
    size: float
    labels: bool
    numbers: bool
    stacked: bool

    @property
    def width(self) -> float:
        return 2 * MARGIN + (self.block if self.stacked else 3 * self.block + 2 * GAP)


def _lay_out(sheet: Sheet, matrices: Sequence[_Matrix]) -> _Layout:
    """Side by side where they fit; one below another where numbers need the width, or rows are few and long."""
    rows, columns = matrices[0].grid.values.shape
    labels, size = columns <= LARGEST_TABLE, 7 if columns <= LARGEST_NUMBERS else 6
    shown = {unit for m in matrices for unit in (m.rows + m.columns if labels else m.rows[m.framed.start :][:1])}
    widest = max(sheet.measure(_short(unit.label), size, "bold") for unit in shown)
    stub, room = max(0.25, widest) + 0.1, sheet.width - 2 * MARGIN
    third, whole = (room - 2 * GAP) / 3, room - stub

    texts = {m.grid.text(*ij) for m in matrices for ij in np.ndindex(m.grid.values.shape)} if labels else set()
    number = max((sheet.measure(text, 6.5) for text in texts), default=0.0) + 0.09
    numbers = columns <= LARGEST_NUMBERS and number <= whole / columns
    stacked = rows < columns or (numbers and 3 * (stub + columns * number) + 2 * GAP > 1.2 * WIDTH)
    if stacked:
        cell = (min(0.75, whole / columns) if labels else whole / columns, min(0.2, 2.6 / rows))
    else:
        narrowest = number if numbers else 0.1 if labels else 2.6 / columns
        cell = 2 * (max(narrowest, min(0.5, (third - stub) / columns)),)
    rotation = 0 if not labels or _crowding(sheet, matrices, size) <= cell[0] else 45 if cell[0] >= 0.2 else 90
    head = 0.08 + {0: 0.08, 45: 0.72 * widest, 90: widest}[rotation]
    block = room if stacked else max(third, stub + columns * cell[0])
    return _Layout(cell, block, stub, head, rotation, size, labels, numbers, stacked)


def _crowding(sheet: Sheet, matrices: Sequence[_Matrix], size: float) -> float:
    """How far apart columns must be for their labels to stand side by side."""
    widths = [[sheet.measure(_short(unit.label), size) for unit in matrix.columns] for matrix in matrices]
    return max(((a + b) / 2 for row in widths for a, b in pairwise(row)), default=0.0) + 0.06


def _draw_matrices(sheet: Sheet, matrices: Sequence[_Matrix], layout: _Layout, top: float) -> float:
    """All three; returns where the page ends."""
    bottoms = [top]
    for i, matrix in enumerate(matrices):
        left = MARGIN if layout.stacked else MARGIN + i * (layout.block + GAP)
        bottoms.append(_draw_matrix(sheet, matrix, layout, left, bottoms[-1] if layout.stacked else top))
    return max(bottoms)


def _draw_matrix(sheet: Sheet, matrix: _Matrix, layout: _Layout, left: float, top: float) -> float:
    """A title, the matrix under its column labels, a scale unless it has numbers, a caption; returns where it ends."""
    step, formula = re.split(r"\s{2,}", matrix.title, maxsplit=1)
    sheet.write(left, top + 0.36, step, 8.5, weight="bold", color=INK)
    sheet.write(left, top + 0.52, formula, 8, color=INK)
    rows, columns = matrix.grid.values.shape
    width, height = columns * layout.cell[0], rows * layout.cell[1]
    top += 0.6 + layout.head
    axes = sheet.axes(matrix.name, left + layout.stub, top, width, height)
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    shades = _shades(matrix.grid, layout)
    _fill(axes, matrix.grid, layout, shades)
    _frame(axes, matrix, layout)
    _label(axes, matrix, layout)
    bottom = top + height + 0.1
    if not layout.numbers and matrix.grid.limits:
        bottom = _draw_scale(sheet, matrix.grid, shades, left + layout.stub, bottom)
    return sheet.write_lines(left, bottom + 0.12, matrix.caption, 6.5, layout.block)


def _shades(grid: Grid, layout: _Layout) -> Look:
    """The colours of a matrix. Without numbers the root of a weight is shown, or most of them would be too pale."""
    if grid.style == "weight":
        return {"cmap": BLUE, "norm": Normalize(0, 1) if layout.numbers else PowerNorm(0.5, 0, 1)}
    return {"cmap": SLATE, "norm": Normalize(*(grid.limits or (0, 1)))}


def _draw_scale(sheet: Sheet, grid: Grid, shades: Look, left: float, top: float) -> float:
    """Which number has which colour; returns its bottom."""
    low, middle, high = (float(number) for number in shades["norm"].inverse([0.0, 0.5, 1.0]))
    ramp = np.linspace(0, 1, 128)[None]  # (1, 128)
    sheet.ground.imshow(ramp, extent=(left, left + 1.2, top + 0.06, top), aspect="auto", cmap=shades["cmap"])
    for x, number, align in ((0, low, "left"), (0.6, middle, "center"), (1.2, high, "right")):
        sheet.write(left + x, top + 0.16, write(number, grid.style), 6, ha=align)
    return top + 0.2


def _fill(axes: Axes, grid: Grid, layout: _Layout, shades: Look) -> None:
    """The numbers as shades; where a key may not be seen, the hatched ground shows."""
    rows, columns = grid.values.shape
    seen = np.ma.masked_invalid(grid.values)
    axes.add_patch(Rectangle((0, 0), columns, rows, facecolor="#eef0f3", edgecolor=RULE, linewidth=0, hatch="/////"))
    if not layout.labels:
        axes.imshow(seen, extent=(0, columns, rows, 0), aspect="auto", zorder=1, **shades)
        return
    axes.pcolormesh(seen, edgecolors="white", linewidth=0.6, zorder=1, **shades)
    if layout.numbers:
        for (i, j), shade in np.ndenumerate(grid.heat()):
            if not np.isnan(shade):
                look: Look = {"ha": "center", "va": "center_baseline", "color": "white" if shade > 0.6 else INK}
                axes.text(j + 0.5, i + 0.5, grid.text(i, j), size=6.5, **look)


def _frame(axes: Axes, matrix: _Matrix, layout: _Layout) -> None:
    """Around the rows of the pointed-out word; beside them where a frame would hide them."""
    columns, first, count = len(matrix.columns), matrix.framed.start, len(matrix.framed)
    if count * layout.cell[1] >= 0.09:
        look: Look = {"fill": False, "edgecolor": ACCENT, "linewidth": 1.3, "clip_on": False, "zorder": 3}
        axes.add_patch(Rectangle((0, first), columns, count, label="row", **look))
        return
    for x, marker in ((0, 5), (columns, 4)):  # carets that point at the row
        axes.plot([x], [first + count / 2], marker=marker, color=ACCENT, markersize=4, clip_on=False, label="row")


def _label(axes: Axes, matrix: _Matrix, layout: _Layout) -> None:
    """A word at each row and column; in a picture a few indices, and the pointed-out word."""
    across, down = 0.07 / layout.cell[0], 0.06 / layout.cell[1]
    for i in range(len(matrix.rows)) if layout.labels else matrix.framed[:1]:
        unit, pointed = matrix.rows[i], i in matrix.framed
        look: Look = {"ha": "right", "va": "center_baseline", "weight": "bold" if pointed else "normal"}
        color = ACCENT if pointed else MUTED if unit.special else INK
        axes.text(-across, i + 0.5, _short(unit.label), size=layout.size, color=color, **look)
    if layout.labels:
        look = {"rotation": layout.rotation, "rotation_mode": "anchor", "size": layout.size}
        look |= {0: {"ha": "center"}, 45: {"ha": "left"}, 90: {"ha": "left", "va": "center"}}[layout.rotation]
        for j, unit in enumerate(matrix.columns):
            axes.text(j + 0.5, -down, _short(unit.label), color=MUTED if unit.special else INK, **look)
        return
    look = {"size": 6, "color": MUTED}
    for j in _ticks(len(matrix.columns)):
        axes.text(j + 0.5, -down, str(j), ha="center", **look)
    for i in _ticks(len(matrix.rows)):
        if abs(i - matrix.framed.start) * layout.cell[1] > 0.12:
            axes.text(-across, i + 0.5, str(i), ha="right", va="center_baseline", **look)


def _ticks(count: int) -> list[int]:
    return [int(i) for i in MaxNLocator(5, integer=True).tick_values(0, count - 1) if i < count]


# text


def _quote(unit: Unit) -> str:
    label = _short(unit.label)
    return label if unit.special else f"“{label}”"


def _short(label: str) -> str:
    """A label without its end where it is long; a Chinese character is as wide as two letters."""
    ends = list(accumulate(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in label))
    return label if not ends or ends[-1] <= LONGEST_LABEL else label[: sum(x < LONGEST_LABEL for x in ends)] + "…"
