"""The colours of the terminal: safe for colour-blind readers, and told by brightness alone where colour fails."""

from __future__ import annotations

from itertools import pairwise

Color = tuple[int, int, int]

CIVIDIS: tuple[Color, ...] = (
    (0, 34, 78),
    (24, 56, 110),
    (65, 77, 107),
    (95, 99, 111),
    (125, 124, 120),
    (157, 151, 118),
    (188, 175, 111),
    (222, 203, 91),
    (254, 232, 56),
)
"""Nunez, Anderton and Renslow, 2018, https://doi.org/10.1371/journal.pone.0199239, in nine stops."""
BLUE: Color = (92, 164, 255)
MIDDLE: Color = (38, 40, 46)
ORANGE: Color = (255, 158, 61)
BLOCKS = "▁▂▃▄▅▆▇█"


def heat(shade: float) -> Color:
    """From 0, dark blue, to 1, yellow."""
    return _between(CIVIDIS, shade)


def signed(value: float) -> Color:
    """From -1, blue, over 0, dark, to 1, orange."""
    return _between((BLUE, MIDDLE, ORANGE), (value + 1) / 2)


def on(ground: Color) -> Color:
    """Black or white, whichever reads better on a ground (ITU-R BT.601 luma)."""
    red, green, blue = ground
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 127 else (255, 255, 255)


def block(value: float) -> str:
    """From -1, a low block, to 1, a high one: a strip where there is no colour."""
    return BLOCKS[min(len(BLOCKS) - 1, int((value + 1) / 2 * len(BLOCKS)))]


def _between(stops: tuple[Color, ...], position: float) -> Color:
    place = min(max(position, 0.0), 1.0) * (len(stops) - 1)
    low = min(int(place), len(stops) - 2)
    first, second = list(pairwise(stops))[low]
    red, green, blue = (round(a + (b - a) * (place - low)) for a, b in zip(first, second, strict=True))
    return red, green, blue
