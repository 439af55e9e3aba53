"""What heads do, in a terminal or a notebook: a map of layers and heads, and the strongest heads of each role."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.cells import cell_len
from rich.color import Color
from rich.color_triplet import ColorTriplet
from rich.console import Console
from rich.padding import Padding
from rich.style import Style
from rich.text import Text

from softmap.render import colors
from softmap.render.lines import break_lines
from softmap.render.terminal import WIDEST
from softmap.roles import NAMED_BY
from softmap.words import printable

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType

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
MEANS = {"spread": "spread", "sink": "sink", "distance": "distance"}
"""The means of a layer that stand beside the map, and the columns that they take with a gap before them."""
MEAN = 10
EDGE = 2
"""Columns before everything."""


def as_text(table: HeadTable, width: int = 80) -> str:
    """The table as plain text without colour."""
    file = io.StringIO()
    Console(file=file, width=width, color_system=None, legacy_windows=False).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def as_html(table: HeadTable, width: int = WIDEST) -> str:
    """The table as a piece of HTML, coloured, everything in it escaped."""
    console = Console(
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
        of = f" of {' or '.join(map(str, sizes))} heads" if sizes else ""
        read = "" if tokens is None else f", {tokens:,} tokens"
        yield Text("What each head does", style="bold")
        yield self._sentence(f"{printable(self.table.model)}: {layers} layer{'s' * (layers != 1)}{of}{read}.")
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
        titles = "".join(title.rjust(MEAN) for title in MEANS.values()) if means else ""
        yield Text(_right("layer", self.label) + " " + _ruler(heads, cell) + titles, style="dim")
        for label, layer in zip(self.labels, self.table.layers, strict=True):
            line = Text(_right(label, self.label) + " ", style="dim")
            for head in heads:
                line.append_text(self._cell(layer.heads[head], cell) if head < len(layer.heads) else Text(" " * cell))
            yield line.append(_means(layer) if means else "", style="dim")

    def _cell(self, head: Head, cell: int) -> Text:
        sign, style = self._sign(head.role)
        if head.role is None:
            return Text(sign.rjust(cell), style="dim")
        text = Text(" " * (cell > 2)).append(sign.center(2) if cell > 1 else sign, style=style)
        return text if self.colored else Text(sign.rjust(cell))

    def _sign(self, role: Role | None) -> tuple[str, Style]:
        if role is None:
            return NOTHING, Style()
        sign, ground = SIGNS[role]
        return sign, Style(color=_rich(colors.on(ground)), bgcolor=_rich(ground)) if self.colored else Style()

    # ---- the roles

    def legend(self) -> Iterator[Text]:
        """A line for each role: how many heads have it, and the strongest of them; else which come closest."""
        names = max(map(len, NAMED_BY)) + 1
        for role, score in NAMED_BY.items():
            named = [head for head in self.table.rows if head.role == role]
            line = Text(" " * EDGE)
            line.append_text(self._cell(named[0], 2) if named else Text(SIGNS[role][0].rjust(2), style="dim"))
            line.append(f"  {role.ljust(names)}", style="" if named else "dim")
            line.append(str(len(named) or NOTHING).rjust(5), style="bold" if named else "dim")
            yield self._strongest(line, named, score)
        nothing = sum(head.role is None for head in self.table.rows)
        if nothing:
            line = f"{' ' * EDGE}{NOTHING.rjust(2)}  {'nothing clear'.ljust(names)}{nothing:>5}"
            yield Text(line, style="dim")

    def _strongest(self, line: Text, named: Sequence[Head], score: str) -> Text:
        """As many of the heads as there is room for."""
        known = [head for head in named or self.table.rows if not np.isnan(getattr(head, score))]
        known.sort(key=lambda head: -float(getattr(head, score)))
        if not known:
            return line.append("   –", style="dim")
        texts = [f"L{head.layer}H{head.head} {getattr(head, score):.0%}" for head in known]
        before = "" if named else "at most "
        line.append(f"   {before}", style="dim")
        room = self.width - cell_len(line.plain)
        fitting = 0
        while fitting < min(len(texts), 3 if not named else len(texts)) and cell_len("  ".join(texts[: fitting + 1])) <= room:
            fitting += 1
        return line.append("  ".join(texts[:fitting]), style="" if named else "dim")

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
    step = {3: 1, 2: 5, 1: 10}[cell]
    line = [" "] * (len(heads) * cell)
    for head in heads:
        text = str(head)
        end = (head - heads.start + 1) * cell
        if head % step == 0 and end >= len(text):
            line[end - len(text) : end] = text
    return "".join(line)


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
    counts: dict[str, Any] = {}
    for name in ("same", "induction"):
        found = {layer.queries[name] for layer in layers} - {0}
        if found:
            counts[name] = f"{min(found):,}" if len(found) == 1 else f"{min(found):,} to {max(found):,}"
    if not counts:
        return ""
    of = " and of ".join(f"{NAMES[name]} over {count}" for name, count in counts.items())
    return f"Means over the queries that can look there: of {of}."


NAMES = {"same": "the same token", "induction": "induction"}


def _right(text: str, width: int) -> str:
    return " " * (width - cell_len(text)) + text


def _rich(color: colors.Color) -> Color:
    return Color.from_triplet(ColorTriplet(*color))
