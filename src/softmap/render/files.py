"""A story into a file, by the file's ending. A file appears when it is complete, never half."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from softmap.errors import ParameterError
from softmap.writing import written

if TYPE_CHECKING:
    from softmap.story import Story

FIGURES = ("svg", "png", "pdf")
TEXTS: dict[str, Callable[[Story], str]] = {"html": lambda s: s.html(), "json": lambda s: s.json(), "txt": str}


def save(story: Story, path: str | os.PathLike[str], kind: str | None = None) -> None:
    """Write a story as `kind`, one of svg, png, pdf, html, json and txt; by the path's ending unless given.

    Raises:
        ParameterError: another kind.
        OSError: the place can't be written to.
    """
    target = Path(path)
    kind = kind or target.suffix.lower().removeprefix(".")
    if kind not in (*FIGURES, *TEXTS):
        known = ", ".join(f".{name}" for name in (*FIGURES, *TEXTS))
        raise ParameterError(
            "path", f"a file name that ends in {known}", repr(str(target)), "Rename it, as in story.html."
        )
    with written(target) as place:
        _write(story, place, kind)


def _write(story: Story, path: Path, kind: str) -> None:
    if kind in FIGURES:
        from softmap.render.figure import save_figure

        with path.open("wb") as file:
            save_figure(story, file, kind)
    else:
        path.write_text(TEXTS[kind](story), encoding="utf-8")
