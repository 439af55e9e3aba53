"""A story as one self-contained page: its style and script inside, no network, light and dark.

Token text reaches the page through Jinja's escaping only; the page's own policy forbids it to load anything.
"""

from __future__ import annotations

import base64
import html
import io
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from softmap import __version__
from softmap.escaping import escaped
from softmap.language import say
from softmap.narrative import headline, narrate
from softmap.sections import Grid, Section, Strips, percent

if TYPE_CHECKING:
    from jaxtyping import Float

    from softmap.story import Story

    Numbers = np.ndarray[Any, Any]

LARGEST_TABLE = 32
"""Rows or columns of a matrix that is set as numbers; a larger one is a picture, with the top keys of one row."""
TOP = 12
BLUE, ORANGE = (37, 99, 235), (234, 110, 20)


@dataclass(frozen=True)
class Lines:
    """The sentence twice, and from each word on the left its weights as lines to the words on the right."""

    words: tuple[tuple[str, bool], ...]
    weights: Float[Numbers, "words words"]

    @property
    def drawn(self) -> list[tuple[int, int, float]]:
        """From, to and weight of each line."""
        return [(i, j, float(self.weights[i, j])) for i, j in np.ndindex(*self.weights.shape)]


def as_html(story: Story) -> str:
    """The whole page."""
    page = _environment().get_template("story.html")
    static = files("softmap.render").joinpath("static")
    return page.render(
        story=story,
        title=headline(story.text, 80),
        sections=narrate(story),
        lines=_lines(story),
        row_words=_row_words(story),
        words=[(i, story.words[i]) for i in story.shown_words],
        style=Markup(static.joinpath("story.css").read_text(encoding="utf-8")),
        script=Markup(static.joinpath("story.js").read_text(encoding="utf-8")),
        say=lambda sentence, **values: say(story.language, sentence, **values),
        version=__version__,
    )


def as_frame(story: Story) -> str:
    """The page in a frame of its own, for a notebook."""
    page = html.escape(as_html(story), quote=True)
    return (
        f'<iframe title="{html.escape(headline(story.text, 80), quote=True)}" srcdoc="{page}" '
        'sandbox="allow-scripts" style="width: 100%; height: 44rem; border: 0"></iframe>'
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("softmap.render", "static"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_shown,
    )
    environment.filters |= {"emphasize": _emphasize, "picture": _picture, "strip": _strip, "percent": percent}
    environment.tests |= {"strips": lambda picture: isinstance(picture, Strips), "wide": _is_wide, "tall": _is_tall}
    environment.globals |= {"top_keys": _top_keys, "enumerate": enumerate, "shown_readings": _shown_readings}
    return environment


def _shown(value: object) -> object:
    """What the template writes: texts without what does not show in them; markup is ours."""
    return escaped(value, "\n\t") if isinstance(value, str) and not isinstance(value, Markup) else value


def _lines(story: Story) -> Lines | None:
    """The sentence's lines, where it is short enough for them."""
    if len(story.words) > LARGEST_TABLE or len(story.shown_words) < len(story.words):
        return None
    return Lines(tuple((word.label, word.special) for word in story.words), story.weights)


def _row_words(story: Story) -> dict[str, list[int]]:
    """For the rows of each section's matrices, the word they belong to: by token in steps 1 and 2."""
    by_token = [i for i in story.shown_words for _ in range(story.words[i].pieces)]
    by_word = list(story.shown_words)
    all_tokens = [i for i, word in enumerate(story.words) for _ in range(word.pieces)]
    return {
        "projection": all_tokens,
        "scores": by_token,
        "scaled": by_token,
        "weights": by_word,
        "output": by_word,
    }


def _is_wide(grid: Grid) -> bool:
    return not grid.essential and len(grid.columns) > LARGEST_TABLE


def _is_tall(grid: Grid) -> bool:
    return not grid.essential and len(grid.rows) > LARGEST_TABLE


def _shown_readings(section: Section) -> tuple[list[Any], int]:
    """The readings of a section that are set, and how many are not: of a large matrix the pointed-out row's alone."""
    grids = [picture for picture in section.pictures if isinstance(picture, Grid)]
    if not any(_is_wide(grid) or _is_tall(grid) for grid in grids):
        return list(section.readings), 0
    pointed = next(grid.pointed for grid in grids if grid.pointed)
    shown = [reading for reading in section.readings if reading.row in pointed]
    return shown, len(section.readings) - len(shown)


def _top_keys(grid: Grid, row: int) -> list[tuple[str, str, float, int]]:
    """One row's largest entries: label, number, length of the bar and place."""
    keys = np.argsort(-grid.values[row], kind="stable")[:TOP]
    bars = np.nan_to_num(grid.heat()[row]) if grid.has_bars else np.zeros(len(grid.columns))
    return [(grid.columns[j], grid.text(row, int(j)), float(bars[j]), int(j)) for j in keys]


def _emphasize(sentence: str) -> Markup:
    """Set what stands between backticks, one or two, as a word; all of it escaped."""
    words = r"(?<!`)(`{1,2})(?!`)( ?)(.+?)\2(?<!`)\1(?!`)"
    return Markup(re.sub(words, r"<b>\3</b>", str(escape(sentence))))


def _picture(grid: Grid) -> str:
    """A large matrix, one pixel a number, as a PNG in a data address."""
    return _png(np.nan_to_num(grid.heat()), BLUE, BLUE)


def _strip(strips: Strips, row: int) -> str:
    """One row of numbers, one pixel each: orange above 0, blue below, the stronger the larger."""
    return _png(strips.values[row : row + 1] / strips.span, BLUE, ORANGE)


def _png(values: Float[Numbers, "rows columns"], below: tuple[int, ...], above: tuple[int, ...]) -> str:
    """Values from -1 to 1 as two colours on a transparent ground, so that light and dark pages both show them."""
    from matplotlib.image import imsave

    pixels = np.empty((*values.shape, 4), dtype=np.uint8)
    pixels[..., :3] = np.where((values > 0)[..., None], above, below)
    pixels[..., 3] = np.rint(255 * np.clip(np.abs(values), 0, 1))
    file = io.BytesIO()
    imsave(file, pixels, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
