"""What a word looks at most, in a terminal: bars of one head, a line for each of several."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from softmap.console import as_plain
from softmap.render import colors
from softmap.sections import percent
from softmap.words import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

    from softmap.recorded import Attended

READ_BY: dict[str | None, str] = {"tokens": " (read by the encoder)", "target": " (read by the decoder)", None: ""}
LABEL, BAR = 24, 32
"""Columns of a word, at most; of the longest bar."""


class TopPage:
    """What ``rich`` prints for what a word looks at.

    Args:
        row: the word that looks.
        found: what it looks at, head after head.
        repeated: what several words of the text are called: one of them is told with the number of its first token.
        text: which text it is a word of, where the model reads two.
    """

    def __init__(
        self, row: str, found: Sequence[Attended], repeated: Collection[str] = (), text: str | None = None
    ) -> None:
        self.row = printable(row) + READ_BY[text]
        found = [each._replace(label=f"{each.label} :{each.key}") if each.label in repeated else each for each in found]
        self.heads = [list(group) for _, group in groupby(found, key=lambda each: (each.layer, each.head))]

    def __str__(self) -> str:
        return as_plain(self, 100)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        if not self.heads:
            yield Text(f"{self.row} looks at nothing: it may see no key")
            return
        if len(self.heads) == 1:
            yield from self._bars(self.heads[0])
            return
        yield Text(f"{self.row} looks at\n", style="bold")
        for head in self.heads:
            yield self._line(head, options.max_width)

    def _bars(self, head: list[Attended]) -> Iterator[Text]:
        yield Text(f"{self.row} looks at, in layer {head[0].layer}, head {head[0].head}\n", style="bold")
        width = min(LABEL, max(cell_len(each.label) for each in head))
        for each in head:
            bar = "█" * round(each.weight * BAR) or "▏"
            red, green, blue = colors.heat(0.35 + 0.65 * each.weight)
            yield Text.assemble(
                "  ",
                set_cell_size(_cut(each.label, width), width),
                (f"  {percent(each.weight):>4}  ", "bold"),
                (bar, f"rgb({red},{green},{blue})"),
            )
        rest = 1 - sum(each.weight for each in head)
        if rest >= 0.005:
            yield Text(f"\n  {percent(rest)} elsewhere", style="dim")

    def _line(self, head: list[Attended], width: int) -> Text:
        line = Text.assemble("  ", (f"{head[0].layer:>3}.{head[0].head:<3}", "bold"))
        for each in head:
            part = f" {_cut(each.label, LABEL)} {percent(each.weight)} "
            if cell_len(line.plain) + cell_len(part) > width:
                break
            line.append(part, style="" if each.weight >= 0.1 else "dim")
        return line


def _cut(label: str, width: int) -> str:
    return label if cell_len(label) <= width else set_cell_size(label, width - 1) + "…"
