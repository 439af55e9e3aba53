"""What heads do, in a terminal or a notebook: a map of layers and heads, and the strongest heads of each role."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len
from rich.color import Color
from rich.color_triplet import ColorTriplet
from rich.padding import Padding
from rich.style import Style
from rich.text import Text

from softmap.console import TextConsole, as_plain
from softmap.render import colors
from softmap.render.lines import break_lines
from softmap.render.terminal import WIDEST
from softmap.roles import NAMED_BY
from softmap.words import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

    from softmap.roles import Head, HeadTable, LayerHeads, Role

SIGNS: dict[Role, tuple[str, colors.Color]] = {
    "previous token": ("←", (0, 114, 178)),
    "next token": ("→", (86, 180, 233)),
    "itself": ("○", (240, 228, 66)),
    "same token": ("=", (204, 121, 167)),
    "induction": ("I", (213, 94, 0)),
    "sink": ("S", (96, 99, 106)),
    "local": ("L", (0, 158, 115)),
    "broad": ("B", (230, 159, 0)),
}
"""How a role is shown. Okabe and Ito, 2008, "Color Universal Design", https://jfly.uni-koeln.de/color/; the many sinks
are grey."""
NOTHING = "·"
MEANS, MEAN = ("spread", "sink", "distance"), 9
"""The scores whose means over a layer's heads stand beside the map, and the columns of each."""
EDGE, SIGN, ROLE, COUNT = 2, 3, 15, 6
"""Columns before everything; of a role's sign; of its name; of how many heads have it."""


def as_text(table: HeadTable, width: int = 80) -> str:
    """The table as plain text without colour."""
    return as_plain(table, width)


def as_html(table: HeadTable, width: int = WIDEST) -> str:
    """The table as a piece of HTML, coloured, everything in it escaped."""
    console = TextConsole(
        file=io.StringIO(), width=width, record=True, color_system="truecolor", force_terminal=True, force_jupyter=False
    )
    console.print(table)
    return console.export_html(inline_styles=True, code_format='<pre style="line-height: 1.2">{code}</pre>')


def lay_out(table: HeadTable, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
    """What ``rich`` prints for a table."""
    colored = console.color_system in ("truecolor", "256") and not console.no_color
    setter = _Setter(table, min(options.max_width, WIDEST), colored)
    yield from setter.head()
    yield from setter.map()
    yield Text()
    yield from setter.legend()
    yield from setter.notes()


class _Setter:
    """Sets a table on lines of a given width."""

    def __init__(self, table: HeadTable, width: int, colored: bool) -> None:
        self.table, self.width, self.colored = table, width, colored
        self.heads = max((len(layer.heads) for layer in table.layers), default=0)
        self.labels = _labels(table.layers)
        self.label = EDGE + max(map(cell_len, ["layer", *self.labels]))

    def head(self) -> Iterator[RenderableType]:
        layers, tokens = len(self.table.layers), self.table.tokens
        sizes = sorted({len(layer.heads) for layer in self.table.layers})
        of = f" of {' or '.join(map(str, sizes))} heads (across)" if sizes else ""
        read = "" if tokens is None else f", {tokens:,} tokens"
        yield Text("What each head does", style="bold")
        yield self._sentence(f"{printable(self.table.model)}: {layers} layer{'s' * (layers != 1)} (down){of}{read}.")
        yield Text()

    # ---- the map

    def map(self) -> Iterator[Text]:
        room = self.width - self.label - 1
        beside = len(MEANS) * MEAN
        cell, means = next(
            ((cell, means) for cell in (3, 2, 1) for means in (True, False) if self._fits(cell, room - means * beside)),
            (2, False),
        )
        across = max(1, room // cell)
        for first in range(0, self.heads, across):
            if first:
                yield Text()
            yield from self._band(range(first, min(first + across, self.heads)), cell, means)

    def _fits(self, cell: int, room: int) -> bool:
        return self.heads * cell <= room

    def _band(self, heads: range, cell: int, means: bool) -> Iterator[Text]:
        """All layers of some heads."""
        titles = "".join(title.rjust(MEAN) for title in MEANS) if means else ""
        yield Text(_right("layer", self.label) + " " + _ruler(heads, cell) + titles, style="dim")
        for label, layer in zip(self.labels, self.table.layers, strict=True):
            line = Text().append(_right(label, self.label) + " ", style="dim")
            for head in heads:
                line.append_text(self._cell(layer.heads[head], cell) if head < len(layer.heads) else Text(" " * cell))
            yield line.append(_means(layer) if means else "", style="dim")

    def _cell(self, head: Head, cell: int) -> Text:
        if head.role is None:
            return Text(f"{NOTHING:^{cell}}", style="dim")
        sign, ground = SIGNS[head.role]
        style = Style(color=_rich(colors.on(ground)), bgcolor=_rich(ground)) if self.colored else Style()
        return Text(f"{sign:^{cell}}", style=style)

    # ---- the roles

    def legend(self) -> Iterator[Text]:
        """A line for each role: how many heads have it, and the strongest of them; else which come closest."""
        yield self._entry(Text(" " * SIGN), "role", "heads", "the strongest, and their score", "dim")
        for role, score in NAMED_BY.items():
            named = [head for head in self.table.rows if head.role == role]
            shown = named or self._told(role)
            sign = self._cell(named[0], SIGN) if named else Text(f"{SIGNS[role][0]:^{SIGN}}")
            rest = self._strongest(shown, score, "" if named else "at most ") if shown else self._why_none(score)
            yield self._entry(sign, role, str(len(named) or NOTHING), rest, "" if named else "dim")
        nothing = sum(head.role is None for head in self.table.rows)
        if nothing:
            yield self._entry(Text(f"{NOTHING:^{SIGN}}"), "nothing clear", str(nothing), "", "dim")

    def _entry(self, sign: Text, role: str, count: str, rest: str, style: str) -> Text:
        line = Text(" " * EDGE, style=style).append_text(sign)
        return line.append(f" {role:<{ROLE}}{count:>{COUNT}}   {rest}")

    def _told(self, role: Role) -> list[Head]:
        """The heads that could have had the role."""
        return [head for layer in self.table.layers for head in layer.heads if np.isfinite(layer.least[role])]

    def _strongest(self, heads: Sequence[Head], score: str, before: str) -> str:
        """As many of the heads as there is room for; of those without the role the three that come closest."""
        order = sorted(heads, key=lambda head: -float(getattr(head, score)))
        texts = [f"L{head.layer}H{head.head} {getattr(head, score):.0%}" for head in order]
        room = self.width - EDGE - SIGN - 1 - ROLE - COUNT - 3
        lines = (before + "  ".join(texts[:count]) for count in range(3 if before else len(texts), 0, -1))
        return next((line for line in lines if cell_len(line) <= room), "")

    def _why_none(self, score: str) -> str:
        measured = any(layer.queries[score] for layer in self.table.layers)
        return "–  too few tokens to tell" if measured else "–"

    # ---- sentences

    def notes(self) -> Iterator[RenderableType]:
        counted = _counted(self.table.layers)
        for note in ([counted] if counted else []) + list(self.table.notes):
            yield Text()
            yield self._sentence(printable(note), style="dim")

    def _sentence(self, sentence: str, style: str = "") -> Padding:
        lines = break_lines(sentence, lambda line: cell_len(line) <= self.width - EDGE)
        return Padding(Text("\n".join(lines), style=style), (0, 0, 0, EDGE))


def _labels(layers: Sequence[LayerHeads]) -> list[str]:
    """The layers' numbers, with what they are where they are not all alike."""
    parts, kinds = {layer.part for layer in layers}, {layer.kind for layer in layers}
    return [
        f"{layer.part + ' ' if len(parts) > 1 else ''}{layer.kind + ' ' if len(kinds) > 1 else ''}{layer.layer}"
        for layer in layers
    ]


def _ruler(heads: range, cell: int) -> str:
    """The numbers of heads over their cells: each where there is room, else every fifth or tenth."""
    if cell == 3:
        return "".join(f"{head:^3}" for head in heads)
    step = 5 if cell == 2 else 10
    numbers = "".join(str(head).ljust(step * cell) for head in heads if head % step == 0)
    before = -heads.start % step * cell
    return (" " * before + numbers)[: len(heads) * cell].ljust(len(heads) * cell)


def _means(layer: LayerHeads) -> str:
    """The means over the heads of a layer."""
    texts = []
    for score in MEANS:
        values = np.array([getattr(head, score) for head in layer.heads])
        mean = float(values.mean())
        texts.append("–" if np.isnan(mean) else f"{mean:,.1f}" if score == "distance" else f"{mean:.0%}")
    return "".join(text.rjust(MEAN) for text in texts)


def _counted(layers: Sequence[LayerHeads]) -> str:
    """Over how many queries the scores are means that not all queries have."""
    counts = []
    for name, of in (("same", "the same token"), ("induction", "induction")):
        found = sorted({layer.queries[name] for layer in layers} - {0})
        if found:
            most = f" to {found[-1]:,}" if len(found) > 1 else ""
            counts.append(f"of {of} over {found[0]:,}{most}")
    return f"Means over the queries that can look there: {' and '.join(counts)}." if counts else ""


def _right(text: str, width: int) -> str:
    return " " * (width - cell_len(text)) + text


def _rich(color: colors.Color) -> Color:
    return Color.from_triplet(ColorTriplet(*color))
