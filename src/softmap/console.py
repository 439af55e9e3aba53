"""Where ``rich`` prints: a console on which text is text, whoever wrote it."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console

from softmap.escaping import escaped

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text


class TextConsole(Console):
    """A console that reads no markup, and whose own codes are the only ones that a terminal gets."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as it is set: escaped before it is measured."""
        return super().render_str(escaped(text, "\n\t"), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is printed, piece by piece: each is escaped, however it came to be."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escaped(segment.text, "\n"))


def as_plain(renderable: RenderableType, width: int) -> str:
    """What is printed in so many columns, without colour and without space at the ends of lines."""
    file = io.StringIO()
    TextConsole(file=file, width=width, color_system=None, legacy_windows=False).print(renderable)
    return "\n".join(line.rstrip() for line in file.getvalue().split("\n")[:-1]) + "\n"
