"""A head's map as a picture that stays: PNG, SVG or PDF of a recording's head, and what a notebook shows of a matrix.

A small matrix has its tokens beside it, and its numbers where there is room. Of a large one a pixel stands for a block of
2^z x 2^z weights, their maximum or their mean, with the numbers of tokens along the sides.
"""

from __future__ import annotations

import base64
import io
import math
import os
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from softmap.errors import ParameterError
from softmap.matrix.inputs import kind_of
from softmap.mechanism import PAGE
from softmap.narrative import headline
from softmap.render.fonts import FONTS, choose_fonts, drawing_style
from softmap.render.sheet import INK, MUTED, RULE, Sheet
from softmap.viewer.headmap import TILE, HeadMap, zoom_within
from softmap.viewer.sight import Sight
from softmap.viewer.sources import Tokens
from softmap.viewer.texts import Texts
from softmap.viewer.tiles import SINKS, Tiles, Which
from softmap.writing import written

if TYPE_CHECKING:
    from jaxtyping import Float
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from softmap.matrix import AttentionMatrix
    from softmap.recorded import RecordedLayer, Recording
    from softmap.viewer.headmap import How
    from softmap.viewer.tiles import Sinks

    Numbers = np.ndarray[Any, Any]

Scale = Literal["linear", "log"]
Palette = Literal["viridis", "cividis", "ink"]
KINDS = ("png", "svg", "pdf")
SCALES: tuple[Scale, ...] = ("linear", "log")
HOWS: tuple[How, ...] = ("max", "mean")
PALETTES: tuple[Palette, ...] = ("viridis", "cividis", "ink")
INKS = ("#ffffff", "#a9c9f5", "#2563eb", "#13225e")

PIXELS, DPI = 1024, 200
"""Pixels of a picture each way, at most, and in an inch."""
LARGEST_NUMBERS, LARGEST_LABELS, LARGEST_LINEAR = 12, 48, 64
"""Keys of a matrix with a number in each cell; with a token at each row and column; and whose scale is linear."""
SIDE, CELL, NUMBER = 6.5, 0.5, 0.28
"""Inches of a matrix each way, at most; of a cell with a token beside it, at most; of one with its number in it, at least."""
QUICK, SMALL = 32_768, 256
"""Tokens of a matrix of which a notebook shows a picture; its pixels a side, but for a page, whose weights are all shown."""
LONGEST_LABEL = 14


@dataclass(frozen=True)
class Look:
    """How weights become colours.

    Attributes:
        how: what a pixel says of its block: the largest weight, or the mean.
        scale: whether colours follow the weight or its logarithm; unless given, the weight on a page of 64 tokens.
        palette: the colours.
        sinks: what becomes of keys that are the first token or special tokens.
    """

    how: How = "max"
    scale: Scale | None = None
    palette: Palette = "viridis"
    sinks: Sinks = "shown"

    def __post_init__(self) -> None:
        choices = {"how": HOWS, "scale": (None, *SCALES), "palette": PALETTES, "sinks": SINKS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                expected = " or ".join(each for each in known if each)
                raise ParameterError(name, expected, repr(getattr(self, name)), "It says how a map is drawn.")

    def norm(self, keys: int) -> Normalize:
        """The scale of a matrix with so many keys."""
        scale = self.scale or ("linear" if keys <= LARGEST_LINEAR else "log")
        return Normalize(0, 1, clip=True) if scale == "linear" else LogNorm(floor_of(keys), 1, clip=True)

    def colors(self) -> Colormap:
        """The palette, with nothing where nothing may be seen."""
        found = LinearSegmentedColormap.from_list("ink", INKS) if self.palette == "ink" else colormaps[self.palette]
        return found.with_extremes(bad=(0, 0, 0, 0))


def floor_of(keys: int) -> float:
    """The low end of the log scale for so many keys: a tenth of equal weights, as a power of ten (page/colors.js)."""
    return float(10.0 ** -min(7, int(np.ceil(np.log10(max(keys, 2)))) + 1))


# of a recording


def save_still(
    recording: Recording,
    path: str | os.PathLike[str],
    *,
    layer: int | None = None,
    head: int | None = None,
    kind: str | None = None,
    look: Look | None = None,
) -> None:
    """Write the map of one head as ``png``, ``svg`` or ``pdf``: text stays text, and the bytes are the same every time.

    Args:
        recording: of one sequence.
        path: the file; what is there is written over.
        layer: by its number in the model; chosen unless given.
        head: counted from 0; chosen unless given.
        kind: by the path's ending unless given.
        look: how it is drawn.

    Raises:
        ParameterError: another kind; no such layer or head.
        RecordingError: a batch of several sequences; q and k were not kept.
        OSError: the place can't be written to.
    """
    kind = kind or Path(path).suffix.lower().removeprefix(".")
    if kind not in KINDS:
        known = ", ".join(f".{name}" for name in KINDS)
        raise ParameterError("path", f"a file name that ends in {known}", repr(str(path)), "Rename it, as in map.png.")
    figure = as_figure(recording, layer=layer, head=head, look=look)
    dateless = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with written(path) as draft, draft.open("wb") as file, drawing_style(FONTS[:1]):
        figure.savefig(file, format=kind, dpi=DPI, metadata=dateless)


def as_figure(
    recording: Recording, *, layer: int | None = None, head: int | None = None, look: Look | None = None
) -> Figure:
    """The map of one head as a figure of matplotlib; arguments and errors are those of `save_still`."""
    from softmap.viewer.answers import Answers

    look = look or Look()
    about: Any = Answers(recording, layer=layer, head=head).ask("about", {})
    number, head = about["start"]["layer"], about["start"]["head"]
    place, texts = recording.find_layer(number), Texts(recording)
    recorded = recording.layers[place]
    shown = Tiles(recording.layers, texts).map(Which(place, head, look.sinks))
    zoom = zoom_within(shown.shape, PIXELS)
    labels = _labels(recorded, texts) if max(shown.shape) <= LARGEST_LABELS else None
    said = (
        f"Layer {number}, head {head}",
        f"“{headline(about['title'], 60)}”  {about['model']}",
        _caption(recorded, zoom, look),
    )
    characters = {*"".join((*said, *(labels[0] + labels[1] if labels else ())))}
    with drawing_style(choose_fonts(characters)):
        return _draw(_pixels(shown, zoom, look.how), 1 << zoom, recorded.shape[2], labels, said, look)


def _pixels(shown: HeadMap, zoom: int, how: How) -> Float[Numbers, "h w"]:
    """All pixels of a zoom."""
    down, across = (range(-(-pixels // TILE)) for pixels in shown.pixels(zoom))
    found = np.block([[getattr(shown.tile(zoom, i, j), how) for j in across] for i in down])
    numbers: Numbers = found.astype(np.float32)
    return numbers


def _labels(layer: RecordedLayer, texts: Texts) -> tuple[list[str], list[str]]:
    """What stands beside the rows, and above the columns."""
    sides = texts.queries(layer), texts.keys(layer)
    rows, columns = (
        [_short(side.unit(i, False).label) for i in range(n)] for side, n in zip(sides, layer.shape[1:], strict=True)
    )
    return rows, columns


def _short(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"


def _caption(layer: RecordedLayer, zoom: int, look: Look) -> str:
    """What a pixel is."""
    _, queries, keys = layer.shape
    size = f"{1 << zoom} × {1 << zoom}"
    each = "attention weights" if zoom == 0 else f"{'largest' if look.how == 'max' else 'mean'} weight of each {size}"
    sinks = {
        "shown": "",
        "hidden": ", first and special tokens hidden",
        "rescaled": ", rescaled without first and special tokens",
    }
    return f"{_grouped(queries)} queries (rows) × {_grouped(keys)} keys (columns): {each}{sinks[look.sinks]}"


def _draw(
    pixels: Float[Numbers, "h w"],
    cell: int,
    keys: int,
    labels: tuple[list[str], list[str]] | None,
    said: tuple[str, str, str],
    look: Look,
) -> Figure:
    """The sheet: two lines, the matrix with what stands beside it, a scale and what a pixel is."""
    title, subtitle, caption = said
    sheet = Sheet(SIDE)
    rows, columns = pixels.shape
    width, height = _size(rows, columns, labels is not None)
    size = 7.5 if columns <= LARGEST_NUMBERS else 6.5
    widest = max((sheet.measure(label, size) for label in (labels[0] + labels[1] if labels else ())), default=0.28)
    turned = labels is not None and widest + 0.04 > width / columns
    left, top = _even(0.25 + widest + 0.12), _even(0.75 + (widest if turned else 0.1))
    sheet.width = max(
        left + width + 0.15, *(0.3 + sheet.measure(text, 11 if text is title else 7.5) for text in said[:2]), left + 2.4
    )
    sheet.write(0.12, 0.26, title, 11, weight="bold", color=INK)
    sheet.write(0.12, 0.44, subtitle, 7.5)

    axes = sheet.axes("map", left, top, width, height)
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    axes.add_patch(Rectangle((0, 0), columns, rows, facecolor="#f1f2f5", edgecolor=RULE, linewidth=0, hatch="////"))
    shades: Any = {"cmap": look.colors(), "norm": look.norm(keys)}
    seen = np.ma.masked_invalid(pixels)
    if labels is None:
        axes.imshow(seen, extent=(0, columns, rows, 0), aspect="auto", interpolation="none", zorder=1, **shades)
        _write_ticks(axes, cell, (width / columns, height / rows))
    else:
        axes.pcolormesh(seen, edgecolors="white", linewidth=0.6, zorder=1, **shades)
        _write_labels(axes, labels, (width / columns, height / rows), size, turned)
        if columns <= LARGEST_NUMBERS and width / columns >= NUMBER:
            _write_numbers(axes, pixels, shades)
    sheet.finish(_draw_scale(sheet, shades, left, top + height, caption))
    return sheet.figure


def _size(rows: int, columns: int, labelled: bool) -> tuple[float, float]:
    """Inches of a matrix: each of its cells a whole number of pixels."""
    dots = int(min(SIDE / max(rows, columns), CELL if labelled else SIDE) * DPI)
    cell = max(1, dots) / DPI
    return columns * cell, max(rows * cell, 0.25)


def _even(inches: float) -> float:
    """The next whole pixel."""
    return round(inches * DPI) / DPI


def _write_labels(
    axes: Axes, labels: tuple[list[str], list[str]], cell: tuple[float, float], size: float, turned: bool
) -> None:
    """A token at each row and column."""
    across, down = 0.06 / cell[0], 0.06 / cell[1]
    for i, label in enumerate(labels[0]):
        axes.text(-across, i + 0.5, label, ha="right", va="center_baseline", size=size, color=INK)
    look: Any = {"rotation": 90, "ha": "center", "va": "bottom"} if turned else {"ha": "center"}
    for j, label in enumerate(labels[1]):
        axes.text(j + 0.5, -down, label, size=size, color=INK, **look)


def _write_ticks(axes: Axes, block: int, cell: tuple[float, float]) -> None:
    """The numbers of a few tokens, and what the sides are."""
    columns, rows = int(axes.get_xlim()[1]), int(axes.get_ylim()[0])
    look: Any = {"size": 6.5, "color": MUTED}
    line: Any = {"color": RULE, "linewidth": 0.8, "clip_on": False}
    for token in _ticks(columns * block):
        at = token / block + 0.5 / block
        axes.plot([at, at], [0, -0.04 / cell[1]], **line)
        axes.text(at, -0.07 / cell[1], _grouped(token), ha="center", **look)
    for token in _ticks(rows * block):
        at = token / block + 0.5 / block
        axes.plot([0, -0.04 / cell[0]], [at, at], **line)
        axes.text(-0.07 / cell[0], at, _grouped(token), ha="right", va="center_baseline", **look)


def _ticks(count: int) -> list[int]:
    return [
        int(i) for i in MaxNLocator(6, integer=True, steps=[1, 2, 4, 5, 10]).tick_values(0, count - 1) if 0 <= i < count
    ]


def _grouped(count: int) -> str:
    """With thin spaces between thousands."""
    return f"{count:,}".replace(",", "\u2009")


def _write_numbers(axes: Axes, weights: Float[Numbers, "rows columns"], shades: Any) -> None:
    """Each weight in its cell, dark or light as its ground needs."""
    for (i, j), weight in np.ndenumerate(weights):
        if not np.isfinite(weight):  # of a recording whose statistics are no weights, too
            continue
        red, green, blue, _ = shades["cmap"](shades["norm"](weight))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
        look: Any = {"ha": "center", "va": "center_baseline", "size": 6.5, "zorder": 2}
        axes.text(j + 0.5, i + 0.5, _percent(float(weight)), color=INK if dark else "white", **look)


def _percent(weight: float) -> str:
    """A weight in few characters, as in the cells of the page (page/map/overlay.js)."""
    if weight < 0.0005:
        return "<0.1%"
    digits = 0 if weight >= 0.0995 else 1  # halves go up, as in JavaScript
    return f"{math.floor(100 * weight * 10**digits + 0.5) / 10**digits:.{digits}f}%"


def _draw_scale(sheet: Sheet, shades: Any, left: float, top: float, caption: str) -> float:
    """Which weight has which colour, and what a pixel is; returns the sheet's height."""
    norm, width = shades["norm"], 1.8
    ramp = np.linspace(0, 1, 256)[None]  # (1, 256)
    extent = (left, left + width, top + 0.26, top + 0.16)
    sheet.ground.imshow(ramp, extent=extent, aspect="auto", cmap=shades["cmap"], interpolation="none")
    for share, align in ((0.0, "left"), (0.5, "center"), (1.0, "right")):
        weight = float(norm.inverse(share))
        least = "≤ " if share == 0 and isinstance(norm, LogNorm) else ""
        sheet.write(left + share * width, top + 0.38, f"{least}{100 * weight:.3g}%", 6.5, ha=align)
    sheet.write_lines(left, top + 0.56, caption, 6.5, sheet.width - left - 0.12)
    return top + 0.68


# of a matrix, in a notebook


def as_html(matrix: AttentionMatrix) -> str | None:
    """A picture of one head's matrix and what it is, for a notebook; None of several heads, and of very large ones."""
    if matrix.ndim > 2 or max(matrix.shape) > QUICK:
        return None
    problem, look = matrix._lookup.problem, Look()
    own = object.__new__(type(matrix))
    own._set("weights", matrix._lookup, matrix._heads, True, kind_of(problem.q))
    shown = HeadMap(Tokens(own, Sight(problem.mask, matrix.queries, matrix.keys)))
    zoom = 0 if max(matrix.shape) <= PAGE else zoom_within(matrix.shape, SMALL)
    pixels = _pixels(shown, zoom, look.how)
    norm, colors = look.norm(matrix.shape[1]), look.colors()
    each = "each weight" if zoom == 0 else f"the largest weight of each {1 << zoom} × {1 << zoom}"
    ends = [f"{100 * float(norm.inverse(share)):.3g}%" for share in (0.0, 1.0)]
    ramp = ", ".join(
        f"rgb({', '.join(str(round(255 * part)) for part in colors(share)[:3])})" for share in np.linspace(0, 1, 9)
    )
    side = max(1, min(24, 320 // max(pixels.shape)))
    size = f"width: {pixels.shape[1] * side}px; height: {pixels.shape[0] * side}px"
    return (
        '<figure style="margin: 0.3em 0; font: 12px/1.5 system-ui, sans-serif">'
        f'<img alt="{escape(repr(matrix), quote=True)}" src="{_png(colors(norm(np.ma.masked_invalid(pixels))))}" '
        f'style="{size}; image-rendering: pixelated; outline: 1px solid rgb(128 128 128 / 0.25)">'
        f'<figcaption>{each}: {ends[0]} <span style="display: inline-block; width: 8em; height: 0.7em; vertical-align: -0.05em; '
        f'background: linear-gradient(to right, {ramp})"></span> {ends[1]}<br>'
        f'<code style="opacity: 0.75">{escape(repr(matrix))}</code></figcaption></figure>'
    )


def _png(colors: Float[Numbers, "h w 4"]) -> str:
    """Colours as a PNG in a data address."""
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, colors, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
