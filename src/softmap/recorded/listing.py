"""What a recording holds: what `softmap info` prints of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from softmap.console import as_plain
from softmap.escaping import escaped, json_text
from softmap.words import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

    from softmap.recorded.layer import OtherLayer, RecordedLayer
    from softmap.recorded.recording import Origin, Recording

FEW = 60
"""Characters of a text that are shown."""


@dataclass(frozen=True)
class Line:
    """One layer, or several neighbours that differ in their number alone.

    Attributes:
        first: the number of the first of them.
        last: the number of the last.
        path: the first one's path in the model.
        kind: as in "decoder self".
        heads: how many query heads.
        queries: how many queries.
        keys: how many keys.
        d_k: the width of a key; None where q and k were not kept.
        mask: which query may see which key.
        more: what else is done to the scores: a soft cap, sinks, a bias.
        kept: of q, k, v and statistics.
        kernel: what computed the statistics.
        difference: the largest absolute difference of the output from that of the model's own attention function.
    """

    first: int
    last: int
    path: str
    kind: str
    heads: int
    queries: int
    keys: int
    d_k: int | None
    mask: str
    more: tuple[str, ...]
    kept: tuple[str, ...]
    kernel: str
    difference: float | None


@dataclass(frozen=True)
class Listing:
    """What a recording holds.

    Attributes:
        origin: the model.
        texts: of each sequence the text that was read, its beginning, and how many tokens it has.
        cut: of each sequence how many tokens were cut off at the end of its text, 0 unless truncation was asked for.
        pictures: of each sequence how many pictures it holds.
        nbytes: of all its arrays.
        lines: its layers, of the first sequence.
        others: layers that are not in it.
        partial: what is missing, where it was cut off; empty where it is whole.
        verified: how many of its files have been compared with their checksums, and of how many.
    """

    origin: Origin
    texts: tuple[tuple[str, int], ...]
    cut: tuple[int, ...]
    pictures: tuple[int, ...]
    nbytes: int
    lines: tuple[Line, ...]
    others: tuple[OtherLayer, ...]
    partial: str
    verified: tuple[int, int]

    def headline(self) -> str:
        """One line of what there is."""
        layers = sum(line.last - line.first + 1 for line in self.lines)
        tokens = ", ".join(f"{count:,}" for _, count in self.texts[:3]) + ", ..." * (len(self.texts) > 3)
        cut = f" ({sum(self.cut):,} more were cut off)" if any(self.cut) else ""
        checked = "" if self.origin.checked is None else f", checked to {self.origin.checked:.0e}"
        return f"{escaped(self.origin.model)}, {layers} layers, {tokens} tokens{cut}, {_size(self.nbytes)}{checked}"

    def json(self) -> str:
        """One JSON object, with the attributes' names."""
        data = asdict(self) | {"others": [other._asdict() for other in self.others]}
        return json_text(data, indent=2)

    def __str__(self) -> str:
        return as_plain(self, 100)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield Text(f"{escaped(self.origin.model)}, {_size(self.nbytes)}\n", style="bold")
        yield Padding(self._about(), (0, 0, 1, 2))
        yield Padding(self._layers(), (0, 0, 0, 2))
        if self.others:
            named = ", ".join(f"{other.path} ({other.name}: {other.why})" for other in self.others[:4])
            more = f", and {len(self.others) - 4} more" if len(self.others) > 4 else ""
            yield Padding(Text(f"\nNot in it: {escaped(named)}{more}."), (0, 0, 0, 2))
        if self.partial:
            yield Padding(Text(f"\nIncomplete: {escaped(self.partial)}", style="red"), (0, 0, 0, 2))

    def _about(self) -> Table:
        table = _table(show_header=False)
        origin = self.origin
        stored = "" if origin.stored == origin.dtype else f", kept as {origin.stored}"
        table.add_row("model", _text(f"{origin.architecture}, {origin.dtype}{stored}"))
        if origin.revision:
            table.add_row("revision", _text(origin.revision))
        for (text, count), cut in zip(self.texts[:4], self.cut[:4], strict=True):
            more = f" ({cut:,} more were cut off)" if cut else ""
            table.add_row("text", _text(f"{count:,} tokens{more}: {text}" if text else f"{count:,} tokens or patches"))
        if len(self.texts) > 4:
            table.add_row("", f"and {len(self.texts) - 4} more")
        if any(self.pictures):
            table.add_row("pictures", f"{sum(self.pictures):,}, kept small")
        done, files = self.verified
        if files:
            each = "all files are as they were written" if done == files else f"{done} of {files} files are verified"
            table.add_row(
                "checksums", each + ("" if done == files else "; the others as they are looked at, or by --verify")
            )
        if origin.checked is not None:
            table.add_row("checked", f"output within {origin.checked:.0e} of the model's without softmap")
        table.add_row("made with", _text(", ".join(f"{name} {number}" for name, number in origin.versions.items())))
        return table

    def _layers(self) -> Table:
        table = _table(show_header=True)
        for name in ("layers", "what", "heads"):
            table.add_column(name)
        table.add_column("queries x keys", justify="right")
        for name in ("mask", "kept", "agrees to"):
            table.add_column(name, overflow="fold")
        for line in self.lines:
            number = str(line.first) if line.first == line.last else f"{line.first}-{line.last}"
            agrees = "not compared" if line.difference is None else f"{line.difference:.0e}"
            mask = _text(", ".join([line.mask, *line.more]), "dim")
            shape = f"{line.queries:,} x {line.keys:,}"
            table.add_row(number, line.kind, str(line.heads), shape, mask, ", ".join(line.kept), agrees)
        return table


def list_layers(recording: Recording) -> Listing:
    """What a recording holds."""
    lines: list[Line] = []
    first = recording.sequences[0]
    for number, layer in zip(first.numbers, first.layers, strict=True):
        line = _line(number, layer)
        if lines and _alike(lines[-1], line):
            line = _joined(lines.pop(), line)
        lines.append(line)
    texts = tuple(
        (_beginning(sequence.tokens.text), len(sequence.tokens))
        if sequence.tokens is not None
        else ("", max((layer.shape[1] for layer in sequence.layers), default=0))
        for sequence in recording.sequences
    )
    cut = tuple(0 if sequence.tokens is None else sequence.tokens.cut for sequence in recording.sequences)
    pictures = tuple(len(sequence.pictures) for sequence in recording.sequences)
    nbytes = sum(_nbytes(layer) for sequence in recording.sequences for layer in sequence.layers)
    return Listing(
        recording.origin,
        texts,
        cut,
        pictures,
        nbytes,
        tuple(lines),
        recording.others,
        recording.partial,
        recording.verified,
    )


def _line(number: int, layer: RecordedLayer) -> Line:
    arrays = {"q": layer.q, "k": layer.k, "v": layer.v, "statistics": layer.summary}
    more = {"soft cap": layer.softcap, "sinks": layer.sinks, "bias": layer.bias}
    return Line(
        first=number,
        last=number,
        path=layer.path,
        kind=f"{layer.part} {layer.kind}",
        heads=layer.shape[0],
        queries=layer.shape[1],
        keys=layer.shape[2],
        d_k=None if layer.q is None else layer.q.shape[2],
        mask=repr(layer.mask).replace("(offset=0)", "").replace(", offset=0", "").removesuffix("()"),
        more=tuple(name for name, value in more.items() if value is not None),
        kept=tuple(name for name, value in arrays.items() if value is not None),
        kernel="" if layer.summary is None else layer.summary.kernel,
        difference=layer.difference,
    )


def _alike(one: Line, other: Line) -> bool:
    same = ("kind", "heads", "queries", "keys", "d_k", "mask", "more", "kept", "kernel")
    compared = (one.difference is None) == (other.difference is None)
    return compared and one.last + 1 == other.first and all(getattr(one, n) == getattr(other, n) for n in same)


def _joined(one: Line, other: Line) -> Line:
    differences = [line.difference for line in (one, other) if line.difference is not None]
    known: dict[str, Any] = {"last": other.last, "difference": max(differences, default=None)}
    return Line(**{**one.__dict__, **known})


def _nbytes(layer: RecordedLayer) -> int:
    arrays = [layer.q, layer.k, layer.v, layer.logsumexp]
    if layer.summary is not None:
        summary = layer.summary
        arrays += [summary.entropy, summary.received, *(summary.top or ()), *(summary.distance or ())]
        arrays += [] if summary.cells is None else [summary.cells.sum, summary.cells.max]
    return sum(array.numel() * array.element_size() for array in arrays if array is not None)


def _beginning(text: str) -> str:
    line = printable(" ".join(text[: 4 * FEW].split()))
    return line if len(line) <= FEW else line[: FEW - 1] + "…"


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"


def _text(text: str, style: str = "") -> Text:
    """What stands in a manifest, as it is shown: no markup, nothing hidden."""
    return Text(escaped(text), style=style)


def _table(*, show_header: bool) -> Table:
    return Table(box=None, show_header=show_header, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
