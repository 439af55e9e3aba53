"""Fonts for a figure: which installed ones have the characters, and matplotlib's word on those that none has."""

from __future__ import annotations

import logging
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
from matplotlib import style
from matplotlib.font_manager import findfont, fontManager, get_font

FONTS = (
    *("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "PingFang SC", "Hiragino Sans GB"),
    *("Microsoft YaHei", "SimHei", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Noto Sans CJK JP", "Malgun Gothic"),
    *("Arial Unicode MS", "Noto Emoji", "Segoe UI Emoji", "Symbola"),
)
"""Where a character is looked for, in this order."""


def choose_fonts(characters: set[str]) -> list[str]:
    """The installed fonts that have these characters, as few as will do; warns of those that none has."""
    missing = {char for char in characters if unicodedata.category(char) not in ("Cc", "Cf", "Mn", "Zs")}
    installed, families = {font.name for font in fontManager.ttflist}, [FONTS[0]]
    for family in FONTS:
        if missing and family in installed:
            with quiet_fonts():
                glyphs = get_font(findfont(family)).get_charmap()
            found = {char for char in missing if ord(char) in glyphs}
            missing -= found
            families += [family] if found and family != FONTS[0] else []
    if missing:
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        warnings.warn(
            f"No font is installed that has {' '.join(sorted(missing)[:10])}{more}: the figure shows boxes instead. "
            "Install one, such as Noto Sans CJK or Noto Emoji, and delete matplotlib's list of fonts in "
            f"{matplotlib.get_cachedir()}.",
            stacklevel=3,
        )
    return families


@contextmanager
def drawing_style(families: Sequence[str]) -> Iterator[None]:
    """Matplotlib's own defaults, whatever the caller has set, with these fonts; a `$` is a dollar sign."""
    ours = {
        "font.family": [*families, "sans-serif"],
        "text.parse_math": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "softmap",
        "pdf.fonttype": 42,
    }
    with style.context(["default", ours]):
        yield


@contextmanager
def quiet_fonts() -> Iterator[None]:
    """Without a word on each missing glyph, nor on fonts that lack a weight, as many Chinese ones lack bold."""
    logger = logging.getLogger("matplotlib.font_manager")
    logger.addFilter(_drop)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
            yield
    finally:
        logger.removeFilter(_drop)


def _drop(record: logging.LogRecord) -> bool:
    return False
